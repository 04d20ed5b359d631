"""Converting released checkpoints and ImageNet ResNets: names, shapes and outputs of the network.

The authors' files are not included; the tests use checkpoints of the same names and shapes with random weights.
"""

import os
import pathlib
import re
import subprocess
import sys
import types

import pytest
import torch
import torchvision
from helpers.models import backbone
from helpers.released import ANCHORS, Released, released_shapes, released_state
from safetensors.torch import load_file

from rpcnn import Predictor
from rpcnn.config import load_config
from rpcnn.convert import change_pixels, convert_imagenet, convert_released, main
from rpcnn.model import RPRCNN
from rpcnn.model.boxes import decode_boxes
from rpcnn.model.build import build_model
from rpcnn.model.released import PIXEL_STATISTICS
from rpcnn.ops import grid_anchors
from rpcnn.runtime.checkpoint import load_weights, save_state


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message.startswith("rpcnn: ") and "\n" not in message
    return message


@pytest.fixture(scope="module")
def source() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return released_state()


@pytest.fixture(scope="module")
def converted(source, tmp_path_factory):
    """Convert a checkpoint in the released code's format on the command line; return the file and the report."""
    folder = tmp_path_factory.mktemp("released")
    module = types.ModuleType("utils.collections")
    exec("class AttrDict(dict): pass", module.__dict__)
    module.AttrDict.__module__ = "utils.collections"
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(5)}}, "param_groups": []}
    content = {
        "model": {f"module.{key}": value for key, value in source.items()},
        "optimizer": optimizer,
        "scheduler": {"solver": module.AttrDict(GAMMA=0.1), "trap": Trap()},
    }
    sys.modules["utils"], sys.modules["utils.collections"] = types.ModuleType("utils"), module
    try:
        torch.save(content, folder / "model_latest.pth", _use_new_zipfile_serialization=False)
    finally:
        del sys.modules["utils"], sys.modules["utils.collections"]
    command = [sys.executable, "-m", "rpcnn.convert", "model_latest.pth", "out/model.safetensors"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    run = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert run.returncode == 0, run.stderr
    assert not (folder / "trapped").exists()
    return folder / "out" / "model.safetensors", run.stdout


@pytest.fixture(scope="module")
def model(converted) -> RPRCNN:
    """The converted file as rpcnn.predict loads it."""
    weights = load_weights(converted[0])
    model = build_model(weights.config, weights.label_set.num_classes)
    model.load_state_dict(weights.state)
    return model.eval()


@pytest.fixture
def released(source) -> Released:
    return Released(source)


def close(got, expected):
    """Assert equality up to the order of additions, relative to the largest value."""
    if isinstance(expected, torch.Tensor):
        got, expected = [got], [expected]
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5 * float(b.abs().max()))


# --- content of the converted file


def test_converted_file_is_a_released_variant_model(converted):
    assert load_weights(converted[0]).config == load_config("released")


def test_every_checkpoint_tensor_is_used_once(source, model):
    parameters = dict(model.named_parameters())
    assert len(source) == 286 and len(parameters) == 281
    assert sum(p.numel() for p in parameters.values()) == 58_717_314
    assert sum(p.numel() for p in parameters.values() if not p.requires_grad) == 275_520
    sums = lambda values: sorted(value.detach().double().sum().item() for value in values)
    assert sums(parameters.values()) == sums(v for k, v in source.items() if "cell_anchors" not in k)


def test_the_report_accounts_for_everything(converted):
    report = converted[1]
    assert "CIHP, 20 classes: 281 tensors, 58,717,314 parameters, of which 275,520 frozen" in report
    assert re.search(r"Conv_Body_FPN\.fpn_in\.0 +fpn\.lateral\.2 +3 +262,656", report)
    assert sum(int(n) for n in re.findall(r"^\w\S+ +\w\S+ +(\d+) +[\d,]+$", report, re.MULTILINE)) == 281
    dropped = ", ".join(f"RPN.anchor_generator.cell_anchors.{level}" for level in range(5))
    assert f"dropped: {dropped}\n" in report
    assert "not read: optimizer, scheduler\n" in report


def test_the_long_report_names_every_tensor(tmp_path, capsys):
    source = fake()
    torch.save(source, tmp_path / "bare.pth")
    main([str(tmp_path / "bare.pth"), str(tmp_path / "out.safetensors"), "--report"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {line[0] for line in lines} >= {key for key in source if "cell_anchors" not in key}
    assert ["RPN.head.cls_logits.bias", "rpn.objectness.bias", "[3]"] in lines


# --- outputs of the converted network


def test_backbone(model, released):
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        close(model.backbone(x), released.backbone(x))


def test_fpn(model, released):
    features = [torch.randn(1, c, 64 // s, 96 // s) for c, s in zip((256, 512, 1024, 2048), (2, 4, 8, 16), strict=True)]
    with torch.no_grad():
        close(model.fpn(features), released.fpn(features))


def test_semantic_head(model, released):
    pyramid = [torch.randn(1, 256, 32 // s, 48 // s) for s in (1, 2, 4, 8, 16)]
    with torch.no_grad():
        (logits, enhanced), (expected_logits, expected) = model.gse(pyramid), released.semantic(pyramid)
        close([logits, *enhanced], [expected_logits, *expected])


def test_rpn(model, released):
    features = [torch.randn(2, 256, 24 // s, 32 // s) for s in (1, 2, 4, 8)]
    with torch.no_grad():
        objectness, all_deltas, anchors = model.rpn(features)
        for level, (logits, deltas) in enumerate(zip(objectness, all_deltas, strict=True)):
            expected_logits, expected_deltas = released.rpn(features[level])
            close(logits, expected_logits.permute(0, 2, 3, 1).flatten(1))
            close(deltas, expected_deltas.permute(0, 3, 4, 1, 2).reshape(2, -1, 4))
        first = torch.tensor(ANCHORS[:4], dtype=torch.float32) + torch.tensor([0, 0, 1, 1])
        assert torch.equal(anchors, grid_anchors(first, (4, 8, 16, 32), [f.shape[-2:] for f in features]))


def test_box_head(model, released):
    features = [torch.randn(1, 256, 64 // s, 64 // s) for s in (1, 2, 4, 8)]
    boxes = torch.tensor([[10.0, 20.0, 70.0, 100.0], [3.0, 5.0, 200.0, 250.0], [100.0, 90.0, 180.0, 220.0]])
    rois = boxes - torch.tensor([0, 0, 1, 1])  # of S2: all are smaller than 224 / 2 but one, of S3
    pool = lambda level, box: torchvision.ops.roi_align(features[level], [box], 7, 1 / (4 * 2**level), 2, aligned=False)
    pooled = torch.cat([pool(0, rois[:1]), pool(1, rois[1:2]), pool(0, rois[2:])])
    with torch.no_grad():
        classes, deltas = model.box_head(features, [boxes])
        expected_classes, expected_deltas = released.box_head(pooled)
        close(classes, expected_classes)
        close(deltas[:, 1], expected_deltas)
        # Box decoding: weights 10, 10, 5, 5 and class 1 are the person's.
        model.box_head.min_score = -1.0
        moved = model.box_head.candidates(classes, deltas / 10, [boxes], [(10_000, 10_000)])[0]
        expected = decode_boxes(expected_deltas / 10 / torch.tensor([10.0, 10, 5, 5]), boxes)
        close(moved, expected.clamp(min=0).maximum(torch.tensor([0, 0, 1.0, 1.0])))


def test_parsing_head(model, released):
    rois = torch.randn(1, 256, 32, 32)
    with torch.no_grad():
        close(model.parsing_head(rois), released.parsing_head(rois))


def test_prsn(model, released):
    feature, logits = torch.randn(2, 512, 32, 32), torch.randn(2, 20, 128, 128)
    with torch.no_grad():
        close(model.prsn(feature, logits), released.prsn(feature, logits))


def test_the_norms_are_folded_again_where_asked(source, tmp_path):
    once, twice = convert_released(source), convert_released(source, second_fold=True)
    changed = 0
    for name, source_name in once.names.items():
        a, b = once.model.get_parameter(name), twice.model.get_parameter(name)
        assert torch.equal(a, source[source_name])
        if re.search(r"(bn\d|downsample\.1)\.weight$", source_name):
            torch.testing.assert_close(b.double(), a.double() / (1 + 1e-5) ** 0.5, rtol=1e-7, atol=0)
            changed += 1
        else:
            assert torch.equal(a, b)
    assert changed == 53


# --- other released checkpoints, and invalid files


def fake(test: bool = False, classes: int = 20) -> dict[str, torch.Tensor]:
    """A checkpoint's names and shapes in tensors without memory; constants have their real values."""
    state = {key: torch.zeros(()).expand(shape) for key, shape in released_shapes(test, classes).items()}
    state |= {
        f"RPN.anchor_generator.cell_anchors.{i}": torch.tensor(a, dtype=torch.float32) for i, a in enumerate(ANCHORS)
    }
    if test:
        state |= {"Norm.weight": torch.ones(3), "Norm.bias": -torch.tensor([102.9801, 115.9465, 122.7717])}
    return state


def test_the_class_count_identifies_the_data_set():
    conversion = convert_released(fake(classes=59))
    assert conversion.config == load_config("released_mhpv2")
    assert sum(p.numel() for p in conversion.model.parameters()) == 59_091_792
    with pytest.raises(ValueError, match=r"conv_logits\.bias must have 20 or 59 classes, got 7"):
        convert_released(fake(classes=7))


def test_a_test_checkpoint_adds_only_pixel_statistics():
    state = fake(test=True)
    assert len(state) == 288
    assert convert_released(state).dropped[:2] == ["Norm.weight", "Norm.bias"]
    state["Norm.bias"] = -torch.tensor([122.7717, 115.9465, 102.9801])
    with pytest.raises(ValueError, match=r"not the network's own constants: Norm\.bias$"):
        convert_released(state)


def test_mismatched_checkpoints_raise():
    def refused(change) -> str:
        state = fake()
        change(state)
        with pytest.raises(ValueError, match="not the released network; ") as error:
            convert_released(state)
        return str(error.value).split("; ", 1)[1]

    assert refused(lambda s: s.pop("Conv_Body_FPN.fpn_in.1.1.bias")) == "missing: Conv_Body_FPN.fpn_in.1.1.bias"
    assert refused(lambda s: s.pop("SemSeg.Output.conv_logits.bias")) == "missing: SemSeg.Output.conv_logits.bias"
    extra = "Conv_Body.bn1.running_mean"
    assert refused(lambda s: s.update({extra: torch.zeros(64)})) == f"left over: {extra}"
    key = "Conv_Body_FPN.fpn_in.0.0.weight"
    assert (
        refused(lambda s: s.update({key: torch.zeros(256, 512, 1, 1)}))
        == f"of a wrong shape: {key} must be [256, 1024, 1, 1], got [256, 512, 1, 1]"
    )
    anchors = "RPN.anchor_generator.cell_anchors.3"
    assert refused(lambda s: s.update({anchors: s[anchors] + 0.5})) == f"not the network's own constants: {anchors}"
    bias = "RPN.head.conv.bias"
    assert refused(lambda s: s.update({bias: torch.full((256,), torch.nan)})) == f"not finite: {bias}"
    assert refused(lambda s: s.update({bias: torch.zeros(256).long()})) == f"no floating-point numbers: {bias}"


def test_every_fault_is_named_at_once(tmp_path):
    state = {key: value for key, value in fake().items() if key.startswith("Conv_Body.")} | {"a": torch.zeros(1)}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(SystemExit) as error:
        main([str(tmp_path / "w.pth"), str(tmp_path / "out.safetensors")])
    message = one_line(error)
    assert "missing: Conv_Body_FPN.fpn_in.2.0.weight, " in message and "; left over: a" in message
    assert not (tmp_path / "out.safetensors").exists()


# --- ImageNet ResNets


@pytest.fixture(scope="module")
def imagenet() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None)
    torch.nn.init.normal_(network.bn1.running_mean)
    return network.state_dict()


@pytest.mark.parametrize(("source", "target"), [("bgr255", "rgb"), ("rgb", "bgr255")])
def test_changed_pixels_give_the_same_features(source, target, imagenet):
    # Caffe's weights expect values of up to 150: smaller ones keep the features of both in range.
    imagenet = imagenet | {"conv1.weight": imagenet["conv1.weight"] / (60 if source == "bgr255" else 1)}
    picture = torch.randint(0, 256, (1, 3, 96, 96)).float()

    def stem(state, pixels):
        mean, std = (torch.tensor(values)[:, None, None] for values in PIXEL_STATISTICS[pixels])
        x = picture.flip(1) if pixels == "bgr255" else picture / 255
        body = torchvision.models.resnet18(weights=None).eval()
        body.load_state_dict(state)
        with torch.no_grad():
            return body.bn1(body.conv1((x - mean) / std))

    expected = stem(imagenet, source)
    got = stem(imagenet | change_pixels(imagenet, source, target), target)
    inside = (..., slice(2, -2), slice(2, -2))  # a 7x7 window at stride 2 leaves the image at two positions
    torch.testing.assert_close(got[inside], expected[inside], rtol=1e-4, atol=1e-3)
    assert (stem(imagenet, target) - expected)[inside].abs().max() > 1  # the conversion changes the weights


def test_an_imagenet_resnet_becomes_a_body(imagenet, tmp_path, capsys):
    torch.save({"module." + key: value for key, value in imagenet.items()}, tmp_path / "caffe.pth")
    main([str(tmp_path / "caffe.pth"), str(tmp_path / "rgb.safetensors"), "--pixels", "bgr255-to-rgb"])
    report = capsys.readouterr().out
    assert "120 tensors of an ImageNet ResNet, pixels: bgr255-to-rgb" in report and "fc.weight, fc.bias" in report
    got = load_file(tmp_path / "rgb.safetensors")
    expected = {key: value for key, value in imagenet.items() if not key.startswith("fc.")}
    expected |= change_pixels(expected, "bgr255", "rgb")
    assert got.keys() == expected.keys() and all(torch.equal(got[key], expected[key]) for key in got)
    weight = backbone("resnet18", weights=str(tmp_path / "rgb.safetensors")).body.conv1.weight
    assert torch.equal(weight, expected["conv1.weight"])


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_deeper_resnets_are_told_by_their_names(name):
    with torch.device("meta"):
        state = getattr(torchvision.models, name)(weights=None).state_dict()
    assert convert_imagenet(state).keys() == {key for key in state if not key.startswith("fc.")}


def test_mismatched_resnets_raise(imagenet):
    with pytest.raises(ValueError, match=r"is no resnet18; left over: layer1\.0\.conv1\.bias$"):
        convert_imagenet(imagenet | {"layer1.0.conv1.bias": torch.zeros(64)})
    with pytest.raises(ValueError, match=r"is no resnet18: .*'layer4\.1\.bn2\.running_var' is missing"):
        convert_imagenet({key: value for key, value in imagenet.items() if key != "layer4.1.bn2.running_var"})


# --- weights of rpcnn

OLD_RUN = pathlib.Path(__file__).parent / "run_of_version_0_1"


def test_a_model_to_give_away_is_half_as_large_and_predicts_the_same(tmp_path):
    main([str(OLD_RUN), str(tmp_path / "half.safetensors")])
    halved, loaded = tmp_path / "half.safetensors", load_weights(tmp_path / "half.safetensors")
    assert halved.stat().st_size < 0.6 * (OLD_RUN / "model.safetensors").stat().st_size
    assert {value.dtype for value in loaded.state.values() if value.dim() > 1} == {torch.float16}
    before, after = (Predictor(weights, "cpu")(OLD_RUN / "scene.png") for weights in (OLD_RUN, halved))
    torch.testing.assert_close(before.boxes, after.boxes, rtol=0, atol=0.5)
    torch.testing.assert_close(before.scores, after.scores, rtol=0, atol=5e-3)


def test_a_model_to_give_away_names_no_folder_of_its_run(tmp_path):
    weights = load_weights(OLD_RUN)
    weights.config.data.root, weights.config.data.options = "/home/me/CIHP", {"backgrounds": "/home/me/pictures"}
    save_state(tmp_path / "model.safetensors", weights.state, weights.config, weights.label_set)
    main([str(tmp_path / "model.safetensors"), str(tmp_path / "given.safetensors")])
    assert b"/home/me" in (tmp_path / "model.safetensors").read_bytes()
    assert b"/home/me" not in (tmp_path / "given.safetensors").read_bytes()


def test_a_weight_that_float16_does_not_hold_is_named(tmp_path):
    weights = load_weights(OLD_RUN)
    weights.state["rpn.conv.weight"][0, 0] = 1e5
    save_state(tmp_path / "model.safetensors", weights.state, weights.config, weights.label_set)
    with pytest.raises(SystemExit) as error:
        main([str(tmp_path / "model.safetensors"), str(tmp_path / "half.safetensors")])
    assert "beyond float16's range in rpn.conv.weight" in one_line(error)


# --- the command line


def test_the_command_line_refuses_in_one_line(imagenet, tmp_path):
    torch.save(imagenet, tmp_path / "resnet.pth")
    torch.save({"w": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save(fake(), tmp_path / "released.pth")

    def refused(source: str, *arguments: str) -> str:
        with pytest.raises(SystemExit) as error:
            main([str(tmp_path / source), *arguments])
        return one_line(error)

    out = str(tmp_path / "out.safetensors")
    assert "must end in .safetensors" in refused("resnet.pth", str(tmp_path / "out.pth"))
    assert "no file" in refused("absent.pth", out)
    assert "is the source itself" in refused("w.safetensors", str(tmp_path / "w.safetensors"))
    assert "neither a released checkpoint (Conv_Body.*) nor an ImageNet ResNet" in refused("other.pth", out)
    assert "--second-fold and --report are for released" in refused("resnet.pth", out, "--second-fold")
    assert "--pixels is for ImageNet ResNets" in refused("released.pth", out, "--pixels", "rgb-to-bgr255")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.pth", "released.pth", "resnet.pth"]
