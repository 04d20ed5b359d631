"""Batches that depend on the seed alone: not on the number of processes, of workers, or on where a run was resumed."""

import logging
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from .files import DataFault
from .sample import Sample, Target

log = logging.getLogger(__name__)


def item_seed(seed: int, epoch: int, index: int) -> int:
    """The seed, in 0..2^63-1, of every random draw made for image `index` in `epoch` of a run with `seed`."""
    return int(np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)[0] >> 1)


class GroupedSampler(Sampler):
    """Endless batches of one orientation: landscapes with landscapes, portraits with portraits.

    Each epoch is a permutation of the images, drawn from (seed, epoch). Walking along it, an image joins the batch of
    its orientation, and a batch is given out when it has `batch_size` images. What is left at the end of an epoch is
    put together in mixed batches, the last of them filled up from the beginning of the permutation: every epoch shows
    every image, and has ceil(len / batch_size) batches.

    `sizes` is an integer array [len,2] of (height, width); images higher than wide are portraits. `batch_size` counts
    the images of all processes together: process `rank` of `world_size` gets its slice of each batch, so the same
    images make the same step whatever the number of processes. Iterating gives lists of (index, seed, whole) from batch
    `start_iteration` on, with the seed of `item_seed`; whole lists (index, seed) of all processes' images of the batch.

    Raises ValueError if there are no images, or batch_size cannot be divided among the processes.
    """

    def __init__(
        self,
        sizes: np.ndarray,
        batch_size: int,
        seed: int = 0,
        start_iteration: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        if len(sizes) == 0:
            raise ValueError("GroupedSampler: there are no images to train on")
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(
                f"GroupedSampler: batch_size {batch_size} (images of all processes) must be a multiple of "
                f"world_size {world_size}"
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"GroupedSampler: rank must be in 0..{world_size - 1}, got {rank}")
        sizes = np.asarray(sizes)
        self.portrait = sizes[:, 0] > sizes[:, 1]
        self.batch_size, self.seed, self.start_iteration = batch_size, seed, start_iteration
        self.rank, self.world_size = rank, world_size

    @property
    def batches_per_epoch(self) -> int:
        return -(-len(self.portrait) // self.batch_size)

    def epoch_batches(self, epoch: int) -> list[list[int]]:
        """The whole batches of one epoch, as lists of image indices."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.portrait)).tolist()
        batches, waiting = [], ([], [])
        for index in order:
            group = waiting[int(self.portrait[index])]
            group.append(index)
            if len(group) == self.batch_size:
                batches.append(group[:])
                group.clear()
        rest = [*waiting[0], *waiting[1]]
        for start in range(0, len(rest), self.batch_size):
            batches.append(rest[start : start + self.batch_size])
        missing = self.batch_size - len(batches[-1])
        batches[-1] += [order[i % len(order)] for i in range(missing)]
        return batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, first = divmod(self.start_iteration, self.batches_per_epoch)
        share = self.batch_size // self.world_size
        mine = slice(self.rank * share, (self.rank + 1) * share)
        while True:
            for batch in self.epoch_batches(epoch)[first:]:
                whole = [(index, item_seed(self.seed, epoch, index)) for index in batch]
                yield [(index, seed, whole) for index, seed in whole[mine]]
            epoch, first = epoch + 1, 0


class _Augmented(Dataset):
    """Items by (index, seed, whole): the sample, transformed with a generator of that seed, and the seed itself.

    `padded_to` = (height, width) holds the largest of the whole batch: where processes pad alike, convolutions and
    GroupNorm see in each what they would see in one.
    """

    def __init__(self, dataset, transform):
        self.dataset, self.transform = dataset, transform

    def __getitem__(self, key: tuple[int, int, list]) -> Sample:
        index, seed, whole = key
        sample = self.dataset[index]
        if self.transform is not None:
            sample = self.transform(sample, augmentation(seed))
        sizes = [self.dataset.sizes[i] for i, _ in whole]
        if hasattr(self.transform, "size"):
            sizes = [
                self.transform.size(*map(int, size), augmentation(s)) for size, (_, s) in zip(sizes, whole, strict=True)
            ]
        return sample | {"seed": seed, "padded_to": tuple(int(max(side)) for side in zip(*sizes, strict=True))}


def augmentation(seed: int) -> torch.Generator:
    """The source of an image's augmentation: another stream than the model's, which starts from the seed itself."""
    return torch.Generator().manual_seed(seed ^ 1)


def collate(samples: list[Sample]) -> tuple[list[Tensor], list[Target]]:
    """Samples -> (images, targets): pictures differ in size, so a batch is two lists."""
    return [s["image"] for s in samples], [{k: v for k, v in s.items() if k != "image"} for s in samples]


def _start_worker(worker_id: int) -> None:
    torch.set_num_threads(1)  # workers are the parallelizm; a thread pool in each would fight over the cores


class TrainLoader:
    """Endless iterator over (images, targets) for this process, which knows where it is.

    images is a list of uint8 [3,h,w], targets a list of `Target`s with every key. `iteration`
    counts the batches given out; `state_dict` and `load_state_dict` continue a run at exactly the next batch.
    """

    def __init__(self, dataset, sampler: GroupedSampler, num_workers: int = 0, pin_memory: bool = False):
        self.dataset, self.sampler = dataset, sampler
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self.iteration = sampler.start_iteration
        self._batches = None

    @property
    def batches_per_epoch(self) -> int:
        return self.sampler.batches_per_epoch

    @property
    def epoch(self) -> int:
        """The epoch of the next batch, from 0."""
        return self.iteration // self.batches_per_epoch

    def __iter__(self):
        return self

    def __next__(self) -> tuple[list[Tensor], list[Target]]:
        if self._batches is None:
            self.sampler.start_iteration = self.iteration
            self._batches = iter(
                DataLoader(
                    self.dataset,
                    batch_sampler=self.sampler,
                    num_workers=self.num_workers,
                    collate_fn=collate,
                    worker_init_fn=_start_worker,
                    pin_memory=self.pin_memory,
                    persistent_workers=self.num_workers > 0,
                )
            )
        batch = next(self._batches)
        self.iteration += 1
        return batch

    def state_dict(self) -> dict:
        return {"iteration": self.iteration, "seed": self.sampler.seed, "batch_size": self.sampler.batch_size}

    def load_state_dict(self, state: dict) -> None:
        """Continue after `state["iteration"]` batches; raises ValueError if seed or batch size have changed."""
        for key, now in (("seed", self.sampler.seed), ("batch_size", self.sampler.batch_size)):
            if state[key] != now:
                raise ValueError(f"TrainLoader: the run to continue had {key} {state[key]}, now it is {now}")
        self.iteration, self._batches = state["iteration"], None


def make_train_loader(
    dataset,
    transform,
    batch_size_global: int,
    seed: int = 0,
    start_iteration: int = 0,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> TrainLoader:
    """The training batches of process `rank`, from batch `start_iteration` on.

    `dataset` needs `sizes` (integer [len,2], height and width) and samples as items, `transform(sample, generator)`
    is applied to each, `batch_size_global` counts the images of all processes together.
    """
    sampler = GroupedSampler(dataset.sizes, batch_size_global, seed, start_iteration, rank, world_size)
    return TrainLoader(_Augmented(dataset, transform), sampler, num_workers, pin_memory)


class _Loadable(Dataset):
    """Items of a data set after `transform`, or None for one that cannot be read: nothing is evaluated twice."""

    def __init__(self, dataset, transform, indices: range):
        self.dataset, self.transform, self.indices = dataset, transform, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Sample | None:
        try:
            sample = getattr(self.dataset, "load", self.dataset.__getitem__)(self.indices[i])
        except DataFault as fault:
            log.warning("evaluation leaves out an image that has gone bad: %s", fault)
            return None
        return sample if self.transform is None else self.transform(sample)


def _collate_loadable(samples: list[Sample | None]) -> tuple[list[Tensor], list[Target]]:
    return collate([sample for sample in samples if sample is not None])


def make_eval_loader(
    dataset, transform=None, batch_size: int = 1, num_workers: int = 0, rank: int = 0, world_size: int = 1,
    limit: int | None = None,
) -> DataLoader:  # fmt: skip
    """(images, targets) over a data set once, in order, each image in exactly one process.

    Process `rank` of `world_size` gets images rank, rank + world_size, ... of the first `limit`. `transform(sample)`
    is usually a TestTransform, which leaves the truth at its original size. An image whose files have gone bad is
    named and left out; a batch may so be shorter, and even empty.
    """
    count = len(dataset) if limit is None else min(limit, len(dataset))
    return DataLoader(
        _Loadable(dataset, transform, range(rank, count, world_size)),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=_collate_loadable,
        worker_init_fn=_start_worker,
    )
