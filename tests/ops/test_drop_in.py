"""The ops in torchvision's models: modules with its signatures, and the patch."""

import sys

import pytest
import torch
from helpers.layouts import needs_kernels

from rpcnn import ops
from rpcnn.ops import patch_torchvision

torchvision = pytest.importorskip("torchvision")
from torchvision.models.detection import (  # noqa: E402
    fasterrcnn_mobilenet_v3_large_320_fpn,
    maskrcnn_resnet50_fpn,
)

OPTIONS = {"weights": None, "weights_backbone": None, "num_classes": 3}


def images():
    return [torch.rand(3, 96, 128), torch.rand(3, 128, 80)]


def targets():
    boxes = torch.tensor([[8.0, 8, 60, 70], [30, 20, 70, 90]])
    masks = torch.zeros(2, 96, 128, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    first = {"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks}
    other = {"boxes": boxes, "labels": torch.tensor([2, 1]), "masks": masks.transpose(1, 2)[:, :, :80].contiguous()}
    return [first, other]


def model(make):
    torch.manual_seed(0)
    sizes = {"min_size": 96, "max_size": 128, "box_score_thresh": 0.0, "box_detections_per_img": 20}
    limits = {"rpn_pre_nms_top_n_test": 100, "rpn_post_nms_top_n_test": 50, "box_batch_size_per_image": 32}
    return make(**OPTIONS, **sizes, **limits)


MODELS = [fasterrcnn_mobilenet_v3_large_320_fpn, maskrcnn_resnet50_fpn]


@pytest.mark.parametrize("make", MODELS)
def test_detections_of_a_patched_model_are_equal(make):
    network, pictures = model(make).eval(), images()
    with torch.no_grad():
        theirs = network(pictures)
        with patch_torchvision():
            ours = network(pictures)
    for got, want in zip(ours, theirs, strict=True):
        assert len(want["boxes"]) > 5
        assert torch.equal(got["labels"], want["labels"])
        for key in want.keys() - {"labels"}:
            torch.testing.assert_close(got[key], want[key], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", MODELS)
def test_a_training_step_of_a_patched_model_is_equal(make):
    pictures, truth = images(), targets()

    def step():
        network = model(make).train()
        torch.manual_seed(1)  # of the samplers
        losses = network(pictures, truth)
        sum(losses.values()).backward()
        return losses, {name: p.grad for name, p in network.named_parameters() if p.grad is not None}

    losses, grads = step()
    with patch_torchvision():
        our_losses, our_grads = step()
    torch.testing.assert_close(our_losses, losses, rtol=1e-5, atol=1e-6)
    assert our_grads.keys() == grads.keys()
    for name, want in grads.items():
        error = (our_grads[name] - want).norm() / want.norm().clamp(min=1e-3)  # a bias before a batch norm has none
        assert error < 1e-3, f"{name}: {error:.1e}"


def functions():
    """What torchvision's modules hold under the names that are patched."""
    names = ("nms", "batched_nms", "roi_align", "_multiscale_roi_align")
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "torchvision"]
    return {(m.__name__, name): vars(m)[name] for m in modules for name in names if name in vars(m)}


def test_undoing_restores_every_place():
    before = functions()
    patched = patch_torchvision()
    assert torchvision.ops.nms is ops.nms and torchvision.ops.boxes.batched_nms is ops.batched_nms
    assert torchvision.models.detection.roi_heads.roi_align is ops.roi_align
    patched.close()
    assert functions() == before
    with pytest.raises(ZeroDivisionError), patch_torchvision():
        _ = 1 / 0
    assert functions() == before


def test_patching_twice_undoes_in_turn():
    before = functions()
    with patch_torchvision(), patch_torchvision():
        assert torchvision.ops.nms is ops.nms
    assert functions() == before


@pytest.mark.parametrize(("ratio", "aligned"), [(2, False), (-1, True)])
def test_the_module_roi_align_is_torchvisions(ratio, aligned):
    maps, boxes = torch.randn(2, 3, 16, 20), [torch.rand(5, 4) * 20 + torch.tensor([0.0, 0, 20, 20])] * 2
    arguments = ((3, 4), 0.5, ratio, aligned)
    ours, theirs = ops.RoIAlign(*arguments), torchvision.ops.RoIAlign(*arguments)
    torch.testing.assert_close(ours(maps, boxes), theirs(maps, boxes), rtol=1e-5, atol=1e-5)
    assert repr(ours) == repr(theirs)


# Scales of a usual pyramid; of torchvision's MobileNetV3, two of whose levels are alike; of one level.
@pytest.mark.parametrize("sides", [(32, 16, 8), (4, 4, 2), (8,)])
@pytest.mark.parametrize("options", [{}, {"canonical_scale": 60, "canonical_level": 3}])
def test_the_module_multi_scale_roi_align_is_torchvisions(sides, options):
    maps = {str(i): torch.randn(2, 3, side, side, requires_grad=True) for i, side in enumerate(sides)}
    other = maps | {"unused": torch.randn(2, 3, 1, 1)}
    corner, size = torch.rand(2, 40, 2) * 60, 2 ** (torch.rand(2, 40, 2) * 6)
    boxes = list(torch.cat([corner, corner + size], 2))
    arguments = (list(maps), 5, 2)
    ours = ops.MultiScaleRoIAlign(*arguments, **options)
    theirs = torchvision.ops.MultiScaleRoIAlign(*arguments, **options)
    got, want = (module(other, boxes, [(128, 128), (100, 128)]) for module in (ours, theirs))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    grads = [
        torch.autograd.grad(out.square().sum(), list(maps.values()), allow_unused=True, materialize_grads=True)
        for out in (got, want)
    ]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


def test_a_module_without_its_maps_names_them():
    module = ops.MultiScaleRoIAlign(["0", "1"], 7, 2)
    with pytest.raises(ValueError, match=r"MultiScaleRoIAlign: x must hold one of \['0', '1'\], got \['pool'\]"):
        module({"pool": torch.rand(1, 3, 8, 8)}, [torch.rand(1, 4)], [(32, 32)])


@needs_kernels
@pytest.mark.parametrize("pool", ["function", "module", "patched"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_boxes_of_600_images_take_their_own_image(dtype, pool):
    count = 600 if dtype == torch.bfloat16 else 4100
    maps = torch.arange(float(count))[:, None, None, None].expand(-1, 1, 4, 4).contiguous()  # image n holds n
    boxes = [torch.tensor([[0.0, 0, 4, 4]], dtype=dtype)] * count
    if pool == "function":
        pooled = ops.roi_align(maps, boxes, 1)
    elif pool == "module":
        pooled = ops.MultiScaleRoIAlign(["0"], 1, 2)({"0": maps}, boxes, [(4, 4)] * count)
    else:
        with patch_torchvision():
            pooled = torchvision.ops.MultiScaleRoIAlign(["0"], 1, 2)({"0": maps}, boxes, [(4, 4)] * count)
    assert torch.equal(pooled.flatten(), torch.arange(float(count)))
