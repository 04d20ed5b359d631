"""Table 1: upper bounds of the metrics, with one of the three outputs replaced by ground truth.

true boxes      the network parses the ground-truth boxes, with box score 1, instead of its own boxes
true parsing    the map of each detection becomes the part inside its box of the ground-truth person that it overlaps
                most
true scores     the parsing score is the true mIoU (which AP^p compares with its thresholds) for the best detection of
                each person, and 0 for all others, which then match nothing. No ranking has a higher AP^p
true IoU of all the parsing score is the true mIoU for all detections, including duplicates and false positives

One output is replaced at a time. People with scores of at least inference.min_parsing_score are painted again, and the
metrics are computed as usual. The paper says "replace the instance score with ground-truth IoU", which does not define
the score of an unmatched detection.
"""

import dataclasses
import pathlib

import numpy as np
import torch
from torch import Tensor

from rpcnn.data.sample import Truth
from rpcnn.inference.pipeline import Pipeline
from rpcnn.inference.results import ParsingResult
from rpcnn.metrics import ParsingEvaluator, PersonMatches, match_people
from rpcnn.model import Detections
from rpcnn.ops.sampling import pixels_inside
from rpcnn.runtime.precision import autocast

from .paper import BOUNDS, METRICS
from .report import grouped_bars, mathtext, new_figure, table, with_change, write
from .trained import Trained, open_trained

ROWS = (*BOUNDS, "true IoU of all")


def run(weights: list[pathlib.Path], arguments: list[str], prog: str) -> dict:
    """Run the command: bounds RUN_OR_WEIGHTS [--output DIR] [--key value …]."""
    if len(weights) != 1:
        raise ValueError(f"{prog} takes one run folder or model.safetensors, got {len(weights)}")
    trained = open_trained(weights[0], arguments, prog)
    results = bounds(trained)
    plain = results["as predicted"]
    text = (
        f"{trained.name}, {plain['images']} images, {plain['people']} people; beside it the paper's Table 1 "
        f"(Parsing R-CNN, R-50, CIHP val); in percent\n\n{format_bounds(results)}"
    )
    write(trained.output, "bounds", text=text, values=results, figure=plot_bounds(results, trained.name))
    print(f"{text}\n\nrpcnn: table, numbers and plot are in {trained.output}: bounds.md, bounds.json, bounds.png")
    return results


def bounds(trained: Trained) -> dict[str, dict]:
    """Compute the metrics of rpcnn.metrics on the evaluation split for each row of Table 1.

    Raises:
        ValueError: test-time augmentation is on, or people are not painted (semantic_mode semseg).
    """
    pipeline, settings = trained.pipeline, trained.config.inference
    if settings.augment:
        raise ValueError("bounds: true boxes are parsed in a single pass; inference.augment must be false")
    if settings.semantic_mode == "semseg":
        raise ValueError("bounds: inference.semantic_mode must be 'combine' or 'parsing': 'semseg' shows no people")
    classes, threshold = pipeline.label_set.num_classes, settings.min_parsing_score
    evaluators = {name: ParsingEvaluator(classes, trained.config.variant.skip_empty) for name in ROWS}
    for sample in trained.samples():
        found, on_true_boxes = detect(pipeline, sample["image"], sample["boxes"])
        background = pipeline.finish(without_people(found), sample["image"]).label_map.cpu()
        predicted = pipeline.finish(found, sample["image"]).cpu()
        matches = match_people(
            predicted.person_maps, predicted.scores, true_person_maps=sample["person_maps"], num_classes=classes
        )
        best = np.where(is_best(matches), matches.overlap, 0.0)
        results = {
            "as predicted": predicted,
            "true boxes": pipeline.finish(on_true_boxes, sample["image"]).cpu(),
            "true parsing": painted(
                with_true_parsing(predicted, matches, sample["person_maps"]), background, threshold
            ),
            "true scores": painted(with_scores(predicted, best), background, threshold),
            "true IoU of all": painted(with_scores(predicted, matches.overlap), background, threshold),
        }
        for name, result in results.items():
            evaluators[name].add_result(result, Truth.of(sample), sample["id"])
    return {name: evaluator.summarize() for name, evaluator in evaluators.items()}


def detect(pipeline: Pipeline, image: Tensor, true_boxes: Tensor) -> tuple[Detections, Detections]:
    """In one pass: the detections of an image, and those of its ground-truth boxes [n, 4], with box score 1."""
    model, device = pipeline.model, pipeline.device
    with torch.inference_mode(), autocast(device, pipeline.dtype):
        resized = pipeline.transform(image).to(device)
        pyramid, semantic_logits, sizes = model.encode([resized])
        found = model.detect(pyramid, semantic_logits, sizes)[0]
        boxes = model.box_head.boxes.resize(true_boxes.to(device), tuple(image.shape[-2:]), sizes[0])
        person_probs, iou_scores = model.parse(pyramid[0], boxes)
    scores = torch.ones(len(boxes), device=device)
    parsed = dict(boxes=boxes, box_scores=scores, iou_scores=iou_scores, person_probs=person_probs)
    return found, dataclasses.replace(found, **parsed)


def without_people(detections: Detections) -> Detections:
    """Copy detections without any person."""
    fields = ("boxes", "box_scores", "iou_scores", "person_probs")
    kept = {name: value[:0] for name in fields if (value := getattr(detections, name)) is not None}
    return dataclasses.replace(detections, **kept)


def with_true_parsing(result: ParsingResult, matches: PersonMatches, truth: Tensor) -> ParsingResult:
    """Replace the map of each person by the part inside its box of the ground-truth map that it overlaps most.

    Unmatched people get an empty map. Scores, order, label_map and instance_map are not changed, see `painted`.

    Args:
        matches: of the result's people with the ground truth.
        truth: uint8 [G, H, W], ground-truth label maps; ignored pixels (255) become background.
    """
    height, width = truth.shape[1:]
    truth = torch.where(truth < result.label_set.num_classes, truth, 0)
    person_maps = torch.zeros_like(result.person_maps)
    for map_, box, person in zip(person_maps, result.boxes.tolist(), matches.person.tolist(), strict=True):
        if person >= 0:
            rows, columns = pixels_inside(box[1], box[3], height), pixels_inside(box[0], box[2], width)
            inside = slice(*rows), slice(*columns)
            map_[inside] = truth[person][inside]
    return dataclasses.replace(result, person_maps=person_maps)


def is_best(matches: PersonMatches) -> np.ndarray:
    """bool [N]: whether a detection has the largest overlap of all that are matched to its person; ties: the first."""
    by_overlap = np.argsort(-matches.overlap, kind="stable")
    _, first = np.unique(matches.person[by_overlap], return_index=True)
    best = np.zeros(len(by_overlap), bool)
    best[by_overlap[first]] = True
    return best & (matches.person >= 0)


def with_scores(result: ParsingResult, scores: np.ndarray) -> ParsingResult:
    """Replace the parsing scores by scores [N] and sort the people by them, best first."""
    scores = torch.from_numpy(scores).to(result.scores)
    return dataclasses.replace(result, scores=scores)[scores.argsort(descending=True, stable=True)]


def painted(result: ParsingResult, background: Tensor, min_score: float) -> ParsingResult:
    """Repaint label_map and instance_map: people with score >= min_score over `background`, the best last (Fig. 4)."""
    label_map, instance_map = background.clone(), torch.zeros(background.shape, dtype=torch.int32)
    for i in reversed(range(len(result))):
        if result.scores[i] >= min_score:
            shown = result.person_maps[i] > 0
            label_map[shown] = result.person_maps[i][shown]
            instance_map[shown] = i + 1
    instance_map = instance_map.to(torch.uint8 if len(result) < 256 else torch.uint16)
    return dataclasses.replace(result, label_map=label_map, instance_map=instance_map)


def format_bounds(results: dict[str, dict]) -> str:
    """Format the table of our and the paper's metrics, with changes to "as predicted"."""
    rows = []
    unknown = dict.fromkeys(METRICS)
    for name in ROWS:
        published = dict(zip(METRICS, BOUNDS[name], strict=True)) if name in BOUNDS else unknown
        plain, paper_plain = results["as predicted"], dict(zip(METRICS, BOUNDS["as predicted"], strict=True))
        if name == "as predicted":
            plain = paper_plain = unknown
        ours = [with_change(results[name][key], plain[key]) for key in METRICS]
        rows.append([name, *ours, *(with_change(published[key], paper_plain[key]) for key in METRICS)])
    return table(["", *METRICS.values(), *(f"paper: {title}" for title in METRICS.values())], rows)


def plot_bounds(results: dict[str, dict], name: str):
    """Plot the rows as bars for each metric, this run above, the paper below."""
    figure = new_figure(8, 6)
    series = {row: [results[row][key] for key in METRICS] for row in ROWS}
    titles = (f"{name}: one output replaced by the truth", "paper, Table 1 (Parsing R-CNN, R-50, CIHP val)")
    for axes, bars, title in zip(figure.subplots(2, 1), (series, BOUNDS), titles, strict=True):
        grouped_bars(axes, [mathtext(title) for title in METRICS.values()], bars)
        axes.set(title=title, ylabel="percent", ylim=(0, 108))
    figure.axes[0].legend(ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False, fontsize=9)
    return figure
