"""Pictures of parsing results: parts in colour, outlines, boxes, scores, a legend; and truth beside prediction."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .labels import LabelSet

if TYPE_CHECKING:
    from .results import ParsingResult

WHITE, INK, PAPER = (255, 255, 255), (25, 25, 25), (250, 250, 250)
# Outlines of neighbouring people, told apart by everybody.
OUTLINES = ((255, 209, 0), (0, 190, 255), (255, 110, 60), (130, 230, 90), (240, 120, 230), (255, 255, 255))


def blend(image: np.ndarray, labels: np.ndarray, label_set: LabelSet, opacity: float = 0.6) -> np.ndarray:
    """uint8 [H, W, 3]: the image with every part in its colour; background and ignored pixels stay."""
    palette = np.zeros((256, 3), np.float32)
    palette[: len(label_set.palette)] = label_set.palette
    shown = ((labels > 0) & (labels < label_set.num_classes))[..., None]
    mixed = (1 - opacity) * image + opacity * palette[labels]
    return np.where(shown, mixed, image).astype(np.uint8)


def outline(mask: np.ndarray, thickness: int = 1) -> np.ndarray:
    """bool [H, W]: the pixels of a mask within `thickness` of its edge."""
    inner = mask.copy()
    for _ in range(thickness):
        padded = np.pad(inner, 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:] & inner
    return mask & ~inner


def overlay(
    image: np.ndarray, result: "ParsingResult", score_threshold: float = 0.3, legend: bool = True
) -> Image.Image:
    """The image with parts in colour; people from the threshold on with outline, box and parsing score; a legend."""
    arrays = result.numpy()
    height, width = arrays["labels"].shape
    unit = max(round(min(height, width) / 400), 1)
    canvas = blend(image, arrays["labels"], result.label_set)
    shown = [i for i in range(len(result)) if arrays["scores"][i] >= score_threshold]
    for i in shown:
        canvas[outline(arrays["instances"] == i + 1, unit)] = OUTLINES[i % len(OUTLINES)]
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(10 * unit, 10))
    for i in shown:
        x1, y1, x2, y2 = arrays["boxes"][i].tolist()
        colour = OUTLINES[i % len(OUTLINES)]
        draw.rectangle([x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)], outline=colour, width=unit)
        text = f"{arrays['scores'][i]:.2f}"
        _, _, right, bottom = draw.textbbox((0, 0), text, font=font)
        at = (min(max(x1, 0), width - right - 2), min(max(y1 - bottom - 2, 0), height - bottom - 2))
        draw.rectangle([at[0], at[1], at[0] + right + 2, at[1] + bottom + 2], fill=colour)
        draw.text((at[0] + 1, at[1]), text, fill=INK, font=font)
    if not legend:
        return picture
    strip = legend_strip(result.label_set, np.unique(arrays["labels"]), width, unit)
    return stack([picture, strip])


def legend_strip(label_set: LabelSet, present, width: int, unit: int = 1) -> Image.Image:
    """Names and colours of the classes present, in as many lines as the width asks for."""
    font = ImageFont.load_default(max(10 * unit, 10))
    side, gap = 10 * unit, 4 * unit
    entries, x, y = [], gap, gap
    for label in present:
        if not 0 < label < label_set.num_classes:
            continue
        name = label_set.names[label]
        length = side + gap + int(font.getlength(name)) + 2 * gap
        if x + length > width and x > gap:
            x, y = gap, y + side + 2 * gap
        entries.append((x, y, label, name))
        x += length
    strip = Image.new("RGB", (width, y + side + 2 * gap if entries else 1), PAPER)
    draw = ImageDraw.Draw(strip)
    for x, y, label, name in entries:
        draw.rectangle([x, y, x + side, y + side], fill=tuple(label_set.palette[label]), outline=INK)
        draw.text((x + side + gap, y - unit), name, fill=INK, font=font)
    return strip


def panel(image: np.ndarray, truth: np.ndarray, result: "ParsingResult", score_threshold: float = 0.3) -> Image.Image:
    """Input, truth and prediction side by side with captions, and a legend of the classes in either map.

    Args:
        image: uint8 [H, W, 3] RGB; truth: uint8 [H, W] labels, 255 unknown.
    """
    height, width = truth.shape
    unit = max(round(min(height, width) / 400), 1)
    labelled = blend(image, truth, result.label_set)
    pictures = [
        captioned(Image.fromarray(image), "input", unit),
        captioned(Image.fromarray(labelled), "truth", unit),
        captioned(overlay(image, result, score_threshold, legend=False), "prediction", unit),
    ]
    row = Image.new("RGB", (3 * width + 2 * 4 * unit, pictures[0].height), PAPER)
    for i, picture in enumerate(pictures):
        row.paste(picture, (i * (width + 4 * unit), 0))
    present = np.union1d(np.unique(truth), np.unique(result.labels.cpu().numpy()))
    return stack([row, legend_strip(result.label_set, present, row.width, unit)])


def captioned(picture: Image.Image, caption: str, unit: int = 1) -> Image.Image:
    """The picture under a line of text."""
    font = ImageFont.load_default(max(11 * unit, 11))
    line = Image.new("RGB", (picture.width, 16 * unit), PAPER)
    ImageDraw.Draw(line).text((4 * unit, unit), caption, fill=INK, font=font)
    return stack([line, picture])


def stack(pictures: list[Image.Image]) -> Image.Image:
    """Pictures below one another, left-aligned on paper colour."""
    out = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), PAPER)
    y = 0
    for picture in pictures:
        out.paste(picture, (0, y))
        y += picture.height
    return out
