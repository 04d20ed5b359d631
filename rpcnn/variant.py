"""The paper's model and the authors' released code: the details in which they differ, as one object."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Variant:
    """Details that the paper leaves open or that differ between the paper and the released code.

    The defaults follow the paper, and current practice where the paper says nothing. docs/released.md explains every
    field. ``dataclasses.replace(PAPER, clamp_iou=False)`` or a TOML table [variant] changes single fields.
    """

    stride_in_1x1: bool = False
    """The first convolution of a bottleneck has the stride (released code: true)."""
    pixel_format: Literal["rgb", "bgr255"] = "rgb"
    """Input of the backbone. rgb: RGB in 0..1, normalized with ImageNet's mean and standard deviation; bgr255: BGR in
    0..255 minus a mean (released code)."""
    test_padding: Literal["mean", "black"] = "mean"
    """Test: color of the padding. mean: as in training; black (released code)."""
    short_sides: tuple[int, ...] = ()
    """Training: the short side is one of these (released code: 512 640 704 768 800 864); empty: data.short_side."""
    test_resize: Literal["antialias", "opencv"] = "antialias"
    """Test: how images are resized. antialias: as in training; opencv: bilinear without antialiasing, sides rounded
    (released code)."""
    inclusive_boxes: bool = False
    """Boxes extend from the first to the last pixel, "+1" boxes (released code: true), see `PixelBoxes`."""
    aligned: bool = True
    """RoIAlign with the half-pixel shift (released code: false)."""
    pyramid_levels: int = 5
    """Levels that the detector uses: 5 for S2..S6 (Sec. 3.3); released code: 4."""
    gse_embedding: bool = False
    """Apply a further 3x3 block to the global semantic feature before it is added to the pyramid (released code:
    true)."""
    rpn_top_per_batch: bool = False
    """Training: sampling.rpn_top_train limits the proposals of all images of a process together (released code:
    true)."""
    parsing_crop: Literal["exact", "rounded"] = "exact"
    """Training: parsing targets. exact: sampled inside the RoI; rounded: cropped to the rounded RoI without its last
    pixel, then resized (released code)."""
    prsn_input: Literal["probabilities", "logits"] = "probabilities"
    """Second input of the re-scoring network, beside the parsing feature (released code: logits)."""
    prsn_stride: int = 1
    """Stride of its second convolution (released code: 2)."""
    rescoring_loss: Literal["mse", "half_positive"] = "mse"
    """mse: squared error over all people; half_positive: half of it, over people with a true mIoU > 0 (released
    code)."""
    clamp_iou: bool = True
    """Test: clamp the output of the re-scoring network to 0..1. With false, only the parsing score clamps it, to >= 0,
    where the released code gets NaN."""
    ignore_padding: bool = True
    """The semantic loss ignores padding; false treats it as background (released code)."""
    normalize_per_process: bool = False
    """Normalize losses by the counts of each process, not of all, and pad to the images of the process, not of the
    whole batch (released code: true)."""
    crop_semantic: bool = True
    """Test: cut the padding off the global map before resizing; false resizes both (released code)."""
    pasting: Literal["exact", "rounded"] = "exact"
    """exact: the map of a person is sampled over its box; rounded: the map is padded with zeros and the box enlarged
    accordingly and truncated to whole pixels (released code)."""
    skip_empty: bool = False
    """Exclude images without detections from mIoU and the accuracies (released code: true)."""


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
