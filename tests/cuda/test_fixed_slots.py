"""Fixed-size (padded) results, as on a GPU, give the same losses and detections as exact sizes."""

import pytest
import torch
from helpers.models import box_head, permissive, scene, tiny, train
from helpers.released_variant import released

from rpcnn.box_convention import PIXELS
from rpcnn.inference import soft_nms as soft_nms_module
from rpcnn.model import box_head as box_head_module
from rpcnn.model import boxes as boxes_module
from rpcnn.model import rpn as rpn_module
from rpcnn.model.box_head import SampledRoIs
from rpcnn.model.boxes import BACKGROUND, IGNORED

both = pytest.mark.parametrize("variant", [tiny, released], ids=["paper", "released"])


@pytest.fixture
def fixed_sizes(monkeypatch):
    """Make the CPU use fixed-size results, as an accelerator does."""

    def apply():
        for module in (boxes_module, rpn_module, box_head_module, soft_nms_module):
            monkeypatch.setattr(module, "has_exact_sizes", lambda _: False)

    return apply


def close(got, expected):
    assert got.keys() == expected.keys()
    for name in got:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-6, atol=1e-7)


@both
def test_proposals_are_filled_up_with_empty_boxes(fixed_sizes, variant):
    model = variant(rpn_top_train=5000)
    model.rpn.nms_threshold = 0.3
    pyramid = model.fpn(model.backbone(torch.randn(2, 3, 96, 128)))
    levels, sizes = model.rpn(pyramid[: len(model.rpn.strides)]), [(96, 128), (64, 128)]
    want = model.rpn.propose(*levels, sizes)
    fixed_sizes()
    for got, expected in zip(model.rpn.propose(*levels, sizes), want, strict=True):
        assert len(got) > len(expected) > 0
        assert torch.equal(got[: len(expected)], expected) and (got[len(expected) :] == 0).all()


@pytest.mark.parametrize("people", [0, 2])
def test_rpn_loss(fixed_sizes, people):
    model, target = tiny(), scene(3, people=people)[1]
    levels = model.rpn(model.fpn(model.backbone(torch.randn(1, 3, 96, 128))))
    loss = lambda: model.rpn.loss(*levels, [(96, 128)], [target], [torch.Generator().manual_seed(0)])
    want = loss()
    fixed_sizes()
    for name, (total, count) in loss().items():
        torch.testing.assert_close(total, want[name][0])
        assert count == want[name][1]


def test_empty_slots_do_not_change_the_box_loss():
    head = box_head()
    target = {"boxes": torch.tensor([[0.0, 0, 20, 20], [40, 40, 60, 60]])}
    boxes = torch.tensor([[1.0, 1, 19, 22], [80, 80, 90, 90], [0, 0, 0, 0], [41, 40, 66, 60], [0, 0, 0, 0]])
    people = torch.tensor([0, BACKGROUND, IGNORED, 1, IGNORED])
    logits, deltas = torch.randn(5, 2, requires_grad=True), torch.randn(5, 2, 4, requires_grad=True)
    there = people != IGNORED
    got = head.loss(logits, deltas, [SampledRoIs(boxes, people)], [target])
    expected = head.loss(logits[there], deltas[there], [SampledRoIs(boxes[there], people[there])], [target])
    close({k: v[0] for k, v in got.items()}, {k: v[0] for k, v in expected.items()})
    assert got["box_class"][1] == expected["box_class"][1] == 3
    for g in torch.autograd.grad(sum(v[0] for v in got.values()), [logits, deltas]):
        assert g.isfinite().all() and (g[~there] == 0).all()


def test_empty_proposals_are_never_sampled(fixed_sizes):
    fixed_sizes()
    head = box_head(samples=8, positive_fraction=0.5)
    target = {"boxes": torch.tensor([[0.0, 0, 20, 20]])}
    proposals = torch.cat([torch.tensor([[80.0, 80, 90, 90]]), torch.zeros(20, 4)])
    (rois,) = head.sample([proposals], [target], [None])
    assert rois.people.tolist() == [0, BACKGROUND] + [IGNORED] * 6


def test_empty_slots_of_the_parsing_branch_are_ignored(fixed_sizes):
    fixed_sizes()
    model, target = tiny(), scene(3, people=2)[1]
    people = torch.tensor([1, BACKGROUND, IGNORED, IGNORED])
    rois = [SampledRoIs(torch.cat([target["boxes"][1:], torch.tensor([[5.0, 5, 9, 9]]), torch.zeros(2, 4)]), people)]
    boxes, labels = model.parsing_head.sample(rois, [(96, 128)], [target], [None])
    assert len(boxes[0]) == len(labels) == min(4, model.parsing_head.samples)
    assert (labels[0] != 255).any() and (labels[1:] == 255).all()


@both
@pytest.mark.parametrize("people", [(2, 1), (0, 2), (0, 0)], ids=str)
def test_a_whole_step_is_finite_and_counts_the_same_people(fixed_sizes, people, variant):
    fixed_sizes()
    model = variant().train()
    scenes = [scene(seed, people=n) for seed, n in enumerate(people)]
    losses = train(model, scenes)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert any(people) == (losses["parsing"] > 0)


@both
@pytest.mark.parametrize("min_score", [0.0, 0.5, 1.0])
def test_detections_are_equal_and_exact(fixed_sizes, variant, min_score):
    model = permissive(variant)
    model.box_head.min_score = min_score
    images = [scene(seed, people=n)[0] for seed, n in enumerate((2, 0, 3))]
    expected = model(images)
    fixed_sizes()
    assert any(len(found.boxes) for found in expected) == (min_score < 1)
    for got, want in zip(model(images), expected, strict=True):
        # Not bit-equal: matrix products of another number of RoIs sum in another order.
        torch.testing.assert_close(got.boxes, want.boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(got.scores, want.scores, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got.person_probs, want.person_probs, rtol=1e-4, atol=1e-5)


def test_empty_slots_are_never_detected(fixed_sizes):
    """Also where clipping makes a pixel of an empty box, as in the released code."""
    fixed_sizes()
    head = box_head(boxes=PIXELS, min_score=0.0)
    proposals = torch.cat([torch.tensor([[10.0, 10, 30, 40]]), torch.zeros(5, 4)])
    logits, deltas = torch.tensor([[0.0, 1.0]] + [[0.0, 9.0]] * 5), torch.zeros(6, 2, 4)
    ((boxes, scores),) = head.detect(logits, deltas, [proposals], [(64, 96)])
    torch.testing.assert_close(boxes, proposals[:1])
    assert len(scores) == 1


@pytest.mark.parametrize("method", ["linear", "gaussian"])
@pytest.mark.parametrize("max_keep", [None, 7])
def test_soft_nms(fixed_sizes, method, max_keep):
    corners = 60 * torch.rand(40, 2)
    boxes, scores = torch.cat([corners, corners + 5 + 40 * torch.rand(40, 2)], dim=1), torch.rand(40)
    select = lambda: soft_nms_module.soft_nms(boxes, scores, method=method, max_keep=max_keep, min_score=0.05)
    expected = select()
    fixed_sizes()
    assert all(map(torch.equal, select(), expected))
    assert 0 < len(expected[0]) < 40
