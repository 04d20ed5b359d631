"""The paper's analyses on constructed detections with known answers."""

import json
import types

import numpy as np
import pytest
import torch
from helpers.inference import combined
from helpers.models import configured

from rpcnn.analysis import bounds, modes, scores
from rpcnn.analysis.report import mathtext, table, with_change
from rpcnn.box_convention import EDGES
from rpcnn.config import Config, load_config
from rpcnn.data.sample import Truth
from rpcnn.inference.pipeline import Pipeline
from rpcnn.labels import CIHP
from rpcnn.metrics import ParsingEvaluator, ap_p, match_people
from rpcnn.model import Detections
from rpcnn.model.build import build_model

HEIGHT, WIDTH, CLASSES = 60, 80, 20


def scene(boxes, parts=(2, 5, 9, 16)):
    """A sample with a person of four stripes in each box x1 y1 x2 y2."""
    people = torch.zeros(len(boxes), HEIGHT, WIDTH, dtype=torch.uint8)
    for person, (x1, y1, x2, y2) in zip(people, boxes, strict=True):
        edges = np.linspace(y1, y2, len(parts) + 1).round().astype(int)
        for part, top, bottom in zip(parts, edges, edges[1:], strict=False):
            person[top:bottom, x1:x2] = part
    return {
        "id": "1",
        "image": torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8),
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "person_maps": people,
        "label_map": people.amax(dim=0) if len(boxes) else torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8),
    }


def detections(boxes, box_scores, people, iou_scores=None, semantic=None):
    """Detections of a network that predicts exactly the label maps `people` [N, H, W] in its boxes."""
    probabilities = torch.zeros(len(boxes), CLASSES, 40, 40)
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        rows = (y1 + (torch.arange(40) + 0.5) * (y2 - y1) / 40).long().clamp(0, HEIGHT - 1)
        columns = (x1 + (torch.arange(40) + 0.5) * (x2 - x1) / 40).long().clamp(0, WIDTH - 1)
        probabilities[i].scatter_(0, people[i][rows][:, columns][None].long(), 1)
    return Detections(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        box_scores=torch.tensor(box_scores),
        iou_scores=None if iou_scores is None else torch.tensor(iou_scores),
        person_probs=probabilities,
        label_probs=semantic,
        image_size=(HEIGHT, WIDTH),
    )


def result_of(found, threshold=0.3, mode="parsing"):
    return combined(found, (HEIGHT, WIDTH), CIHP, min_score=threshold, semantic_mode=mode)


TWO = [(4, 6, 30, 54), (40, 4, 70, 56)]


@pytest.fixture
def two():
    """Two people and four detections: the first person with two of four parts wrong but the higher box score, the
    second parsed correctly, a duplicate of the second cut off at the knees, and a false positive."""
    sample = scene(TWO)
    wrong = sample["person_maps"][0].clone()
    wrong[wrong == 9] = 12
    wrong[wrong == 16] = 17
    boxes = [*TWO, (40, 4, 70, 44), (2, 0, 9, 5)]
    other = torch.where(sample["person_maps"][1] > 0, 7, 0).to(torch.uint8)
    beside = torch.full((HEIGHT, WIDTH), 3, dtype=torch.uint8)
    maps = torch.stack([wrong, sample["person_maps"][1], other, beside])
    return sample, result_of(detections(boxes, [0.9, 0.8, 0.95, 0.5], maps))


def matches_of(sample, result):
    return match_people(result.person_maps, result.scores, sample["person_maps"], CLASSES)


def test_true_parsing_gives_found_people_overlap_1(two):
    sample, result = two
    truth = bounds.with_true_parsing(result, matches_of(sample, result), sample["person_maps"])
    assert torch.equal(truth.scores, result.scores) and torch.equal(truth.boxes, result.boxes)
    overlap = matches_of(sample, truth).overlap
    whole = [i for i, box in enumerate(result.boxes.tolist()) if tuple(map(round, box)) in TWO]
    assert len(whole) == 2 and overlap[whole] == pytest.approx(1)
    assert not truth.person_maps[3].any()  # the false positive
    cut = [i for i, box in enumerate(result.boxes.tolist()) if round(box[3]) == 44]
    assert 0.5 < overlap[cut[0]] < 1  # parsing is limited to the box
    assert not truth.person_maps[cut[0]][44:].any()


def test_true_parsing_makes_unknown_pixels_background(two):
    sample, result = two
    sample["person_maps"][1, 20:24, 45:60] = 255
    truth = bounds.with_true_parsing(result, matches_of(sample, result), sample["person_maps"])
    assert int(truth.person_maps.max()) < CLASSES


def test_true_scores_rank_perfectly(two):
    """At every threshold, AP^p reaches the recall."""
    sample, result = two
    matches = matches_of(sample, result)
    best = np.where(bounds.is_best(matches), matches.overlap, 0.0)
    truth = bounds.with_scores(result, best)
    ranked = matches_of(sample, truth)
    assert ranked.scores.tolist() == sorted(ranked.scores.tolist(), reverse=True)
    assert ranked.overlap[:2].tolist() == pytest.approx(ranked.scores[:2].tolist(), abs=1e-6)
    assert ranked.scores[2:].tolist() == [0, 0]  # a duplicate and a false positive
    reachable = [max(matches.overlap[matches.person == g]) for g in range(2)]
    for threshold in (0.1, 0.3, 0.5, 0.7, 0.9):
        assert ap_p([ranked], threshold) == pytest.approx(50 * sum(r > threshold for r in reachable))
    assert ap_p([matches], 0.7) < ap_p([ranked], 0.7)


def test_repainting_puts_higher_scores_on_top(two):
    _, result = two
    background = torch.full((HEIGHT, WIDTH), 11, dtype=torch.uint8)
    shown = bounds.painted(bounds.with_scores(result, np.array([0.2, 0.9, 0.6, 0.0])), background, 0.3)
    assert shown.scores.tolist() == pytest.approx([0.9, 0.6, 0.2, 0.0])
    best, second = shown.person_maps[0] > 0, shown.person_maps[1] > 0
    assert (shown.instance_map[best] == 1).all() and (shown.label_map[best] == shown.person_maps[0][best]).all()
    assert (shown.instance_map[second & ~best] == 2).all()
    assert (shown.label_map[~best & ~second] == 11).all() and (shown.instance_map[~best & ~second] == 0).all()


def test_repainting_predictions_gives_the_predicted_map(two):
    _, result = two
    again = bounds.painted(result, torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8), 0.3)
    assert torch.equal(again.label_map, result.label_map) and torch.equal(again.instance_map, result.instance_map)


class SyntheticPipeline(Pipeline):
    """A pipeline whose network predicts `found[i]` for `images[i]`."""

    def __init__(self, config):
        model = torch.nn.Module()
        model.pixel_mean, model.box_head = torch.zeros(3), types.SimpleNamespace(boxes=EDGES)
        super().__init__(model, config, CIHP)
        self.images, self.found = [], []

    def detect(self, image):
        return next(found for sample, found in zip(self.images, self.found, strict=True) if sample["image"] is image)

    def __call__(self, image):
        return self.finish(self.detect(image), image)


class Synthetic:
    """A fake model that predicts perturbed ground truth: shifted boxes, swapped parts, duplicates, false positives."""

    def __init__(self, images=24, seed=0):
        self.pipeline = SyntheticPipeline(configured(Config(), gse=False))
        random = np.random.default_rng(seed)
        self.images, self.found = self.pipeline.images, self.pipeline.found
        for number in range(images):
            people = [(4, 6, 30, 54), (32, 4, 50, 56), (54, 8, 76, 50)][: random.integers(1, 4)]
            sample = scene(people) | {"id": str(number)}
            boxes, maps, box_scores = [], [], []
            for person, box in zip(sample["person_maps"], people, strict=True):
                for _ in range(random.integers(1, 3)):
                    map_ = person.clone()
                    for part in random.choice([2, 5, 9, 16], random.integers(0, 4), replace=False):
                        map_[person == part] = int(random.integers(1, CLASSES))
                    shifted = np.array(box) + random.integers(-2, 3, 4)
                    boxes.append(tuple(shifted.clip(0, [WIDTH, HEIGHT, WIDTH, HEIGHT]).tolist()))
                    maps.append(map_)
                    box_scores.append(float(random.uniform(0.5, 1)))
            boxes.append((60, 40, 80, 60))
            maps.append(torch.full((HEIGHT, WIDTH), 7, dtype=torch.uint8))
            box_scores.append(float(random.uniform(0.05, 0.6)))
            self.images.append(sample)
            self.found.append(detections(boxes, box_scores, torch.stack(maps)))

    @property
    def config(self):
        return self.pipeline.config

    def samples(self):
        yield from self.pipeline.images


def parse_true_boxes(pipeline, image, boxes):
    """Replace bounds.detect by a network that is right on labels up to 5 and predicts 11 for all others."""
    sample = next(sample for sample in pipeline.images if sample["image"] is image)
    half = torch.where(sample["person_maps"] > 5, 11, sample["person_maps"])
    return pipeline.detect(image), detections([tuple(map(int, box)) for box in boxes], [1.0] * len(boxes), half)


def test_true_parsing_and_true_scores_raise_ap_p(monkeypatch):
    """With perturbed ground truth as predictions, true parsing and true scores each raise AP^p_vol."""
    monkeypatch.setattr(bounds, "detect", parse_true_boxes)
    results = bounds.bounds(Synthetic())
    plain = results["as predicted"]
    assert plain["images"] == 24 and 10 < plain["ap_p_vol"] < 90
    assert results["true parsing"]["ap_p_vol"] > plain["ap_p_vol"] + 5
    assert results["true parsing"]["pcp_50"] > plain["pcp_50"] + 5 and results["true parsing"]["miou"] > plain["miou"]
    assert results["true scores"]["ap_p_vol"] > plain["ap_p_vol"] + 2
    assert results["true scores"]["ap_p_vol"] > results["true IoU of all"]["ap_p_vol"] + 1  # duplicates
    for key in (f"ap_p_{threshold}" for threshold in range(10, 100, 10)):
        assert results["true scores"][key] >= max(plain[key], results["true IoU of all"][key]) - 1e-9
    assert results["true boxes"]["ap_bbox"] == pytest.approx(100)


def test_true_boxes_get_box_score_1_and_predicted_parsing():
    """With random weights, the parsing of the true boxes equals the parsing of these boxes as detections."""
    config = configured(load_config("painted"), fpn_channels=16, parsing_channels=16, test_short_side=96)
    model = build_model(config, CLASSES).eval()
    pipeline = Pipeline(model, config, CIHP)
    image = torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8)
    boxes = torch.tensor([[4.0, 6.0, 30.0, 54.0], [40.0, 4.0, 70.0, 56.0]])
    found, parsed = bounds.detect(pipeline, image, boxes)
    assert parsed.box_scores.tolist() == [1, 1] and parsed.image_size == found.image_size == (96, 128)
    assert torch.allclose(parsed.boxes, boxes * 1.6)
    assert torch.allclose(parsed.scores, parsed.iou_scores.sqrt())
    with torch.inference_mode():
        pyramid, _, _ = model.encode([pipeline.transform(image)])
        probabilities, iou_scores = model.parse(pyramid[0], boxes * 1.6)
    assert torch.allclose(parsed.person_probs, probabilities) and torch.allclose(parsed.iou_scores, iou_scores)
    assert torch.equal(parsed.label_probs, found.label_probs)
    assert len(bounds.without_people(found).boxes) == 0


def test_bounds_raises_on_invalid_options():
    for changes, message in (
        ({"augment": True}, "single pass"),
        ({"semantic_mode": "semseg"}, "must be 'combine' or 'parsing'"),
    ):
        trained = Synthetic(images=1)
        trained.pipeline.config = configured(trained.config, **changes)
        with pytest.raises(ValueError, match=message):
            bounds.bounds(trained)


def test_correlations_of_constructed_points():
    point = lambda box, score, truth, matched=True: {
        "box_score": box, "score": score, "true_iou": truth, "matched": matched
    }  # fmt: skip
    line = [point(0.9, 0.2 + 0.5 * t, t) for t in (0.1, 0.4, 0.5, 0.8)]
    found = scores.correlations([*line, point(0.0, 0.0, 0.9, matched=False)])
    assert found["matched"]["detections"] == 4 and found["all"]["detections"] == 5
    assert found["matched"]["score"] == {"pearson": pytest.approx(1), "spearman": pytest.approx(1)}
    assert found["matched"]["box_score"] == {"pearson": None, "spearman": None}  # all of one value
    # 0.9 goes with 0.0: ranks 1 2 3 4 0 against 0 1 2 3 4
    assert found["all"]["score"]["spearman"] == pytest.approx(0)
    assert found["all"]["score"]["pearson"] == pytest.approx(np.corrcoef([0.25, 0.4, 0.45, 0.6, 0],
                                                                       [0.1, 0.4, 0.5, 0.8, 0.9])[0, 1])  # fmt: skip


def test_spearman_uses_ranks_and_averages_ties():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert scores.spearman(x, np.exp(5 * x)) == pytest.approx(1)
    assert scores.pearson(x, np.exp(5 * x)) < 0.9
    assert scores.spearman(x, -(x**3)) == pytest.approx(-1)
    assert scores.ranks(np.array([3.0, 1.0, 3.0, 0.0, 3.0])).tolist() == [3, 1, 3, 0, 3]
    assert scores.pearson(np.array([1.0]), np.array([1.0])) is None


def test_a_point_per_detection(two):
    sample, _ = two
    trained = Synthetic(images=1)
    perfect = detections([TWO[1], (0, 0, 8, 8)], [0.25, 0.5], sample["person_maps"][[1, 1]], iou_scores=[0.81, 0.5])
    trained.pipeline.images, trained.pipeline.found = [sample, scene([]) | {"id": "2"}], [perfect, perfect]
    points = scores.score_points(trained)
    assert [p["image"] for p in points] == ["1", "1"]  # the image without people has no true mIoU
    first = next(p for p in points if p["matched"])
    assert (first["box_score"], first["iou_score"]) == (0.25, pytest.approx(0.81))
    assert first["score"] == pytest.approx(0.45) and first["true_iou"] == pytest.approx(1)
    assert sum(p["matched"] for p in points) == 1


def test_modes_see_one_pass_of_the_network_three_ways(two):
    """The global map is right on one half of the image, the people on the other; combined, all of it is right."""
    sample, _ = two
    semantic = torch.nn.functional.one_hot(sample["label_map"].long(), CLASSES).permute(2, 0, 1).float()
    semantic[:, :, 40:] = 0
    semantic[0, :, 40:] = 1
    trained = Synthetic(images=1)
    trained.pipeline.images = [sample]
    found = detections(TWO[1:], [0.9], sample["person_maps"][1:], semantic=semantic)
    found.label_probs_size = (HEIGHT, WIDTH)
    calls = []
    trained.pipeline.detect = lambda image: calls.append(image) or found
    results = modes.modes(trained, ["semseg", "parsing", "combine"])
    assert len(calls) == 1
    assert results["combine"]["miou"] == pytest.approx(100) and results["combine"]["pixel_accuracy"] == 100
    right = (HEIGHT * WIDTH - 30 * 52) / (HEIGHT * WIDTH)
    assert results["semseg"]["pixel_accuracy"] == pytest.approx(100 * right)
    assert results["parsing"]["pixel_accuracy"] == pytest.approx(100 * (HEIGHT * WIDTH - 26 * 48) / (HEIGHT * WIDTH))
    evaluator = ParsingEvaluator(CLASSES)
    evaluator.add_result(result_of(found, mode="parsing"), Truth.of(sample))
    assert results["parsing"]["mean_accuracy"] == pytest.approx(evaluator.summarize()["mean_accuracy"])


def test_modes_skip_the_images_that_metrics_skip(two):
    """variant.skip_empty (released code): of two images the one without a detection does not count."""
    trained = Synthetic(images=1)
    trained.pipeline.images = [scene(TWO), scene(TWO) | {"id": "2"}]
    maps = trained.pipeline.images[0]["person_maps"]
    trained.pipeline.found = [detections(TWO, [0.9, 0.9], maps), detections([], [], maps)]
    half = modes.modes(trained, ["parsing"])["parsing"]["mean_accuracy"]
    trained.pipeline.config = configured(trained.config, skip_empty=True)
    assert half < 70 and modes.modes(trained, ["parsing"])["parsing"]["mean_accuracy"] == pytest.approx(100)


def test_tables_and_titles():
    lines = table(["", "mIoU"], [["a", "1.0"], ["longer", "–"]]).split("\n")
    assert lines[1] == "|--------|-----:|" and len({len(line) for line in lines}) == 1
    assert (
        with_change(51.25, 50.0) == "51.2 (+1.2)" and with_change(None, 1.0) == "–" and with_change(1.0, None) == "1.0"
    )
    assert mathtext("AP^p_50") == "AP$^p_{50}$" and mathtext("mIoU") == "mIoU" and mathtext("PCP_50") == "PCP$_{50}$"
    json.dumps(modes.percent(float("nan")))
