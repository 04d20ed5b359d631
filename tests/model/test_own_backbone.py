"""Custom backbones by dotted name: examples/own_backbone.py and the errors for invalid ones."""

import pathlib

import pytest
import torch
from helpers.models import LOSSES, backbone, configured, scene, tiny, train

from rpcnn import Predictor
from rpcnn.config import Config
from rpcnn.labels import CIHP
from rpcnn.model.fpn import FPN
from rpcnn.runtime.checkpoint import save_weights


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Make a module with the given source importable; return its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source: str, name: str) -> str:
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        return name

    return write


@pytest.fixture
def examples(monkeypatch):
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[2])


@pytest.mark.parametrize("name", ["convnext_tiny", "swin_tiny"])
def test_torchvision_swin_and_convnext_work_as_backbones(name, examples):
    model = backbone(f"examples.own_backbone:{name}")
    features = model(torch.randn(1, 3, 64, 96))
    for feature, channels, stride in zip(features, model.channels, (4, 8, 16, 32), strict=True):
        assert feature.shape == (1, channels, 64 // stride, 96 // stride)
    pyramid = FPN(model.channels, channels=16, num_groups=4)(features)
    assert [list(level.shape[1:]) for level in pyramid] == [
        [16, 16, 24],
        [16, 8, 12],
        [16, 4, 6],
        [16, 2, 3],
        [16, 1, 2],
    ]


@pytest.mark.parametrize("name", ["convnext_tiny", "swin_tiny"])
def test_the_whole_network_trains_on_an_own_backbone(name, examples):
    model = tiny(backbone=f"examples.own_backbone:{name}")
    losses = train(model, [scene(1)])
    assert sorted(losses) == sorted(LOSSES)
    sum(losses.values()).backward()
    first = model.backbone.features[0][0].weight
    assert first.grad.abs().sum() > 0
    torch.optim.SGD(model.parameters(), 1e-3).step()
    with torch.inference_mode():
        assert torch.isfinite(model.eval()([scene(2)[0]])[0].boxes).all()


def test_an_own_backbone_must_have_four_channels(module):
    name = module(
        "from torch import nn\nclass Three(nn.Module):\n    channels = (8, 16, 32)\n"
        "class Words(nn.Module):\n    channels = 'abcd'\ndef number():\n    return 5\n",
        "own_channels",
    )
    with pytest.raises(ValueError, match=r"channels of own_channels:Three must be four integers, .* \(8, 16, 32\)"):
        backbone(f"{name}:Three")
    with pytest.raises(ValueError, match="C5, got 'abcd'"):
        backbone(f"{name}:Words")
    with pytest.raises(ValueError, match=r"must return a torch\.nn\.Module, got int"):
        backbone(f"{name}:number")


def test_an_own_backbone_must_return_what_it_promises(module):
    head = "import torch\nfrom torch import nn\nclass Base(nn.Module):\n    channels = (8, 8, 8, 8)\n"
    body = (
        "    def forward(self, x):\n        return [torch.zeros(1, {}, *[s // k for s in x.shape[2:]]) for k in {}]\n"
    )
    own = [
        f"class {n}(Base):\n{body.format(c, k)}" for n, c, k in (("Few", 8, (4, 8, 16)), ("Wide", 9, (4, 8, 16, 32)))
    ]
    name = module(head + "".join(own) + "def sized(width):\n    return Base()\n", "own_promises")
    with pytest.raises(
        ValueError, match=r"own_promises:Few must return C2\.\.C5, of an image \[1, 3, 64, 96\] maps of"
    ):
        backbone(f"{name}:Few")
    with pytest.raises(ValueError, match=r"\[1, 8, 16, 24\].*, got \[\[1, 9, 16, 24\]"):
        backbone(f"{name}:Wide")
    with pytest.raises(ValueError, match="own_promises:sized must be callable without arguments"):
        backbone(f"{name}:sized")


def test_imagenet_weights_need_a_built_in_backbone():
    with pytest.raises(ValueError, match=r"own\.net:make must load its own, got 'w\.pth'"):
        backbone("own.net:make", weights="w.pth")


def test_weights_do_not_import_the_backbone_that_they_name(tmp_path, examples):
    name = "examples.own_backbone:convnext_tiny"
    config = configured(Config(), backbone=name, backbone_weights="")
    save_weights(tmp_path / "model.safetensors", torch.nn.Linear(1, 1), config, CIHP)
    with pytest.raises(ValueError, match=f"model.backbone: the weights name {name}, whose code would run"):
        Predictor(tmp_path / "model.safetensors", "cpu")
    with pytest.raises(ValueError, match="weights: they do not fit the configuration"):  # imported and built
        Predictor(tmp_path / "model.safetensors", "cpu", backbone=name)
