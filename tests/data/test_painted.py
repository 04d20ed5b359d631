import json

import numpy as np
import pytest
import torch
from PIL import Image

from rpcnn.data.cihp import CIHP
from rpcnn.data.painted.canvas import Canvas
from rpcnn.data.painted.look import pick_look
from rpcnn.data.painted.people import Figure, Person
from rpcnn.data.painted.scene import paint_maps, paint_scene, write_cihp
from rpcnn.labels import CIHP as LABELS

LEFT, RIGHT = [[i for i, n in enumerate(LABELS.names) if n.startswith(side)] for side in ("Left", "Right")]


def test_a_scene_depends_on_its_seed_alone():
    first, again, other = paint_maps(7), paint_maps(7), paint_maps(8)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_person_maps_agree_with_the_label_map():
    for seed in range(12):
        image, category, human = paint_maps(seed, 160, 200, difficulty=1.0)
        assert image.shape == (160, 200, 3) and image.dtype == np.uint8
        assert np.array_equal(category > 0, human > 0)
        assert category.max() < LABELS.num_classes
        assert set(np.unique(human)) == set(range(human.max() + 1))
        assert human.max() <= 6


def test_all_twenty_classes_and_one_to_six_people_occur():
    seen, counts = np.zeros(20, int), set()
    for seed in range(60):
        _, category, human = paint_maps(seed, 160, 200)
        seen += np.bincount(category.ravel(), minlength=20) > 0
        counts.add(int(human.max()))
    assert (seen >= 3).all(), dict(zip(LABELS.names, seen, strict=True))
    assert counts >= {1, 2, 3, 4, 5}


@pytest.mark.parametrize(("yaw", "left_is_right_of_right"), [(0.0, True), (np.pi, False)])
def test_left_is_the_persons_own(yaw, left_is_right_of_right):
    # facing the viewer, the person's left is on the right side of the image; from behind on the left side
    for seed in range(6):
        canvas, rng = Canvas(240, 240), np.random.default_rng(seed)
        look = pick_look(rng, 200)
        look.lower, look.lower_length, look.boots, look.socks, look.coat = "pants", 0.3, 0, None, None
        look.sleeve, look.gloves = 0, None
        Figure(canvas, rng, Person(120, 225, 200, yaw, 1), look, "stand", 0).paint()
        columns = np.broadcast_to(np.arange(240), (240, 240))
        for left, right in zip(LEFT, RIGHT, strict=True):
            difference = columns[canvas.label_map == left].mean() - columns[canvas.label_map == right].mean()
            assert (difference > 0) == left_is_right_of_right, LABELS.names[left]


def test_faces_show_from_the_front_hair_from_behind():
    share = {}
    for yaw in (0.0, np.pi):
        canvas, rng = Canvas(240, 240), np.random.default_rng(1)
        look = pick_look(rng, 200)
        look.hat = None
        Figure(canvas, rng, Person(120, 225, 200, yaw, 1), look, "stand", 0).paint()
        face, hair = (canvas.label_map == LABELS.names.index(n) for n in ("Face", "Hair"))
        share[yaw] = face.sum() / (face.sum() + hair.sum())
    assert share[0.0] > 0.35 and share[np.pi] < 0.15


def test_nearer_people_cover_farther_ones():
    canvas, rng = Canvas(200, 200), np.random.default_rng(0)
    for human in (1, 2):
        Figure(canvas, rng, Person(100, 190, 170, 0, human), pick_look(rng, 170), "stand", 0).paint()
    below, above = (canvas.numbers == 1).sum(), (canvas.numbers == 2).sum()
    assert above > 5 * below


def test_a_shape_labels_pixels_it_covers_by_half():
    canvas = Canvas(8, 8)
    box = [(2, 2), (5.75, 2), (5.75, 6.25), (2, 6.25)]
    canvas.stamp(canvas.outline(box, smooth=False), (1, 1, 1), 3, 1)
    expected = np.zeros((8, 8))
    expected[2:6, 2:6] = 3  # column 5 is covered by 3/4, row 6 by 1/4
    assert np.array_equal(canvas.label_map, expected)
    assert canvas.image[3, 5, 0] == pytest.approx(0.75, abs=0.13)
    assert canvas.image[6, 3, 0] == pytest.approx(0.25, abs=0.13)


def test_difficult_scenes_keep_the_number_of_people():
    for people in (0, 1, 6):
        _, _, human = paint_maps(3, 256, 320, difficulty=0.0, people=people)
        assert human.max() == people


def test_paint_scene_is_a_sample():
    sample = paint_scene(5, 160, 200)
    n = int(paint_maps(5, 160, 200)[2].max())
    assert sample["image"].shape == (3, 160, 200) and sample["image"].dtype == torch.uint8
    assert sample["person_maps"].shape == (n, 160, 200) and sample["boxes"].shape == (n, 4)
    assert torch.equal(sample["person_maps"].amax(0), sample["label_map"])
    x1, y1, x2, y2 = sample["boxes"][0].int().tolist()
    inside = sample["person_maps"][0, y1:y2, x1:x2]
    assert inside.count_nonzero() == sample["person_maps"][0].count_nonzero()
    assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


@pytest.mark.parametrize("wrong", [{"height": 16}, {"difficulty": 1.5}])
def test_invalid_scenes_raise(wrong):
    with pytest.raises(ValueError, match="paint_maps"):
        paint_maps(0, **wrong)


def test_written_sets_have_the_official_layout_and_read_back(tmp_path):
    write_cihp(tmp_path, train=5, val=2, size=(64, 80), seed=3, workers=1)
    train, val = CIHP(tmp_path, "train"), CIHP(tmp_path, "val")
    assert (len(train), len(val)) == (5, 2) and not train.faults and not val.faults
    assert (tmp_path / "Training/train_id.txt").read_text().split() == [f"{k:07d}" for k in range(1, 6)]
    folder = tmp_path / "Training"
    human = np.array(Image.open(folder / "Human_ids/0000001.png"))
    category = np.array(Image.open(folder / "Category_ids/0000001.png"))
    instance = np.array(Image.open(folder / "Instance_ids/0000001.png"))
    rows = [tuple(map(int, line.split())) for line in (folder / "Instance_ids/0000001.txt").read_text().splitlines()]
    assert len(rows) == len(np.unique(instance[instance > 0]))
    for value, part, person in rows:
        assert np.array_equal(instance == value, (category == part) & (human == person))
    assert len(train[0]["boxes"]) == human.max()


def test_longer_sets_extend_shorter_ones_and_splits_differ(tmp_path):
    write_cihp(tmp_path / "a", train=2, val=2, size=(48, 60), workers=1)
    write_cihp(tmp_path / "b", train=3, val=2, size=(48, 60), workers=1)
    read = lambda name, split, stem: (tmp_path / name / split / "Images" / f"{stem}.jpg").read_bytes()
    assert read("a", "Training", "0000002") == read("b", "Training", "0000002")
    assert read("a", "Training", "0000001") != read("a", "Validation", "0000001")


def test_workers_paint_the_same_set_as_one_process(tmp_path):
    write_cihp(tmp_path / "one", train=9, val=0, size=(48, 60), workers=1)
    write_cihp(tmp_path / "two", train=9, val=0, size=(48, 60), workers=2)
    for path in sorted((tmp_path / "one" / "Training").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_only_a_complete_matching_set_is_reused(tmp_path):
    write_cihp(tmp_path, train=2, val=1, size=(48, 60), workers=1)
    image = tmp_path / "Training/Images/0000001.jpg"
    stamp = image.stat().st_mtime_ns
    write_cihp(tmp_path, train=2, val=1, size=(48, 60), workers=1)
    assert image.stat().st_mtime_ns == stamp
    write_cihp(tmp_path, train=1, val=1, size=(48, 60), workers=1)
    assert not (tmp_path / "Training/Images/0000002.jpg").exists()
    mark = tmp_path / "painted.json"
    mark.write_text(json.dumps({**json.loads(mark.read_text()), "finished": False}))
    image.unlink()
    write_cihp(tmp_path, train=1, val=1, size=(48, 60), workers=1)
    assert image.exists()


def test_foreign_data_are_never_overwritten(tmp_path):
    (tmp_path / "labels.toml").touch()
    with pytest.raises(ValueError, match=f"^{tmp_path} holds labels.toml, which was not painted here; choose a new"):
        write_cihp(tmp_path, train=1, val=1)
    assert [path.name for path in tmp_path.iterdir()] == ["labels.toml"]


def test_foreign_files_beside_a_painted_set_stop_repainting(tmp_path):
    write_cihp(tmp_path, train=1, val=1, size=(48, 60), workers=1)
    (tmp_path / "notes.txt").touch()
    write_cihp(tmp_path, train=1, val=1, size=(48, 60), workers=1)
    with pytest.raises(ValueError, match=r"holds notes\.txt, which was not painted"):
        write_cihp(tmp_path, train=2, val=1, size=(48, 60), workers=1)
