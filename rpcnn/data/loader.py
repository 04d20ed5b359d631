"""Loads batches that depend on the seed only, not on the number of processes or workers or on resuming a run."""

import contextlib
import logging
import signal
from collections.abc import Iterator
from types import FrameType

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from .files import DataFault
from .packing import Batch, PackedBatch, pack, unpack
from .sample import Sample, Target

log = logging.getLogger(__name__)


def item_seed(seed: int, epoch: int, index: int) -> int:
    """Compute the seed, in 0..2^63-1, of all random draws for image `index` in `epoch` of a run with `seed`."""
    return int(np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)[0] >> 1)


class GroupedSampler(Sampler):
    """Samples endless batches of images with one orientation, landscape or portrait.

    Each epoch is a permutation of the images, drawn from (seed, epoch). In this order each image is added to the batch
    of its orientation, and a batch is complete with `batch_size` images. The rest of an epoch forms mixed batches, of
    which the last is filled up from the beginning of the permutation. So every epoch has every image, in
    ceil(len / batch_size) batches.

    Iterating gives lists of (index, seed, whole): the image, its :func:`item_seed`, and the list of (index, seed) of
    the batch over all processes.

    Args:
        sizes: integer [len, 2], (height, width) of each image; images higher than wide are portraits.
        batch_size: images per step over all processes. Each process gets its slice of each batch, so the images of a
            step do not depend on the number of processes.
        seed: seed of the permutations and of `item_seed`.
        start_iteration: the first batch to give.
        rank, world_size: this process, and the number of processes.

    Raises:
        ValueError: there are no images, world_size does not divide batch_size, or rank is out of range.
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
        """List the batches of one epoch, over all processes, as lists of image indices."""
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
        own = slice(self.rank * share, (self.rank + 1) * share)
        while True:
            for batch in self.epoch_batches(epoch)[first:]:
                whole = [(index, item_seed(self.seed, epoch, index)) for index in batch]
                yield [(index, seed, whole) for index, seed in whole[own]]
            epoch, first = epoch + 1, 0


class _Augmented(Dataset):
    """Transforms samples: item (index, seed, whole) is sample `index`, transformed with a generator of `seed`.

    Adds `seed` and `padded_to`, the largest (height, width) in the batch over all processes. If all processes pad to
    the same size, convolutions and GroupNorm have the same inputs as in one process.
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
    """Make the generator of an image's augmentation, with another stream than the model's, which uses `seed` itself."""
    return torch.Generator().manual_seed(seed ^ 1)


def collate(samples: list[Sample]) -> PackedBatch | Batch:
    """Split samples into a list of images, which may differ in size, and a list of targets; pack them in a worker."""
    return pack(([s["image"] for s in samples], [{k: v for k, v in s.items() if k != "image"} for s in samples]))


def _start_worker(worker_id: int) -> None:
    torch.set_num_threads(1)  # the workers run in parallel; a thread pool in each would compete for the cores
    # Ctrl-C and schedulers signal every process of a job. The main process finishes its step, for which it needs the
    # workers, and ends them afterwards; a worker whose parent has died ends by torch's own watchdog.
    for name in ("SIGINT", "SIGUSR1", "SIGHUP"):
        if hasattr(signal, name):  # Windows has one of them
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_at_the_second_signal)


def _end_at_the_second_signal(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)


class TrainLoader:
    """Endless iterator over the batches (images, targets) of this process, which can be resumed.

    images is a list of uint8 [3, h, w], targets a list of :class:`Target` with every key. `iteration` is the number of
    batches given so far. With `state_dict` and `load_state_dict` a resumed run continues at exactly the next batch.
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
            allow_open_files()
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
        return unpack(batch)

    def state_dict(self) -> dict:
        return {"iteration": self.iteration, "seed": self.sampler.seed, "batch_size": self.sampler.batch_size}

    def load_state_dict(self, state: dict) -> None:
        """Continue after `state["iteration"]` batches. Raises ValueError if the seed or the batch size has changed."""
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
    """Make the loader of the training batches of one process.

    Args:
        dataset: has samples as items, and `sizes`, integer [len, 2] of (height, width).
        transform: called as `transform(sample, generator)` for each sample; None keeps samples unchanged.
        batch_size_global: images per step over all processes.
        seed, start_iteration, rank, world_size: see :class:`GroupedSampler`.
        num_workers, pin_memory: see torch.utils.data.DataLoader.

    Raises:
        ValueError: as :class:`GroupedSampler`.
    """
    sampler = GroupedSampler(
        dataset.sizes, batch_size_global, seed=seed, start_iteration=start_iteration, rank=rank, world_size=world_size
    )
    return TrainLoader(_Augmented(dataset, transform), sampler, num_workers=num_workers, pin_memory=pin_memory)


class _Loadable(Dataset):
    """Transforms the samples of a data set for evaluation; None for an image that cannot be used.

    Unlike in training, the next image does not replace it, so that no image is evaluated twice.
    """

    def __init__(self, dataset, transform, indices: range):
        self.dataset, self.transform, self.indices = dataset, transform, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Sample | None:
        try:
            sample = getattr(self.dataset, "load", self.dataset.__getitem__)(self.indices[i])
        except DataFault as fault:
            log.warning("evaluation skips an image that cannot be used: %s", fault)
            return None
        return sample if self.transform is None else self.transform(sample)


def _collate_loadable(samples: list[Sample | None]) -> PackedBatch | Batch:
    return collate([sample for sample in samples if sample is not None])


class EvalLoader:
    """Iterates over the batches (images, targets) of a DataLoader."""

    def __init__(self, loader: DataLoader):
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        allow_open_files()
        return map(unpack, self.loader)


def allow_open_files() -> None:
    """Raise this process's limit of open files to the most that it may have."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def make_eval_loader(
    dataset, transform=None, batch_size: int = 1, num_workers: int = 0, rank: int = 0, world_size: int = 1,
    limit: int | None = None,
) -> EvalLoader:  # fmt: skip
    """Make a loader of (images, targets) over a data set, once and in order, each image in exactly one process.

    An image that cannot be used is logged and skipped, so a batch may be shorter than `batch_size`, or empty.

    Args:
        dataset: has samples as items.
        transform: called as `transform(sample)`, usually a TestTransform, which keeps the ground truth at its original
            size; None keeps samples unchanged.
        batch_size: images per batch.
        num_workers: see torch.utils.data.DataLoader.
        rank, world_size: process `rank` gets the images rank, rank + world_size, …
        limit: use the first `limit` images only; None uses all.
    """
    count = len(dataset) if limit is None else min(limit, len(dataset))
    return EvalLoader(
        DataLoader(
            _Loadable(dataset, transform, range(rank, count, world_size)),
            batch_size=batch_size,
            num_workers=num_workers,
            collate_fn=_collate_loadable,
            worker_init_fn=_start_worker,
        )
    )
