"""Resizes and flips a sample: image, maps and boxes together.

Images are resized bilinearly with antialiasing, in training and at test time, unless `TestTransform` has
resize="opencv". Label maps are resized by nearest neighbor: pixel i of the new map is pixel floor(i * old / new) of the
old one. Boxes are multiplied by the ratio of the sizes.
"""

import logging

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rpcnn.box_convention import EDGES, BoxConvention, mirror_boxes
from rpcnn.labelmaps import compiled
from rpcnn.labels import LabelSet

from .sample import Sample

log = logging.getLogger(__name__)
_SAME_LABELS = np.arange(256, dtype=np.uint8)


def resized_shape(height: int, width: int, short_side: int, max_size: int) -> tuple[int, int]:
    """Compute (height, width) in pixels after scaling the short side to `short_side`.

    If the long side would exceed `max_size`, the short side becomes round(max_size * short / long) instead. The long
    side is truncated to an integer (at least 1). Where the short side rounds to 0 the image becomes 1 × max_size.
    """
    short, long = min(height, width), max(height, width)
    if short_side * long > max_size * short:
        short_side = round(max_size * short / long)
    long_side = max(int(short_side * long / short), 1) if short_side else max_size
    short_side = max(short_side, 1)
    return (short_side, long_side) if height <= width else (long_side, short_side)


def released_scale(height: int, width: int, short_side: int, max_size: int) -> float:
    """The factor by which the released code resizes a picture at test time, both sides alike.

    It is short_side / short, or max_size / long if the rounded long side would exceed max_size.
    """
    short, long = min(height, width), max(height, width)
    scale = short_side / short
    return max_size / long if round(scale * long) > max_size else scale


def resize_by_factor(image: Tensor, scale: float) -> Tensor:
    """Resize an image as OpenCV does by a factor, uint8 [3, H, W] -> float32 [3, h, w] in 0..255, not rounded.

    Bilinear without antialiasing. The sides are rounded (at least 1); pixels are sampled in steps of 1 / scale, not of
    the ratio of the rounded sides.
    """
    size = [max(round(side * scale), 1) for side in image.shape[-2:]]
    return torch.ops.aten.upsample_bilinear2d(image[None].float(), size, False, scale, scale)[0]


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize an image bilinearly, with antialiasing where it shrinks, uint8 [3, H, W] -> uint8 [3, h, w]."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    batch = image[None]
    if batch.is_contiguous(
        memory_format=torch.channels_last
    ):  # pictures from files; with the strides of one, it is fast
        height, width = image.shape[-2:]
        batch = batch.as_strided(batch.shape, (3 * height * width, 1, 3 * width, 3))
    native = (
        "AVX" in torch.backends.cpu.get_cpu_capability()
    )  # elsewhere torch truncates bytes instead of rounding them
    resized = F.interpolate(batch if native else batch.float(), size=tuple(size), mode="bilinear", antialias=True)[0]
    return resized if native else resized.round().to(torch.uint8)


def resize_labels_floor(labels: Tensor, size: tuple[int, int], flip_table: np.ndarray | None = None) -> Tensor:
    """Resize labels, uint8 [..., H, W] -> uint8 [..., h, w]: new pixel i is old pixel floor(i * old / new).

    Args:
        flip_table: uint8 [256]; with it, the result is flipped horizontally and has flip_table[value] for each value.
    """
    flipped = flip_table is not None
    if tuple(labels.shape[-2:]) == tuple(size) and not flipped:
        return labels
    table = flip_table if flip_table is not None else _SAME_LABELS
    if compiled.core and labels.numel():
        return torch.from_numpy(compiled.core.resize(labels.numpy(), *size, table, flipped))
    for dim, new in ((-2, size[0]), (-1, size[1])):
        labels = labels.index_select(dim, torch.arange(new) * labels.shape[dim] // new)  # exact in integers
    return torch.from_numpy(table)[(labels.flip(-1) if flipped else labels).long()]


def resize_sample(
    sample: Sample, size: tuple[int, int], boxes: BoxConvention = EDGES, flip: LabelSet | None = None
) -> Sample:
    """Resize the image, maps and boxes of a sample to `size` = (height, width).

    Boxes are clipped to the image. People without a pixel left are dropped. With `flip`, the label set, the result is
    that of :func:`flip_sample`.
    """
    table = flip.flip_table() if flip else None
    image = resize_image(sample["image"], size)
    person_maps = resize_labels_floor(sample["person_maps"], size, table)
    resized = EDGES.clip(boxes.resize(sample["boxes"], sample["image"].shape[-2:], size), size)
    kept = person_maps.flatten(1).any(1).bool()  # any() of uint8 is uint8, which would select by index
    if not kept.all():
        resized, person_maps = resized[kept], person_maps[kept]
    return sample | {
        "image": image.flip(-1) if flip else image,
        "boxes": mirror_boxes(resized, size[1]) if flip else resized,
        "person_maps": person_maps,
        "label_map": resize_labels_floor(sample["label_map"], size, table),
    }


def flip_sample(sample: Sample, labels: LabelSet) -> Sample:
    """Flip a sample horizontally, exchanging the left and right parts of `labels`."""
    height, width = sample["image"].shape[-2:]
    table = labels.flip_table()
    return sample | {
        "image": sample["image"].flip(-1),
        "boxes": mirror_boxes(sample["boxes"], width),
        "person_maps": resize_labels_floor(sample["person_maps"], (height, width), table),
        "label_map": resize_labels_floor(sample["label_map"], (height, width), table),
    }


class TrainTransform:
    """The paper's augmentation (Sec. 4.1): a random scale and, with probability `flip_prob`, a horizontal flip.

    Call it with a sample and a torch.Generator, the source of all random draws; it returns a new sample.

    Args:
        short_side: the short side in pixels. A tuple (low, high) draws uniformly from that range, ends included (the
            paper: 512 to 864); a list draws one of its values (the released code: 512, 640, 704, 768, 800, 864); an
            integer is used as it is.
        max_size: the largest long side in pixels.
        labels: the label set, with the parts to exchange in a flip. Required unless flip_prob is 0.
        flip_prob: in 0..1.
        boxes: the convention of the boxes' corners.

    Raises:
        ValueError: a size is not positive, the range is empty, flip_prob is outside 0..1, or labels are missing.
    """

    def __init__(
        self,
        short_side: int | tuple[int, int] | list[int] = (512, 864),
        max_size: int = 1400,
        labels: LabelSet | None = None,
        flip_prob: float = 0.5,
        boxes: BoxConvention = EDGES,
    ):
        sides = [short_side] if isinstance(short_side, int) else list(short_side)
        is_range = isinstance(short_side, tuple)
        if not sides or min(sides) < 1 or (is_range and (len(sides) != 2 or sides[0] > sides[1])):
            raise ValueError(
                "TrainTransform: short_side must be a positive integer, a range (low, high) with 1 <= low <= high or a "
                f"list, got {short_side!r}"
            )
        if max_size < 1 or not 0 <= flip_prob <= 1:
            raise ValueError(
                f"TrainTransform: max_size must be positive and flip_prob in 0..1, got {max_size}, {flip_prob}"
            )
        if flip_prob and labels is None:
            raise ValueError("TrainTransform: labels must be given where flip_prob > 0: left and right are exchanged")
        if flip_prob and (sides_of := labels.unpaired_sides()):
            log.warning("%s: mirror images do not exchange %s: they are in no pair", labels.name,
                        ", ".join(f"{left} and {right}" for left, right in sides_of))  # fmt: skip
        self.sides, self.is_range, self.max_size, self.flip_prob = sides, is_range, max_size, flip_prob
        self.labels, self.boxes = labels, boxes

    def size(self, height: int, width: int, generator: torch.Generator) -> tuple[int, int]:
        """Draw the new (height, width) for an image of the given size. A call draws it first from its generator."""
        draw = lambda n: int(torch.randint(n, (), generator=generator))
        if self.is_range:
            short_side = self.sides[0] + draw(self.sides[1] - self.sides[0] + 1)
        else:
            short_side = self.sides[draw(len(self.sides))]
        return resized_shape(height, width, short_side=short_side, max_size=self.max_size)

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        size = self.size(*sample["image"].shape[-2:], generator)
        flipped = float(torch.rand((), generator=generator)) < self.flip_prob
        return resize_sample(sample, size, self.boxes, flip=self.labels if flipped else None)


class TestTransform:
    """Resize an image for testing (Sec. 4.1: short side 800).

    Called with an image uint8 [3, H, W], it returns the resized image. Called with a sample, it resizes the image only
    and keeps the ground truth, since evaluation uses the original size, that of `sample["label_map"]`.

    Args:
        short_side: the short side in pixels.
        max_size: the largest long side in pixels.
        resize: "antialias", as in training, or "opencv", as in the released code: `resize_by_factor`, which returns
            float32.

    Raises:
        ValueError: a size is not positive, or resize is another string.
    """

    __test__ = False  # pytest: not a test class

    def __init__(self, short_side: int = 800, max_size: int = 1333, resize: str = "antialias"):
        if short_side < 1 or max_size < 1:
            raise ValueError(f"TestTransform: short_side and max_size must be positive, got {short_side}, {max_size}")
        if resize not in ("antialias", "opencv"):
            raise ValueError(f"TestTransform: resize must be 'antialias' or 'opencv', got {resize!r}")
        self.short_side, self.max_size, self.antialias = short_side, max_size, resize == "antialias"

    def __call__(self, image: Tensor | Sample) -> Tensor | Sample:
        if isinstance(image, dict):
            return image | {"image": self(image["image"])}
        height, width = image.shape[-2:]
        if self.antialias:
            return resize_image(image, resized_shape(height, width, self.short_side, self.max_size))
        return resize_by_factor(image, released_scale(height, width, self.short_side, self.max_size))
