"""The released variant as a whole: presets, schedules, its table in the docs, training and prediction."""

import dataclasses
import pathlib
import re

import pytest
import torch
from helpers.inference import combined
from helpers.models import LOSSES, scene
from helpers.models import train as losses_of
from helpers.released_variant import CONFIG, differences, released
from PIL import Image

from rpcnn import Predictor, ops
from rpcnn.box_convention import PIXELS
from rpcnn.config import Config, load_config
from rpcnn.evaluate import main as evaluate
from rpcnn.evaluation import trained_model
from rpcnn.labels import CIHP
from rpcnn.metrics import ParsingEvaluator
from rpcnn.model import RPRCNN
from rpcnn.model import released as released_code
from rpcnn.model.boxes import box_iou
from rpcnn.runtime.optimizer import parameter_groups
from rpcnn.runtime.schedule import learning_rate
from rpcnn.train import main as train
from rpcnn.train import train_transform
from rpcnn.variant import Variant

REPOSITORY = pathlib.Path(__file__).parents[2]
STRETCH = released_code.paste_rounded if CONFIG.variant.pasting == "rounded" else None
DOCS = REPOSITORY / "docs" / "released.md"

# Presets and schedules


def test_the_mhp_preset_differs_only_in_data_and_schedule():
    assert differences(load_config("released_mhpv2"), CONFIG) == {
        "data.dataset": "mhpv2",
        "data.root": "data/MHP-v2",
        "train.iterations": 72_000,
        "train.steps": (54_000, 64_000),
        "inference.min_parsing_score": 0.05,
    }


@pytest.mark.parametrize(
    ("preset", "overrides", "iterations", "steps"),
    [
        ("cihp_r50", [], 135_000, (105_000, 125_000)),
        ("cihp_r50_150epochs", [], 270_000, (240_000, 260_000)),
        ("mhpv2_r50", [], 67_500, (52_500, 62_500)),  # the paper
        ("mhpv2_r50_150epochs", [], 144_000, (126_000, 136_000)),
        ("released", [], 135_000, (105_000, 125_000)),
        ("released", ["--iterations", "270000", "--train.steps", "240000", "260000"], 270_000, (240_000, 260_000)),
        ("released_mhpv2", [], 72_000, (54_000, 64_000)),
        (
            "released_mhpv2",
            ["--iterations", "144000", "--train.steps", "126000", "136000"],
            144_000,
            (126_000, 136_000),
        ),
    ],
)
def test_published_schedules(preset, overrides, iterations, steps):
    config = load_config(preset, overrides)
    knobs = config.train
    assert (knobs.iterations, knobs.steps) == (iterations, steps)
    assert (knobs.batch_size, knobs.learning_rate, knobs.weight_decay) == (16, 0.02, 1e-4)
    assert (knobs.warmup_iterations, knobs.decay, knobs.optimizer) == (1000, "steps", "sgd")
    assert config.inference.min_parsing_score == (0.05 if config.data.dataset == "mhpv2" else 0.3)


@pytest.mark.parametrize(
    ("iteration", "rate"),
    [(1, 2.1998e-5), (1000, 0.02), (104_999, 0.02), (105_000, 0.002), (125_000, 0.0002)],
)
def test_learning_rates_of_weights_and_biases(iteration, rate):
    knobs = CONFIG.train
    rule = (knobs.learning_rate, knobs.batch_size, knobs.steps, knobs.warmup_iterations)
    scales = [group["lr_scale"] for group in parameter_groups(released(), knobs.weight_decay)]
    rates = [scale * learning_rate(iteration, *rule) for scale in scales]  # weights, biases, norm weights
    assert rates == pytest.approx([rate, 2 * rate, rate], rel=1e-9)


def test_six_short_sides_in_training():
    transform, generator = train_transform(CONFIG, CIHP), torch.Generator().manual_seed(0)
    sizes = {transform.size(600, 900, generator) for _ in range(200)}
    assert sorted(min(size) for size in sizes) == [512, 640, 704, 768, 800, 864]
    assert transform.boxes is PIXELS
    assert len({min(train_transform(Config(), CIHP).size(600, 900, generator)) for _ in range(200)}) > 100


def test_the_long_side_is_1400_in_training_and_1333_at_test():
    assert (CONFIG.data.long_side_max, CONFIG.inference.test_long_side_max) == (1400, 1333)


# The network


def test_the_stride_is_in_the_first_convolution_of_a_block():
    model = released(backbone="resnet50", backbone_width=0.25)
    for name in ("layer2", "layer3", "layer4"):
        block = model.backbone.body.get_submodule(name)[0]
        assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))


def test_four_levels_of_anchors():
    with torch.device("meta"):
        model = RPRCNN.from_config(CONFIG)
        batch = torch.zeros(1, 3, 800, 1216)
        logits, pyramid = model.gse(model.fpn(model.backbone(batch)))
        objectness, _, _ = model.rpn(pyramid)
    assert len(pyramid) == 4 and sum(level.shape[1] for level in objectness) == 242_250
    assert list(logits.shape) == [1, 20, 200, 304]


def test_the_fifth_gse_block_feeds_the_pyramid_only():
    gse = released().gse
    maps = [torch.randn(1, 16, 32 // 2**i, 32 // 2**i) for i in range(5)]
    with torch.no_grad():
        logits, _ = gse(maps)
        torch.nn.init.zeros_(gse.embedding[1].weight)
        again, enhanced = gse(maps)
    torch.testing.assert_close(again, logits)
    torch.testing.assert_close(enhanced, maps[:4])


def test_losses_of_the_release(monkeypatch):
    seen = {}

    def capture(terms, weights, per_process, counts):
        seen.update(terms, per_process=per_process)
        return {name: total for name, (total, _) in terms.items()}

    monkeypatch.setattr(released_code, "normalize", capture)
    parsing_loss = ops.parsing_loss

    def with_other_mious(*arguments, **options):
        total, valid, miou, pooled = parsing_loss(*arguments, **options)
        return total, valid, torch.arange(len(miou)).float(), pooled

    monkeypatch.setattr(ops, "parsing_loss", with_other_mious)
    model = released()
    torch.nn.init.zeros_(model.prsn.iou.weight)
    torch.nn.init.constant_(model.prsn.iou.bias, 1.5)
    losses_of(model, [scene(1, height=60, width=90)])
    assert seen["semantic"][1] == 16 * 24  # with the padding's cells
    total, count = seen["rescoring"]
    people = int(count) + 1  # the one whose true mIoU is 0 does not count
    assert people > 2
    assert float(total.detach()) == pytest.approx(sum(0.5 * (1.5 - iou) ** 2 for iou in range(1, people)))
    assert seen["per_process"] is True


@pytest.mark.parametrize(
    ("per_process", "expected"), [(CONFIG.variant.normalize_per_process, (64, 96)), (False, (128, 160))]
)
def test_a_process_pads_to_its_own_images(per_process, expected):
    image, target = scene(1)
    model = released(normalize_per_process=per_process)
    batch, _ = model.normalize_and_pad([image], [target | {"padded_to": (100, 130)}])
    assert tuple(batch.shape[-2:]) == expected


# All of it


def test_it_trains():
    model = released()
    losses = losses_of(model, [scene(1), scene(2, height=60, width=90)])
    sum(losses.values()).backward()
    assert list(losses) == LOSSES and all(torch.isfinite(loss) for loss in losses.values())
    missing = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert missing == []


def test_it_learns_a_scene_and_finds_its_people():
    """With all switches on, training and inference agree: boxes, maps and scores of the trained scene are right."""
    image, target = scene(1)
    model = released(max_detections=2)
    optimizer = torch.optim.SGD(parameter_groups(model, 1e-4), lr=0.01, momentum=0.9)
    for _ in range(150):
        losses = losses_of(model, [(image, target)])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    with torch.no_grad():
        found = model.eval()([image])[0]
    overlaps = box_iou(target["boxes"], found.boxes).amax(dim=1)
    result = combined(found, (64, 96), CIHP, stretch=STRETCH, boxes=PIXELS)
    right = (result.person_maps.amax(dim=0) == target["label_map"]).float().mean()
    assert (overlaps > 0.6).all() and right > 0.9


def test_the_commands_train_evaluate_and_predict(tmp_path, monkeypatch):
    (tmp_path / "small.toml").write_text('base = "released"\n[variant]\nshort_sides = [96, 128]\n')
    small = [
        *("--data.dataset", "painted", "--data-root", str(tmp_path), "--data.workers", "0"),
        *("--data.options", "train=4", "val=2", "short_side=[96, 128]"),
        *("--inference.test-short-side", "100", "--inference.rpn-top-test", "20", "--model.backbone", "resnet18"),
        *("--model.backbone-norm", "gn", "--model.backbone-width", "0.25", "--model.fpn-channels", "32"),
        *("--model.box-channels", "32", "--sampling.box-samples", "32", "--model.parsing-channels", "32"),
        *("--model.parts", "parsing_head.aspp_channels=32", "--sampling.rpn-top-train", "60"),
        *("--batch-size", "2", "--iterations", "2", "--device", "cpu", "--run.pictures", "0"),
    ]
    preset = str(tmp_path / "small.toml")
    run = train([preset, *small, "--output", str(tmp_path / "run")])
    made = []
    make = lambda *given, **named: made.append(ParsingEvaluator(*given, **named)) or made[0]
    monkeypatch.setattr(trained_model, "ParsingEvaluator", make)
    results = evaluate([str(run), "--run.output", str(tmp_path / "again")])
    assert results["images"] == 2 and made[0].settings.skip_empty
    predictor = Predictor(run)
    assert not differences(predictor.config, load_config(preset, small)).keys() - {"run.output"}
    Image.new("RGB", (130, 97), "gray").save(tmp_path / "gray.png")
    result = predictor(tmp_path / "gray.png")
    assert result.label_map.shape == (97, 130) and not result.scores.isnan().any()


# The docs


def documented_tests(text: str) -> list[tuple[str, str]]:
    """(file, function) of every `test_file.py::test_name` in a text."""
    return re.findall(r"`(test_\w+\.py)::(test_\w+)`", text)


def test_every_switch_has_a_row_with_a_test():
    rows = {
        name: line
        for line in DOCS.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`variant\.(\w+)", line.split("|")[1])
    }
    assert rows.keys() == {field.name for field in dataclasses.fields(Variant)}
    assert all(documented_tests(line) for line in rows.values())


def test_the_tests_that_the_docs_name_exist():
    named = documented_tests(DOCS.read_text(encoding="utf-8"))
    assert len(named) > 30
    for file, function in named:
        (path,) = (REPOSITORY / "tests").rglob(file)
        assert f"\ndef {function}(" in path.read_text(encoding="utf-8"), (file, function)
