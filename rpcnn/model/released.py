"""The authors' released code where it differs from the paper; docs/released.md lists the differences.

The paper's model is in rp_rcnn.py and does not need this file. Here are the same network with the details of a
`Variant`, and the functions and modules that its parts use instead of the paper's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from rpcnn.box_convention import last_pixels
from rpcnn.variant import Variant

from .losses import Terms, normalize, squared_error
from .parsing_targets import pixels_at
from .rp_rcnn import RPRCNN
from .rpn import RPN

PIXEL_STATISTICS = {
    "rgb": (RPRCNN.PIXEL_MEAN, RPRCNN.PIXEL_STD),
    "bgr255": ((102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0)),
}
"""Mean and standard deviation of the channels by pixel format."""


class VariantRPRCNN(RPRCNN):
    """RP R-CNN with the details of a variant. Takes the arguments of `RPRCNN` and the variant."""

    def __init__(self, *, variant: Variant, **parts):
        self.PIXEL_MEAN, self.PIXEL_STD = PIXEL_STATISTICS[variant.pixel_format]
        self.PADDING_LABEL = RPRCNN.PADDING_LABEL if variant.ignore_padding else 0
        super().__init__(**parts)
        self.variant = variant

    def normalize_and_pad(self, images: list[Tensor], targets=None):
        """With normalize_per_process, pad to the images of this process only."""
        return super().normalize_and_pad(images, None if self.variant.normalize_per_process else targets)

    def blank_batch(self, shape: tuple[int, ...]) -> Tensor:
        """With test_padding "black", padding at test is black: 0 minus the mean."""
        batch = super().blank_batch(shape)
        if self.variant.test_padding == "black" and not self.training:
            batch = (batch - self.pixel_mean) / self.pixel_std
        return batch

    def normalize_pixels(self, image: Tensor) -> Tensor:
        """With pixel_format "bgr255", pixels are BGR in 0..255 minus the mean."""
        if self.variant.pixel_format == "rgb":
            return super().normalize_pixels(image)
        return (image.flip(-3) - self.pixel_mean) / self.pixel_std

    def rescoring_error(self, predicted: Tensor, iou: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """With rescoring_loss "half_positive", half the squared error over the RoIs with a true mIoU > 0."""
        if self.variant.rescoring_loss == "mse":
            return super().rescoring_error(predicted, iou, known)
        return half_positive_error(predicted, iou, known)

    def normalize_terms(self, terms: Terms, counts: Tensor | None) -> dict[str, Tensor]:
        """With normalize_per_process, means over the samples of this process only."""
        return normalize(terms, self.loss_weights, per_process=self.variant.normalize_per_process, counts=counts)

    def label_probabilities(self, logits: Tensor, image_size: tuple[int, int]):
        """Without crop_semantic, padding is not cut off, and the whole map is resized to the image."""
        if self.variant.crop_semantic:
            return super().label_probabilities(logits, image_size)
        return logits.float().softmax(dim=0), image_size

    def iou_in_range(self, iou: Tensor) -> Tensor:
        """Without clamp_iou, the prediction itself."""
        return super().iou_in_range(iou) if self.variant.clamp_iou else iou


class PerBatchRPN(RPN):
    """RPN whose top_train limits the proposals of the whole batch in training: crowded images get more of them."""

    def suppress(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> Tensor:
        """As `RPN.suppress`; in training only the best top_train of all images are kept."""
        keep = super().suppress(boxes, scores, groups)
        return keep[: self.top_train] if self.training else keep


def half_positive_error(predicted: Tensor, iou: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Half the squared error of predicted [R] over the RoIs with true mIoU [R] > 0 and known [R]: (sum, count)."""
    total, count = squared_error(predicted, iou, known & (iou > 0))
    return 0.5 * total, count


def crop_parsing_rounded(person_maps: Tensor, people: Tensor, boxes: Tensor, size: int) -> Tensor:
    """As `crop_parsing`, but of a rounded box that ends one pixel early.

    The corners of `last_pixels` are rounded (half to even) and clamped to >= 0. The crop excludes the last pixel. Row i
    of the result is row floor(i h / size) of the crop, not the nearest one; columns likewise. A crop ends with the map.
    An empty one, which makes the released code fail, is extended to one pixel.
    """
    # In float64 and in this order of operations, as OpenCV's nearest neighbor: other orders may floor differently.
    corners = boxes.to(person_maps.device)
    first, end = last_pixels(corners).double().round().clamp(min=0).split(2, dim=1)
    height, width = person_maps.shape[-2:]
    side = (torch.minimum(end, end.new_tensor([width, height])) - first).clamp(min=1)
    scale = 1 / (torch.full_like(side, size) / side)  # `size / side` would be a reciprocal and a product, rounded twice
    steps = torch.arange(size, device=person_maps.device, dtype=torch.float64)
    points = first[:, :, None] + (scale[:, :, None] * steps).floor()
    return pixels_at(person_maps, people, points).to(boxes.device)


def paste_rounded(person_probs: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Pad maps with zeros and compute the windows of whole pixels that they are pasted to, as the released code does.

    A box from its first to its last pixel is enlarged about its center by the factor (cells + 2) / cells per axis. Its
    corners are truncated towards zero; the pixels of both corners belong to the window, which has at least one pixel
    per side. Pasted people are up to one cell narrower than their boxes, because the padding takes part of the window.

    Args:
        person_probs: [n, K, h, w].
        boxes: [n, 4].

    Returns:
        Maps [n, K, h + 2, w + 2] and windows [n, 4].
    """
    rows, columns = person_probs.shape[-2:]
    first, last = last_pixels(boxes.double()).split(2, dim=1)
    x, y = ((last - first) / 2).unbind(dim=1)
    half = torch.stack([x * ((columns + 2) / columns), y * ((rows + 2) / rows)], dim=1)
    center = (first + last) / 2
    first, last = (center - half).trunc(), (center + half).trunc()
    windows = torch.cat([first, first + (last - first + 1).clamp(min=1)], dim=1).to(boxes.dtype)
    return F.pad(person_probs, (1, 1, 1, 1)), windows
