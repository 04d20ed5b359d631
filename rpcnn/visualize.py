"""Pictures of parsing results: parts in color, outlines, boxes, scores, a legend; and truth beside prediction.

Everything is drawn at the size at which it is shown: small pictures are enlarged until text on them can be read, and
lines and text grow with large ones.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from rpcnn.labels import IGNORE, LabelSet
from rpcnn.pictures import Picture, load_picture

INK, PAPER = (25, 25, 25), (250, 250, 250)
# Outlines of neighboring people: bright, so that dark text can be read on them, and told apart by everybody.
OUTLINES = ((255, 209, 0), (0, 190, 255), (255, 110, 60), (130, 230, 90), (240, 130, 230), (255, 255, 255))
SHORTEST_SIDE = 240  # pixels; below it a legend takes more room than the picture
LONGEST_PANEL_SIDE = 1280  # three of them in a row still open in any viewer


class Parsed(Protocol):
    """What pictures are made of, as :class:`rpcnn.ParsingResult` has it."""

    boxes: Tensor
    """[N, 4] x1 y1 x2 y2 in pixels."""
    scores: Tensor
    """[N], best first."""
    label_map: Tensor
    """[H, W]."""
    instance_map: Tensor
    """[H, W]: 0 nobody, i + 1 person i."""
    label_set: LabelSet

    def __len__(self) -> int: ...


def overlay(image: Picture, result: Parsed, legend: bool = True) -> Image.Image:
    """The picture with parts in their colors; each person that result.instance_map shows with outline, box and score.

    Args:
        image: a path, a PIL image or uint8 [H, W, 3] RGB, of the result's size.
        legend: add a strip with colors and names of the parts present below the picture.

    Returns:
        RGB, a whole number of times as large as the image: once, unless its shorter side has less than 240 pixels.
        The legend comes on top of that.

    Raises:
        ValueError: the image has another size or dtype.
    """
    height, width = result.label_map.shape
    scale = enlargement((height, width))
    picture = draw_result(as_picture(image, (height, width)), result, (width * scale, height * scale))
    if not legend:
        return picture
    strip = legend_strip(
        result.label_set, np.unique(result.label_map.cpu().numpy()), width=picture.width, size=text_size(picture)
    )
    return stack([picture, strip])


def panel(image: Picture, true_label_map: np.ndarray, result: Parsed) -> Image.Image:
    """Input, truth and prediction side by side with captions, and a legend of the parts in either map.

    Args:
        image: uint8 [H, W, 3] RGB or a PIL image.
        true_label_map: [H, W] labels; 255 unknown, drawn hatched.

    Returns:
        RGB; each of the three is enlarged, or reduced to at most 1280 pixels.

    Raises:
        ValueError: image or truth have another size than the result.
    """
    shape = (result.label_map.shape[0], result.label_map.shape[1])
    true_label_map = np.asarray(true_label_map).astype(np.uint8)
    if true_label_map.shape != shape:
        raise ValueError(f"panel: true_label_map must have the result's size {shape}, got {true_label_map.shape}")
    picture = as_picture(image, shape)
    scale = min(enlargement(shape), LONGEST_PANEL_SIDE / max(shape))
    size = (max(round(shape[1] * scale), 1), max(round(shape[0] * scale), 1))
    resized = resize(picture, size)
    tiles = [resized, color_parts(resized, true_label_map, result.label_set), draw_result(picture, result, size)]
    gap = text_size(resized) // 3
    row = Image.new("RGB", (3 * size[0] + 2 * gap, tiles[0].height), PAPER)
    captions = Image.new("RGB", (row.width, 2 * text_size(resized)), PAPER)
    draw, font = ImageDraw.Draw(captions), ImageFont.load_default(text_size(resized))
    for i, (tile, caption) in enumerate(zip(tiles, ("input", "truth", "prediction"), strict=True)):
        left = i * (size[0] + gap)
        row.paste(tile, (left, 0))
        draw.text((left + gap, captions.height // 2), caption, fill=INK, font=font, anchor="lm")
    present = np.union1d(true_label_map, result.label_map.cpu().numpy())
    return stack([captions, row, legend_strip(result.label_set, present, width=row.width, size=text_size(resized))])


def draw_result(
    picture: Image.Image, result: Parsed, size: tuple[int, int], numbers: Sequence[int] | None = None
) -> Image.Image:
    """A picture resized to (width, height) with the parts and people of the result.

    Args:
        numbers: of the people, from 1; each is written before the score and has its color. None: the person's place in
            the result is its color.
    """
    ratio_x, ratio_y = size[0] / picture.width, size[1] / picture.height
    picture = color_parts(resize(picture, size), result.label_map.cpu().numpy(), result.label_set)
    instances = resize_labels_center(result.instance_map.cpu().numpy(), size)
    unit = line_width(picture)
    outlines = np.array(OUTLINES, np.uint8)
    edge = inner_edges(instances, unit)
    pixels = np.array(picture)
    ids = np.arange(1, max(len(result), int(instances.max(initial=0))) + 1)
    if numbers is not None:
        ids[: len(result)] = numbers
    colors = outlines[(ids - 1) % len(outlines)]
    pixels[edge] = colors[instances[edge].astype(np.int64) - 1]
    picture = Image.fromarray(pixels)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(text_size(picture))
    shown = [person for person in np.unique(instances).tolist() if 1 <= person <= len(result)]
    boxes = result.boxes.tolist()
    captions = [f"{score:.2f}" for score in result.scores.tolist()]
    if numbers is not None:
        captions = [f"{number}: {caption}" for number, caption in zip(numbers, captions, strict=True)]
    margin = max(text_size(picture) // 5, 2)
    texts: list[tuple[int, int, int, int]] = []
    for person in shown:
        x1, y1, x2, y2 = (v * r for v, r in zip(boxes[person - 1], (ratio_x, ratio_y) * 2, strict=True))
        color = tuple(colors[person - 1].tolist())
        draw.rectangle([x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)], outline=color, width=max(unit // 2, 1))
        _, _, right, bottom = draw.textbbox((0, 0), captions[person - 1], font=font, anchor="lt")
        texts.append(
            free_place((x1, y1), (round(right) + 2 * margin, round(bottom) + 2 * margin), taken=texts, size=size)
        )
    for person, box in reversed(list(zip(shown, texts, strict=True))):  # the best person's score lies on top
        draw.rectangle(box, fill=tuple(colors[person - 1].tolist()))
        at = (box[0] + margin, box[1] + margin)
        draw.text(at, captions[person - 1], fill=INK, font=font, anchor="lt")
    return picture


def free_place(
    corner: Sequence[int], needed: tuple[int, int], taken: list, size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """x1 y1 x2 y2 of `needed` (width, height) pixels above a corner, moved into the picture and past those taken."""
    width, height = needed
    x = max(min(round(corner[0]), size[0] - width), 0)
    y = max(round(corner[1]) - height, 0)
    for left, top, right, bottom in sorted(taken, key=lambda box: box[1]):
        if left < x + width and x < right and top < y + height and y < bottom:
            y = bottom + 1
    y = max(min(y, size[1] - height), 0)
    return x, y, x + width, y + height


def color_parts(picture: Image.Image, label_map: np.ndarray, label_set: LabelSet, opacity: float = 0.6) -> Image.Image:
    """The picture under the colors of a label map, which is resized to it; 255 is hatched, background is left."""
    labels = resize_labels_center(label_map, picture.size)
    colors = Image.fromarray(labels)
    colors.putpalette(flat_palette(label_set))
    parts = Image.fromarray((labels > 0) & (labels < label_set.num_classes))
    picture = Image.composite(Image.blend(picture, colors.convert("RGB"), opacity), picture, parts)
    if (labels == IGNORE).any():
        period = 6 * line_width(picture)
        rows, columns = np.ogrid[: labels.shape[0], : labels.shape[1]]
        picture.paste(PAPER, mask=Image.fromarray((labels == IGNORE) & ((rows + columns) % period < period // 3)))
    return picture


def inner_edges(instances: np.ndarray, thickness: int = 1) -> np.ndarray:
    """bool [H, W]: pixels of people (> 0) with another value at most `thickness` rows or columns away."""
    edge = np.zeros(instances.shape, bool)
    for k in range(1, thickness + 1):
        differs = instances[k:] != instances[:-k]
        edge[k:] |= differs
        edge[:-k] |= differs
        differs = instances[:, k:] != instances[:, :-k]
        edge[:, k:] |= differs
        edge[:, :-k] |= differs
    return edge & (instances > 0)


def legend_strip(label_set: LabelSet, present: Iterable[int], width: int, size: int) -> Image.Image:
    """Colors and names of the parts present, in as many lines as the width asks for; `size` is that of the text."""
    font = ImageFont.load_default(size)
    gap = max(size // 3, 2)
    entries, x, y = [], gap, gap
    for label in (int(label) for label in present if 0 < label < label_set.num_classes):
        length = size + gap + int(font.getlength(label_set.names[label])) + 2 * gap
        if x + length > width and x > gap:
            x, y = gap, y + size + gap
        entries.append((x, y, label))
        x += length
    strip = Image.new("RGB", (width, y + size + gap if entries else 1), PAPER)
    draw = ImageDraw.Draw(strip)
    for x, y, label in entries:
        draw.rectangle([x, y, x + size - 1, y + size - 1], fill=tuple(label_set.palette[label]), outline=INK)
        draw.text((x + size + gap, y + size / 2), label_set.names[label], fill=INK, font=font, anchor="lm")
    return strip


def flat_palette(label_set: LabelSet) -> list[int]:
    """256 colors as Pillow wants them, black after the last label, so that files keep 8 bits per pixel."""
    flat = [value for color in label_set.palette for value in color]
    return flat + [0] * (768 - len(flat))


def as_picture(image: Picture, shape: tuple[int, int]) -> Image.Image:
    """A path, PIL image or uint8 [H, W, 3] array as RGB. Raises ValueError if it has not the shape (H, W)."""
    picture = Image.fromarray(load_picture(image))
    if (picture.height, picture.width) != shape:
        raise ValueError(f"image: must have the result's size {shape}, got {(picture.height, picture.width)}")
    return picture


def resize(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at (width, height); a copy."""
    return picture.resize(size, Image.Resampling.BICUBIC)


def resize_labels_center(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A label map at (width, height): each pixel takes the label of the pixel that its center lies in."""
    if labels.shape == size[::-1]:
        return labels
    nearest = lambda wanted, there: (2 * np.arange(wanted) + 1) * there // (2 * wanted)
    return labels[nearest(size[1], labels.shape[0])[:, None], nearest(size[0], labels.shape[1])]


def enlargement(shape: tuple[int, int]) -> int:
    """How many times as large a picture of (height, width) is drawn."""
    return max(min(-(-SHORTEST_SIDE // min(shape)), LONGEST_PANEL_SIDE // max(shape)), 1)


def line_width(picture: Image.Image) -> int:
    """Pixels: 1 up to a shorter side of 500, growing with it."""
    return max(round(min(picture.size) / 350), 1)


def text_size(picture: Image.Image) -> int:
    """Pixels: a thirtieth of the shorter side, 12 at the least."""
    return max(round(min(picture.size) / 30), 12)


def stack(pictures: list[Image.Image]) -> Image.Image:
    """Pictures below one another, left-aligned on paper color."""
    out = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), PAPER)
    y = 0
    for picture in pictures:
        out.paste(picture, (0, y))
        y += picture.height
    return out
