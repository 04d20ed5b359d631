"""RP R-CNN (Fig. 2): detects the people of an image, segments their parts and scores them. Start at `forward`.

The model follows torchvision's detection style: a list of images of any sizes and, in training, a list of targets.
Parsing R-CNN, the paper's baseline, is this model without gse and prsn.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from rpcnn import ops
from rpcnn.data.sample import Target
from rpcnn.labels import IGNORE

from .box_head import BoxHead
from .detections import Detections
from .fpn import FPN
from .gse_fpn import GSEFPN
from .layers import channel_softmax
from .losses import Terms, label_cross_entropy, normalize, sample_counts, semantic_target, squared_error
from .parsing_head import ParsingHead
from .prsn import PRSN
from .rpn import RPN

STRIDES = (4, 8, 16, 32, 64)  # of P2..P6
SIZE_DIVISOR = 32  # of padded heights and widths: each of C2..C5 has exactly half the size of the one before


class RPRCNN(nn.Module):
    """The whole network, assembled from its parts. `build_model` makes it from a configuration.

    Args:
        backbone: any module that takes images [N, 3, H, W] (RGB, normalized with ImageNet's mean and standard
            deviation; H and W multiples of 32), returns [C2, C3, C4, C5] at strides 4, 8, 16, 32 and has an attribute
            `channels`, the numbers of channels of these four.
        fpn, rpn, box_head, parsing_head: as in Fig. 2.
        gse: the global semantic branch; None gives the plain FPN of Parsing R-CNN.
        prsn: the re-scoring network; None ranks people by their box scores.
        loss_weights: weights of the terms of Eq. 1 by name: "parsing", "semantic", "rescoring"; 1 if missing.
        chunk: RoIs parsed at a time at test; limits memory.
    """

    PIXEL_MEAN, PIXEL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in 0..1, as for torchvision's weights
    PADDING_LABEL = IGNORE  # the semantic loss ignores padding

    pixel_mean: Tensor
    pixel_std: Tensor
    from_config: ClassVar[Callable[..., "RPRCNN"]]
    """`build_model`, by its public name."""

    def __init__(
        self,
        backbone: nn.Module,
        fpn: FPN,
        rpn: RPN,
        box_head: BoxHead,
        parsing_head: ParsingHead,
        gse: GSEFPN | None = None,
        prsn: PRSN | None = None,
        *,
        loss_weights: Mapping[str, float] | None = None,
        chunk: int = 32,
    ):
        super().__init__()
        self.num_classes = parsing_head.num_classes
        self.loss_weights, self.chunk = dict(loss_weights or {}), chunk
        self.backbone, self.fpn, self.gse = backbone, fpn, gse
        self.rpn, self.box_head = rpn, box_head
        self.parsing_head, self.prsn = parsing_head, prsn
        for name, values in (("pixel_mean", self.PIXEL_MEAN), ("pixel_std", self.PIXEL_STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, images: list[Tensor], targets: list[Target] | None = None, counts: Tensor | None = None):
        """Compute losses (training mode) or `Detections` (eval mode) of a list of images.

        Args:
            images: uint8, or float32 in 0..255, [3, h, w] RGB, of any sizes.
            targets: in training, one `rpcnn.data.sample.Target` per image; boxes, person_maps and label_map are
                required.
            counts: in training, for a part of a batch: the sum of `counts` over its parts, by which the losses are
                divided instead of this part's own. The losses of the parts then add up to those of the batch.

        Returns:
            In training mode, a dict of weighted scalar losses whose sum is Eq. 1: rpn_objectness, rpn_box, box_class,
            box_regression, parsing, semantic (with gse), rescoring (with prsn). In eval mode, one `Detections` per
            image.

        Raises:
            ValueError: an image or target is missing or has a wrong shape or dtype.
        """
        check_inputs(images, targets, self.training)
        if self.training:
            return self.normalize_terms(self.terms(*self.encode(images, targets), targets), counts)
        # GroupNorm includes the padding in its statistics. Only images of one padded size share a batch, so that the
        # detections of an image do not depend on the others.
        detections = {}
        for group in same_padded_size(images):
            detections |= zip(group, self.detect(*self.encode([images[i] for i in group])), strict=True)
        return [detections[i] for i in range(len(images))]

    @torch.no_grad()
    def counts(self, images: list[Tensor], targets: list[Target]) -> Tensor:
        """How many samples each loss of a batch has, float32 [terms], without any trace in the model."""
        check_inputs(images, targets, training=True)
        before = [buffer.clone() for buffer in self.buffers()]  # running statistics
        terms = self.terms(*self.encode(images, targets), targets)
        for buffer, value in zip(self.buffers(), before, strict=True):
            buffer.copy_(value)
        return sample_counts(terms)

    def encode(self, images: list[Tensor], targets: list[Target] | None = None):
        """Images to S2..S6, the semantic logits (None without GSE-FPN) and each image's (height, width)."""
        batch, image_sizes = self.normalize_and_pad(images, targets)
        pyramid = self.fpn(self.backbone(batch))  # C2..C5 -> P2..P6
        semantic_logits, pyramid = self.gse(pyramid) if self.gse else (None, pyramid[: len(self.rpn.strides)])  # S2..S6
        return pyramid, semantic_logits, image_sizes

    def normalize_and_pad(
        self, images: list[Tensor], targets: list[Target] | None = None
    ) -> tuple[Tensor, list[tuple[int, int]]]:
        """The batch [N, 3, H, W], padded at the right and bottom, and each image's (height, width)."""
        others = [target["padded_to"] for target in targets or () if "padded_to" in target]
        batch = self.blank_batch((len(images), 3, *padded_size(images, others)))
        for canvas, image in zip(batch, images, strict=True):
            image = image.to(batch.device, non_blocking=True).to(batch.dtype)
            canvas[:, : image.shape[1], : image.shape[2]] = self.normalize_pixels(image)
        return batch, [tuple(image.shape[-2:]) for image in images]

    def blank_batch(self, shape: tuple[int, ...]) -> Tensor:
        """A batch of the given shape that holds padding only: the mean color, which is 0 after normalization."""
        return self.pixel_mean.new_zeros(shape)

    def normalize_pixels(self, image: Tensor) -> Tensor:
        """Normalize RGB pixels [..., 3, h, w] in 0..255 for the backbone."""
        return (image / 255 - self.pixel_mean) / self.pixel_std

    def terms(self, pyramid, semantic_logits, image_sizes, targets: list[Target]) -> Terms:
        """Eq. 1, term by term: the summed error of each, and its number of samples."""
        generators = [seeded_generator(target) for target in targets]
        anchors = self.rpn(pyramid)
        proposals = self.rpn.propose(*anchors, image_sizes)
        terms = self.rpn.loss(*anchors, image_sizes, targets, generators)

        rois = self.box_head.sample(proposals, targets, generators)
        class_logits, deltas = self.box_head(pyramid, [roi.boxes for roi in rois])
        terms |= self.box_head.loss(class_logits, deltas, rois, targets)

        boxes, labels = self.parsing_head.sample(rois, image_sizes, targets, generators)
        parsing_feature, parsing_logits = self.parsing_head(self.parsing_head.roi_features(pyramid[0], boxes))
        if self.prsn:
            # All that training needs of the logits in one pass; PRSN reads the pooled map and learns the mIoU.
            total, valid, iou, pooled = ops.parsing_loss(
                parsing_logits,
                labels,
                pool=parsing_logits.shape[-1] // parsing_feature.shape[-1],
                pool_logits=self.prsn.input == "logits",
                ignore_index=IGNORE,
            )
            terms["parsing"] = total, valid.sum()
        else:
            terms["parsing"] = label_cross_entropy(parsing_logits, labels)
        if self.gse:
            size = (4 * semantic_logits.shape[-2], 4 * semantic_logits.shape[-1])
            truth = semantic_target(targets, size, self.PADDING_LABEL)
            terms["semantic"] = label_cross_entropy(semantic_logits, truth)
        if self.prsn:
            predicted = self.prsn.score(parsing_feature, pooled)
            terms["rescoring"] = self.rescoring_error(predicted, iou, valid > 0)
        return terms

    def rescoring_error(self, predicted: Tensor, iou: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of predicted [R] against true mIoU [R] over the RoIs with ground truth (`known` [R]): (sum, count)."""
        return squared_error(predicted, iou, known)

    def normalize_terms(self, terms: Terms, counts: Tensor | None) -> dict[str, Tensor]:
        """Weighted means of the terms over the samples of all processes; `counts` replaces those of this process."""
        return normalize(terms, self.loss_weights, counts=counts)

    def detect(self, pyramid, semantic_logits, image_sizes) -> list[Detections]:
        """People, their parsing maps and scores (Sec. 3.5), in the pixels of the images given."""
        proposals = self.rpn.propose(*self.rpn(pyramid), image_sizes)
        found = self.box_head.detect(*self.box_head(pyramid, proposals), proposals, image_sizes)
        detections = []
        for i, ((boxes, box_scores), size) in enumerate(zip(found, image_sizes, strict=True)):
            person_probs, iou_scores = self.parse(pyramid[0][i : i + 1], boxes)
            label_probs, covered = self.label_probabilities(semantic_logits[i], size) if self.gse else (None, None)
            detections.append(
                Detections(
                    boxes=boxes,
                    box_scores=box_scores,
                    iou_scores=iou_scores,
                    person_probs=person_probs,
                    label_probs=label_probs,
                    image_size=size,
                    label_probs_size=covered,
                )
            )
        return detections

    def label_probabilities(self, logits: Tensor, image_size: tuple[int, int]) -> tuple[Tensor, tuple[float, float]]:
        """One image's global probabilities [K, h, w] without padding, and the (height, width) in pixels they cover.

        A cell covers 4 x 4 pixels; the last row and column may extend up to 3 pixels beyond the image.
        """
        rows, columns = (-(-side // STRIDES[0]) for side in image_size)
        return logits[:, :rows, :columns].float().softmax(dim=0), (STRIDES[0] * rows, STRIDES[0] * columns)

    def parse(self, finest: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Parse the people in boxes [n, 4] of one image.

        Args:
            finest: S2 of the image, [1, C, H / 4, W / 4].

        Returns:
            Probabilities [n, K, output, output] and predicted mIoU scores [n], None without PRSN.
        """
        shape = len(boxes), self.num_classes, self.parsing_head.output_size, self.parsing_head.output_size
        # Filled chunk by chunk; a single chunk is returned without a copy.
        person_probs = boxes.new_empty(shape) if len(boxes) > self.chunk else boxes.new_zeros(0, *shape[1:])
        iou_scores = boxes.new_zeros(len(boxes)) if self.prsn else None
        for start in range(0, len(boxes), self.chunk):
            chunk = slice(start, start + self.chunk)
            feature, logits = self.parsing_head(self.parsing_head.roi_features(finest, [boxes[chunk]]))
            probs = channel_softmax(logits)
            if self.prsn:
                iou_scores[chunk] = self.iou_in_range(self.prsn(feature, logits, probs))
            if len(boxes) > self.chunk:
                person_probs[chunk] = probs
            else:
                person_probs = probs
        return person_probs, iou_scores

    def iou_in_range(self, iou: Tensor) -> Tensor:
        """Clamp the predicted mIoU to [0, 1]."""
        return iou.clamp(0, 1)


def same_padded_size(images: list[Tensor]) -> list[list[int]]:
    """Indices of the images grouped by padded size, in the order of each group's first image."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(padded_size([image]), []).append(i)
    return list(groups.values())


def padded_size(images: list[Tensor], others=()) -> tuple[int, int]:
    """The smallest (height, width), multiples of 32, that holds all images [3, h, w] and all other sizes (h, w)."""
    sizes = [tuple(image.shape[1:]) for image in images] + [tuple(size) for size in others]
    return tuple(-(-max(side) // SIZE_DIVISOR) * SIZE_DIVISOR for side in zip(*sizes, strict=True))


def seeded_generator(target: Target) -> torch.Generator | None:
    """The random generator of an image: seeded with target["seed"] if present, else None, torch's global generator."""
    if "seed" not in target:
        return None
    return torch.Generator(target["boxes"].device).manual_seed(int(target["seed"]))


def check_inputs(images: list[Tensor], targets: list[Target] | None, training: bool) -> None:
    """Raise ValueError if the arguments of `RPRCNN.forward` have a wrong number, shape or dtype."""
    if len(images) == 0:
        raise ValueError("RPRCNN: images must hold at least one image")
    for i, image in enumerate(images):
        known = image.dtype in (torch.uint8, torch.float32)
        if image.dim() != 3 or image.shape[0] != 3 or not known or 0 in image.shape:
            raise ValueError(
                f"RPRCNN: images[{i}] must be uint8 or float32 [3, H, W], got {image.dtype} {list(image.shape)}"
            )
    if not training:
        return
    if targets is None or len(targets) != len(images):
        raise ValueError(
            f"RPRCNN: targets must hold one target for each of {len(images)} images in training, "
            f"got {None if targets is None else len(targets)}"
        )
    for i, (image, target) in enumerate(zip(images, targets, strict=True)):
        missing = [key for key in ("boxes", "person_maps", "label_map") if key not in target]
        if missing:
            raise ValueError(f"RPRCNN: targets[{i}] must hold {', '.join(missing)}, got {', '.join(target)}")
        people, size = len(target["boxes"]), list(image.shape[1:])
        expected = {"boxes": [people, 4], "person_maps": [people, *size], "label_map": size}
        for key, shape in expected.items():
            if list(target[key].shape) != shape:
                raise ValueError(f"RPRCNN: targets[{i}][{key!r}] must be {shape}, got {list(target[key].shape)}")
