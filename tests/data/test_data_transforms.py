import numpy as np
import pytest
import torch

from rpcnn.data.painted.scene import paint_scene
from rpcnn.data.transforms import (
    TestTransform,
    TrainTransform,
    flip_sample,
    resize_labels_floor,
    resize_sample,
    resized_shape,
)
from rpcnn.labels import CIHP, PASCAL_PERSON_PART


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def scene():
    return paint_scene(5, 120, 160, people=3)


@pytest.mark.parametrize(
    ("shape", "short", "limit", "expected"),
    [
        ((333, 500), 800, 1333, (800, 1201)),
        ((500, 333), 800, 1333, (1201, 800)),  # long side truncated: 800 * 500 / 333 = 1201.2
        ((300, 1000), 800, 1333, (400, 1333)),  # 800 -> 2667 is too long: short = round(1333 * 0.3)
        ((300, 1000), 864, 1400, (420, 1400)),
        ((480, 480), 512, 1400, (512, 512)),
        ((2, 4000), 800, 1333, (1, 2000)),  # never empty
        ((1, 20_000), 800, 1333, (1, 1333)),  # the short side would be 0.07
    ],
)
def test_resized_shape_obeys_short_side_and_long_side_limit(shape, short, limit, expected):
    assert resized_shape(*shape, short, limit) == expected


def test_labels_take_the_nearest_pixel_below():
    labels = torch.arange(6, dtype=torch.uint8).view(1, 6)
    assert resize_labels_floor(labels, (1, 4)).tolist() == [[0, 1, 3, 4]]
    assert resize_labels_floor(labels, (2, 9)).tolist() == [[0, 0, 1, 2, 2, 3, 4, 4, 5]] * 2
    stack = torch.randint(0, 20, (2, 37, 53), dtype=torch.uint8)
    expected = torch.nn.functional.interpolate(stack[:, None], size=(74, 106), mode="nearest")[:, 0]
    assert torch.equal(resize_labels_floor(stack, (74, 106)), expected)


def test_resizing_keeps_boxes_around_their_people(scene):
    resized = resize_sample(scene, (300, 400))
    assert resized["image"].shape == (3, 300, 400) and resized["image"].dtype == torch.uint8
    assert torch.equal(resized["boxes"], scene["boxes"] * 2.5)
    for person, (x1, y1, x2, y2) in zip(resized["person_maps"], resized["boxes"].round().int().tolist(), strict=True):
        outside = person.clone()
        outside[max(y1 - 1, 0) : y2 + 1, max(x1 - 1, 0) : x2 + 1] = 0
        assert not outside.any()


def test_people_without_pixels_after_resizing_are_dropped(scene):
    tiny = torch.zeros(1, 120, 160, dtype=torch.uint8)
    tiny[0, 3, 3] = 5
    sample = scene | {
        "person_maps": torch.cat([scene["person_maps"], tiny]),
        "boxes": torch.cat([scene["boxes"], torch.tensor([[3.0, 3, 4, 4]])]),
    }
    smaller = resize_sample(sample, (60, 80))
    assert len(smaller["person_maps"]) == len(smaller["boxes"]) == len(scene["boxes"])


def test_flip_mirrors_the_sample_and_swaps_left_right(scene):
    flipped = flip_sample(scene, CIHP)
    assert torch.equal(flipped["image"], scene["image"].flip(-1))
    for left, right in ((14, 15), (16, 17), (18, 19)):
        assert torch.equal(flipped["label_map"] == left, (scene["label_map"] == right).flip(-1))
        assert torch.equal(flipped["person_maps"] == right, (scene["person_maps"] == left).flip(-1))
    assert torch.equal(flipped["label_map"] == 5, (scene["label_map"] == 5).flip(-1))
    for person, (x1, y1, x2, y2) in zip(flipped["person_maps"], flipped["boxes"].int().tolist(), strict=True):
        ys, xs = np.nonzero(person.numpy())
        assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (x1, y1, x2, y2)


def test_flipping_twice_gives_the_sample_back(scene):
    twice = flip_sample(flip_sample(scene, CIHP), CIHP)
    assert all(torch.equal(twice[key], scene[key]) for key in ("image", "boxes", "person_maps", "label_map"))


def test_flip_keeps_ignored_pixels_and_sideless_labels(scene):
    label_map = scene["label_map"].clone()
    label_map[0] = 255
    flipped = flip_sample(scene | {"label_map": label_map}, PASCAL_PERSON_PART)
    assert torch.equal(flipped["label_map"], label_map.flip(-1))


def test_images_without_people_pass():
    empty = paint_scene(1, 64, 80, people=0)
    transform = TrainTransform((32, 64), 100, CIHP, flip_prob=1.0)
    sample = transform(empty, generator())
    assert sample["boxes"].shape == (0, 4) and sample["person_maps"].shape == (0, *sample["image"].shape[-2:])


def test_augmentation_depends_on_the_generator_alone(scene):
    transform = TrainTransform((60, 120), 400, CIHP)
    first, again = transform(scene, generator(3)), transform(scene, generator(3))
    assert all(torch.equal(first[key], again[key]) for key in ("image", "boxes", "person_maps", "label_map"))
    shapes = {tuple(transform(scene, generator(k))["image"].shape) for k in range(8)}
    assert len(shapes) > 3


def test_short_side_is_drawn_from_range_or_list(scene):
    sides = lambda spec: {
        min(TrainTransform(spec, 999, CIHP)(scene, generator(k))["image"].shape[1:]) for k in range(60)
    }
    assert sides((30, 33)) == {30, 31, 32, 33}
    assert sides([30, 33]) == {30, 33}
    assert sides(40) == {40}


def test_half_of_the_samples_are_flipped(scene):
    transform = TrainTransform(120, 999, CIHP)
    flips = sum(not torch.equal(transform(scene, generator(k))["image"], scene["image"]) for k in range(100))
    assert 30 < flips < 70


def test_the_test_transform_leaves_ground_truth_unchanged(scene):
    sample = TestTransform(240, 300)(scene)
    assert sample["image"].shape == (3, 225, 300)
    assert torch.equal(sample["label_map"], scene["label_map"]) and torch.equal(sample["boxes"], scene["boxes"])


@pytest.mark.parametrize(
    "wrong", [{"short_side": (864, 512)}, {"short_side": []}, {"max_size": 0}, {"flip_prob": 2}, {"labels": None}]
)
def test_invalid_settings_raise(wrong):
    with pytest.raises(ValueError, match="TrainTransform"):
        TrainTransform(**({"labels": CIHP} | wrong))
