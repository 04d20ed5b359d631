"""BBox branch (Sec. 3.2, Fig. 2): classification and box regression of the proposals."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rpcnn import ops
from rpcnn.box_convention import EDGES, BoxConvention
from rpcnn.labels import IGNORE

from .boxes import (
    IGNORED,
    decode_boxes,
    draw_samples,
    first_of_each_image,
    has_exact_sizes,
    suppress,
)
from .layers import linear
from .losses import Terms, masked_smooth_l1

PERSON = 1  # class 0 is background
CODER_WEIGHTS = (10.0, 5.0)  # factors on (dx, dy) and on (dw, dh)


class SampledRoIs(NamedTuple):
    """RoIs of one image in training, positives first."""

    boxes: Tensor  # [R, 4]
    people: Tensor  # [R] int64: index of the matched person, BACKGROUND, or IGNORED for padding


class BoxHead(nn.Module):
    """Two fully connected layers on RoI features of all levels predict class scores and class-specific box deltas.

    Args:
        channels: of the feature maps.
        strides: of the levels, in pixels.
        hidden: channels of the two fully connected layers.
        canonical_size: side in pixels of the RoIs that are assigned to the stride-16 level.
        samples: RoIs per image in training.
        min_score, nms_threshold, max_detections: of the detections at test.
        resolution: cells per side of the RoI features.
        positive_fraction: largest share of positive RoIs (IoU >= 0.5 with a person) among the samples.
        aligned: RoIAlign with the half-pixel shift.
        boxes: convention of box coordinates.
    """

    def __init__(
        self,
        channels: int,
        *,
        strides: Sequence[int],
        hidden: int,
        canonical_size: int,
        samples: int,
        min_score: float,
        nms_threshold: float,
        max_detections: int,
        resolution: int = 7,
        positive_fraction: float = 0.25,
        aligned: bool = True,
        boxes: BoxConvention = EDGES,
    ):
        super().__init__()
        self.scales = [1 / stride for stride in strides]
        self.resolution, self.canonical_size, self.aligned = resolution, canonical_size, aligned
        self.samples, self.positive_fraction = samples, positive_fraction
        self.min_score, self.nms_threshold, self.max_detections = min_score, nms_threshold, max_detections
        self.boxes = boxes
        self.fc6 = linear(channels * resolution**2, hidden)
        self.fc7 = linear(hidden, hidden)
        self.classes = linear(hidden, 2, std=0.01)
        self.deltas = linear(hidden, 2 * 4, std=0.001)

    def forward(self, features: list[Tensor], boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Boxes [R_i, 4] of each image to class logits [R, 2] and deltas [R, 2, 4], R over all images."""
        return self.predict(self.pool(features, [self.boxes.to_roi(b) for b in boxes]))

    def pool(self, features: list[Tensor], rois: Tensor | list[Tensor]) -> Tensor:
        """RoI features [R, C, resolution, resolution] of rois in the coordinates and forms that RoIAlign takes."""
        return ops.multilevel_roi_align(
            features,
            rois,
            output_size=self.resolution,
            spatial_scales=self.scales,
            sampling_ratio=2,
            aligned=self.aligned,
            canonical_size=self.canonical_size,
            area_offset=self.boxes.area_offset,
        )

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """RoI features [R, C, resolution, resolution] to class logits [R, 2] and deltas [R, 2, 4]."""
        x = F.relu(self.fc6(x.flatten(1)), inplace=True)
        x = F.relu(self.fc7(x), inplace=True)
        return self.classes(x).float(), self.deltas(x).float().view(-1, 2, 4)

    @torch.no_grad()
    def sample(self, proposals: list[Tensor], targets, generators) -> list[SampledRoIs]:
        """Draw the RoIs for training from the proposals and the ground-truth boxes."""
        sampled = []
        for boxes, target, generator in zip(proposals, targets, generators, strict=True):
            boxes = torch.cat([boxes, target["boxes"]])
            people = ops.match_boxes(boxes, target["boxes"], positive=0.5, negative=0.5)
            chosen, people = draw_samples(people, self.samples, self.positive_fraction, generator)
            sampled.append(SampledRoIs(boxes[chosen], people))
        return sampled

    def loss(self, class_logits: Tensor, deltas: Tensor, rois: list[SampledRoIs], targets) -> Terms:
        """Cross entropy over the RoIs, smooth L1 (beta 1) over the positive ones; both normalized by the RoI count."""
        people = torch.cat([r.people for r in rois])
        box_targets = [
            ops.encode_boxes(t["boxes"], references=r.boxes, matched=r.people, weights=CODER_WEIGHTS)
            for r, t in zip(rois, targets, strict=True)
        ]
        positive, valid = people >= 0, people != IGNORED
        labels = torch.where(valid, torch.where(positive, PERSON, 0), IGNORE)
        count = valid.sum()
        return {
            "box_class": (F.cross_entropy(class_logits, labels, ignore_index=IGNORE, reduction="sum"), count),
            "box_regression": (masked_smooth_l1(deltas[:, PERSON], torch.cat(box_targets), positive, beta=1.0), count),
        }

    @torch.no_grad()
    def candidates(self, class_logits: Tensor, deltas: Tensor, proposals: list[Tensor], image_sizes):
        """Candidate boxes of all images before NMS, in the order of the proposals.

        Returns:
            Boxes [n, 4] clipped to their images, scores [n], image indices [n]. Boxes without area or with scores
            <= min_score are dropped; on an accelerator they stay, with the score -inf.
        """
        scores = class_logits.softmax(dim=1)[:, PERSON]
        references = torch.cat(proposals)
        boxes = decode_boxes(deltas[:, PERSON], references, CODER_WEIGHTS)
        counts = [len(p) for p in proposals]
        split = zip(boxes.split(counts), image_sizes, strict=True)
        boxes = torch.cat([self.boxes.clip(b, size) for b, size in split])
        images = torch.cat([boxes.new_full((count,), i, dtype=torch.int64) for i, count in enumerate(counts)])
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        kept = (scores > self.min_score) & has_area
        if has_exact_sizes(boxes):
            return boxes[kept], scores[kept], images[kept]
        padding = (references[:, 2:] <= references[:, :2]).any(dim=1)  # may have been clipped to one pixel
        return boxes, torch.where(kept & ~padding, scores, -torch.inf), images

    @torch.no_grad()
    def detect(self, class_logits: Tensor, deltas: Tensor, proposals: list[Tensor], image_sizes):
        """Detected people per image, best first: (boxes [n, 4], scores [n] in [0, 1]), n <= max_detections.

        Ties are ordered by proposal, also at the limit (the released code keeps all boxes that tie for the last place).
        On an accelerator this is where a prediction waits for the device, once for all images, to read their numbers of
        people. Fixed sizes up to the end would parse max_detections RoIs of every image, 100 in the paper, at 26 GFLOP
        each; an image of CIHP has 3 people.
        """
        boxes, scores, images = self.candidates(class_logits, deltas, proposals=proposals, image_sizes=image_sizes)
        keep = suppress(boxes, scores, images, self.nms_threshold)
        boxes, scores, images = boxes[keep], scores[keep], images[keep]
        known = (keep >= 0) & (scores > -torch.inf)
        images = torch.where(known, images, -1)
        chosen, valid = first_of_each_image(images, len(image_sizes), self.max_detections)
        counts = valid.sum(dim=1).tolist()
        return [(boxes[places[:n]], scores[places[:n]]) for places, n in zip(chosen, counts, strict=True)]
