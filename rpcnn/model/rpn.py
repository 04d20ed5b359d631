"""Region proposal network on the enhanced pyramid (Sec. 3.2): candidate boxes of people."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rpcnn import ops
from rpcnn.box_convention import EDGES, BoxConvention

from .boxes import IGNORED, cell_anchors, draw_samples, first_of_each_image, has_exact_sizes, suppress
from .layers import ConvReLU
from .losses import Terms, masked_smooth_l1


class RPN(nn.Module):
    """A 3x3 convolution and two 1x1 convolutions, shared by all levels, predict objectness and deltas of every anchor.

    Args:
        channels: of the feature maps.
        strides, anchor_sizes: in pixels, one of each per level.
        top_train, top_test: proposals kept per level before NMS and per image after it.
        ignore_border_anchors: exclude anchors that extend beyond the image from the loss.
        anchor_ratios: height / width.
        nms_threshold: IoU above which the proposal with the lower score is dropped.
        samples: anchors per image in the loss, at most half of them positive.
        boxes: convention of box coordinates.

    Raises:
        ValueError: the numbers of strides and of anchor sizes differ.
    """

    def __init__(
        self,
        channels: int,
        *,
        strides: Sequence[int],
        anchor_sizes: Sequence[int],
        top_train: int,
        top_test: int,
        ignore_border_anchors: bool,
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        nms_threshold: float = 0.7,
        samples: int = 256,
        boxes: BoxConvention = EDGES,
    ):
        super().__init__()
        if len(strides) != len(anchor_sizes):
            raise ValueError(
                f"RPN: anchor_sizes must hold one size per level, got {len(anchor_sizes)} for {len(strides)} levels"
            )
        self.strides = tuple(strides)
        self.top_train, self.top_test = top_train, top_test
        self.nms_threshold = nms_threshold
        self.samples = samples
        self.ignore_border_anchors = ignore_border_anchors
        self.boxes = boxes
        cells = torch.stack([cell_anchors(a, s, anchor_ratios) for a, s in zip(anchor_sizes, strides, strict=True)])
        self.register_buffer("cells", cells, persistent=False)
        self.conv = ConvReLU(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, len(anchor_ratios), 1)
        self.deltas = nn.Conv2d(channels, 4 * len(anchor_ratios), 1)
        for conv in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Per level of features [N, C, H_l, W_l] objectness logits [N, A_l] and deltas [N, A_l, 4]; all anchors [A, 4].

        Anchors are ordered by level, row, column, ratio.
        """
        objectness, deltas = [], []
        for feature in features:
            hidden = self.conv(feature)
            objectness.append(self.objectness(hidden).permute(0, 2, 3, 1).flatten(1))
            deltas.append(self.deltas(hidden).permute(0, 2, 3, 1).reshape(feature.shape[0], -1, 4))
        sizes = [feature.shape[-2:] for feature in features]
        return objectness, deltas, ops.grid_anchors(self.cells.float(), self.strides, sizes)

    @torch.no_grad()
    def propose(self, objectness, deltas, anchors, image_sizes) -> list[Tensor]:
        """Proposals of each image, boxes [<= top, 4] clipped to the image, best first. No gradient.

        On an accelerator [top, 4], padded with empty boxes at 0.
        """
        top = self.top_train if self.training else self.top_test
        best = [logits.topk(min(top, logits.shape[1]), dim=1) for logits in objectness]
        indices, scores = [b.indices for b in best], torch.cat([b.values for b in best], 1)  # scores [N, n]
        deltas = [delta.float() if delta.dtype == torch.float64 else delta for delta in deltas]  # boxes are float32
        boxes, groups = ops.decode_proposals(deltas, indices, anchors, image_sizes, min_size=self.boxes.min_size)
        boxes = boxes.flatten(0, 1)
        # NMS within each level of each image, all groups in one call.
        keep = self.suppress(boxes, scores.flatten(), groups.flatten())
        images = keep.div(scores.shape[1], rounding_mode="floor")  # -1 for padding
        chosen, valid = first_of_each_image(images, len(image_sizes), top)
        if has_exact_sizes(boxes):
            return [boxes[keep[places[known]]] for places, known in zip(chosen, valid, strict=True)]
        return list(torch.where(valid[:, :, None], boxes[keep[chosen]], 0))

    def suppress(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> Tensor:
        """NMS within each level of each image; see `boxes.suppress`."""
        return suppress(boxes, scores, groups, self.nms_threshold)

    def loss(self, objectness, deltas, anchors, image_sizes, targets, generators) -> Terms:
        """Binary cross entropy over the sampled anchors, smooth L1 (beta 1/9) over the positive ones.

        Both are normalized by the number of sampled anchors. Positive are anchors with IoU >= 0.7 and the best anchors
        of each person; negative are those with IoU < 0.3.
        """
        objectness, deltas = torch.cat(objectness, 1), torch.cat(deltas, 1)
        places, matches, box_targets = [], [], []
        for i, (target, size, generator) in enumerate(zip(targets, image_sizes, generators, strict=True)):
            gt_boxes, within = target["boxes"], size if self.ignore_border_anchors else None
            matched = ops.match_boxes(
                anchors, gt_boxes, positive=0.7, negative=0.3, promote_best=True, image_size=within
            )
            samples, people = draw_samples(matched, self.samples, positive_fraction=0.5, generator=generator)
            places.append(i * len(anchors) + samples)
            matches.append(people)
            box_targets.append(ops.encode_boxes(gt_boxes, anchors[samples], people))
        place, matched = torch.cat(places), torch.cat(matches)
        positive, valid = matched >= 0, matched != IGNORED
        logits = objectness.flatten()[place].float()
        errors = F.binary_cross_entropy_with_logits(logits, positive.to(logits.dtype), reduction="none")
        sampled_deltas = deltas.flatten(0, 1)[place].float()
        box_sum = masked_smooth_l1(sampled_deltas, torch.cat(box_targets), positive, beta=1 / 9)
        count = valid.sum()
        return {"rpn_objectness": (torch.where(valid, errors, 0).sum(), count), "rpn_box": (box_sum, count)}
