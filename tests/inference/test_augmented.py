"""Test-time augmentation: equality with plain inference, and its memory bounds."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from helpers.inference import augmenting, combined
from helpers.models import configured, permissive, scene, with_varied_ious

from rpcnn.box_convention import EDGES
from rpcnn.config import Config, load_config
from rpcnn.inference import augmented
from rpcnn.inference.augmented import Pass
from rpcnn.inference.pipeline import Pipeline
from rpcnn.inference.soft_nms import box_voting, soft_nms
from rpcnn.labels import CIHP, MHP_V2, LabelSet
from rpcnn.model.boxes import box_iou
from rpcnn.ops import sampling

LABELS = LabelSet("six", ("background", "left", "right", "arm-l", "hat", "arm-r"), pairs=((1, 2), (3, 5)))


def same(image):
    return image


def twice(image):
    return image.repeat_interleave(2, 1).repeat_interleave(2, 2)  # symmetrical to the last bit, unlike a resize


def half(image):
    return image[:, ::2, ::2].contiguous()


def mirrored_by_hand(maps: torch.Tensor, label_set: LabelSet) -> torch.Tensor:
    """[..., K, h, w] mirrored, every pair of channels exchanged one after the other."""
    result = maps.flip(-1).clone()
    for left, right in label_set.pairs:
        result[..., left, :, :], result[..., right, :, :] = (
            maps.flip(-1)[..., right, :, :],
            maps.flip(-1)[..., left, :, :],
        )
    return result


def calls(monkeypatch, owner, name) -> list:
    """Record (positional arguments, result) of every later call of owner.name."""
    seen, original = [], getattr(owner, name)

    def record(*arguments):
        result = original(*arguments)
        seen.append((arguments, result))
        return result

    monkeypatch.setattr(owner, name, record)
    return seen


RELEASED = {"inclusive_boxes": True, "clamp_iou": False, "crop_semantic": False, "test_padding": "black"}


@pytest.mark.parametrize("switches", [{}, RELEASED], ids=["default", "released"])
def test_the_base_scale_alone_is_plain_inference(switches):
    model, image = with_varied_ious(permissive(max_detections=12, **switches)), scene(1, 62, 90)[0]
    with torch.inference_mode():
        plain = model([image])[0]
    found = augmenting(model, LABELS, [same], flip=False, suppression="off", voting_iou=0)(image)
    assert plain.iou_scores.unique().numel() == len(plain.boxes) == 12
    assert found.image_size == plain.image_size
    for name in ("boxes", "box_scores", "person_probs"):
        assert torch.equal(getattr(found, name), getattr(plain, name)), name
    torch.testing.assert_close(found.iou_scores, plain.iou_scores, rtol=1e-6, atol=1e-7)  # a root, squared
    for mode in ("combine", "parsing", "semseg"):
        knobs = {"semantic_mode": mode, "semantic_gate": 0.2, "boxes": model.box_head.boxes}
        results = [combined(detections, (62, 90), LABELS, **knobs) for detections in (plain, found)]
        assert torch.equal(results[0].person_maps, results[1].person_maps)
        assert torch.equal(results[0].label_map, results[1].label_map)
        assert torch.equal(results[0].instance_map, results[1].instance_map)


@pytest.mark.parametrize("label_set", [LABELS, MHP_V2], ids=["6", "59"])
def test_a_mirrored_image_gives_mirrored_people(label_set):
    """Passes x and flip(x) equal passes flip(x) and x as a set, so the results differ only by the mirroring."""
    model = with_varied_ious(permissive(num_classes=label_set.num_classes, max_detections=10))
    look = augmenting(model, label_set, [same, twice])
    image = scene(1, 60, 90)[0]  # 90 pads to 96: to the right of both the picture and its mirror image
    found, mirrored = look(image), look(image.flip(-1))
    x1, y1, x2, y2 = found.boxes.unbind(1)
    torch.testing.assert_close(mirrored.boxes, torch.stack([90 - x2, y1, 90 - x1, y2], 1), rtol=1e-4, atol=1e-3)
    for name in ("box_scores", "iou_scores", "scores"):
        torch.testing.assert_close(getattr(mirrored, name), getattr(found, name), rtol=1e-4, atol=1e-5)
    for name in ("person_probs", "label_probs"):
        expected = mirrored_by_hand(getattr(found, name), label_set)
        torch.testing.assert_close(getattr(mirrored, name), expected, rtol=1e-3, atol=1e-4)
        unswapped = getattr(found, name).flip(-1)
        assert (getattr(mirrored, name) - unswapped).abs().max() > 1e-2  # the left/right swap makes a difference
    # The model itself is not symmetric: without mirrored passes the results differ.
    single = augmenting(model, label_set, [same], flip=False)
    one, other = single(image), single(image.flip(-1))
    assert (other.label_probs - mirrored_by_hand(one.label_probs, label_set)).abs().max() > 1e-2


@torch.inference_mode()
def test_running_means_are_the_means_of_all_passes_kept():
    model, image = with_varied_ious(permissive(max_detections=5)), scene(1, 64, 96)[0]
    found = augmenting(model, LABELS, [same, twice, half])(image)
    maps, semantic, parsing_scores = [], [], []
    for scale, factor in ((same, 1), (twice, 2), (half, 0.5)):
        for mirrored in (False, True):
            seen = scale(image).flip(-1) if mirrored else scale(image)
            pyramid, logits, _ = model.encode([seen])
            x1, y1, x2, y2 = (found.boxes * factor).unbind(1)
            width = 96 * factor
            own = torch.stack([width - x2, y1, width - x1, y2] if mirrored else [x1, y1, x2, y2], 1)
            probabilities, iou = model.parse(pyramid[0], own)
            # All three sizes are multiples of 4: without the padding, the maps cover the picture exactly.
            cropped = logits[:, :, : seen.shape[1] // 4, : seen.shape[2] // 4].softmax(1)
            full = F.interpolate(cropped, size=(64, 96), mode="bilinear", align_corners=False)[0]
            maps.append(mirrored_by_hand(probabilities, LABELS) if mirrored else probabilities)
            semantic.append(mirrored_by_hand(full, LABELS) if mirrored else full)
            parsing_scores.append((found.box_scores * iou).sqrt())
    for values in (maps, semantic, parsing_scores):
        assert torch.stack(values).std(0).max() > 0.005  # the passes differ, so the mean is not trivial
    torch.testing.assert_close(found.person_probs, torch.stack(maps).mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.label_probs, torch.stack(semantic).mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.scores, torch.stack(parsing_scores).mean(0), rtol=1e-4, atol=1e-6)


@torch.inference_mode()
def test_candidates_of_all_passes_compete_and_vote(monkeypatch):
    model, image = permissive(max_detections=8), scene(1, 64, 96)[0]
    heads = calls(monkeypatch, model.box_head, "candidates")
    found = augmenting(model, LABELS, [same, twice], suppression="gaussian", sigma=0.3, voting_iou=0.5)(image)
    assert len(heads) == 4
    boxes, scores = [], []
    for (_, (own, own_scores, _)), factor, mirrored in zip(heads, (1, 1, 2, 2), (0, 1, 0, 1), strict=True):
        x1, y1, x2, y2 = (own / factor).unbind(1)
        boxes.append(torch.stack([96 - x2, y1, 96 - x1, y2] if mirrored else [x1, y1, x2, y2], 1))
        scores.append(own_scores)
    boxes, scores = torch.cat(boxes), torch.cat(scores)
    kept, lowered = soft_nms(boxes, scores, model.box_head.nms_threshold, "gaussian", 0.3, max_keep=8)
    torch.testing.assert_close(found.box_scores, lowered)
    torch.testing.assert_close(found.boxes, box_voting(boxes[kept], boxes, scores, 0.5), rtol=1e-5, atol=1e-4)
    assert (found.boxes - boxes[kept]).abs().max() > 0.01


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(
    ("base", "seen", "box", "plain", "flipped"),
    [
        # The ratios differ by axis: both sizes were rounded.
        ((60, 90), (120, 178), [20, 30, 50, 100], [10.11, 15, 25.28, 50], [64.72, 15, 79.89, 50]),
        ((90, 60), (45, 30), [3, 5, 10, 40], [6, 10, 20, 80], [40, 10, 54, 80]),
    ],
    ids=["landscape", "portrait"],
)
def test_box_frames(base, seen, box, plain, flipped, mirrored):
    view = Pass(torch.zeros(0), seen, mirrored, EDGES)
    own = torch.tensor([box], dtype=torch.float32)
    there = view.to_base(own, base)
    assert there[0].tolist() == pytest.approx(flipped if mirrored else plain, abs=0.01)
    torch.testing.assert_close(view.from_base(there, base), own)


@pytest.mark.parametrize("size", [(60, 90), (90, 60)], ids=["landscape", "portrait"])
def test_every_pass_finds_and_parses_the_same_place(monkeypatch, size):
    """A fake detector boxes the bright rectangle of each pass's image."""
    model = permissive()
    image = torch.zeros(3, *size, dtype=torch.uint8)
    image[:, 12:40, 8:24] = 255
    encoded = calls(monkeypatch, model, "encode")

    def bright(*_):
        rows, columns = (encoded[-1][0][0][0][0] > 127).nonzero(as_tuple=True)
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return torch.tensor([edges], dtype=torch.float32), torch.tensor([0.9]), torch.tensor([0])

    monkeypatch.setattr(model.box_head, "candidates", bright)
    parsed = calls(monkeypatch, model, "parse")
    found = augmenting(model, LABELS, [same, twice, half])(image)
    assert found.boxes.tolist() == [[8, 12, 24, 40]]
    assert len(parsed) == len(encoded) == 6
    for (images, _), ((_, own), _) in zip(encoded, parsed, strict=True):
        x1, y1, x2, y2 = own[0].int().tolist()
        bright_pixels = images[0][0]
        assert (bright_pixels[:, y1:y2, x1:x2] == 255).all()
        assert bright_pixels[0].count_nonzero() == (x2 - x1) * (y2 - y1)


def test_memory_is_one_running_mean_and_one_pass(monkeypatch):
    model, image = permissive(max_detections=6), scene(1, 64, 96)[0]
    monkeypatch.setattr(sampling, "STRIP_NUMBERS", 6 * 96 * 16)  # 4 strips of 16 rows
    alive = {"maps": [], "windows": [], "logits": [], "coarse": [], "finest": []}
    most = dict.fromkeys(alive, 0)

    def living(kind, *tensors):
        alive[kind] += [weakref.ref(tensor) for tensor in tensors]
        most[kind] = max(most[kind], sum(reference() is not None for reference in alive[kind]))

    augmentation = augmenting(model, LABELS, [same, twice, half])
    encode, look, parse, window = model.encode, augmentation.run_pass, model.parse, augmented.global_window

    def watched_encode(images):
        pyramid, logits, sizes = encode(images)
        living("finest", pyramid[0])
        living("coarse", *pyramid[1:])
        return pyramid, logits, sizes

    def watched_look(*arguments):
        living("logits")  # of the passes before
        seen, boxes, scores, logits = look(*arguments)
        alive["logits"].append(weakref.ref(logits))
        return seen, boxes, scores, logits

    def watched_parse(*arguments):
        maps, scores = parse(*arguments)
        living("maps", maps)
        return maps, scores

    def watched_window(*arguments, **keywords):
        result = window(*arguments, **keywords)
        assert result.shape == (6, 16, 96)
        living("windows", result)
        return result

    monkeypatch.setattr(model, "encode", watched_encode)
    monkeypatch.setattr(augmentation, "run_pass", watched_look)
    monkeypatch.setattr(model, "parse", watched_parse)
    monkeypatch.setattr(augmented, "global_window", watched_window)
    found = augmentation(image)
    assert len(alive["maps"]) == 6 and len(alive["windows"]) == 24
    # Kept: S2 of all passes, the four coarser levels of one pass; the mean reuses the first pass's map.
    assert len(alive["logits"]) == 6
    assert most == {"maps": 2, "windows": 2, "logits": 0, "coarse": 4, "finest": 6}
    assert found.person_probs.shape == (6, 6, 32, 32)


def test_a_pass_keeps_64_bytes_per_pixel():
    model = permissive()
    look = augmenting(model, LABELS, [same], flip=False)
    with torch.inference_mode():
        seen = look.run_pass(scene(1, 64, 96)[0], False)[0]
    assert seen.finest.untyped_storage().nbytes() == 64 * 96 // 16 * 16 * 4  # 16 channels here, 256 in the paper


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_people():
    model, image = with_varied_ious(permissive(max_detections=6)), scene(1, 62, 90)[0]
    expected = augmenting(model, LABELS, [same, twice])(image)
    found = augmenting(model.cuda(), LABELS, [same, twice])(image)
    for name in ("boxes", "box_scores", "iou_scores", "person_probs", "label_probs"):
        torch.testing.assert_close(getattr(found, name).cpu(), getattr(expected, name), rtol=1e-2, atol=1e-2)


def test_without_global_branch_rescoring_or_people():
    model = permissive(gse=False, prsn=False)
    found = augmenting(model, LABELS, [same, twice])(scene(1)[0])
    assert found.label_probs is None and found.iou_scores is None and len(found.boxes) > 0
    model = permissive()
    model.box_head.min_score = 1.0
    found = augmenting(model, LABELS, [same, twice])(scene(1)[0])
    assert found.boxes.shape == (0, 4) and found.person_probs.shape == (0, 6, 32, 32)
    result = combined(found, (64, 96), LABELS, semantic_gate=0.0)
    assert len(result) == 0 and result.label_map.shape == (64, 96)


def test_the_released_passes_are_the_defaults():
    model = permissive(num_classes=20)
    pipeline = Pipeline(model, configured(Config(), augment=True), CIHP)
    assert pipeline.short_sides() == [800, 400, 500, 600, 700, 900, 1000, 1100, 1200]
    assert "18 passes" in pipeline.describe()
    look = pipeline.augmented
    assert look.num_passes == 18
    assert [(scale.short_side, scale.max_size) for scale in look.scales[:2]] == [(800, 1333), (400, 2000)]
    assert (look.suppression, look.voting_iou, model.box_head.nms_threshold) == ("linear", 0.9, 0.5)


def test_augmented_model_is_a_drop_in_for_the_plain_one():
    """The mean semantic map has the image's size, so `combine` takes its arg-max without resizing."""
    model, image = permissive(), scene(1, 61, 87)[0]
    found = augmenting(model, LABELS, [same, twice])(image)
    result = combined(found, (61, 87), LABELS, semantic_mode="semseg")
    assert torch.equal(result.label_map.long(), found.label_probs.argmax(0))
    iou = box_iou(result.boxes, found.boxes).amax(1)
    torch.testing.assert_close(iou, torch.ones_like(iou))


def test_invalid_options_raise():
    model = permissive()
    with pytest.raises(ValueError, match="scales must hold at least the base scale"):
        augmenting(model, LABELS, [])
    with pytest.raises(ValueError, match="suppression must be one of linear, gaussian, off, got 'hard'"):
        augmenting(model, LABELS, [same], suppression="hard")
    with pytest.raises(ValueError, match="must have the model's 6 classes, got MHP-v2 with 59"):
        augmenting(model, MHP_V2, [same])
    for wrong in (
        ["--inference.augment-scales", "0"],
        ["--inference.voting-iou", "1.5"],
        ["--inference.nms-threshold", "-1"],
    ):
        with pytest.raises(ValueError, match=r"config: inference\."):
            load_config("cihp_r50", wrong)
