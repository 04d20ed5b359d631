"""Resizing and mirroring a sample: picture, maps and boxes together.

Pictures are resized bilinearly with antialiasing, in training and at test alike (but for `TestTransform`'s "opencv");
label maps by nearest neighbor, pixel i of the new map taking pixel floor(i * old / new) of the old one; boxes are
multiplied by the ratio of the sizes.
"""

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from rpcnn.box_convention import EDGES, BoxConvention, mirror_boxes
from rpcnn.labels import LabelSet

from .sample import Sample


def resized_shape(height: int, width: int, short_side: int, max_size: int) -> tuple[int, int]:
    """(height, width) after scaling the short side to `short_side` pixels.

    Where the long side would exceed `max_size`, the short side becomes round(max_size * short / long) instead. The
    long side is truncated to an integer (at least 1).
    """
    short, long = min(height, width), max(height, width)
    if short_side * long > max_size * short:
        short_side = max(round(max_size * short / long), 1)
    long_side = max(int(short_side * long / short), 1)
    return (short_side, long_side) if height <= width else (long_side, short_side)


def rounded_shape(height: int, width: int, short_side: int, max_size: int) -> tuple[int, int]:
    """The same as the released code has it at test: one scale for both sides, which are rounded (at least 1).

    The scale is short_side / short, or max_size / long where the long side, rounded, would exceed max_size.
    """
    short, long = min(height, width), max(height, width)
    scale = short_side / short
    if round(scale * long) > max_size:
        scale = max_size / long
    return max(round(height * scale), 1), max(round(width * scale), 1)


def resize_image(image: Tensor, size: tuple[int, int], antialias: bool = True) -> Tensor:
    """uint8 [3,H,W] -> uint8 [3,h,w], bilinear, antialiased when shrinking; without, as OpenCV's bilinear."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    if not antialias:
        resized = torch.nn.functional.interpolate(image[None].float(), size=list(size), mode="bilinear")
        return resized[0].round().to(torch.uint8)
    return F.resize_image(image, list(size), interpolation=InterpolationMode.BILINEAR, antialias=True)


def resize_labels_floor(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [...,H,W] -> uint8 [...,h,w]: pixel i takes pixel floor(i * old / new)."""
    for dim, new in ((-2, size[0]), (-1, size[1])):
        old = labels.shape[dim]
        if old != new:
            labels = labels.index_select(dim, torch.arange(new) * old // new)  # integers: no rounding to go wrong
    return labels


def resize_sample(sample: Sample, size: tuple[int, int], boxes: BoxConvention = EDGES) -> Sample:
    """A sample with its picture, maps and boxes at `size` = (height, width).

    Boxes are clipped to the picture. People who lose their last pixel are dropped.
    """
    person_maps = resize_labels_floor(sample["person_maps"], size)
    resized = EDGES.clip(boxes.resize(sample["boxes"], sample["image"].shape[-2:], size), size)
    kept = person_maps.flatten(1).any(1).bool()  # any() of uint8 is uint8, which would index
    return sample | {
        "image": resize_image(sample["image"], size),
        "boxes": resized[kept],
        "person_maps": person_maps[kept],
        "label_map": resize_labels_floor(sample["label_map"], size),
    }


def flip_labels(labels: Tensor, table: np.ndarray) -> Tensor:
    """uint8 [...,H,W] mirrored, each value replaced by table[value] (uint8 [256])."""
    # bytes.translate is a 256-entry lookup at memory speed: 15 times faster than indexing on a stack of label maps
    mirrored = bytearray(labels.flip(-1).numpy().tobytes()).translate(table.tobytes())
    return torch.from_numpy(np.frombuffer(mirrored, np.uint8).reshape(labels.shape))


def flip_sample(sample: Sample, labels: LabelSet) -> Sample:
    """The mirror image of a sample, in which left and right parts of `labels` change places."""
    width = sample["image"].shape[-1]
    table = labels.flip_table()
    return sample | {
        "image": sample["image"].flip(-1),
        "boxes": mirror_boxes(sample["boxes"], width),
        "person_maps": flip_labels(sample["person_maps"], table),
        "label_map": flip_labels(sample["label_map"], table),
    }


class TrainTransform:
    """The paper's augmentation: a random scale and, half the time, a mirror image (Sec. 4.1).

    `short_side`: a tuple (lowest, highest) draws the short side in pixels evenly from that range, ends included (the
    paper: 512 to 864); a list draws one of its values (the released code: 512, 640, 704, 768, 800, 864); an integer
    is taken as it is. `max_size` bounds the long side. `labels` says which parts a mirror image exchanges.
    `boxes`: what corners are.

    Called with a sample and a torch.Generator, from which all its random draws come; gives a new sample.

    Raises ValueError if a size is not positive, the range is empty or flip_prob is outside 0..1.
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
                f"TrainTransform: short_side must be an integer, a range (low, high) or a list, got {short_side!r}"
            )
        if max_size < 1 or not 0 <= flip_prob <= 1:
            raise ValueError(
                f"TrainTransform: max_size must be positive and flip_prob in 0..1, got {max_size}, {flip_prob}"
            )
        if flip_prob and labels is None:
            raise ValueError("TrainTransform: labels must be given where flip_prob > 0: left and right are exchanged")
        self.sides, self.is_range, self.max_size, self.flip_prob = sides, is_range, max_size, flip_prob
        self.labels, self.boxes = labels, boxes

    def size(self, height: int, width: int, generator: torch.Generator) -> tuple[int, int]:
        """The (height, width) that a picture of the given size gets: the first draws of a call with this generator."""
        draw = lambda n: int(torch.randint(n, (), generator=generator))
        if self.is_range:
            short_side = self.sides[0] + draw(self.sides[1] - self.sides[0] + 1)
        else:
            short_side = self.sides[draw(len(self.sides))]
        return resized_shape(height, width, short_side, self.max_size)

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        size = self.size(*sample["image"].shape[-2:], generator)
        sample = resize_sample(sample, size, self.boxes)
        if float(torch.rand((), generator=generator)) < self.flip_prob:
            sample = flip_sample(sample, self.labels)
        return sample


class TestTransform:
    """The picture at test size: short side `short_side` pixels, long side at most `max_size` (Sec. 4.1: 800).

    `resize`: "antialias", as in training, or "opencv", as in the released code, with the sides of `rounded_shape` and
    without antialiasing.

    Called with a picture uint8 [3,H,W], it gives a picture. Called with a sample, it gives the sample with the picture
    resized and the truth as it was: evaluation takes place at the original size, that of `sample["label_map"]`.
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
        shape = resized_shape if self.antialias else rounded_shape
        return resize_image(image, shape(*image.shape[-2:], self.short_side, self.max_size), self.antialias)
