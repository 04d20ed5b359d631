"""What the authors' released code does in another way than the paper: docs/released.md, detail by detail.

The paper's model is rp_rcnn.py and reads without this file. Here are the same network with the details of a `Variant`,
and the pieces that its parts are given.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from rpcnn.box_convention import last_pixels
from rpcnn.variant import Variant

from .losses import normalize, squared_error
from .parsing_targets import pixels_at
from .rp_rcnn import RPRCNN
from .rpn import RPN

PIXEL_STATISTICS = {
    "rgb": (RPRCNN.PIXEL_MEAN, RPRCNN.PIXEL_STD),
    "bgr255": ((102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0)),
}
"""Mean and deviation of the channels by pixel format."""


class VariantRPRCNN(RPRCNN):
    """RP R-CNN with details of another variant than the paper's. Arguments as of `RPRCNN`, and the variant."""

    def __init__(self, *parts, variant: Variant, **options):
        self.PIXEL_MEAN, self.PIXEL_STD = PIXEL_STATISTICS[variant.pixel_format]
        self.PADDING_LABEL = RPRCNN.PADDING_LABEL if variant.ignore_padding else 0
        super().__init__(*parts, **options)
        self.variant = variant

    def normalize_and_pad(self, images: list[Tensor], targets=None):
        """With normalize_per_process the images of other processes do not count."""
        return super().normalize_and_pad(images, None if self.variant.normalize_per_process else targets)

    def blank_batch(self, shape: tuple[int, ...]) -> Tensor:
        """With test_padding "black", black less the mean at test."""
        batch = super().blank_batch(shape)
        if self.variant.test_padding == "black" and not self.training:
            batch = (batch - self.pixel_mean) / self.pixel_std
        return batch

    def normalize_pixels(self, image: Tensor) -> Tensor:
        """With pixel_format "bgr255", BGR in 0..255 less a mean."""
        if self.variant.pixel_format == "rgb":
            return super().normalize_pixels(image)
        return (image.flip(0) - self.pixel_mean) / self.pixel_std

    def rescoring_error(self, predicted: Tensor, iou: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """With rescoring_loss "half_positive", half the squared error over RoIs with a true mIoU above 0."""
        if self.variant.rescoring_loss == "mse":
            return super().rescoring_error(predicted, iou, known)
        return half_positive_error(predicted, iou, known)

    def normalize_terms(self, terms) -> dict[str, Tensor]:
        """With normalize_per_process, means over this process's own samples."""
        return normalize(terms, self.loss_weights, per_process=self.variant.normalize_per_process)

    def label_probabilities(self, logits: Tensor, image_size: tuple[int, int]):
        """Without crop_semantic the padding's stay, and the whole map stands for the image."""
        if self.variant.crop_semantic:
            return super().label_probabilities(logits, image_size)
        return logits.float().softmax(dim=0), image_size

    def iou_in_range(self, iou: Tensor) -> Tensor:
        """Without clamp_iou, as predicted."""
        return super().iou_in_range(iou) if self.variant.clamp_iou else iou


class PerBatchRPN(RPN):
    """In training top_train counts the proposals of all images together, so that crowded images get more of them."""

    def suppress(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> Tensor:
        """The best of all images."""
        keep = super().suppress(boxes, scores, groups)
        return keep[: self.top_train] if self.training else keep


def half_positive_error(predicted: Tensor, iou: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Half the squared error of predicted [R] over RoIs whose true mIoU [R] is above 0: (sum, number counted)."""
    total, count = squared_error(predicted, iou, known & (iou > 0))
    return 0.5 * total, count


def crop_parsing_rounded(person_maps: Tensor, people: Tensor, boxes: Tensor, size: int) -> Tensor:
    """As `crop_parsing`, but the crop has whole pixels and ends one short.

    The corners of `last_pixels` are rounded (halves to even) and cut off at 0, the crop ends before the last pixel, and
    its pixel floor(i h / size) is taken, not the one nearest to the point. A crop without a pixel, at which the
    released code stops, has one.
    """
    # In double and in this order, as OpenCV's nearest neighbor: h / size itself may floor to another pixel.
    corners = boxes.to(person_maps.device)
    first, end = last_pixels(corners).double().round().clamp(min=0).split(2, dim=1)
    scale = 1 / (size / (end - first).clamp(min=1))
    steps = torch.arange(size, device=person_maps.device, dtype=torch.float64)
    points = first[:, :, None] + (scale[:, :, None] * steps).floor()
    return pixels_at(person_maps, people, points).to(boxes.device)


def paste_rounded(person_probs: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Maps [n, K, h, w] with a border of one cell of zeros, and the windows of whole pixels [n, 4] they are pasted to.

    Of a box from its first to its last pixel, both sides grow about the center by (cells + 2) / cells; the corners are
    truncated towards zero and their pixels belong to the window, one at least. The border takes its share of the window
    away from the map: people come out up to a cell narrower than their boxes.
    """
    rows, columns = person_probs.shape[-2:]
    first, last = last_pixels(boxes.double()).split(2, dim=1)
    growth = first.new_tensor([(columns + 2) / columns, (rows + 2) / rows])
    center, half = (first + last) / 2, (last - first) / 2 * growth
    first, last = (center - half).trunc(), (center + half).trunc()
    windows = torch.cat([first, first + (last - first + 1).clamp(min=1)], dim=1).to(boxes.dtype)
    return F.pad(person_probs, (1, 1, 1, 1)), windows
