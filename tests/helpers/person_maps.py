"""Random person maps."""

import numpy as np

from rpcnn.labelmaps.people import NumberedPersonMaps


def blobs(rng, count, height, width, largest):
    """Random maps, uint8 [count, H, W], of up to four rectangles each on background."""
    maps = np.zeros((count, height, width), np.uint8)
    for one in maps:
        for _ in range(rng.integers(0, 5)):
            y, x = rng.integers(0, height), rng.integers(0, width)
            one[y : y + rng.integers(1, height + 1), x : x + rng.integers(1, width + 1)] = rng.integers(0, largest + 1)
    return maps


def numbered(rng, count, height, width, largest):
    """Random NumberedPersonMaps; some pixels have only a label, some only an instance id."""
    labels = blobs(rng, 6, height, width, largest).max(0)
    numbers = (blobs(rng, 6, height, width, 255).max(0).astype(int) % (count + 1)).astype(np.uint8)
    return NumberedPersonMaps(labels, numbers, count)
