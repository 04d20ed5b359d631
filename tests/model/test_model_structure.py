"""Parameter counts and shapes of the paper's and the released network, on the meta device."""

import dataclasses

import pytest
import torch
from helpers.models import configured

from rpcnn.config import Config
from rpcnn.model import RPRCNN
from rpcnn.model.build import build_model
from rpcnn.runtime.optimizer import parameter_groups
from rpcnn.variant import RELEASED as RELEASED_CODE

RELEASED = dataclasses.asdict(RELEASED_CODE)


def build(num_classes: int = 20, **arguments) -> RPRCNN:
    with torch.device("meta"):
        return build_model(configured(Config(), **arguments), num_classes)


def count(module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("num_classes", "gse", "parsing", "prsn", "total"),
    [
        (20, 3_287_060, 13_216_276, 859_649, 58_717_314),
        (59, 3_297_083, 13_535_803, 904_577, 59_091_792),
    ],
)
def test_released_network_has_its_checkpoints_parameter_count(num_classes, gse, parsing, prsn, total):
    model = build(num_classes, **RELEASED)
    assert count(model.backbone) == 23_508_032
    assert count(model.fpn) == 3_346_432
    assert count(model.gse) == gse
    assert count(model.rpn) == 593_935
    assert count(model.box_head) == 13_905_930
    assert count(model.parsing_head) == parsing
    assert count(model.prsn) == prsn
    assert count(model) == total
    assert sum(p.numel() for p in model.parameters() if not p.requires_grad) == 275_520


def test_paper_network_lacks_only_the_fifth_convolution():
    # 256 * 256 * 9 weights and 2 * 256 of its norm are the released code's alone; strides have no weights.
    assert count(build()) == 58_717_314 - (256 * 256 * 9 + 2 * 256)


def test_optimizer_groups():
    model = build(**RELEASED)
    weights, biases, norms = parameter_groups(model, 1e-4)
    assert [len(g["params"]) for g in (weights, biases, norms)] == [88, 47, 29]
    assert [(g["weight_decay"], g["lr_scale"]) for g in (weights, biases, norms)] == [(1e-4, 1), (0, 2), (0, 1)]
    assert sum(p.numel() for g in (weights, biases, norms) for p in g["params"]) == 58_441_794
    assert all(p.dim() == 1 for p in norms["params"])


def test_trainable_batch_norm_weights_do_not_decay():
    model = build(backbone="resnet18", backbone_norm="bn", freeze_at=0)
    assert all(p.dim() > 1 for p in parameter_groups(model, 1e-4)[0]["params"])


def test_shapes_up_to_the_enhanced_pyramid():
    model = build()
    with torch.device("meta"):
        c = model.backbone(torch.zeros(1, 3, 800, 1216))
        p = model.fpn(c)
        fused = p[0]
        logits = model.gse.logits(model.gse.convs(fused))
    assert [list(f.shape[1:]) for f in c] == [[256, 200, 304], [512, 100, 152], [1024, 50, 76], [2048, 25, 38]]
    sizes = [[200, 304], [100, 152], [50, 76], [25, 38], [13, 19]]
    assert [list(f.shape[1:]) for f in p] == [[256, *size] for size in sizes]
    assert list(logits.shape) == [1, 20, 200, 304]


def test_rpn_sees_the_anchors_of_every_level():
    sizes = [(200, 304), (100, 152), (50, 76), (25, 38), (13, 19)]
    for levels, total in ((4, 242_250), (5, 242_250 + 741)):
        model = build(pyramid_levels=levels)
        with torch.device("meta"):
            objectness, deltas, anchors = model.rpn([torch.zeros(1, 256, *s) for s in sizes[:levels]])
        assert len(anchors) == sum(o.shape[1] for o in objectness) == total
        assert sum(d.shape[1] for d in deltas) == total


@pytest.mark.parametrize(("num_classes", "stride"), [(20, 1), (59, 2)])
def test_shapes_of_the_parsing_branch(num_classes, stride):
    model = build(num_classes, prsn_stride=stride)
    with torch.device("meta"):
        x = torch.zeros(3, 256, 32, 32)
        feature, logits = model.parsing_head(x)
        iou = model.prsn(feature, logits)
        hidden = model.prsn.conv2(model.prsn.conv1(torch.zeros(3, 512 + num_classes, 32, 32)))
    assert model.parsing_head.aspp.out_channels == model.parsing_head.reduce[0].in_channels == 1280
    assert list(feature.shape) == [3, 512, 32, 32]
    assert list(logits.shape) == [3, num_classes, 128, 128]
    assert list(hidden.shape) == [3, 128, 32 // stride, 32 // stride]
    assert list(iou.shape) == [3]


def test_contradictory_options_raise():
    with pytest.raises(ValueError, match="RPN: anchor_sizes must hold one size per level, got 4 for 5"):
        build(pyramid_levels=5, anchor_sizes=(32, 64, 128, 256))
    with pytest.raises(ValueError, match="ParsingHead: output_size must be a multiple of resolution, got 100 and 32"):
        build(parsing_output=100)
    with pytest.raises(ValueError, match="PRSN: input must be"):
        build(prsn_input="labels")
