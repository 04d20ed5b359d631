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
from rpcnn.labelmaps import compiled
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


def test_labels_take_the_nearest_pixel_below(core):
    labels = torch.arange(6, dtype=torch.uint8).view(1, 6)
    assert resize_labels_floor(labels, (1, 4)).tolist() == [[0, 1, 3, 4]]
    assert resize_labels_floor(labels, (2, 9)).tolist() == [[0, 0, 1, 2, 2, 3, 4, 4, 5]] * 2
    stack = torch.randint(0, 20, (2, 37, 53), dtype=torch.uint8)
    expected = torch.nn.functional.interpolate(stack[:, None], size=(74, 106), mode="nearest")[:, 0]
    assert torch.equal(resize_labels_floor(stack, (74, 106)), expected)


@pytest.mark.parametrize("flip", [None, CIHP.flip_table()], ids=["", "flipped"])
@pytest.mark.parametrize("size", [(37, 53), (1, 1), (5, 200), (90, 7), (74, 106), (38, 54)])
def test_resized_labels_are_those_at_the_indices(size, flip, core):
    maps = torch.randint(0, 20, (2, 3, 37, 53), dtype=torch.uint8)
    maps[0] = maps[0, :, :, :1]  # long runs of one label
    maps[1, 0, 5:20] = 255
    rows, columns = (
        torch.tensor([i * old // new for i in range(new)]) for old, new in zip((37, 53), size, strict=True)
    )
    expected = maps[..., rows[:, None], columns]
    if flip is not None:
        expected = torch.from_numpy(flip)[expected.flip(-1).long()]
    assert torch.equal(resize_labels_floor(maps, size, flip), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 3)), 1, 1, np.arange(256, dtype=np.uint8)), "resize: maps must be uint8, got float64"),
        (
            (np.zeros(3, np.uint8), 1, 1, np.arange(256, dtype=np.uint8)),
            r"resize: maps must be \[\.\.\., H, W\] with pixels",
        ),
        ((np.zeros((0, 3), np.uint8), 1, 1, np.arange(256, dtype=np.uint8)), r"with pixels, got \[0, 3\]"),
        (
            (np.zeros((2, 3), np.uint8), 0, 1, np.arange(256, dtype=np.uint8)),
            "the new size must be positive and below 2.31, got 0, 1",
        ),
        ((np.zeros((2, 3), np.uint8), 1, 2**31, np.arange(256, dtype=np.uint8)), "below 2.31, got 1, 2"),
        ((np.zeros((2, 3), np.uint8), 1, 1, np.zeros(255, np.uint8)), r"resize: table must be \[256\], got \[255\]"),
    ],
)
def test_compiled_resizing_names_what_is_wrong(arguments, message):
    if compiled.core is None:
        pytest.skip("rpcnn._labelmaps is not built")
    with pytest.raises(ValueError, match=message):
        compiled.core.resize(*arguments, False)


def test_flipping_while_resizing_is_flipping_afterwards(scene):
    once, twice = resize_sample(scene, (97, 131), flip=CIHP), flip_sample(resize_sample(scene, (97, 131)), CIHP)
    assert all(torch.equal(once[key], twice[key]) for key in ("image", "boxes", "person_maps", "label_map"))


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
