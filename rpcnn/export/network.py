"""The network as one function of tensors, for torch.export, torch.compile and ONNX."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rpcnn import ops
from rpcnn.model import RPRCNN
from rpcnn.model.box_head import CODER_WEIGHTS, PERSON
from rpcnn.model.boxes import decode_boxes
from rpcnn.model.layers import channel_softmax
from rpcnn.model.rp_rcnn import SIZE_DIVISOR, STRIDES
from rpcnn.variant import PAPER

OUTPUTS = ("boxes", "box_scores", "iou_scores", "image_index", "person_probs", "label_probs")
"""The names of what `InferenceNetwork` returns, in its order; label_probs is missing without GSE-FPN."""


class InferenceNetwork(nn.Module):
    """The inference of a model on a batch of images of one size, with tensors in and out.

    It computes what `RPRCNN.forward` does, without lists, loops over images or numbers that are read back, so that one
    graph serves all batch sizes, heights and widths. Candidates have a fixed number of slots up to the last step;
    only people that were found are parsed.

    Args:
        model: is set to eval mode; its modules are shared, not copied.
    """

    def __init__(self, model: RPRCNN):
        super().__init__()
        self.model = model.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detect, score and parse people. R is their number in all images, those of an image together, best first.

        Args:
            images: float32 [N, 3, H, W], RGB in 0..255, resized as `rpcnn.data.transforms.TestTransform` does.

        Returns:
            - boxes float32 [R, 4], x1 y1 x2 y2 in pixels of the input.
            - box_scores float32 [R] in 0..1: S_cls.
            - iou_scores float32 [R]: S_iou; 1 without a re-scoring network.
            - image_index int64 [R]: the index of each person's image.
            - person_probs float32 [R, K, output, output] over each box.
            - label_probs float32 [N, K, h, w], of cells of 4 x 4 pixels, see `Detections`; not without GSE-FPN.
        """
        model, size = self.model, (images.shape[2], images.shape[3])
        pyramid = model.fpn(model.backbone(self.padded(images)))
        semantic_logits, pyramid = model.gse(pyramid) if model.gse else (None, pyramid[: len(model.rpn.strides)])
        boxes, box_scores, owners = self.detect(pyramid, self.propose(pyramid, size), size)
        person_probs, iou_scores = self.parse(pyramid[0], boxes, owners)
        outputs = boxes, box_scores, iou_scores, owners, person_probs
        if semantic_logits is None:
            return outputs
        return *outputs, self.cropped(semantic_logits, size).softmax(dim=1)

    def padded(self, images: Tensor) -> Tensor:
        """Normalize, and pad at the right and bottom to multiples of 32 pixels."""
        bottom, right = (cells(side, SIZE_DIVISOR) * SIZE_DIVISOR - side for side in images.shape[2:])
        blank = self.model.blank_batch((1, 3, 1, 1))
        return F.pad(self.model.normalize_pixels(images) - blank, (0, right, 0, bottom)) + blank

    def propose(self, pyramid: list[Tensor], size: tuple[int, int]) -> Tensor:
        """As `RPN.propose`: proposals [N, top, 4], best first, padded with empty boxes."""
        rpn = self.model.rpn
        objectness, deltas, anchors = rpn(pyramid)
        of_level = anchors.split([logits.shape[1] for logits in objectness])
        boxes, scores = [], []
        for logits, delta, anchor in zip(objectness, deltas, of_level, strict=True):
            # A coarse level may have fewer anchors: with as many more that never count, all levels give `top` boxes.
            best = F.pad(logits.float(), (0, rpn.top_test), value=-torch.inf).topk(rpn.top_test, dim=1)
            place = best.indices.clamp(max=logits.shape[1] - 1)
            chosen = delta.float().gather(1, place[:, :, None].expand(-1, -1, 4))
            boxes.append(decode_boxes(chosen, anchor[place]))
            scores.append(best.values)
        clipped = rpn.boxes.clip(torch.cat(boxes, 1), size)
        proposals, values = best_boxes(clipped, torch.cat(scores, 1), len(scores), rpn.nms_threshold, rpn.top_test)
        return torch.where(values[:, :, None] > -torch.inf, proposals, 0)

    def detect(self, pyramid: list[Tensor], proposals: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """As `BoxHead.detect`: boxes [R, 4], scores [R] and image indices [R] of all people."""
        head, (number, count) = self.model.box_head, proposals.shape[:2]
        owners = torch.arange(number, device=proposals.device)
        flat = proposals.flatten(0, 1)
        rois = torch.cat([owners.repeat_interleave(count)[:, None].to(flat), head.boxes.to_roi(flat)], 1)
        class_logits, deltas = head.predict(head.pool(pyramid, rois))
        scores = class_logits.softmax(dim=1)[:, PERSON]
        boxes = head.boxes.clip(decode_boxes(deltas[:, PERSON], flat, CODER_WEIGHTS), size)
        kept = (scores > head.min_score) & (boxes[:, 2:] > boxes[:, :2]).all(1) & (flat[:, 2:] > flat[:, :2]).all(1)
        scores = torch.where(kept, scores, -torch.inf).view(number, count)
        most = min(head.max_detections, count)
        boxes, scores = best_boxes(boxes.view(number, count, 4), scores, 1, head.nms_threshold, most)
        image, place = (scores > -torch.inf).nonzero().unbind(1)
        return boxes[image, place], scores[image, place], image

    def parse(self, finest: Tensor, boxes: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
        """As `RPRCNN.parse`, all people at once."""
        head, people = self.model.parsing_head, boxes.shape[0]
        rois = torch.cat([owners[:, None].to(boxes), head.boxes.to_roi(boxes)], 1)
        # One more than there are people: onnxruntime fails at maps of nobody.
        feature, logits = head(head.pool(finest, F.pad(rois, (0, 0, 0, 1))))
        probs = channel_softmax(logits)
        if self.model.prsn is None:
            return probs[:people], torch.ones_like(boxes[:, 0])
        return probs[:people], self.model.iou_in_range(self.model.prsn(feature, logits, probs))[:people]

    def cropped(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """As in `RPRCNN.label_probabilities`, the cells of the image without those of the padding.

        By index: whether a slice is contiguous would be decided while tracing, and asserted for every size.
        """
        logits = logits.float()
        if getattr(self.model, "variant", PAPER).crop_semantic:
            for dim, side in zip((2, 3), size, strict=True):
                inside = torch.arange(cells(side, STRIDES[0]), device=logits.device)
                logits = logits.index_select(dim, inside)
        return logits


def cells(side: int, stride: int) -> int:
    """Number of cells that cover a side. Without negative numbers, which ONNX would divide towards zero."""
    return (side + stride - 1) // stride


def best_boxes(boxes: Tensor, scores: Tensor, groups: int, iou_threshold: float, count: int) -> tuple[Tensor, Tensor]:
    """NMS within each group of each image, and the best `count` boxes of each image with their scores.

    Args:
        boxes, scores: [N, n, 4], [N, n]; a score of -inf marks what is no box.
        groups: number of groups of an image, n / groups boxes each, one after another.
        count: at most n.

    Returns:
        [N, count, 4] and [N, count], best first; where there are fewer boxes, the scores are -inf.
    """
    number, each = scores.shape
    total = number * each
    group = torch.arange(total, device=boxes.device) // (each // groups)
    keep, _ = ops.nms_padded(boxes.flatten(0, 1), scores.flatten(), group, iou_threshold, max_keep=total)
    # The rank of each box among those that are kept, of all images; one more entry takes the padding of `keep`.
    ranks = keep.new_full((total + 1,), total)
    ranks = ranks.scatter(0, torch.where(keep < 0, total, keep), torch.arange(total, device=keep.device))
    rank, chosen = ranks[:total].view(number, each).topk(count, dim=1, largest=False)
    values = torch.where(rank < total, scores.gather(1, chosen), -torch.inf)
    return boxes.gather(1, chosen[:, :, None].expand(-1, -1, 4)), values
