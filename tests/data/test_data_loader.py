import itertools

import numpy as np
import pytest
import torch

from rpcnn.data.files import DataFault
from rpcnn.data.loader import GroupedSampler, item_seed, make_eval_loader, make_train_loader
from rpcnn.data.transforms import TrainTransform
from rpcnn.labels import CIHP

SIZES = np.array([(60, 80)] * 13 + [(80, 60)] * 8 + [(64, 64)] * 2)


class Pictures(torch.utils.data.Dataset):
    """A data set of uniform images whose color is their index."""

    sizes = SIZES
    bad = ()

    def __len__(self):
        return len(self.sizes)

    def load(self, index):
        if index in self.bad:
            raise DataFault(f"picture {index} is bad")
        h, w = self.sizes[index]
        return {
            "image": torch.full((3, h, w), index, dtype=torch.uint8),
            "boxes": torch.zeros(0, 4),
            "person_maps": torch.zeros(0, h, w, dtype=torch.uint8),
            "label_map": torch.zeros(h, w, dtype=torch.uint8),
            "id": str(index),
        }

    __getitem__ = load


def take(iterable, n):
    return list(itertools.islice(iterable, n))


def train_loader(n=4, **kwargs):
    transform = TrainTransform((30, 50), 100, CIHP)
    return make_train_loader(Pictures(), transform, **({"batch_size_global": n, "seed": 5} | kwargs))


def flat(batches):
    return [(int(image[0, 0, 0]), tuple(image.shape), t["seed"]) for b in batches for image, t in zip(*b, strict=True)]


def test_every_epoch_shows_every_image():
    sampler = GroupedSampler(SIZES, 4, seed=1)
    assert sampler.batches_per_epoch == 6
    for epoch in range(3):
        batches = sampler.epoch_batches(epoch)
        assert len(batches) == 6 and all(len(batch) == 4 for batch in batches)
        assert {i for batch in batches for i in batch} == set(range(len(SIZES)))
    assert sampler.epoch_batches(0) != sampler.epoch_batches(1)


def test_only_leftover_batches_mix_orientations():
    sampler = GroupedSampler(np.array([(60, 80)] * 30 + [(80, 60)] * 21), 4, seed=1)
    batches = sampler.epoch_batches(0)
    mixed = [len({int(sampler.portrait[i]) for i in batch}) == 2 for batch in batches]
    assert not any(mixed[: 30 // 4 + 21 // 4])


def test_a_batch_larger_than_the_data_set_repeats_images():
    (batch,) = GroupedSampler(SIZES[:3], 8).epoch_batches(0)
    assert sorted(set(batch)) == [0, 1, 2] and len(batch) == 8


@pytest.mark.parametrize("world_size", [2, 4])
def test_global_batches_do_not_depend_on_world_size(world_size):
    alone = take(GroupedSampler(SIZES, 4, seed=9), 15)
    ranks = [take(GroupedSampler(SIZES, 4, seed=9, rank=r, world_size=world_size), 15) for r in range(world_size)]
    together = [[item for part in parts for item in part] for parts in zip(*ranks, strict=True)]
    assert together == alone


def test_resuming_continues_at_exactly_the_next_batch():
    unbroken = take(GroupedSampler(SIZES, 4, seed=2), 20)
    for start in (1, 5, 6, 13):
        assert take(GroupedSampler(SIZES, 4, seed=2, start_iteration=start), 20 - start) == unbroken[start:]


def test_loader_state_resumes_bit_for_bit():
    unbroken = take(train_loader(), 9)
    first = train_loader()
    take(first, 4)
    resumed = train_loader()
    resumed.load_state_dict(first.state_dict())
    rest = take(resumed, 5)
    for (images, targets), (images_again, targets_again) in zip(unbroken[4:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(images, images_again, strict=True))
        assert [t["seed"] for t in targets] == [t["seed"] for t in targets_again]
    assert resumed.iteration == 9 and resumed.epoch == 1


def test_state_of_another_run_is_refused():
    with pytest.raises(ValueError, match="seed"):
        train_loader(seed=6).load_state_dict(train_loader().state_dict())


def test_workers_change_nothing():
    assert flat(take(train_loader(num_workers=2), 7)) == flat(take(train_loader(), 7))


@pytest.mark.slow
def test_spawned_workers_change_nothing():
    script = torch.multiprocessing.get_start_method(allow_none=True)
    torch.multiprocessing.set_start_method("spawn", force=True)
    try:
        spawned = flat(take(train_loader(num_workers=1), 3))
    finally:
        torch.multiprocessing.set_start_method(script, force=True)
    assert spawned == flat(take(train_loader(), 3))


def test_augmentation_does_not_depend_on_world_size():
    alone = flat(take(train_loader(), 6))
    ranks = [take(train_loader(rank=r, world_size=2), 6) for r in range(2)]
    assert flat([batch for step in zip(*ranks, strict=True) for batch in step]) == alone


def test_seeds_differ_between_runs_epochs_and_images():
    seeds = {item_seed(run, epoch, index) for run in range(4) for epoch in range(4) for index in range(30)}
    assert len(seeds) == 4 * 4 * 30 and min(seeds) >= 0 and max(seeds) < 2**63


def test_targets_hold_what_the_model_needs():
    images, targets = next(train_loader())
    assert len(images) == len(targets) == 4
    assert set(targets[0]) == {"boxes", "person_maps", "label_map", "id", "seed", "padded_to"}
    assert images[0].dtype == torch.uint8 and images[0].shape[1:] == targets[0]["label_map"].shape


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_each_image_once(world_size):
    parts = [make_eval_loader(Pictures(), batch_size=2, rank=r, world_size=world_size) for r in range(world_size)]
    ids = [int(t["id"]) for part in parts for _, targets in part for t in targets]
    assert sorted(ids) == list(range(len(SIZES)))


def test_evaluation_skips_unreadable_images_up_to_the_limit():
    pictures = Pictures()
    pictures.bad = (2,)
    ids = [int(t["id"]) for _, targets in make_eval_loader(pictures, limit=5) for t in targets]
    assert ids == [0, 1, 3, 4]


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 3, "world_size": 2}, {"batch_size": 0}, {"batch_size": 2, "rank": 1}, {"sizes": SIZES[:0]}]
)
def test_invalid_sampler_arguments_raise(wrong):
    with pytest.raises(ValueError, match="GroupedSampler"):
        GroupedSampler(**({"sizes": SIZES, "batch_size": 4} | wrong))
