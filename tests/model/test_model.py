"""The whole network: training, prediction, and independence of batch, padding and random state."""

import pytest
import torch
from helpers.models import LOSSES, permissive, scene, tiny, train

from rpcnn.model import released, rp_rcnn
from rpcnn.model.boxes import box_iou
from rpcnn.runtime.optimizer import parameter_groups


@pytest.fixture
def terms(monkeypatch):
    """Make the model return (sum, count) pairs instead of averaged losses."""
    for module in (rp_rcnn, released):
        monkeypatch.setattr(module, "normalize", lambda terms, *_, **__: terms)


def test_a_few_steps_learn_a_scene_and_find_its_people():
    model = tiny()
    optimizer = torch.optim.SGD(parameter_groups(model, 1e-4), lr=0.02, momentum=0.9)
    history = []
    for _ in range(120):
        losses = train(model, [scene(1)])
        history.append(sum(losses.values()).item())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert list(losses) == LOSSES
    assert history[-1] < 0.25 * history[0]
    image, target = scene(1)
    with torch.no_grad():
        found = model.eval()([image])[0]
    assert (box_iou(target["boxes"], found.boxes).amax(1) > 0.5).all()
    confident = (found.label_probs.argmax(0) == target["label_map"][::4, ::4]).float().mean()
    assert confident > 0.8


@pytest.mark.parametrize("people", [0, 2])
def test_every_parameter_gets_a_finite_gradient(people):
    model = tiny()
    losses = train(model, [scene(3, people=people)])
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    missing = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert missing == []
    if people == 0:
        zero = {"rpn_box", "box_regression", "parsing", "rescoring"}
        assert {name for name, loss in losses.items() if loss == 0} == zero


def test_an_image_without_people_leaves_parsing_loss_unchanged(terms):
    model = tiny()
    alone = train(model, [scene(1)])
    both = train(model, [scene(1), scene(2, people=0)])
    for name in ("parsing", "rescoring", "box_regression"):
        torch.testing.assert_close(both[name][0], alone[name][0], rtol=1e-3, atol=1e-4)
    assert both["parsing"][1] == alone["parsing"][1]


def test_terms_of_a_batch_are_the_sums_of_its_images(terms):
    model = tiny()
    with torch.no_grad():
        singles = [train(model, [scene(seed)]) for seed in (1, 2)]
        pair = train(model, [scene(1), scene(2)])
    for name in LOSSES:
        torch.testing.assert_close(pair[name][0], singles[0][name][0] + singles[1][name][0], rtol=1e-3, atol=1e-4)
        assert int(pair[name][1]) == int(singles[0][name][1]) + int(singles[1][name][1])


def test_losses_depend_only_on_the_image_seeds():
    model = tiny(box_samples=8)
    image, target = scene(1)
    with torch.no_grad():
        first = train(model, [(image, target)])
        torch.rand(7)
        again = train(model, [(image, target)])
        other = train(model, [(image, target | {"seed": 99})])
    assert {k: float(v) for k, v in first.items()} == {k: float(v) for k, v in again.items()}
    assert float(first["rpn_objectness"]) != float(other["rpn_objectness"])


def test_rescoring_loss_reaches_the_backbone():
    model = tiny()
    torch.nn.init.normal_(model.prsn.iou.weight)
    train(model, [scene(1)])["rescoring"].backward()
    for part in (model.parsing_head.logits, model.parsing_head.convs, model.gse, model.fpn, model.backbone):
        assert max(p.grad.abs().max() for p in part.parameters() if p.grad is not None) > 0
    assert all(p.grad is None for p in model.box_head.parameters())  # proposals carry no gradient


def test_loss_weights_are_eq_1_s():
    image = scene(1)
    with torch.no_grad():
        weighted = train(tiny(), [image])
        plain = train(tiny(lambda_parsing=1.0, lambda_semantic=1.0, lambda_rescoring=1.0), [image])
    ratios = {name: float(weighted[name] / plain[name]) for name in LOSSES}
    assert ratios == pytest.approx(dict.fromkeys(LOSSES, 1.0) | {"parsing": 2.0, "semantic": 2.0})


def test_semantic_loss_ignores_the_padding(terms):
    with torch.no_grad():
        counts = [
            int(train(tiny(ignore_padding=ignore), [scene(1, height=60, width=90)])["semantic"][1])
            for ignore in (True, False)
        ]
    assert counts == [15 * 23, 16 * 24]


def test_parsing_r_cnn_is_the_model_without_gse_and_prsn():
    model = tiny(gse=False, prsn=False)
    losses = train(model, [scene(1)])
    sum(losses.values()).backward()
    assert list(losses) == LOSSES[:5]
    assert all(p.grad is not None for p in model.parameters())
    assert not any(name.startswith(("gse", "prsn")) for name, _ in model.named_parameters())
    with torch.no_grad():
        found = model.eval()([scene(1)[0]])[0]
    assert found.label_probs is None and found.iou_scores is None
    assert torch.equal(found.scores, found.box_scores)


def test_released_structure_trains():
    model = tiny(
        pyramid_levels=4,
        gse_embedding=True,
        prsn_input="logits",
        prsn_stride=2,
        rescoring_loss="half_positive",
        ignore_padding=False,
        normalize_per_process=True,
        aligned=False,
    )
    losses = train(model, [scene(1), scene(2)])
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())


@torch.no_grad()
def test_detections_have_the_shapes_and_ranges_promised():
    found = permissive(max_detections=7)([scene(1, height=62, width=90)[0]])[0]
    n = len(found.boxes)
    assert 0 < n <= 7 and found.boxes.shape == (n, 4) and found.image_size == (62, 90)
    assert found.boxes.min() >= 0 and found.boxes[:, 2].max() <= 90 and found.boxes[:, 3].max() <= 62
    assert found.person_probs.shape == (n, 6, 32, 32) and found.label_probs.shape == (6, 16, 23)
    torch.testing.assert_close(found.person_probs.sum(1), torch.ones(n, 32, 32))
    torch.testing.assert_close(found.label_probs.sum(0), torch.ones(16, 23))
    for scores in (found.box_scores, found.iou_scores, found.scores):
        assert scores.shape == (n,) and scores.min() >= 0 and scores.max() <= 1
    assert (found.box_scores.diff() <= 0).all()


def assert_same(a, b):
    torch.testing.assert_close(a.boxes, b.boxes, rtol=1e-4, atol=1e-3)
    for name in ("box_scores", "iou_scores", "person_probs", "label_probs"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-3, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ([(64, 96), (40, 120), (96, 64)], [1, 1, 1]),
        ([(64, 96), (60, 90)], [2]),
        ([(64, 96), (96, 64), (60, 90), (90, 62), (33, 65)], [3, 2]),
    ],
)
def test_an_image_s_people_do_not_depend_on_the_batch(sizes, batches):
    """Only images of equal padded size share a batch, because GroupNorm statistics include the padding."""
    model = permissive()
    images = [scene(seed, *size)[0] for seed, size in enumerate(sizes)]
    seen = []
    handle = model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    together = model(images)
    handle.remove()
    assert seen == batches
    for found, image, size in zip(together, images, sizes, strict=True):
        assert found.image_size == size and found.label_probs.shape[1:] == (-(-size[0] // 4), -(-size[1] // 4))
        assert_same(found, model([image])[0])


@torch.no_grad()
def test_parsing_in_chunks_changes_nothing():
    image = scene(1)[0]
    model = permissive(max_detections=5)
    whole = model([image])[0]
    model.chunk = 2
    assert len(whole.boxes) == 5
    assert_same(model([image])[0], whole)


@torch.no_grad()
def test_an_image_without_detections():
    model = tiny(min_box_score=1.0).eval()
    found = model([scene(1)[0]])[0]
    assert found.boxes.shape == (0, 4) and found.person_probs.shape == (0, 6, 32, 32)
    assert found.scores.shape == found.iou_scores.shape == (0,)
    assert found.label_probs.shape == (6, 16, 24)


@torch.no_grad()
def test_channels_last_gives_the_same_people():
    image = scene(1)[0]
    model = permissive()
    plain = model([image])[0]
    assert_same(model.to(memory_format=torch.channels_last)([image])[0], plain)


def test_bfloat16_trains():
    model = tiny()
    with torch.autocast("cpu", torch.bfloat16):
        losses = train(model, [scene(1)])
    sum(losses.values()).backward()
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())


def test_wrong_inputs_are_named():
    model = tiny()
    image, target = scene(1)
    with pytest.raises(ValueError, match=r"images\[0\] must be uint8 or float32 \[3, H, W\], got torch.float64"):
        model([image.double()], [target])
    with pytest.raises(ValueError, match="targets must hold one target for each of 1 images"):
        model([image])
    with pytest.raises(ValueError, match=r"targets\[0\] must hold label_map"):
        model([image], [{k: v for k, v in target.items() if k != "label_map"}])
    with pytest.raises(ValueError, match=r"targets\[0\]\['person_maps'\] must be \[2, 64, 96\], got \[1, 64, 96\]"):
        model([image], [target | {"person_maps": target["person_maps"][:1]}])
    with pytest.raises(ValueError, match="at least one image"):
        model([], [])
