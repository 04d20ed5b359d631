"""Inference with a trained model: batches, order, and the command-line options."""

import itertools
import json

import pytest
import torch
from helpers.models import TINY, configured, permissive, with_varied_ious
from PIL import Image

from rpcnn import Predictor, load_config
from rpcnn.evaluate import main as evaluate
from rpcnn.inference.pipeline import Pipeline
from rpcnn.labels import CIHP
from rpcnn.predict import main as predict
from rpcnn.runtime.checkpoint import save_weights

# At a short side of 64 they are padded to 64x96, 96x64, 64x96, 64x96, 64x96, 32x128, 64x96, 96x64 and 64x96.
SIZES = [(64, 96), (96, 64), (64, 96), (60, 90), (64, 96), (50, 200), (64, 90), (96, 64), (64, 96)]


@pytest.fixture(scope="module")
def config():
    settings = load_config("painted", ["--inference.test-short-side", "64", "--inference.test-long-side-max", "128"])
    return configured(settings, **TINY, min_box_score=0.0, max_detections=6, augment_scales=(0.5, 1.25))


@pytest.fixture(scope="module")
def model():
    return with_varied_ious(permissive(num_classes=20, max_detections=6))


@pytest.fixture(scope="module")
def pipeline(model, config):
    return Pipeline(model, config, CIHP)


@pytest.fixture(scope="module")
def weights(tmp_path_factory, model, config):
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_weights(path, model, config, CIHP)
    return path


@pytest.fixture(scope="module")
def pictures():
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in SIZES]


@pytest.fixture
def batches(model):
    seen = []
    handle = model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    yield seen
    handle.remove()


def assert_same(one, other):
    """Equal up to float32 rounding: oneDNN adds up a batch of another size in another order."""
    assert len(one) == len(other) > 0
    torch.testing.assert_close(one.boxes, other.boxes, rtol=1e-4, atol=1e-3)
    for name in ("scores", "box_scores", "iou_scores"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-5)
    for name in ("labels", "people"):
        assert (getattr(one, name) == getattr(other, name)).float().mean() > 0.999


@pytest.mark.parametrize(("batch_size", "expected"), [(1, [1] * 9), (2, [2, 2, 1, 2, 1, 1]), (4, [4, 2, 2, 1])])
def test_batched_and_single_inference_agree(pipeline, pictures, batches, batch_size, expected):
    alone = [pipeline(picture) for picture in pictures]
    batches.clear()
    together = list(pipeline.stream(pictures, batch_size))
    assert batches == expected
    for result, single, size in zip(together, alone, SIZES, strict=True):
        assert result.label_map.shape == size
        assert_same(result, single)
    # The images differ, so the results are not equal by accident.
    assert all((a.scores[0] - b.scores[0]).abs() > 1e-4 for a, b in itertools.pairwise(alone))


@pytest.mark.parametrize(("batch_size", "read"), [(1, 1), (2, 8)])
def test_pictures_are_read_a_window_at_a_time(pipeline, pictures, batch_size, read):
    taken = []

    def source():
        for picture in pictures:
            taken.append(1)
            yield picture

    next(pipeline.stream(source(), batch_size))
    assert len(taken) == read


@pytest.mark.parametrize("augment", [False, True])
def test_results_can_be_edited_and_trained_on(model, config, pictures, augment):
    result = Pipeline(model, configured(config, augment=augment), CIHP)(pictures[0])
    result.label_map[result.label_map == 1] = 0
    result.person_maps += 1
    weight = torch.ones((), requires_grad=True)
    (result.scores.sum() * weight + (result.boxes * weight).sum()).backward()
    assert weight.grad is not None
    for value in vars(result).values():
        assert not (isinstance(value, torch.Tensor) and value.is_inference())


def test_a_predictor_keeps_the_order_of_a_list(weights, pictures):
    arrays = [picture.permute(1, 2, 0).numpy() for picture in pictures]
    single, batched = Predictor(weights, "cpu"), Predictor(weights, "cpu", batch_size=3)
    results = batched(arrays)
    assert [tuple(result.label_map.shape) for result in results] == SIZES
    for result, array in zip(results, arrays, strict=True):
        assert_same(result, single(array))
    assert batched([]) == []


def test_batch_sizes_below_one_are_refused(weights, pipeline, pictures):
    with pytest.raises(ValueError, match="Predictor: batch_size must be at least 1, got 0"):
        Predictor(weights, "cpu", batch_size=0)
    with pytest.raises(ValueError, match="Pipeline: batch_size must be at least 1, got -2"):
        next(pipeline.stream(pictures, -2))


def test_augmented_predictor_runs_one_pass_at_a_time(weights, pictures):
    predictor = Predictor(weights, "cpu", augment=True, batch_size=4)
    seen = []
    predictor.pipeline.model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    augmented = predictor([picture.permute(1, 2, 0).numpy() for picture in pictures[:2]])
    # One pass at a time: a batch would hold the features of all. Short sides 64, 32 and 80, each twice.
    landscape = [(1, 3, *size) for size in ((64, 96), (32, 64), (96, 128)) for _ in range(2)]
    assert seen == landscape + [(1, 3, shape[3], shape[2]) for shape in landscape]
    plain = Predictor(weights, "cpu")(pictures[0].permute(1, 2, 0).numpy())
    assert augmented[0].label_map.shape == (64, 96) and not torch.equal(augmented[0].scores, plain.scores)


def test_predict_from_the_command_line(weights, pictures, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, picture in zip("abc", pictures, strict=False):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{name}.png")
    (folder / "bad.png").write_bytes(b"not a picture")
    common = [str(folder), "--weights", str(weights), "--device", "cpu"]
    for name, extra in (("one", []), ("two", ["--batch-size", "2"]), ("more", ["--augment"])):
        with pytest.raises(SystemExit, match=r"bad\.png cannot be read"):
            predict([*common, "--output", str(tmp_path / name), *extra])
        report = capsys.readouterr().out
        assert "3 images parsed" in report and report.index("a.png") < report.index("b.png") < report.index("c.png")
        assert ("short side 64, 32, 80, each mirrored, too: 6 passes an image" in report) == (name == "more")
    for stem in "abc":
        one, two, more = (json.loads((tmp_path / n / f"{stem}.json").read_text()) for n in ("one", "two", "more"))
        scores = [[person["score"] for person in record["people"]] for record in (one, two, more)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-3) and scores[0] != pytest.approx(scores[2], rel=1e-3)
    with pytest.raises(SystemExit, match="rpcnn: Predictor: batch_size must be at least 1"):
        predict([*common, "--batch-size", "0"])


def test_evaluate_from_the_command_line(weights, tmp_path, capsys):
    data = ["--data-root", str(tmp_path / "data"), "--data.options", "train=1", "val=2", "short_side=[64, 72]"]
    data += ["--data.workers", "0", "--device", "cpu", "--run.pictures", "0"]
    plain = evaluate([str(weights), *data, "--output", str(tmp_path / "plain")])
    assert "passes" not in capsys.readouterr().out
    options = ["--inference.augment", "--inference.augment-scales", "1.25", "--inference.no-augment-flip"]
    augmented = evaluate([str(weights), *data, "--output", str(tmp_path / "augmented"), *options])
    assert "test-time augmentation: short side 64, 80: 2 passes an image" in capsys.readouterr().out
    assert augmented.keys() == plain.keys()
