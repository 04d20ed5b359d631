"""People given as a label map and an instance-id map."""

import numpy as np
import pytest

from rpcnn.labelmaps.people import NumberedPersonMaps


@pytest.mark.parametrize(
    ("labels", "numbers", "count", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), 1, r"one shape .*\[2, 3\] and \[3, 2\]"),
        (np.zeros((2, 3), int), np.full((2, 3), 2), 1, r"0\.\.1 .*got int64 in 0\.\.2"),
        (np.zeros((2, 3), int), np.full((2, 3), -1), 1, r"got int64 in -1\.\.0"),
        (np.zeros((2, 3), int), np.zeros((2, 3)), 1, "got float64"),
        (np.full((2, 3), 300), np.zeros((2, 3), int), 1, r"labels in 0\.\.255"),
    ],
)
def test_mismatched_numbered_people_raise(labels, numbers, count, message):
    with pytest.raises(ValueError, match=message):
        NumberedPersonMaps(labels, numbers, count)
