"""The base class of data sets, those of this package and your own."""

import functools
import logging
import traceback
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
    """Images with a label map for each person; `--data.dataset my_package.my_module:MyPeople` trains on a subclass.

    A subclass must define:

    `labels`: the :class:`rpcnn.labels.LabelSet` with the names and colors of the classes and the parts to exchange in a
        horizontal flip. If it depends on the folder, override the class method :meth:`label_set` and set `self.labels`
        in `__init__`.
    `__init__(self, root, split, **options)`: root is data.root and split one of `splits`. Each further keyword argument
        is an option of the data set, set in data.options; one named `seed` defaults to run.seed. Raises OSError or
        ValueError if the folder is invalid.
    `__len__()`: the number of images.
    `load(index)`: returns the :class:`rpcnn.data.sample.Sample` at an index in 0..len - 1, always the same one;
        `rpcnn.data.sample.make_sample` makes it from arrays. Raises :class:`rpcnn.data.files.DataFault` for files that
        cannot be used: training then uses the next image, and evaluation skips the image.

    Everything else has a default that a subclass may override: `splits`, `annotated`, :meth:`detect`, `ids`, `sizes`,
    `faults`, :meth:`notes`, :meth:`stray` and :meth:`truth`. The defaults of `ids`, `sizes` and `faults` load every
    image once; override them if that is slow. Each loader process has a copy, so an instance must be small and
    picklable.
    """

    labels: LabelSet
    splits: Collection[str] = ("train", "val")
    """The names of the splits. Training uses "train", evaluation data.eval_split."""
    layout: str = ""
    """Describes the files that :meth:`detect` looks for."""
    annotated: bool = True
    """False for a split whose ground truth is withheld, so that no image has people."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def load(self, index: int) -> Sample:
        """Load the sample at `index`. Raises DataFault if its files cannot be used."""

    @classmethod
    def label_set(cls, root: Path, **options: Any) -> LabelSet:
        """Return the labels of the data set in `root`, without reading its images."""
        return cls.labels

    @classmethod
    def detect(cls, root: Path) -> bool:
        """Whether the folder `root` contains this data set, and no other that could be confused with it."""
        return False

    @classmethod
    def check_split(cls, split: str) -> None:
        """Raise ValueError unless the data set has the split."""
        if split not in cls.splits:
            raise ValueError(f"{cls.__name__}: split must be one of {', '.join(cls.splits)}, got {split!r}")

    def _name(self, index: int) -> str:
        """The id of an image without loading it, or #index where the class gives no ids."""
        has_ids = "ids" in vars(self) or type(self).ids is not PeopleDataset.ids
        return self.ids[index] if has_ids else f"#{index}"

    def checked_load(self, index: int) -> Sample:
        """Load the sample at `index`; a bug of :meth:`load` is a ValueError that names the class, image and line."""
        try:
            return self.load(index)
        except DataFault:
            raise
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            raise ValueError(
                f"{type(self).__name__}.load: image {self._name(index)}: {type(error).__name__}: {error} "
                f"({Path(at.filename).name}, line {at.lineno})"
            ) from error

    @functools.cached_property
    def _looked_through(self) -> tuple[list[str], np.ndarray, dict[str, str]]:
        ids, sizes, faults, people = [], np.ones((len(self), 2), np.int32), {}, 0
        for index in range(len(self)):
            try:
                sample = self.checked_load(index)
                ids.append(sample["id"])
                sizes[index] = sample["image"].shape[1:]
                people += len(sample["boxes"])
            except DataFault as fault:
                ids.append(self._name(index))
                faults[ids[-1]] = str(fault)
        if self.annotated and len(faults) < len(ids) and not people:
            log.warning("%s: no image has a person", self.labels.name)
        return ids, sizes, faults

    @functools.cached_property
    def ids(self) -> list[str]:
        """The `id` of every sample, all different."""
        return self._looked_through[0]

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """int32 [len, 2]: (height, width) of every image. Training makes batches of images with one orientation."""
        return self._looked_through[1]

    @functools.cached_property
    def faults(self) -> dict[str, str]:
        """{id: reason} of images that cannot be used, #index without an id. They may be in `ids` or left out of it."""
        return self._looked_through[2]

    def notes(self, index: int) -> list[str]:
        """List what is suspicious about an image that can be used, for `rpcnn.data check`."""
        return []

    def stray(self) -> list[tuple[str, str]]:
        """List (id, message) for files and list entries that are not used, for `rpcnn.data check`."""
        return []

    def truth(self, index: int) -> Truth:
        """Load the ground truth for an evaluator, as numpy arrays. Raises DataFault as :meth:`load`."""
        sample = self.load(index)
        return Truth(*(sample[key].numpy() for key in ("label_map", "person_maps", "boxes")))

    def __getitem__(self, index: int) -> Sample:
        """Return the sample at `index`, or the next one that can be read; logs each image that cannot, once.

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
                return self.checked_load(here)
            except DataFault as fault:
                name = self.ids[here]
                if name not in warned:
                    warned.add(name)
                    log.warning("%s: %s cannot be used and is replaced by the next image: %s", self.labels.name, name,
                                fault)  # fmt: skip
        raise DataFault(f"{self.labels.name}: none of the {len(self)} images can be read")
