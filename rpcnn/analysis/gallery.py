"""Fig. 6: images, ground truth and predictions on one sheet.

run.pictures images are taken at equal intervals from the evaluation split (--run.pictures 20).
"""

import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rpcnn.data.open import open_dataset
from rpcnn.data.sample import Sample
from rpcnn.inference.results import ParsingResult
from rpcnn.labels import LabelSet
from rpcnn.metrics import match_people
from rpcnn.visualize import INK, PAPER, as_picture, color_parts, draw_result, legend_strip, resize, stack

from .report import number, table
from .trained import Trained, open_trained

HEIGHT = 260  # pixels of every picture on the sheet
WIDEST = 2400  # pixels of the sheet, unless one image alone needs more
GAP = 8
TEXT = 15


def run(weights: list[pathlib.Path], arguments: list[str], prog: str) -> list[dict]:
    """Run the command: gallery RUN_OR_WEIGHTS [--run.pictures N] [--output DIR] [--key value …]."""
    if len(weights) != 1:
        raise ValueError(f"{prog} takes one run folder or model.safetensors, got {len(weights)}")
    trained = open_trained(weights[0], arguments, prog)
    records, sheet = gallery(trained, trained.config.run.pictures)
    text = f"{trained.name}: the images of gallery.png, in reading order\n\n{format_gallery(records)}"
    trained.output.mkdir(parents=True, exist_ok=True)
    (trained.output / "gallery.md").write_text(text + "\n", encoding="utf-8")
    sheet.save(trained.output / "gallery.png")
    print(f"{text}\n\nrpcnn: table and sheet are in {trained.output}: gallery.md, gallery.png")
    return records


def gallery(trained: Trained, count: int) -> tuple[list[dict], Image.Image]:
    """Make records of `count` images of the evaluation split and the sheet that shows them.

    Keys of a record: image; people, the number of ground-truth people; shown, the number of detections with a score of
    at least inference.min_parsing_score; score and true_iou, the means of parsing score and true mIoU over the shown
    detections, None without any.

    Raises:
        ValueError: count is not positive.
    """
    if count < 1:
        raise ValueError(f"gallery: run.pictures must be at least 1, got {count}")
    dataset, pipeline = open_dataset(trained.config, "eval"), trained.pipeline
    labels, min_score = pipeline.label_set, trained.config.inference.min_parsing_score
    records, rows, present = [], [], set()
    for index in np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int)).tolist():
        sample = dataset[index]
        result = pipeline(sample["image"]).cpu()
        records.append(describe(sample, result, min_score=min_score, num_classes=labels.num_classes))
        rows.append(triple(sample["image"].permute(1, 2, 0).numpy(), sample["label_map"].numpy(), result))
        present |= set(np.unique(sample["label_map"]).tolist()) | set(np.unique(result.label_map).tolist())
    return records, sheet(rows, sorted(present), labels)


def describe(sample: Sample, result: ParsingResult, min_score: float, num_classes: int) -> dict:
    """The record of one image, see :func:`gallery`."""
    shown = result.above(min_score)
    matches = match_people(
        shown.person_maps, shown.scores, true_person_maps=sample["person_maps"], num_classes=num_classes
    )
    mean = lambda values: float(np.mean(values)) if len(values) else None
    people = len(sample["boxes"])
    means = {"score": mean(matches.scores), "true_iou": mean(matches.overlap) if people else None}
    return {"image": sample["id"], "people": people, "shown": len(shown)} | means


def triple(image: np.ndarray, true_label_map: np.ndarray, result: ParsingResult) -> Image.Image:
    """Draw input, ground truth and prediction side by side, each HEIGHT pixels high."""
    picture = as_picture(image, true_label_map.shape)
    size = (max(round(HEIGHT * picture.width / picture.height), 1), HEIGHT)
    resized = resize(picture, size)
    tiles = [resized, color_parts(resized, true_label_map, result.label_set), draw_result(picture, result, size)]
    row = Image.new("RGB", (3 * size[0] + 4, HEIGHT), PAPER)
    for i, tile in enumerate(tiles):
        row.paste(tile, (i * (size[0] + 2), 0))
    return row


def sheet(triples: list[Image.Image], present: list[int], labels: LabelSet) -> Image.Image:
    """Arrange triples in rows of at most WIDEST pixels, with a caption above and the legend of the parts below."""
    lines: list[list[Image.Image]] = [[]]
    for picture in triples:
        width = sum(p.width + GAP for p in lines[-1]) + picture.width
        if lines[-1] and width > WIDEST:
            lines.append([])
        lines[-1].append(picture)
    width = max(sum(p.width + GAP for p in line) + GAP for line in lines)
    caption = Image.new("RGB", (width, 2 * TEXT), PAPER)
    text = "each: input, truth, prediction with boxes and parsing scores"
    ImageDraw.Draw(caption).text((GAP, TEXT), text, fill=INK, font=ImageFont.load_default(TEXT), anchor="lm")
    strips = []
    for line in lines:
        strip, x = Image.new("RGB", (width, HEIGHT + GAP), PAPER), GAP
        for picture in line:
            strip.paste(picture, (x, 0))
            x += picture.width + GAP
        strips.append(strip)
    return stack([caption, *strips, legend_strip(labels, present, width=width, size=TEXT)])


def format_gallery(records: list[dict]) -> str:
    """Format the records as a table."""
    header = ["image", "true people", "shown", "mean parsing score", "mean true mIoU"]
    rows = [
        [r["image"], str(r["people"]), str(r["shown"]), number(r["score"], 2), number(r["true_iou"], 2)]
        for r in records
    ]
    return table(header, rows)
