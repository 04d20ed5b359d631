"""Test-time augmentation (Table 9): run an image at several scales and mirrored, and average the predictions.

People are parsed only after the boxes of all passes are known. Until then each pass keeps its S2, 64 bytes per pixel
in float32: 1.2 GB for a 1200x800 image in the released 18 passes. The released code keeps all maps of all passes at
the size of the image instead. Running every pass twice would need no such memory but 62 % more multiply-adds (10
people: 329 of 531 GMAC of an 800x1216 pass come before S2). Maps are averaged incrementally, so that only the average
and the map of one pass are in memory.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from rpcnn import ops
from rpcnn.box_convention import BoxConvention, mirror_boxes
from rpcnn.labels import LabelSet
from rpcnn.model.detections import Detections
from rpcnn.model.rp_rcnn import RPRCNN
from rpcnn.ops.sampling import global_window, strips

from .soft_nms import box_voting, soft_nms

SUPPRESSIONS = ("linear", "gaussian", "off")


class Pass(NamedTuple):
    """What is kept of one pass until the people are parsed."""

    finest: Tensor  # S2 [1, C, H / 4, W / 4]
    image_size: tuple[int, int]  # (height, width) of the network's input, without padding
    mirrored: bool
    convention: BoxConvention  # of the model's boxes

    def to_base(self, boxes: Tensor, base_size: tuple[int, int]) -> Tensor:
        """Convert boxes [n, 4] from the pixels of this pass to those of the base scale."""
        if self.mirrored:
            boxes = mirror_boxes(boxes, self.image_size[1])
        return self.convention.resize(boxes, self.image_size, base_size)

    def from_base(self, boxes: Tensor, base_size: tuple[int, int]) -> Tensor:
        """Convert boxes [n, 4] from the pixels of the base scale to those of this pass."""
        boxes = self.convention.resize(boxes, base_size, self.image_size)
        return mirror_boxes(boxes, self.image_size[1]) if self.mirrored else boxes


class AugmentedInference:
    """Test-time augmentation around a trained model: several passes per image, one set of detections.

    1. Candidate boxes of all passes (score above the model's threshold) are converted to the pixels of the base scale.
    2. Soft-NMS selects boxes.
    3. Box voting replaces each selected box by the weighted mean of the candidates that overlap it.
    4. The best boxes are parsed in every pass.

    Person probabilities, parsing scores and global probabilities are averaged over the passes. Results of mirrored
    passes are mirrored back first, with left and right parts exchanged. (Released code, configuration of 150 epochs.)

    Args:
        model: in eval mode.
        label_set: has one label per class of the model; its pairs are exchanged in mirrored passes.
        scales: functions that resize an image uint8 [3, H, W]. The first gives the base scale, whose pixels the
            detections are in.
        flip: also run the mirrored image at each scale.
        suppression: "linear" or "gaussian" soft-NMS, the latter with `sigma`, or "off" for plain NMS. All use the
            model's `nms_threshold`.
        voting_iou: see `box_voting`; 0 disables box voting.
        sigma: of gaussian soft-NMS.
        progress: show a progress bar of the passes.

    Raises:
        ValueError: no scales, unknown suppression, or a label set that does not fit the model.
    """

    def __init__(
        self,
        model: RPRCNN,
        label_set: LabelSet,
        scales: Sequence[Callable[[Tensor], Tensor]],
        *,
        flip: bool,
        suppression: str,
        voting_iou: float,
        sigma: float = 0.5,
        progress: bool = False,
    ):
        if not scales:
            raise ValueError("AugmentedInference: scales must hold at least the base scale")
        if suppression not in SUPPRESSIONS:
            raise ValueError(
                f"AugmentedInference: suppression must be one of {', '.join(SUPPRESSIONS)}, got {suppression!r}"
            )
        if label_set.num_classes != model.num_classes:
            raise ValueError(
                f"AugmentedInference: label_set must have the model's {model.num_classes} classes, "
                f"got {label_set.name} with {label_set.num_classes}"
            )
        self.model, self.scales, self.flip, self.progress = model, list(scales), flip, progress
        self.suppression, self.sigma, self.voting_iou = suppression, sigma, voting_iou
        # exchanged[c] is the class whose map in a mirrored pass is that of class c.
        exchanged = torch.from_numpy(label_set.flip_table()[: model.num_classes]).long()
        self.exchanged = exchanged.to(model.pixel_mean.device)

    @property
    def num_passes(self) -> int:
        """Number of passes per image."""
        return len(self.scales) * (2 if self.flip else 1)

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Detections:
        """Detect and parse the people of an image uint8 [3, H, W] RGB; detections are in pixels of the base scale.

        `label_probs` of the result is [K, H, W]: the map of every pass is interpolated at the pixel centers of the
        image, where `combine` reads it, and averaged. It takes 4 K H W bytes, 77 MB for 1200x800 and 20 classes.
        """
        passes: list[Pass] = []
        boxes, scores, label_probs = [], [], None
        for resized, mirrored in self.views(image):
            one_pass, candidates, candidate_scores, logits = self.run_pass(resized, mirrored)
            passes.append(one_pass)
            boxes.append(one_pass.to_base(candidates, passes[0].image_size))
            scores.append(candidate_scores)
            if logits is not None:
                if label_probs is None:
                    label_probs = logits.new_zeros(logits.shape[0], *image.shape[1:], dtype=torch.float32)
                self.add_label_probs(label_probs, logits, one_pass=one_pass, number=len(passes))
            del logits  # frees the memory before the next pass
        base = passes[0].image_size
        best, box_scores = self.select(torch.cat(boxes), torch.cat(scores))
        person_probs, iou_scores = self.parse(passes, best)
        return Detections(
            boxes=best,
            box_scores=box_scores,
            iou_scores=iou_scores,
            person_probs=person_probs,
            label_probs=label_probs,
            image_size=base,
            label_probs_size=base,
        )

    def views(self, image: Tensor) -> Iterator[tuple[Tensor, bool]]:
        """The input of each pass, and whether it is mirrored."""
        bar = tqdm(total=self.num_passes, desc="passes", leave=False, disable=not self.progress)
        for scale in self.scales:
            resized = scale(image).to(self.model.pixel_mean.device)
            for mirrored in (False, True) if self.flip else (False,):
                yield (resized.flip(-1) if mirrored else resized), mirrored
                bar.update()
        bar.close()

    def run_pass(self, resized: Tensor, mirrored: bool) -> tuple[Pass, Tensor, Tensor, Tensor | None]:
        """Run one pass: returns the `Pass`, candidates [n, 4], their scores [n] and semantic logits [K, h, w]."""
        pyramid, logits, sizes = self.model.encode([resized])
        proposals = self.model.rpn.propose(*self.model.rpn(pyramid), sizes)
        boxes, scores, _ = self.model.box_head.candidates(*self.model.box_head(pyramid, proposals), proposals, sizes)
        known = (scores > -torch.inf).nonzero()[:, 0]
        boxes, scores = boxes[known], scores[known]
        one_pass = Pass(pyramid[0], sizes[0], mirrored=mirrored, convention=self.model.box_head.boxes)
        return one_pass, boxes, scores, None if logits is None else logits[0]

    def select(self, candidates: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Select at most `max_detections` of the candidates [n, 4] with scores [n]: boxes and scores, best first."""
        head = self.model.box_head
        if self.suppression == "off":
            kept = ops.nms(candidates, scores, iou_threshold=head.nms_threshold, max_keep=head.max_detections)
            kept_scores = scores[kept]
        else:
            kept, kept_scores = soft_nms(
                candidates,
                scores,
                iou_threshold=head.nms_threshold,
                method=self.suppression,
                sigma=self.sigma,
                max_keep=head.max_detections,
            )
        boxes = candidates[kept]
        if self.voting_iou:
            boxes = box_voting(boxes, candidates, scores=scores, iou_threshold=self.voting_iou)
        return boxes, kept_scores

    def add_label_probs(self, mean: Tensor, logits: Tensor, one_pass: Pass, number: int) -> None:
        """Update the mean probabilities [K, H, W] in place with pass `number` (from 1), a strip of rows at a time."""
        classes, *size = mean.shape
        probabilities, reach = self.model.label_probabilities(logits, one_pass.image_size)
        # The last cells may extend up to 3 pixels beyond the network's input.
        covered = tuple(
            max(end * side / pixels, side) for end, side, pixels in zip(reach, size, one_pass.image_size, strict=True)
        )
        for rows in strips(0, size[0], size[1] * classes):
            window = global_window(probabilities, covered, rows=rows, columns=(0, size[1]))
            if one_pass.mirrored:
                window = window.flip(-1)[self.exchanged]
            mean[:, slice(*rows)].lerp_(window, 1 / number)

    def parse(self, passes: list[Pass], boxes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Parse boxes [n, 4] of the base scale in every pass and average over the passes.

        The parsing scores sqrt(S_cls * S_iou) are averaged. S_cls is the same in all passes, so S_iou of the result is
        the square of the mean of sqrt(S_iou).

        Returns:
            Mean probabilities [n, K, output, output], and mIoU scores [n] in [0, 1], None without PRSN.
        """
        person_probs, roots = None, None
        for number, one_pass in enumerate(passes, start=1):
            pass_boxes = one_pass.from_base(boxes, passes[0].image_size)
            maps, iou_scores = self.model.parse(one_pass.finest, pass_boxes)
            if one_pass.mirrored:
                maps = maps.flip(-1)[:, self.exchanged]
            if iou_scores is not None:
                roots = torch.zeros_like(iou_scores) if roots is None else roots
                roots.lerp_(iou_scores.clamp(min=0).sqrt(), 1 / number)
            person_probs = maps if person_probs is None else person_probs.lerp_(maps, 1 / number)
            del maps
        return person_probs, None if roots is None else roots.square()
