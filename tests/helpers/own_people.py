"""Custom data set classes for --data.dataset, e.g. helpers.own_people:Blocks."""

import numpy as np

from rpcnn.data.dataset import PeopleDataset
from rpcnn.data.files import DataFault
from rpcnn.data.sample import make_sample
from rpcnn.labelmaps.people import NumberedPersonMaps
from rpcnn.labels import LabelSet


class Blocks(PeopleDataset):
    """Two people per image; each is a top block above a left and a right block."""

    labels = LabelSet("blocks", ("Background", "Top", "Left", "Right"), pairs=((2, 3),))

    def __init__(self, root, split, count: int = 6, broken: int = -1, seed: int = 0):
        self.count, self.broken, self.start = count, broken, (seed, split == "train")

    def __len__(self):
        return self.count

    def load(self, index):
        if index == self.broken:
            raise DataFault(f"block {index} is broken")
        rng = np.random.default_rng((*self.start, index))
        parts, numbers = np.zeros((96, 128), np.uint8), np.zeros((96, 128), np.uint8)
        for person, x in enumerate((10, 70), 1):
            y = int(rng.integers(5, 40))
            parts[y : y + 20, x : x + 40] = 1
            parts[y + 20 : y + 50, x : x + 20], parts[y + 20 : y + 50, x + 20 : x + 40] = 3, 2
            numbers[y : y + 50, x : x + 40] = person
        image = np.repeat(parts[..., None] * 60, 3, 2) + rng.integers(0, 40, (96, 128, 3), dtype=np.uint8)
        return make_sample(f"{index:03d}", image, NumberedPersonMaps(parts, numbers, 2))


class NoLabels(PeopleDataset):
    """An invalid data set: every required method and attribute is missing."""


class NotADataset:
    """A class that is not a PeopleDataset."""
