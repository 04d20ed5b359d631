"""COCO's compressed run lengths, compiled and in numpy, against pycocotools."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as codes

from rpcnn.labelmaps import compiled
from rpcnn.labelmaps.run_lengths import _paint_numpy, encode, paint_runs


def painted(code, height, width, value=7, ground=3):
    columns = np.full((width, height), ground, np.uint8)
    paint_runs(columns, code, value)
    return columns.T


@pytest.mark.parametrize("text", [True, False], ids=["str", "bytes"])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (40, 31), (350, 500), (1, 70000), (3000, 2)])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 1])
def test_only_mask_pixels_are_painted(core, text, size, share):
    mask = np.random.default_rng(0).random(size) < share
    code = codes.encode(np.asfortranarray(mask, np.uint8))["counts"]
    assert np.array_equal(painted(code.decode() if text else code, *size), np.where(mask, 7, 3))


def test_blobs_as_people_have_them(core):
    rows, columns = np.mgrid[:300, :200]
    mask = (np.hypot(rows - 120, columns - 90) < 70) | (abs(columns - 60) < 4)
    assert np.array_equal(painted(encode(mask), 300, 200) == 7, mask)


SHORT, LONG = ["", "0", "04", "22"], ["06", "99", "0N"]
BROKEN = ["0`", "0o", "1 ", "0\u00e9", "zzzzzzzzzzzzzzzz"]  # cut off, characters out of range, bits beyond any length


@pytest.mark.parametrize("code", [*SHORT, *LONG, *BROKEN])
def test_run_lengths_of_another_size_raise(core, code):
    with pytest.raises(ValueError, match="run lengths must make up the 5 pixels"):
        painted(code, 5, 1)


def test_a_code_of_another_type_is_refused(core):
    with pytest.raises(ValueError, match="must be pycocotools' compressed text, got list"):
        painted([0, 5], 5, 1)


@pytest.mark.parametrize(
    ("columns", "value", "message"),
    [
        (np.zeros((2, 3)), 1, "paint_runs: columns must be a contiguous uint8 array"),
        (np.zeros((3, 2), np.uint8).T, 1, "paint_runs: columns must be a contiguous uint8 array"),
        (np.zeros((2, 3), np.uint8), 256, r"paint_runs: value must lie in 0\.\.255, got 256"),
    ],
)
def test_compiled_painting_errors_name_the_argument(columns, value, message):
    if compiled.core is None:
        pytest.skip("rpcnn._labelmaps is not built")
    with pytest.raises(ValueError, match=message):
        compiled.core.paint_runs(columns, b"06", value)


@given(
    code=st.one_of(
        st.binary(max_size=12),
        st.text("0123456789OPQRSTUVWXYZ", max_size=12).map(str.encode),
        arrays(bool, (6, 4)).map(lambda mask: encode(mask).encode()),
    ),
    width=st.integers(0, 6),
)
@settings(max_examples=400, deadline=None)
def test_compiled_and_numpy_agree_on_any_bytes(code, width):
    if compiled.core is None:
        pytest.skip("rpcnn._labelmaps is not built")
    ours, expected = np.zeros((2, width, 6), np.uint8)
    accepted = compiled.core.paint_runs(ours, code, 9)
    assert accepted == _paint_numpy(expected, code, 9)
    if accepted:
        assert np.array_equal(ours, expected)
