"""The modules of Fig. 2, each against its formula in plain PyTorch or values computed by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers.models import box_head

from rpcnn import ops
from rpcnn.model import losses as loss_terms
from rpcnn.model.box_head import PERSON
from rpcnn.model.boxes import box_iou
from rpcnn.model.fpn import FPN
from rpcnn.model.gse_fpn import GSEFPN
from rpcnn.model.losses import label_cross_entropy, normalize, semantic_target, squared_error
from rpcnn.model.parsing_head import NonLocal, ParsingHead
from rpcnn.model.parsing_targets import crop_parsing
from rpcnn.model.prsn import PRSN
from rpcnn.model.released import half_positive_error
from rpcnn.model.rpn import RPN


def pyramid(channels: int = 16, height: int = 24, width: int = 32, images: int = 2) -> list[torch.Tensor]:
    """P2..P6 of an image of 4 height x 4 width."""
    sizes = [(-(-height // 2**i), -(-width // 2**i)) for i in range(5)]
    return [torch.randn(images, channels, *size) for size in sizes]


# FPN and GSE-FPN


def test_fpn_adds_coarse_to_fine_and_subsamples_p6():
    fpn = FPN((4, 6, 8, 10), channels=16, num_groups=4)
    c = [torch.randn(1, n, 32 // 2**i, 32 // 2**i) for i, n in enumerate((4, 6, 8, 10))]
    lateral = [block(x) for block, x in zip(fpn.lateral, c, strict=True)]
    p4 = fpn.output[2](lateral[2] + lateral[3].repeat_interleave(2, 2).repeat_interleave(2, 3))
    got = fpn(c)
    torch.testing.assert_close(got[2], p4)
    assert torch.equal(got[4], got[3][:, :, ::2, ::2])
    assert (got[0] < 0).any()  # no ReLU


def test_gse_equals_upsampling_before_the_convolution():
    gse = GSEFPN(16, 5, num_groups=4, num_convs=2)
    p = pyramid()
    for parameter in gse.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        # The paper's order: up-sample, 1x1 convolution, norm, ReLU, sum.
        fused = sum(
            block(F.interpolate(x, size=(24, 32), mode="bilinear", align_corners=True))
            for block, x in zip(gse.lateral, p, strict=True)
        )
        feature = gse.convs(fused)
        logits, enhanced = gse(p)
        torch.testing.assert_close(logits, gse.logits(feature), rtol=1e-4, atol=1e-5)
        for s, x in zip(enhanced, p, strict=True):
            down = F.interpolate(feature, size=x.shape[-2:], mode="bilinear", align_corners=False)
            torch.testing.assert_close(s, x + down, rtol=1e-4, atol=1e-5)


def test_released_gse_adds_a_further_block_to_four_levels():
    gse = GSEFPN(16, 5, num_groups=4, num_convs=1, levels=4, embedding=True)
    p = pyramid()
    with torch.no_grad():
        logits, enhanced = gse(p)
        feature = (enhanced[0] - p[0]).detach()  # at stride 4 the added map is the embedding itself
        gse.embedding[1].weight.zero_()
        assert len(enhanced) == 4 and feature.abs().max() > 0
        again, plain = gse(p)
    torch.testing.assert_close(again, logits)  # the segmentation branch does not use the embedding
    torch.testing.assert_close(plain[0], p[0])


# RPN and box head


def rpn(**arguments) -> RPN:
    options = {"top_train": 2000, "top_test": 1000, "ignore_border_anchors": True} | arguments
    return RPN(16, strides=(4, 8, 16, 32, 64), anchor_sizes=(16, 32, 64, 128, 256), **options)


def test_proposals_are_clipped_and_limited_per_image():
    network = rpn(top_test=30, nms_threshold=0.5).eval()
    torch.nn.init.normal_(network.objectness.weight, std=1.0)
    maps = pyramid()
    sizes = [(96, 128), (80, 100)]
    proposals = network.propose(*network(maps), sizes)
    for boxes, (height, width) in zip(proposals, sizes, strict=True):
        assert 0 < len(boxes) <= 30
        assert boxes.min() >= 0 and (boxes.amax(0) <= torch.tensor([width, height, width, height])).all()
    alone = network.propose(*network([m[1:] for m in maps]), sizes[1:])[0]
    torch.testing.assert_close(proposals[1], alone, rtol=1e-4, atol=1e-3)


def test_rpn_loss_excludes_undecided_and_border_anchors():
    maps, sizes = pyramid(images=1), [(96, 128)]
    people = {"boxes": torch.tensor([[30.0, 30, 62, 62]])}
    network = rpn(samples=10_000)
    objectness, deltas, anchors = network(maps)
    inside = ((anchors >= 0) & (anchors <= torch.tensor([128.0, 96, 128, 96]))).all(1)
    ious = box_iou(people["boxes"], anchors)[0]
    undecided = (ious >= 0.3) & (ious < 0.7) & (ious < ious.max())
    terms = network.loss(objectness, deltas, anchors, sizes, [people], [None])
    assert terms["rpn_objectness"][1] == int((inside & ~undecided).sum()) < len(anchors)
    network.ignore_border_anchors = False
    terms = network.loss(objectness, deltas, anchors, sizes, [people], [None])
    assert terms["rpn_objectness"][1] == int((~undecided).sum())
    assert terms["rpn_box"][0] > 0


def test_perfect_rpn_has_no_loss():
    maps, sizes = pyramid(images=1), [(96, 128)]
    network = rpn()
    _, deltas, anchors = network(maps)
    counts = [d.shape[1] for d in deltas]
    box = anchors[counts[0] + counts[1] // 2][None]  # the person is an anchor of the second level
    ious = box_iou(box, anchors)[0]
    logits = torch.where(ious == ious.max(), 50.0, -50.0).split(counts)
    zero = [torch.zeros_like(d) for d in deltas]
    terms = network.loss([x[None] for x in logits], zero, anchors, sizes, [{"boxes": box}], [None])
    assert terms["rpn_objectness"][0] < 1e-6
    assert terms["rpn_box"][0] < 1e-6


def test_boxes_read_the_level_of_their_size():
    head = box_head(resolution=1)
    head.fc6 = torch.nn.Identity()
    head.fc7 = torch.nn.Identity()
    head.classes = head.deltas = torch.nn.Linear(1, 8, bias=False)
    torch.nn.init.ones_(head.classes.weight)
    maps = [torch.full((1, 1, 2048 // s, 2048 // s), float(level)) for level, s in enumerate((4, 8, 16, 32, 64), 2)]
    # floor(4 + log2(side / 224)): an exact power belongs to the coarser level.
    sides = {10: 2, 111: 2, 112: 3, 223: 3, 224: 4, 447: 4, 448: 5, 895: 5, 896: 6, 1900: 6}
    boxes = torch.tensor([[50.0, 50, 50 + side, 50 + side] for side in sides])
    levels, _ = head(maps, [boxes])
    assert levels[:, 0].tolist() == list(sides.values())


def test_box_sampling_adds_ground_truth_to_the_proposals():
    head = box_head(samples=8, positive_fraction=0.5)
    target = {"boxes": torch.tensor([[0.0, 0, 20, 20], [40, 40, 60, 60]])}
    # IoU 0.5 exactly with person 0, below 0.5 with person 1, and far away.
    proposals = torch.tensor([[0.0, 0, 20, 10], [40, 40, 60, 49], [80, 80, 90, 90]])
    (rois,) = head.sample([proposals], [target], [torch.Generator().manual_seed(0)])
    found = {tuple(b): p for b, p in zip(rois.boxes.tolist(), rois.people.tolist(), strict=True)}
    assert found == {
        (0, 0, 20, 10): 0,
        (40, 40, 60, 49): -1,
        (80, 80, 90, 90): -1,
        (0, 0, 20, 20): 0,
        (40, 40, 60, 60): 1,
    }
    assert (rois.people >= 0).tolist() == [True] * 3 + [False] * 2


def test_box_loss_by_hand():
    head = box_head(samples=4)
    target = {"boxes": torch.tensor([[0.0, 0, 20, 20]])}
    rois = head.sample([torch.tensor([[50.0, 50, 60, 60]])], [target], [None])
    logits = torch.zeros(2, 2)
    deltas = torch.zeros(2, 2, 4)
    # One positive, equal to the ground-truth box: target deltas 0. One delta is off by 2: smooth L1 gives 2 - 0.5.
    deltas[0, PERSON, 0] = 2.0
    deltas[:, 0] = 77.0  # deltas of background do not count
    terms = head.loss(logits, deltas, rois, [target])
    assert float(terms["box_regression"][0]) == pytest.approx(1.5)
    assert float(terms["box_class"][0]) == pytest.approx(2 * math.log(2))
    assert terms["box_class"][1] == terms["box_regression"][1] == 2


def test_detection_thresholds_and_limit():
    head = box_head(max_detections=2)
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11], [30, 0, 40, 10], [50, 0, 60, 10], [70, 0, 80, 10]])
    scores = torch.tensor([0.8, 0.9, 0.04, 0.3, 0.2])
    logits = torch.stack([torch.zeros(5), torch.log(scores / (1 - scores))], dim=1)
    (found,) = head.detect(logits, torch.zeros(5, 2, 4), [boxes], [(20, 100)])
    assert found[0].tolist() == [[0, 0, 10, 11], [50, 0, 60, 10]]
    assert found[1].tolist() == pytest.approx([0.9, 0.3])


def test_proposals_of_equal_score_keep_the_earlier():
    head = box_head(max_detections=2)
    boxes = torch.tensor([[30.0, 0, 40, 10], [0, 0, 10, 10], [50, 0, 60, 10], [70, 0, 80, 10]])
    logits = torch.tensor([[0.0, 1.0], [0, 2], [0, 1], [0, 1]])
    (found,) = head.detect(logits, torch.zeros(4, 2, 4), [boxes], [(20, 100)])
    assert found[0].tolist() == [[0, 0, 10, 10], [30, 0, 40, 10]]


# Parsing branch


def test_crop_takes_the_nearest_pixel_of_the_person_map():
    parsing = torch.randint(0, 20, (3, 37, 53), dtype=torch.uint8)
    boxes = torch.tensor([[3.3, 4.7, 31.2, 30.1], [-5.0, -3, 20, 60], [40, 30, 53, 37], [10, 10, 10, 10]])
    people = torch.tensor([2, 0, 1, 1])
    size = 16
    crops = crop_parsing(parsing, people, boxes, size)
    for r, (person, (x1, y1, x2, y2)) in enumerate(zip(people.tolist(), boxes.tolist(), strict=True)):
        for i in range(size):
            for j in range(size):
                row = min(max(math.floor(y1 + (i + 0.5) / size * (y2 - y1)), 0), 36)
                column = min(max(math.floor(x1 + (j + 0.5) / size * (x2 - x1)), 0), 52)
                assert crops[r, i, j] == parsing[person, row, column]


def test_non_local_is_softmax_attention_over_the_pooled_map():
    block = NonLocal(8, num_groups=2)
    for conv in (block.query, block.key, block.value, block.out):
        torch.nn.init.normal_(conv.weight, std=0.5)
    x = torch.randn(2, 8, 6, 6)
    pooled = F.max_pool2d(x, 2)
    query, key, value = block.query(x).flatten(2), block.key(pooled).flatten(2), block.value(pooled).flatten(2)
    weights = torch.softmax(torch.einsum("ncq,nck->nqk", query, key) / 8**0.5, dim=2)
    attended = torch.einsum("nqk,nck->ncq", weights, value).reshape(2, 8, 6, 6)
    torch.testing.assert_close(block(x), x + block.norm(block.out(attended)), rtol=1e-4, atol=1e-5)


def test_parsing_head_treats_each_roi_alone():
    head = ParsingHead(
        *(16, 16, 5),
        aspp_channels=8,
        aspp_dilations=(2, 4),
        num_convs=1,
        resolution=8,
        output_size=32,
        samples=4,
        num_groups=4,
    )
    x = torch.randn(3, 16, 8, 8)
    together, alone = head(x), head(x[1:2])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1:2], b, rtol=1e-4, atol=1e-5)
    assert together[1].shape == (3, 5, 32, 32)


def test_prsn_pools_the_map_to_the_feature():
    for kind in ("probabilities", "logits"):
        prsn = PRSN(4, 3, channels=8, hidden=8, input=kind)
        feature, logits = torch.randn(2, 4, 8, 8), torch.randn(2, 3, 32, 32)
        maps = logits.softmax(1) if kind == "probabilities" else logits
        x = torch.cat([feature, maps.unfold(2, 4, 4).unfold(3, 4, 4).amax((4, 5))], dim=1)
        x = F.relu(prsn.conv2(F.relu(prsn.conv1(x)))).mean((2, 3))
        expected = prsn.iou(F.relu(prsn.fc2(F.relu(prsn.fc1(x)))))[:, 0]
        torch.testing.assert_close(prsn(feature, logits), expected)


@pytest.mark.parametrize("kind", ["probabilities", "logits"])
def test_one_pass_over_the_logits_is_the_terms_and_prsn_apart(kind):
    prsn = PRSN(4, 3, channels=8, hidden=8, input=kind)
    feature, logits = torch.randn(2, 4, 8, 8), torch.randn(2, 3, 32, 32, requires_grad=True)
    target = torch.randint(0, 4, (2, 32, 32), dtype=torch.uint8)
    total, valid, iou, pooled = ops.parsing_loss(logits, target, 4, kind == "logits")
    apart = *label_cross_entropy(logits, target), ops.parsing_miou(logits, target), prsn(feature, logits)
    together = total, valid.sum(), iou, prsn.score(feature, pooled)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other)
    grads = [torch.autograd.grad(0.01 * terms[0] + terms[3].sum(), logits)[0] for terms in (together, apart)]
    torch.testing.assert_close(*grads)


def test_prsn_targets():
    target = torch.tensor([[[1, 1], [2, 0]], [[0, 0], [0, 0]], [[1, 1], [1, 1]], [[1, 1], [0, 0]]])
    predicted = torch.tensor([[[1, 1], [2, 0]], [[0, 0], [0, 0]], [[2, 2], [2, 2]], [[1, 0], [0, 0]]])
    logits = F.one_hot(predicted, 3).movedim(-1, 1).float()
    # Equal; nothing but background; disjoint; person 1/2 and background 2/3.
    expected = [1, 1, 0, (1 / 2 + 2 / 3) / 2]
    assert ops.parsing_miou(logits, target).tolist() == pytest.approx(expected)


# Losses


def test_rescoring_errors():
    predicted, iou = torch.tensor([0.5, 0.9, 0.3, 0.7]), torch.tensor([0.7, 0.0, 0.3, 0.1])
    valid = torch.tensor([True, True, True, False])
    total, count = squared_error(predicted, iou, valid)
    assert (float(total), int(count)) == (pytest.approx(0.2**2 + 0.9**2), 3)
    total, count = half_positive_error(predicted, iou, valid)
    assert (float(total), int(count)) == (pytest.approx(0.5 * 0.2**2), 2)


def test_cross_entropy_ignores_unknown_labels():
    logits = torch.randn(2, 3, 4, 4)
    target = torch.randint(0, 3, (2, 4, 4), dtype=torch.uint8)
    target[0, 0, :3] = torch.tensor([255, 3, 77])
    total, count = label_cross_entropy(logits, target)
    known = target < 3
    expected = -logits.log_softmax(1).movedim(1, -1)[known].gather(1, target[known].long()[:, None]).sum()
    torch.testing.assert_close(total, expected)
    assert count == known.sum() == 29


def test_semantic_target_is_top_left_pixel_padding_ignored():
    labels = torch.arange(60, dtype=torch.uint8).view(6, 10)
    got = semantic_target([{"label_map": labels}, {"label_map": labels[:4, :4]}], (8, 16))
    assert got[0].tolist() == [[0, 4, 8, 255], [40, 44, 48, 255]]
    assert got[1].tolist() == [[0, 255, 255, 255], [255] * 4]
    assert semantic_target([{"label_map": labels}], (8, 16), padding_label=0)[0, :, 3].tolist() == [0, 0]


def test_processes_average_to_the_whole_batch(monkeypatch):
    ranks = [
        {"a": (torch.tensor(6.0), torch.tensor(3)), "b": (torch.tensor(0.0), torch.tensor(0))},
        {"a": (torch.tensor(2.0), torch.tensor(1)), "b": (torch.tensor(5.0), torch.tensor(2))},
    ]
    totals = torch.tensor([4.0, 2.0])
    monkeypatch.setattr(loss_terms, "world_size", lambda: 2)
    monkeypatch.setattr(loss_terms, "all_reduce_sum", lambda counts: totals)
    weights = {"b": 10.0}
    results = [normalize(terms, weights) for terms in ranks]
    mean = {name: float(sum(r[name] for r in results) / 2) for name in ("a", "b")}
    assert mean == pytest.approx({"a": 8 / 4, "b": 10 * 5 / 2})
    alone = normalize(ranks[1], weights, per_process=True)
    assert {k: float(v) for k, v in alone.items()} == pytest.approx({"a": 2.0, "b": 25.0})


def test_a_term_without_samples_is_zero():
    total = torch.zeros((), requires_grad=True)
    loss = normalize({"a": (total * 1, torch.tensor(0))}, {})["a"]
    loss.backward()
    assert loss == 0 and total.grad is not None
