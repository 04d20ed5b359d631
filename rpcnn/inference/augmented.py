"""Test-time augmentation (Table 9): an image seen at several scales and mirrored, the answers made one.

What is kept of a pass until all have found their boxes is its S2, from which the people are then parsed: 64 bytes a
pixel in float32. A 1200x800 picture in the released 18 passes keeps 1.2 GB so; the released code keeps all maps of
all passes, at the picture's size, instead. Running every pass a second time would need none of it and 62 % more
multiply-adds (10 people: 329 of 531 GMAC of an 800x1216 pass lie before S2). Maps are averaged as they come, and one
average and the map of one pass are all there ever is.
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
    """What stays of one pass until the people are parsed."""

    finest: Tensor  # S2 [1, C, H / 4, W / 4]
    image_size: tuple[int, int]  # (height, width) that the network saw, without padding
    mirrored: bool
    convention: BoxConvention  # what the model's corners are

    def to_base(self, boxes: Tensor, base_size: tuple[int, int]) -> Tensor:
        """Boxes [n, 4] of this pass in the pixels of the base scale."""
        if self.mirrored:
            boxes = mirror_boxes(boxes, self.image_size[1])
        return self.convention.resize(boxes, self.image_size, base_size)

    def from_base(self, boxes: Tensor, base_size: tuple[int, int]) -> Tensor:
        """Boxes [n, 4] of the base scale in this pass's pixels."""
        boxes = self.convention.resize(boxes, base_size, self.image_size)
        return mirror_boxes(boxes, self.image_size[1]) if self.mirrored else boxes


class AugmentedInference:
    """A trained model that looks at an image several times and gives one answer.

    Candidate boxes of all passes (score above the model's threshold) are brought to the first pass's pixels, soft-NMS
    thins them out, each one left becomes the vote of all candidates that overlap it, and the best are parsed in every
    pass. Probabilities, parsing scores and global probabilities are plain means over the passes; a mirrored pass is
    mirrored back, left and right parts exchanged. (Released code, in its configuration of 150 epochs.)

    Args:
        model: in eval mode.
        label_set: says which parts a mirror image exchanges; as many labels as the model has classes.
        scales: each resizes a picture uint8 [3, H, W] to one scale; the first is the base, whose pixels boxes are in.
        flip: look at the mirror image at each scale, too.
        suppression: soft_nms's "linear" or "gaussian" with `sigma`; "off" is the model's own NMS. The IoU from which
            boxes compete is the model's `nms_threshold` in all of them.
        voting_iou: see `box_voting`; 0 leaves the boxes as they are.
        progress: draw a bar of the passes.

    Raises ValueError if there is no scale, an argument is none of those named or the labels do not fit the model.
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
        """How often the network sees each image."""
        return len(self.scales) * (2 if self.flip else 1)

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Detections:
        """A picture uint8 [3, H, W] RGB at its own size to detections in the pixels of the base scale.

        `label_probs` of the result is [K, H, W]: every pass's map is interpolated at the centers of the picture's own
        pixels, where `combine` reads it, and averaged there. It takes 4 K H W bytes, 77 MB for 1200x800 and 20 classes.
        """
        passes: list[Pass] = []
        boxes, scores, label_probs = [], [], None
        for resized, mirrored in self.views(image):
            seen, found, found_scores, logits = self.look(resized, mirrored)
            passes.append(seen)
            boxes.append(seen.to_base(found, passes[0].image_size))
            scores.append(found_scores)
            if logits is not None:
                if label_probs is None:
                    label_probs = logits.new_zeros(logits.shape[0], *image.shape[1:], dtype=torch.float32)
                self.add_semantic(label_probs, logits, seen, len(passes))
            del logits  # before the next pass, whose own are to be the only ones
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
        """The image as each pass sees it, and whether that is mirrored."""
        bar = tqdm(total=self.num_passes, desc="passes", leave=False, disable=not self.progress)
        for scale in self.scales:
            resized = scale(image).to(self.model.pixel_mean.device)
            for mirrored in (False, True) if self.flip else (False,):
                yield (resized.flip(-1) if mirrored else resized), mirrored
                bar.update()
        bar.close()

    def look(self, resized: Tensor, mirrored: bool) -> tuple[Pass, Tensor, Tensor, Tensor | None]:
        """One pass: what is kept of it, its candidates [n, 4] and their scores [n], its semantic logits [K, h, w]."""
        pyramid, logits, sizes = self.model.encode([resized])
        proposals = self.model.rpn.propose(*self.model.rpn(pyramid), sizes)
        boxes, scores, _ = self.model.box_head.candidates(*self.model.box_head(pyramid, proposals), proposals, sizes)
        seen = Pass(pyramid[0], sizes[0], mirrored, self.model.box_head.boxes)
        return seen, boxes, scores, None if logits is None else logits[0]

    def select(self, candidates: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Candidates [n, 4] with scores [n] to at most `max_detections` boxes and their scores, best first."""
        head = self.model.box_head
        if self.suppression == "off":
            kept = ops.nms(candidates, scores, head.nms_threshold, head.max_detections)
            kept_scores = scores[kept]
        else:
            kept, kept_scores = soft_nms(
                candidates, scores, head.nms_threshold, self.suppression, self.sigma, max_keep=head.max_detections
            )
        boxes = candidates[kept]
        if self.voting_iou:
            boxes = box_voting(boxes, candidates, scores, self.voting_iou)
        return boxes, kept_scores

    def add_semantic(self, mean: Tensor, logits: Tensor, seen: Pass, number: int) -> None:
        """Makes pass `number`, from 1 on, part of the mean probabilities [K, H, W]; a strip of rows at a time."""
        classes, *size = mean.shape
        probabilities, reach = self.model.label_probabilities(logits, seen.image_size)
        # Its cells are whole: up to 3 pixels more than the network saw.
        covered = tuple(
            max(end * side / pixels, side) for end, side, pixels in zip(reach, size, seen.image_size, strict=True)
        )
        for rows in strips(0, size[0], size[1] * classes):
            window = global_window(probabilities, covered, rows, (0, size[1]))
            if seen.mirrored:
                window = window.flip(-1)[self.exchanged]
            mean[:, slice(*rows)].lerp_(window, 1 / number)

    def parse(self, passes: list[Pass], boxes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Boxes [n, 4] of the base scale to mean probabilities [n, K, output, output] and mIoU scores [n] in [0, 1].

        The mean is that of the parsing scores sqrt(S_cls * S_iou); S_cls is the same in all passes, which makes it the
        mean of sqrt(S_iou), squared.
        """
        person_probs, roots = None, None
        for number, seen in enumerate(passes, start=1):
            own = seen.from_base(boxes, passes[0].image_size)
            maps, iou_scores = self.model.parse(seen.finest, own)
            if seen.mirrored:
                maps = maps.flip(-1)[:, self.exchanged]
            if iou_scores is not None:
                roots = torch.zeros_like(iou_scores) if roots is None else roots
                roots.lerp_(iou_scores.clamp(min=0).sqrt(), 1 / number)
            person_probs = maps if person_probs is None else person_probs.lerp_(maps, 1 / number)
            del maps
        return person_probs, None if roots is None else roots.square()
