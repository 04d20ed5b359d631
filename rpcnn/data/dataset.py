"""What a data set is, for those of this package and for anybody's."""

import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rpcnn.labels import LabelSet

from .files import DataFault
from .sample import Sample, Truth

log = logging.getLogger(__name__)


class PeopleDataset(torch.utils.data.Dataset, ABC):
    """Images of people with a label map each; `--data.dataset my_package.my_module:MyPeople` trains on a subclass.

    A subclass has to have:

    `labels`: the :class:`rpcnn.labels.LabelSet`, which decides the number of classes, the colors and what a mirror
        image exchanges. Where it depends on the folder, override the class method :meth:`label_set` and set
        `self.labels` when constructed.
    `__init__(self, root, split, **options)`: root is data.root, split one of `splits`; each further keyword argument
        is an option of the data set, given in data.options. One called `seed` gets run.seed unless it is given there.
        Raises OSError or ValueError where the folder is not as it should be.
    `__len__()`: the number of images.
    `load(index)`: the :class:`rpcnn.data.sample.Sample` at an index in 0..len - 1, as `rpcnn.data.sample.make_sample`
        makes it of arrays, always the same. Raises :class:`rpcnn.data.files.DataFault` for files that cannot be used:
        training then takes the next image, evaluation leaves the image out.

    All else has a default, which a subclass may replace: `splits`, :meth:`detect`, `ids`, `sizes` and `faults` (which
    by default load every image once: give them where that takes long), :meth:`notes`, :meth:`stray`, :meth:`truth`.
    Loader processes hold a copy each, so that an instance must be small and picklable.
    """

    labels: LabelSet
    splits: Collection[str] = ("train", "val")
    """What `split` can be; training takes "train", evaluation data.eval_split."""
    layout: str = ""
    """The files that :meth:`detect` looks for, in words."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def load(self, index: int) -> Sample:
        """The sample at `index`. Raises DataFault if its files cannot be used."""

    @classmethod
    def label_set(cls, root: Path, **options: Any) -> LabelSet:
        """The labels of the data set in `root`, without reading its images."""
        return cls.labels

    @classmethod
    def detect(cls, root: Path) -> bool:
        """Whether the folder `root` holds this data set and cannot be taken for another."""
        return False

    @classmethod
    def check_split(cls, split: str) -> None:
        """Raises ValueError unless the data set has the split."""
        if split not in cls.splits:
            raise ValueError(f"{cls.__name__}: split must be one of {', '.join(cls.splits)}, got {split!r}")

    @functools.cached_property
    def _looked_through(self) -> tuple[list[str], np.ndarray, dict[str, str]]:
        ids, sizes, faults = [], np.ones((len(self), 2), np.int32), {}
        for index in range(len(self)):
            try:
                sample = self.load(index)
                ids.append(sample["id"])
                sizes[index] = sample["image"].shape[1:]
            except DataFault as fault:
                ids.append(f"#{index}")
                faults[ids[-1]] = str(fault)
        return ids, sizes, faults

    @functools.cached_property
    def ids(self) -> list[str]:
        """The `id` of every sample, each another one."""
        return self._looked_through[0]

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """int32 [len, 2]: (height, width) of every image, by which training forms its batches."""
        return self._looked_through[1]

    @functools.cached_property
    def faults(self) -> dict[str, str]:
        """{id: reason} of images that cannot be used; they may be among `ids`, or left out altogether."""
        return self._looked_through[2]

    def notes(self, index: int) -> list[str]:
        """What is suspicious about an image that is used, for `rpcnn.data check`."""
        return []

    def stray(self) -> list[tuple[str, str]]:
        """(id, message) of files and list entries that are not used, for `rpcnn.data check`."""
        return []

    def truth(self, index: int) -> Truth:
        """What an evaluator compares with, as numpy arrays. Raises DataFault as :meth:`load`."""
        sample = self.load(index)
        return Truth(*(sample[key].numpy() for key in ("label_map", "person_maps", "boxes")))

    def __getitem__(self, index: int) -> Sample:
        """The sample at `index`, or the next one that can be read; one that has gone bad is named once.

        Raises:
            IndexError: the index is out of range.
            DataFault: no image can be read.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"{type(self).__name__}: index {index} is outside 0..{len(self) - 1}")
        warned = self.__dict__.setdefault("_warned", set())
        for step in range(len(self)):
            here = (index + step) % len(self)
            try:
                return self.load(here)
            except DataFault as fault:
                name = self.ids[here]
                if name not in warned:
                    warned.add(name)
                    log.warning("%s: %s has gone bad and is replaced by the next image: %s", self.labels.name, name,
                                fault)  # fmt: skip
        raise DataFault(f"{self.labels.name}: none of the {len(self)} images can be read")
