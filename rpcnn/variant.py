"""The paper's model and the authors' released code: the details in which they differ, as one object."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Variant:
    """How a detail is done that the paper leaves open or that its released code does in another way.

    The defaults are the paper's, and where it is silent what the field does today. docs/released.md explains every
    field; ``dataclasses.replace(PAPER, clamp_iou=False)`` or a TOML table [variant] changes single ones.
    """

    stride_in_1x1: bool = False
    """The first convolution of a bottleneck has the stride (released code: true)."""
    pixel_format: Literal["rgb", "bgr255"] = "rgb"
    """What the backbone reads: rgb in 0..1 less ImageNet's mean, over its deviation; bgr255: BGR in 0..255 less a mean
    (released code)."""
    test_padding: Literal["mean", "black"] = "mean"
    """Test: padding is mean, the color that training pads with, or black, 0 less the mean (released code)."""
    short_sides: tuple[int, ...] = ()
    """Training: the short side is one of these (released code: 512 640 704 768 800 864); empty: data.short_side."""
    test_resize: Literal["antialias", "opencv"] = "antialias"
    """Test: antialias as in training; opencv (released code): plain bilinear, sides rounded."""
    inclusive_boxes: bool = False
    """Corners are the first and the last pixel, "+1" boxes (released code: true): see `PixelBoxes`."""
    aligned: bool = True
    """RoIAlign with the half-pixel shift (released code: false)."""
    pyramid_levels: int = 5
    """Levels that the detector sees: 5 for S2..S6 (Sec. 3.3); the released code has 4."""
    gse_embedding: bool = False
    """Add a further 3x3 block of the global semantic feature to the pyramid, not the feature itself (released code:
    true)."""
    rpn_top_per_batch: bool = False
    """Training: sampling.rpn_top counts the proposals of all images of a process together (released code: true)."""
    parsing_crop: Literal["exact", "rounded"] = "exact"
    """Training: parsing targets are sampled inside the RoI, or cropped at rounded corners, the end one pixel short, and
    resized (released code)."""
    prsn_input: Literal["probabilities", "logits"] = "probabilities"
    """What the re-scoring network reads beside the feature (released code: logits)."""
    prsn_stride: int = 1
    """Stride of its second convolution (released code: 2)."""
    rescoring_loss: Literal["mse", "half_positive"] = "mse"
    """half_positive: half the squared error, over people with a true mIoU above 0 (released code)."""
    clamp_iou: bool = True
    """Test: the re-scoring network's output is clamped to 0..1; false bounds it below only, in the parsing score, where
    the released code gets NaN."""
    ignore_padding: bool = True
    """The semantic loss passes over padding; false calls it background (released code)."""
    normalize_per_process: bool = False
    """Each process divides losses by its own counts, not by all processes', and pads to its own images, not to the
    largest of the whole batch (released code: true)."""
    crop_semantic: bool = True
    """Test: the padding is cut off the global map before it is resized; false resizes both (released code)."""
    pasting: Literal["exact", "rounded"] = "exact"
    """exact: a person's map is sampled over its box; rounded: with a border of zeros, over the box enlarged for it and
    cut to whole pixels (released code)."""
    skip_empty: bool = False
    """Images without a detection do not count in mIoU and the accuracies (released code: true)."""


PAPER = Variant()
RELEASED = Variant(
    stride_in_1x1=True,
    pixel_format="bgr255",
    test_padding="black",
    short_sides=(512, 640, 704, 768, 800, 864),
    test_resize="opencv",
    inclusive_boxes=True,
    aligned=False,
    pyramid_levels=4,
    gse_embedding=True,
    rpn_top_per_batch=True,
    parsing_crop="rounded",
    prsn_input="logits",
    prsn_stride=2,
    rescoring_loss="half_positive",
    clamp_iou=False,
    ignore_padding=False,
    normalize_per_process=True,
    crop_semantic=False,
    pasting="rounded",
    skip_empty=True,
)
VARIANTS = {"paper": PAPER, "released": RELEASED}
