"""The whole evaluator against plain numpy, and against decoding the ground truth again for every pair of people.

    python benchmarks/evaluator.py --images 500 --output benchmarks/EVALUATOR.md

Images have CIHP's usual size of 350×500 pixels, 3 or 4 people and 10 predictions, which are true people, shifted, with
some parts wrong. Two comparisons in alternating rounds:

counting        from arrays in memory to the pixel counts of all metrics: rpcnn._metrics against numpy
from folders    from PNGs on disk to all metrics. The baseline works as the released code: it decodes both label maps
                for mIoU, and for every pair of a prediction and a true person it decodes the person's PNG and makes a
                classes × classes histogram of the whole image. It runs on the first images and is extrapolated.
"""

import argparse
import datetime
import gc
import pathlib
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from rpcnn.data.datasets import open_split
from rpcnn.data.painted.scene import paint_maps
from rpcnn.evaluation.predictions import evaluate_predictions
from rpcnn.formats import FORMATS, Prediction, make_format
from rpcnn.labelmaps import compiled
from rpcnn.metrics import ParsingEvaluator, ap_p, confusion_matrix, counting, match_people, pcp, person_counts

HEIGHT, WIDTH, CLASSES, PREDICTIONS, SCENES = 350, 500, 20, 10, 50


def scenes(count: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, Prediction]]:
    """Make a label map, a map of person numbers, person maps [G, H, W] and a prediction for each image, repeating 50
    painted scenes."""
    painted, found = [], []
    for i in range(min(count, SCENES)):
        _, labels, human = paint_maps((5, i), HEIGHT, WIDTH, people=3 + i % 2)
        painted.append((labels, human))
    for i in range(count):
        rng = np.random.default_rng(i)
        labels, human = painted[i % len(painted)]
        numbers = [k for k in np.unique(human) if k]
        people = np.stack([np.where(human == k, labels, 0) for k in numbers]).astype(np.uint8)
        maps = np.zeros((PREDICTIONS, HEIGHT, WIDTH), np.uint8)
        for n, one in enumerate(maps):
            swapped = np.where(rng.random(CLASSES) < 0.2, rng.integers(1, CLASSES, CLASSES), np.arange(CLASSES))
            swapped[0] = 0
            one[:] = swapped[np.roll(people[n % len(people)], rng.integers(-8, 9, 2), axis=(0, 1))]
        found.append((labels, human, people, Prediction(maps.max(0), maps, rng.random(PREDICTIONS))))
    return found


def write_truth(images, root: pathlib.Path) -> None:
    """Write a CIHP folder, and a PNG per person, people/<image>_<k>.png, as the released code uses."""
    for name in ("Images", "Category_ids", "Human_ids"):
        (root / "Validation" / name).mkdir(parents=True)
    (root / "people").mkdir()
    for i, (labels, human, people, _) in enumerate(images):
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(root / "Validation" / "Images" / f"{i:05d}.jpg")
        Image.fromarray(labels).save(root / "Validation" / "Category_ids" / f"{i:05d}.png")
        Image.fromarray(human.astype(np.uint8)).save(root / "Validation" / "Human_ids" / f"{i:05d}.png")
        for k, person in enumerate(people):
            Image.fromarray(person).save(root / "people" / f"{i:05d}_{k}.png")


def count(images) -> list:
    """Count the pixels for mIoU, AP^p, PCP, AP^r and AP^h of every image, with one thread per core."""
    one = lambda i: (confusion_matrix(i[0], i[3].label_map, CLASSES), person_counts(i[3].person_maps, i[2], CLASSES))
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda k: [one(image) for image in images[k::threads]], range(threads)))


def pair_by_pair(images, root: pathlib.Path) -> tuple[np.ndarray, list[tuple[int, float]]]:
    """Compute the confusion matrix, and (best person, mean IoU) of every prediction, as the released code does."""
    best, total = [], np.zeros((CLASSES, CLASSES), int)
    for i, (_, _, people, prediction) in enumerate(images):
        truth = np.asarray(Image.open(root / "Validation" / "Category_ids" / f"{i:05d}.png"))
        labels = np.asarray(Image.open(root / "people" / f"{i:05d}_labels.png"))
        total += np.bincount(CLASSES * truth.astype(int).ravel() + labels.ravel(), minlength=CLASSES**2).reshape(
            CLASSES, CLASSES
        )
        for one in prediction.person_maps:
            overlaps = []
            for k in range(len(people)):
                truth = np.asarray(Image.open(root / "people" / f"{i:05d}_{k}.png"))
                counted = (truth >= 0) & (truth < CLASSES)
                pairs = CLASSES * truth[counted].astype(int) + one[counted]
                confusion = np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
                intersection = np.diag(confusion)
                with np.errstate(invalid="ignore"):
                    overlaps.append(np.nanmean(intersection / (confusion.sum(0) + confusion.sum(1) - intersection)))
            best.append((int(np.argmax(overlaps)), float(np.max(overlaps))))
    return total, best


def seconds(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_numpy(work) -> float:
    core, counting._metrics = counting._metrics, None
    try:
        return seconds(work)
    finally:
        counting._metrics = core


def row(title: str, ours: list[float], baseline: list[float], note: str) -> str:
    ratios = sorted(b / a for a, b in zip(ours, baseline, strict=True))
    middle = ratios[len(ratios) // 2]
    times = f"{np.median(ours):.2f} | {np.median(baseline):.1f}"
    return f"| {title} | {times} | **{middle:.0f}** | {ratios[0]:.0f}–{ratios[-1]:.0f} | {note} |"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument(
        "--baseline-images", type=int, default=20, help="images of the pair by pair baseline, extrapolated"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", default="")
    options = parser.parse_args()
    if compiled.core is None or counting._metrics is None:
        parser.error("rpcnn._labelmaps or rpcnn._metrics is not compiled")
    images = scenes(options.images)
    few = images[: options.baseline_images]
    scale = len(images) / len(few)
    people = np.mean([len(image[2]) for image in images])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        write_truth(images, root)
        dataset = open_split(root, "val")
        for name in FORMATS:
            format = make_format(name)
            for i, image in enumerate(images):
                format.write(root / name, f"{i:05d}", image[3])
            format.finish(root / name)

        # Check first that both give the same results.
        matches = [match_people(p.person_maps, p.scores, people, CLASSES) for _, _, people, p in few]
        found = [(int(g), float(o)) for m in matches for g, o in zip(m.person, m.overlap, strict=True)]
        confusion, pairs = pair_by_pair(few, root)
        assert np.allclose(found, pairs, rtol=1e-12)
        assert np.array_equal(confusion, sum(confusion_matrix(i[0], i[3].label_map, CLASSES) for i in few))
        run = lambda name: evaluate_predictions(make_format(name), root / name, dataset, ParsingEvaluator(CLASSES))
        results = run("people")
        everything = [match_people(p.person_maps, p.scores, people, CLASSES) for _, _, people, p in images]
        assert (results["ap_p_50"], results["pcp_50"]) == (ap_p(everything), pcp(everything))

        turns = [(seconds(lambda: count(images)), in_numpy(lambda: count(images))) for _ in range(options.rounds)]
        rows.append(row("counting, arrays in memory", *zip(*turns, strict=True), "plain numpy form"))
        baseline = lambda: scale * seconds(lambda: pair_by_pair(few, root))
        gc.freeze()  # as rpcnn evaluate does
        images.clear()  # a gigabyte that every process of the evaluator would have to map
        for name in FORMATS:
            turns = [(seconds(lambda name=name: run(name)), baseline()) for _ in range(options.rounds)]
            rows.append(
                row(f"from folders, format `{name}`", *zip(*turns, strict=True), "truth decoded for every pair")
            )
    text = "\n".join(
        [
            "# How fast the evaluator is",
            "",
            f"`python benchmarks/evaluator.py --images {options.images} --output benchmarks/EVALUATOR.md`",
            "",
            f"{datetime.date.today()}, {torch.get_num_threads()} threads. {options.images} images of {HEIGHT}×{WIDTH},",
            f"{people:.1f} people and {PREDICTIONS} predictions each; seconds for all, {options.rounds} turns.",
            f"The pair by pair baseline ran on {len(few)} images, extrapolated; its predicted people are in memory,",
            "and it gives mIoU, AP^p and PCP alone; ours are decoded and give every metric.",
            "",
            "| | ours, s | baseline, s | times faster | range | baseline |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )
    print(text)
    if options.output:
        pathlib.Path(options.output).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
