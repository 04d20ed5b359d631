"""Fig. 5: correlation of box score and parsing score with the true mIoU of each detection.

The true mIoU of a detection is the overlap that AP^p uses: the mean over the classes, background included, of the IoU
of its map with that of the ground-truth person that it overlaps most. A detection is *matched* if its box also has an
IoU of at least 0.5 with the box of this person. The re-scoring network is trained on such RoIs; unmatched detections
are false positives whatever their map. Correlations are given for all and for matched detections.
"""

import csv
import pathlib

import numpy as np

from rpcnn.metrics import match_people
from rpcnn.model.boxes import box_iou

from .report import COLORS, new_figure, number, table, write
from .trained import Trained, open_trained

MATCHED = 0.5  # box IoU
COLUMNS = ("image", "detection", "box_score", "iou_score", "score", "true_iou", "matched")
SCORES = {"box_score": "box score", "score": "parsing score"}


def run(weights: list[pathlib.Path], arguments: list[str], prog: str) -> dict:
    """Run the command: scores RUN_OR_WEIGHTS [--output DIR] [--key value …]."""
    if len(weights) != 1:
        raise ValueError(f"{prog} takes one run folder or model.safetensors, got {len(weights)}")
    trained = open_trained(weights[0], arguments, prog)
    points = score_points(trained)
    results = correlations(points)
    text = f"{trained.name}: correlation of each score with the true mIoU\n\n{format_correlations(results)}"
    if not trained.config.model.prsn:
        text += "\n\nWithout a re-scoring network the parsing score is the box score."
    write(trained.output, "scores", text=text, values=results, figure=plot_scores(points, results, trained.name))
    write_csv(trained.output / "scores.csv", points)
    print(f"{text}\n\nrpcnn: in {trained.output}: scores.md, scores.json, scores.png, and every point in scores.csv")
    return results


def score_points(trained: Trained) -> list[dict]:
    """A dict with COLUMNS for every detection in the images of the evaluation split that have ground-truth people.

    detection is its index in the image, from 0, best parsing score first; scores and true_iou are in 0..1.
    """
    points, num_classes = [], trained.pipeline.label_set.num_classes
    for sample in trained.samples():
        if not len(sample["boxes"]):
            continue
        result = trained.pipeline(sample["image"]).cpu()
        matches = match_people(
            result.person_maps, result.scores, true_person_maps=sample["person_maps"], num_classes=num_classes
        )
        box_overlap = box_iou(result.boxes, sample["boxes"]).numpy()
        for i, person in enumerate(matches.person):
            points.append(
                {
                    "image": sample["id"],
                    "detection": i,
                    "box_score": float(result.box_scores[i]),
                    "iou_score": float(result.iou_scores[i]),
                    "score": float(result.scores[i]),
                    "true_iou": float(matches.overlap[i]),
                    "matched": bool(box_overlap[i, person] >= MATCHED),
                }
            )
    return points


def correlations(points: list[dict]) -> dict:
    """Correlations with true_iou (pearson and spearman, by score) and the number of "all" and "matched" detections.

    A correlation is None if undefined: less than two points, or constant values.
    """
    results = {}
    for name, chosen in (("all", points), ("matched", [point for point in points if point["matched"]])):
        truth = np.array([point["true_iou"] for point in chosen])
        results[name] = {"detections": len(chosen)}
        for score in SCORES:
            values = np.array([point[score] for point in chosen])
            results[name][score] = {"pearson": pearson(values, truth), "spearman": spearman(values, truth)}
    return results


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's correlation of x [n] and y [n], in -1..1; None if one of them is constant."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    x, y = x - x.mean(), y - y.mean()
    return float((x @ y) / np.sqrt((x @ x) * (y @ y)))


def spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's correlation of the ranks; equal values share the mean of their ranks."""
    return pearson(ranks(x), ranks(y))


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks [n] from 0, float64; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    return (last - (counts - 1) / 2)[inverse]


def format_correlations(results: dict) -> str:
    """Format the correlations as a table."""
    header = ["detections", "number"]
    header += [f"{title}: {kind}" for title in SCORES.values() for kind in ("Pearson", "Spearman")]
    rows = [
        [name, str(part["detections"])]
        + [number(part[score][kind], 3) for score in SCORES for kind in ("pearson", "spearman")]
        for name, part in results.items()
    ]
    return table(header, rows)


def plot_scores(points: list[dict], results: dict, name: str):
    """Plot true mIoU over box score and over parsing score, one point per detection, with the line of equality."""
    figure = new_figure(8, 5)
    size = float(np.clip(3000 / max(len(points), 1), 1, 12))
    for axes, (score, title) in zip(figure.subplots(1, 2, sharex=True, sharey=True), SCORES.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, zorder=0)
        for matched, color, label in (
            (True, COLORS[1], "matched"),
            (False, COLORS[5], "not matched: boxes overlap by less than 0.5"),
        ):
            chosen = [point for point in points if point["matched"] == matched]
            axes.scatter(
                [point[score] for point in chosen],
                [point["true_iou"] for point in chosen],
                s=size,
                color=color,
                alpha=0.5,
                linewidths=0,
                label=f"{label} ({len(chosen)})",
            )
        lines = [
            f"{kind}: Pearson {number(part[score]['pearson'], 2)}, Spearman {number(part[score]['spearman'], 2)}"
            for kind, part in results.items()
        ]
        axes.set_title("\n".join([title, *lines]), fontsize=9)
        axes.set(xlabel=title, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), box_aspect=1)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
    figure.axes[0].set_ylabel("true mIoU")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, markerscale=2)
    for handle in legend.legend_handles:
        handle.set_alpha(1)
    figure.suptitle(name)
    return figure


def write_csv(path: pathlib.Path, points: list[dict]) -> None:
    """Write one line per detection."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(point | {"matched": int(point["matched"])} for point in points)
