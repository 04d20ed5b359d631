"""rpcnn.model.fuse keeps the plain network's outputs, gradients, parameters, names and hooks."""

import copy

import pytest
import torch
from helpers.models import TINY, backbone, randomized, scene, tiny, train
from torch.utils._python_dispatch import TorchDispatchMode

from rpcnn.model.frozen_norm import FrozenBatchNorm2d
from rpcnn.model.fuse import FoldedConv2d, FoldedNorm, FusedStage, SplitConv2d, fuse
from rpcnn.model.layers import ConvReLU
from rpcnn.model.parsing_head import ParsingHead


def plain_and_fused(model):
    return model, fuse(copy.deepcopy(model))


def values_and_gradients(model, *inputs):
    """Outputs, and the gradient of a function of all outputs for every trained parameter."""
    out = model(*inputs)
    out = [out] if isinstance(out, torch.Tensor) else list(out)
    trained = [p for p in model.parameters() if p.requires_grad]
    return out, torch.autograd.grad(sum(o.square().sum() for o in out), trained)


@pytest.mark.parametrize("groups", [1, 4])
def test_a_folded_norm_keeps_values_and_gradients(groups):
    conv = torch.nn.Conv2d(4, 8, 3, stride=2, padding=2, dilation=2, groups=groups, bias=False)
    sequence = torch.nn.Sequential(torch.nn.Sequential(conv, FrozenBatchNorm2d(8)), torch.nn.ReLU())
    plain, fused = plain_and_fused(randomized(sequence))
    assert isinstance(fused[0][0], FoldedConv2d)
    x = torch.randn(2, 4, 9, 11)
    torch.testing.assert_close(values_and_gradients(fused, x), values_and_gradients(plain, x))


class Gradients(TorchDispatchMode):
    """Records the dtype of every gradient of a convolution with a stride."""

    def __init__(self):
        super().__init__()
        self.dtypes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.convolution_backward.default and max(args[4]) > 1:
            self.dtypes.append(args[0].dtype)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("norm", [FrozenBatchNorm2d, torch.nn.BatchNorm2d])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_strided_depthwise_gradients_are_float32_in_half_precision(dtype, norm):
    conv = torch.nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False)
    plain, fused = plain_and_fused(randomized(torch.nn.Sequential(conv, norm(8))).eval())
    x = torch.randn(2, 8, 9, 11, requires_grad=True)
    found = []
    for model in plain, fused:
        with Gradients() as recorded, torch.autocast("cpu", dtype):
            out = model(x.to(dtype))
            found.append((out, *torch.autograd.grad(out.square().sum(), [x, model[0].weight])))
    assert recorded.dtypes == [torch.float32]
    assert found[1][0].dtype == dtype and [g.dtype for g in found[0][1:]] == [g.dtype for g in found[1][1:]]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a.float(), b.float(), rtol=0.02, atol=0.02 * float(b.abs().max()))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2"])
def test_every_frozen_norm_of_our_backbones_is_folded(name):
    norms = [m for m in fuse(backbone(name, width=0.25)).modules() if isinstance(m, FrozenBatchNorm2d)]
    assert norms and all(isinstance(norm, FoldedNorm) for norm in norms)


class BackToFront(torch.nn.Module):
    """Define a convolution before a norm that runs first."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(4, 4, 3, bias=False), FrozenBatchNorm2d(4)

    def forward(self, x):
        return self.conv(self.norm(x))


def test_norms_that_do_not_follow_a_convolution_stay():
    with_bias = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 1), FrozenBatchNorm2d(4))
    plain, fused = plain_and_fused(randomized(torch.nn.Sequential(BackToFront(), with_bias)))
    assert not any(isinstance(m, FoldedNorm) for m in fused.modules())
    x = torch.randn(1, 4, 6, 6)
    assert torch.equal(fused(x), plain(x))


def test_blocks_with_another_activation_stay():
    body = backbone("resnet18", width=0.25).body
    body.layer1[1].relu = torch.nn.SiLU()
    plain, fused = plain_and_fused(randomized(body.layer1))
    x = torch.randn(1, 16, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), plain(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2"])
@pytest.mark.parametrize("norm", ["frozen_bn", "bn"])
def test_fused_backbone_equals_the_plain_one(name, norm):
    plain, fused = plain_and_fused(randomized(backbone(name, norm=norm, width=0.25)))
    x = torch.randn(2, 3, 64, 96).to(memory_format=torch.channels_last)
    expected = [feature.detach() for feature in plain(x)]
    tolerance = {"rtol": 1e-4, "atol": 1e-5 * max(float(feature.max()) for feature in expected)}
    torch.testing.assert_close([feature.detach() for feature in fused(x)], expected, **tolerance)
    with torch.inference_mode():
        torch.testing.assert_close(fused(x), expected, **tolerance)


def test_fusing_keeps_parameters_and_is_idempotent():
    model = backbone("resnet50", width=0.25)
    state, parameters = dict(model.state_dict()), dict(model.named_parameters())
    classes = [type(m) for m in fuse(model).modules()]
    assert FusedStage in classes
    assert classes == [type(m) for m in fuse(model).modules()]
    assert list(model.state_dict()) == list(state)
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())


def test_a_copy_applies_its_own_norms():
    fused = fuse(randomized(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1, bias=False), FrozenBatchNorm2d(4))))
    x = torch.randn(1, 3, 2, 2)
    before = fused(x)
    torch.nn.init.zeros_(copy.deepcopy(fused)[1].weight)
    assert torch.equal(fused(x), before)


def frozen_pair():
    """A convolution without gradient and its norm, after a first call."""
    pair = fuse(randomized(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1, bias=False), FrozenBatchNorm2d(4))))
    pair.requires_grad_(False)(torch.ones(1, 3, 2, 2))
    return pair


def plain_output(pair, x):
    conv, norm = pair
    return FrozenBatchNorm2d.forward(norm, torch.nn.functional.conv2d(x, conv.weight))


def test_what_is_frozen_is_folded_once():
    conv = frozen_pair()[0]
    weight, bias = conv.folded()
    assert conv.folded()[0] is weight and conv.folded()[1] is bias
    with torch.inference_mode():
        assert conv.folded()[0] is weight


CHANGES = {
    "load_state_dict": lambda pair: pair.load_state_dict({k: 2 * v for k, v in pair.state_dict().items()}),
    "assign": lambda pair: pair.load_state_dict({k: 2 * v for k, v in pair.state_dict().items()}, assign=True),
    "in place": lambda pair: torch.nn.init.constant_(pair[0].weight, 3.0),
    "norm": lambda pair: torch.nn.init.constant_(pair[1].weight, 3.0),
    "shift": lambda pair: torch.nn.init.constant_(pair[1].bias, 3.0),
    "data": lambda pair: setattr(pair[0].weight, "data", 3 * pair[0].weight.data),
    "data in place": lambda pair: (pair[0].weight.data.mul_(3), pair.eval()),
    "to": lambda pair: pair.double().float().to(memory_format=torch.channels_last),
    "replace": lambda pair: setattr(pair[0], "weight", torch.nn.Parameter(3 * pair[0].weight.detach())),
    "copy": lambda pair: torch.nn.init.constant_(copy.deepcopy(pair)[0].weight, 3.0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_weights_is_noticed(change):
    pair, x = frozen_pair(), torch.randn(1, 3, 5, 5)
    CHANGES[change](pair)
    torch.testing.assert_close(pair(x), plain_output(pair, x))


def test_an_optimizer_step_between_predictions_is_noticed():
    pair, x = frozen_pair(), torch.randn(1, 3, 5, 5)
    pair[0].requires_grad_(True)
    optimizer = torch.optim.SGD([pair[0].weight], lr=1.0)
    for _ in range(2):
        with torch.no_grad():
            torch.testing.assert_close(pair(x), plain_output(pair, x))
        pair(x).sum().backward()
        optimizer.step()


def test_weights_of_a_function_call_are_not_kept():
    pair, x = frozen_pair(), torch.randn(1, 3, 5, 5)
    others = {name: 2 * value for name, value in pair.named_parameters()}
    assert not torch.equal(torch.func.functional_call(pair, others, (x,)), pair(x))
    torch.testing.assert_close(pair(x), plain_output(pair, x))


def test_what_is_kept_is_neither_saved_nor_copied(tmp_path):
    pair = frozen_pair()
    torch.save(pair, tmp_path / "pair.pt")
    for other in (copy.deepcopy(pair), torch.load(tmp_path / "pair.pt", weights_only=False)):
        assert all(kept.result is None for kept in other[0].kept)


@pytest.mark.parametrize("trained", [(), ("0.weight",), ("1.weight",), ("0.weight", "1.bias")], ids=str)
def test_folding_under_autocast_rounds_once(trained):
    pair, x = frozen_pair(), torch.randn(2, 3, 5, 5)
    for name in trained:
        pair.get_parameter(name).requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        y = pair(x)
        weight = pair[0].weight * pair[1].weight[:, None, None, None]
        expected = torch.nn.functional.conv2d(x, weight, pair[1].bias)
    assert y.dtype == torch.bfloat16 and torch.equal(y, expected)
    parameters = [pair.get_parameter(name) for name in trained]
    if trained:
        got, want = (torch.autograd.grad(out.float().square().sum(), parameters) for out in (y, expected))
        assert all(g.dtype == torch.float32 for g in got) and all(map(torch.equal, got, want))


@pytest.mark.parametrize("place", ["1", "0.downsample"])
def test_a_hook_keeps_the_map_that_it_saw(place):
    stage = fuse(backbone("resnet50", width=0.25)).eval().body.layer1
    seen = []
    stage.get_submodule(place).register_forward_hook(lambda _, inputs, output: seen.append((output, output.clone())))
    with torch.inference_mode():
        x = torch.randn(1, 16, 8, 8)
        before = x.clone()
        stage(x)
    assert torch.equal(*seen[0]) and torch.equal(x, before)


@pytest.mark.parametrize("place", ["1.bn2", "2.relu"])
def test_a_hook_in_a_fused_block_gets_plain_values(place):
    seen = []
    for model in plain_and_fused(randomized(backbone("resnet50", width=0.25)).body.layer1):
        model.get_submodule(place).register_forward_hook(lambda _, inputs, output: seen.append(output.clone()))
        with torch.inference_mode():
            model(torch.ones(1, 16, 8, 8))
    plain, fused = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-4)


def test_a_hook_keeps_the_input_that_it_saw():
    stage = fuse(backbone("resnet50", width=0.25)).eval().body.layer1
    seen = []
    stage[2].register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0], inputs[0].clone())))
    with torch.inference_mode():
        stage(torch.randn(1, 16, 8, 8))
    assert torch.equal(*seen[0])


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("channels_last", [False, True])
def test_fused_conv_relu_is_equal_with_and_without_grad(kernel, channels_last):
    plain, fused = plain_and_fused(ConvReLU(8, 6, kernel, stride=2, padding=2 * (kernel // 2), dilation=2))
    x = torch.randn(2, 8, 9, 13)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    expected = plain(x).detach()
    torch.testing.assert_close(fused(x).detach(), expected)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), expected)
        assert fused(x).stride() == expected.stride()
        assert fused(x[:0]).shape == (0, *expected.shape[1:])


def test_the_split_convolution_keeps_values_and_gradients():
    head = ParsingHead(*(8, 16, 5), aspp_channels=8, num_convs=1, resolution=8, output_size=32, samples=4, num_groups=4)
    plain, fused = plain_and_fused(head)
    assert isinstance(fused.reduce[0], SplitConv2d)
    x = torch.randn(3, 8, 8, 8)
    torch.testing.assert_close(values_and_gradients(fused, x), values_and_gradients(plain, x), rtol=1e-3, atol=1e-3)


def test_prediction_between_steps_does_not_change_training():
    scenes, losses = [scene(1), scene(2)], []
    for predicts in (False, True):
        model = tiny(backbone_norm="frozen_bn", freeze_at=2)
        if predicts:
            with torch.inference_mode():
                model.eval()([scene(3)[0]])
        torch.manual_seed(1)
        losses.append(train(model, scenes))
        sum(losses[-1].values()).backward()
    assert TINY["backbone"] == "resnet18" and isinstance(model.backbone.body.layer1, FusedStage)
    assert all(torch.equal(losses[0][key], losses[1][key]) for key in losses[0])
