"""Draws a contact sheet of training samples after augmentation: image, parts, people and boxes."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rpcnn.labels import LabelSet
from rpcnn.visualize import INK, OUTLINES, PAPER, color_parts, inner_edges, legend_strip, stack

from .sample import Target

_TILE_HEIGHT, _GAP = 240, 6


def draw_sample(image, target: Target, label_set: LabelSet) -> Image.Image:
    """Draw a sample: the image, and beside it the parts in color with an outline and a box for each person.

    Args:
        image: uint8 [3, H, W].
        target: the ground truth, of the same size.
        label_set: the names and colors of the classes.
    """
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    truth = np.array(color_parts(picture, target["label_map"].numpy(), label_set))
    height, width = truth.shape[:2]
    unit = max(round(height / _TILE_HEIGHT), 1)
    for i, person in enumerate(target["person_maps"].numpy()):
        truth[inner_edges(person > 0, unit)] = OUTLINES[i % len(OUTLINES)]
    right = Image.fromarray(truth)
    draw = ImageDraw.Draw(right)
    for i, (x1, y1, x2, y2) in enumerate(target["boxes"].tolist()):
        draw.rectangle([x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)], outline=OUTLINES[i % len(OUTLINES)], width=unit)
    tile = Image.new("RGB", (2 * width, height), PAPER)
    tile.paste(picture, (0, 0))
    tile.paste(right, (width, 0))
    scale = _TILE_HEIGHT / height
    tile = tile.resize((max(round(2 * width * scale), 1), _TILE_HEIGHT), Image.Resampling.LANCZOS)
    people = len(target["boxes"])
    caption = f"{target['id']}  {width} x {height}  {people} {'person' if people == 1 else 'people'}"
    line = Image.new("RGB", (tile.width, 16), PAPER)
    ImageDraw.Draw(line).text((2, 2), caption, fill=INK, font=ImageFont.load_default(11))
    return stack([line, tile])


def contact_sheet(images: list, targets: list[Target], label_set: LabelSet, width: int = 1600) -> Image.Image:
    """Draw all samples on one sheet, about `width` pixels wide or as wide as the widest tile, with a legend below."""
    tiles = [draw_sample(image, target, label_set) for image, target in zip(images, targets, strict=True)]
    width = max([width, *(tile.width for tile in tiles)])
    places, x, y = [], 0, 0
    for tile in tiles:
        if x and x + tile.width > width:
            x, y = 0, y + tile.height + _GAP
        places.append((tile, x, y))
        x += tile.width + _GAP
    width = max((x + tile.width for tile, x, _ in places), default=width)
    sheet = Image.new("RGB", (width, y + (tiles[-1].height if tiles else 0)), PAPER)
    for tile, x, y in places:
        sheet.paste(tile, (x, y))
    present = np.unique(np.concatenate([np.unique(target["label_map"].numpy()) for target in targets]))
    return stack([sheet, legend_strip(label_set, present, width=width, size=12)])
