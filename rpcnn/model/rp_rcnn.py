"""RP R-CNN (Fig. 2): an image to its people, their parts and how sure it is of them. Read it from `forward` down.

The model follows torchvision's detection style: a list of images of any sizes and, in training, a list of targets.
Parsing R-CNN, the paper's baseline, is this model with gse=False and prsn=False.
"""

import dataclasses

import torch
from torch import Tensor, nn

from rpcnn import ops
from rpcnn.data.sample import Target
from rpcnn.labels import IGNORE

from .backbone import Backbone
from .box_head import BoxHead
from .boxes import draw, last_pixels
from .detections import Detections
from .fpn import FPN
from .gse_fpn import GSEFPN
from .layers import channel_softmax
from .losses import label_cross_entropy, normalise, rescoring_error, semantic_target
from .parsing_head import ParsingHead, crop_parsing
from .prsn import PRSN
from .rpn import RPN

STRIDES = (4, 8, 16, 32, 64)  # of P2..P6
# Mean and deviation of the channels: of RGB in 0..1, as torchvision's weights expect; of BGR in 0..255 (released code).
PIXEL_STATISTICS = {
    "rgb": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "bgr255": ([102.9801, 115.9465, 122.7717], [1.0, 1.0, 1.0]),
}
SIZE_DIVISOR = 32  # padded heights and widths are multiples, so that C2..C5 halve exactly


class RPRCNN(nn.Module):
    """The whole network. The defaults are the paper's CIHP run; where the released code differs, the argument says so.

    backbone, backbone_weights ("" for random), backbone_norm, backbone_width, freeze_at, stride_in_1x1 (released code:
    True): see `Backbone`.

    fpn_channels: width of the pyramid; num_groups: of every GroupNorm outside the backbone; aligned: RoIAlign with the
    half pixel shift (released code: False); pyramid_levels: levels that the detector sees, 5 for S2..S6 (released: 4).

    gse: with GSE-FPN; gse_convs: its 3x3 convolutions; gse_embedding: add a further 3x3 block of the global semantic
    feature to the pyramid instead of the feature itself (released code: True).

    anchor_sizes: pixels, from the finest level on; anchor_ratios: height / width; rpn_*: see `RPN`; box_*: see
    `BoxHead`, with canonical_size the RoI size in pixels that is read from the stride-16 level.

    parsing_resolution: of the RoI features, which come from S2 alone; parsing_output: side of the parsing maps;
    parsing_samples: people per image that train the branch; parsing_channels, parsing_convs, aspp_channels,
    aspp_dilations: see `ParsingHead`; parsing_chunk: RoIs parsed at a time at test, which bounds the memory.

    prsn: with the re-scoring network; prsn_channels, prsn_hidden, prsn_input (released code: "logits"), prsn_stride
    (released: 2): see `PRSN`; rescoring_loss: "mse" or "half_positive" (released), see `rescoring_error`.

    lambda_parsing, lambda_semantic, lambda_rescoring: weights of Eq. 1; ignore_padding: the semantic loss passes over
    the padding instead of calling it background (released code: False); normalise_per_process: see `normalise`; it also
    leaves padded_to of the targets aside (released code: True).

    score_threshold, nms_threshold, max_detections: people kept at test, by box score.

    The released code's ways with pixels and boxes: pixel_format: what the backbone reads, "rgb" or "bgr255" (released);
    test_padding: "mean" as in training, or "black" (released); inclusive_boxes: corners are the first and the last
    pixel (released: True), see `clip_boxes` and `last_pixels`; rpn_top_per_batch: see `RPN` (released: True);
    parsing_crop: "exact" or "rounded" (released), see `crop_parsing`; clamp_iou: S_iou lies in 0..1 (released: False);
    crop_semantic: the global map ends where the image does, not where its padding does (released: False).
    """

    def __init__(
        self,
        num_classes: int = 20,
        backbone: str = "resnet50",
        backbone_weights: str = "",
        backbone_norm: str = "frozen_bn",
        backbone_width: float = 1.0,
        freeze_at: int = 2,
        stride_in_1x1: bool = False,
        fpn_channels: int = 256,
        num_groups: int = 32,
        aligned: bool = True,
        pyramid_levels: int = 5,
        gse: bool = True,
        gse_convs: int = 4,
        gse_embedding: bool = False,
        anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512),
        anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
        rpn_top_train: int = 2000,
        rpn_top_test: int = 1000,
        rpn_nms_threshold: float = 0.7,
        rpn_samples: int = 256,
        rpn_ignore_border: bool = True,
        box_channels: int = 1024,
        box_resolution: int = 7,
        box_samples: int = 512,
        box_positive_fraction: float = 0.25,
        canonical_size: int = 224,
        parsing_channels: int = 512,
        parsing_convs: int = 4,
        aspp_channels: int = 256,
        aspp_dilations: tuple[int, ...] = (6, 12, 18),
        parsing_resolution: int = 32,
        parsing_output: int = 128,
        parsing_samples: int = 16,
        parsing_chunk: int = 32,
        prsn: bool = True,
        prsn_channels: int = 128,
        prsn_hidden: int = 256,
        prsn_input: str = "probabilities",
        prsn_stride: int = 1,
        rescoring_loss: str = "mse",
        lambda_parsing: float = 2.0,
        lambda_semantic: float = 2.0,
        lambda_rescoring: float = 1.0,
        ignore_padding: bool = True,
        normalise_per_process: bool = False,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
        pixel_format: str = "rgb",
        test_padding: str = "mean",
        inclusive_boxes: bool = False,
        rpn_top_per_batch: bool = False,
        parsing_crop: str = "exact",
        clamp_iou: bool = True,
        crop_semantic: bool = True,
    ):
        super().__init__()
        if not 1 <= pyramid_levels <= len(STRIDES) or len(anchor_sizes) < pyramid_levels:
            raise ValueError(
                f"RPRCNN: pyramid_levels must be 1..5 with an anchor size each, got {pyramid_levels} levels and "
                f"anchor_sizes {tuple(anchor_sizes)}"
            )
        if parsing_output % parsing_resolution:
            raise ValueError(
                f"RPRCNN: parsing_output must be a multiple of parsing_resolution, got {parsing_output} and "
                f"{parsing_resolution}"
            )
        for name, value, choices in (
            ("pixel_format", pixel_format, tuple(PIXEL_STATISTICS)),
            ("test_padding", test_padding, ("mean", "black")),
            ("parsing_crop", parsing_crop, ("exact", "rounded")),
        ):
            if value not in choices:
                raise ValueError(f"RPRCNN: {name} must be {' or '.join(map(repr, choices))}, got {value!r}")
        self.num_classes = num_classes
        self.pyramid_levels = pyramid_levels
        self.aligned = aligned
        self.parsing_resolution, self.parsing_output = parsing_resolution, parsing_output
        self.parsing_samples, self.parsing_chunk = parsing_samples, parsing_chunk
        self.rescoring_loss = rescoring_loss
        self.ignore_padding = ignore_padding
        self.normalise_per_process = normalise_per_process
        self.loss_weights = {
            "parsing": lambda_parsing,
            "semantic": lambda_semantic,
            "rescoring": lambda_rescoring,
        }
        self.pixel_format, self.test_padding = pixel_format, test_padding
        self.inclusive_boxes, self.parsing_crop = inclusive_boxes, parsing_crop
        self.clamp_iou, self.crop_semantic = clamp_iou, crop_semantic
        mean, std = (torch.tensor(values)[:, None, None] for values in PIXEL_STATISTICS[pixel_format])
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)

        strides = STRIDES[:pyramid_levels]
        self.backbone = Backbone(
            backbone, backbone_weights or None, backbone_norm, freeze_at, backbone_width, stride_in_1x1
        )
        self.fpn = FPN(self.backbone.channels, fpn_channels, num_groups)
        self.gse = None
        if gse:
            self.gse = GSEFPN(fpn_channels, num_classes, num_groups, gse_convs, pyramid_levels, gse_embedding)
        self.rpn = RPN(
            fpn_channels,
            strides,
            anchor_sizes[:pyramid_levels],
            anchor_ratios,
            rpn_top_train,
            rpn_top_test,
            rpn_nms_threshold,
            rpn_samples,
            rpn_ignore_border,
            inclusive_boxes,
            rpn_top_per_batch,
        )
        self.box_head = BoxHead(
            fpn_channels,
            strides,
            box_channels,
            box_resolution,
            canonical_size,
            box_samples,
            box_positive_fraction,
            score_threshold,
            nms_threshold,
            max_detections,
            aligned,
            inclusive_boxes,
        )
        self.parsing_head = ParsingHead(
            fpn_channels,
            parsing_channels,
            num_classes,
            aspp_channels,
            aspp_dilations,
            parsing_convs,
            parsing_output,
            num_groups,
        )
        self.prsn = None
        if prsn:
            self.prsn = PRSN(parsing_channels, num_classes, prsn_channels, prsn_hidden, prsn_input, prsn_stride)

    @classmethod
    def from_config(cls, config) -> "RPRCNN":
        """The network of a configuration: the fields of its `model` group are this class's arguments."""
        return cls(num_classes=config.labels.num_classes, **dataclasses.asdict(config.model))

    def forward(self, images: list[Tensor], targets: list[Target] | None = None):
        """Images uint8 [3, h, w] RGB to losses (training mode) or to `Detections`, one per image (eval mode).

        targets, in training: one `rpcnn.data.sample.Target` per image; boxes, person_maps and label_map are required.

        The losses are scalars, already weighted, whose sum is Eq. 1: rpn_objectness, rpn_box, box_class,
        box_regression, parsing, semantic (with gse), rescoring (with prsn).
        """
        check_inputs(images, targets, self.training)
        if self.training:
            return self.losses(*self.encode(images, targets), targets)
        # GroupNorm sees the padding: among images of its own padded size, an image's people do not depend on the batch.
        detections = {}
        for group in same_padded_size(images):
            detections |= zip(group, self.detect(*self.encode([images[i] for i in group])), strict=True)
        return [detections[i] for i in range(len(images))]

    def encode(self, images: list[Tensor], targets: list[Target] | None = None):
        """Images to S2..S6, the semantic logits (None without GSE-FPN) and each image's (height, width)."""
        batch, image_sizes = self.normalise_and_pad(images, targets)
        pyramid = self.fpn(self.backbone(batch))  # C2..C5 -> P2..P6
        semantic_logits, pyramid = self.gse(pyramid) if self.gse else (None, pyramid[: self.pyramid_levels])  # S2..S6
        return pyramid, semantic_logits, image_sizes

    def normalise_and_pad(
        self, images: list[Tensor], targets: list[Target] | None = None
    ) -> tuple[Tensor, list[tuple[int, int]]]:
        """The batch [N, 3, H, W], padded to the right of and below each image, and each image's (height, width)."""
        others = [target["padded_to"] for target in targets or () if "padded_to" in target]
        if self.normalise_per_process:
            others = []
        batch = self.pixel_mean.new_zeros(len(images), 3, *padded_size(images, others))
        if self.test_padding == "black" and not self.training:
            batch = (batch - self.pixel_mean) / self.pixel_std
        for canvas, image in zip(batch, images, strict=True):
            image = image.to(batch.device, non_blocking=True).to(batch.dtype)
            image = image / 255 if self.pixel_format == "rgb" else image.flip(0)
            canvas[:, : image.shape[1], : image.shape[2]] = (image - self.pixel_mean) / self.pixel_std
        return batch, [tuple(image.shape[-2:]) for image in images]

    def losses(self, pyramid, semantic_logits, image_sizes, targets: list[Target]) -> dict[str, Tensor]:
        """Eq. 1, term by term."""
        generators = [seeded_generator(target) for target in targets]
        anchors = self.rpn(pyramid)
        proposals = self.rpn.propose(*anchors, image_sizes)
        terms = self.rpn.loss(*anchors, image_sizes, targets, generators)

        rois = self.box_head.sample(proposals, targets, generators)
        class_logits, deltas = self.box_head(pyramid, [roi.boxes for roi in rois])
        terms |= self.box_head.loss(class_logits, deltas, rois, targets)

        boxes, labels = self.parsing_targets(rois, image_sizes, targets, generators)
        parsing_feature, parsing_logits = self.parsing_head(self.parsing_rois(pyramid, boxes))
        terms["parsing"] = label_cross_entropy(parsing_logits, labels)
        if self.gse:
            size = (4 * semantic_logits.shape[-2], 4 * semantic_logits.shape[-1])
            truth = semantic_target(targets, size, IGNORE if self.ignore_padding else 0)
            terms["semantic"] = label_cross_entropy(semantic_logits, truth)
        if self.prsn:
            iou = ops.parsing_miou(parsing_logits.detach(), labels, ignore_index=IGNORE)
            known = (labels < self.num_classes).flatten(1).any(dim=1)
            predicted = self.prsn(parsing_feature, parsing_logits)
            terms["rescoring"] = rescoring_error(predicted, iou, known, self.rescoring_loss)
        return normalise(terms, self.loss_weights, self.normalise_per_process)

    def detect(self, pyramid, semantic_logits, image_sizes) -> list[Detections]:
        """People, their parsing maps and scores (Sec. 3.5), in the pixels of the images given."""
        proposals = self.rpn.propose(*self.rpn(pyramid), image_sizes)
        found = self.box_head.detect(*self.box_head(pyramid, proposals), proposals, image_sizes)
        detections = []
        for i, ((boxes, box_scores), size) in enumerate(zip(found, image_sizes, strict=True)):
            person_probs, iou_scores = self.parse([pyramid[0][i : i + 1]], boxes)
            detections.append(
                Detections(
                    boxes=boxes,
                    box_scores=box_scores,
                    iou_scores=iou_scores,
                    person_probs=person_probs,
                    label_probs=self.semantic_probabilities(semantic_logits[i], size) if self.gse else None,
                    image_size=size,
                    label_probs_size=None if self.crop_semantic else size,
                )
            )
        return detections

    def semantic_probabilities(self, logits: Tensor, image_size: tuple[int, int]) -> Tensor:
        """One image's global probabilities [K, ceil(height / 4), ceil(width / 4)]: the padding's are cut off.

        Without crop_semantic they stay, and the whole map stands for the image.
        """
        if self.crop_semantic:
            height, width = (-(-side // STRIDES[0]) for side in image_size)
            logits = logits[:, :height, :width]
        return logits.float().softmax(dim=0)

    def parse(self, pyramid, boxes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Boxes [n, 4] of one image to probabilities [n, K, output, output] and mIoU scores [n].

        The scores are in [0, 1]; without clamp_iou they are as predicted.
        """
        shape = len(boxes), self.num_classes, self.parsing_output, self.parsing_output
        # Filled chunk by chunk; a single chunk is the result itself.
        person_probs = boxes.new_empty(shape) if len(boxes) > self.parsing_chunk else boxes.new_zeros(0, *shape[1:])
        iou_scores = boxes.new_zeros(len(boxes)) if self.prsn else None
        for start in range(0, len(boxes), self.parsing_chunk):
            chunk = slice(start, start + self.parsing_chunk)
            feature, logits = self.parsing_head(self.parsing_rois(pyramid, [boxes[chunk]]))
            seen = channel_softmax(logits)
            if self.prsn:
                iou = self.prsn(feature, logits, seen)
                iou_scores[chunk] = iou.clamp(0, 1) if self.clamp_iou else iou
            if len(boxes) > self.parsing_chunk:
                person_probs[chunk] = seen
            else:
                person_probs = seen
        return person_probs, iou_scores

    def parsing_rois(self, pyramid, boxes: list[Tensor]) -> Tensor:
        """Features [R, C, resolution, resolution] of the boxes of each image, all from the finest level (Sec. 3.3)."""
        boxes = [last_pixels(b) for b in boxes] if self.inclusive_boxes else boxes
        return ops.roi_align(pyramid[0], boxes, self.parsing_resolution, 1 / STRIDES[0], 2, self.aligned)

    @torch.no_grad()
    def parsing_targets(self, rois, image_sizes, targets, generators) -> tuple[list[Tensor], Tensor]:
        """Draws each image's RoIs for the parsing branch: boxes [R_i, 4] per image, labels uint8 [R, output, output].

        Drawn first and cropped after: of up to 128 positives only 16 are ever looked at. A batch without any person
        gets one RoI whose labels are all ignored, so that every parameter has a gradient (zero) in every step.
        """
        boxes, labels = [], []
        for roi, target, generator in zip(rois, targets, generators, strict=True):
            chosen, valid = draw(roi.people >= 0, self.parsing_samples, generator)
            if len(target["boxes"]) == 0:
                chosen, valid = chosen[:0], valid[:0]
            boxes.append(roi.boxes[chosen])
            if len(chosen):
                people = roi.people[chosen].clamp(min=0)
                crops = crop_parsing(target["person_maps"], people, boxes[-1], self.parsing_output, self.parsing_crop)
                labels.append(torch.where(valid[:, None, None], crops, IGNORE))
        if not labels:
            height, width = image_sizes[0]
            boxes[0] = boxes[0].new_zeros(1, 4)
            boxes[0][:, 2], boxes[0][:, 3] = width, height
            size = (1, self.parsing_output, self.parsing_output)
            labels.append(torch.full(size, IGNORE, dtype=torch.uint8, device=boxes[0].device))
        return boxes, torch.cat(labels)


def same_padded_size(images: list[Tensor]) -> list[list[int]]:
    """Indices of the images, those of one padded size together; in order of each size's first image."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(padded_size([image]), []).append(i)
    return list(groups.values())


def padded_size(images: list[Tensor], others=()) -> tuple[int, int]:
    """The smallest (height, width), multiples of 32, that all images [3, h, w] and other sizes (h, w) fit into."""
    sizes = [tuple(image.shape[1:]) for image in images] + [tuple(size) for size in others]
    return tuple(-(-max(side) // SIZE_DIVISOR) * SIZE_DIVISOR for side in zip(*sizes, strict=True))


def seeded_generator(target: Target) -> torch.Generator | None:
    """The source of an image's random draws: its own where it has a seed, else torch's global one."""
    if "seed" not in target:
        return None
    return torch.Generator(target["boxes"].device).manual_seed(int(target["seed"]))


def check_inputs(images: list[Tensor], targets: list[Target] | None, training: bool) -> None:
    """Raises ValueError that names what is wrong with the arguments of `RPRCNN.forward`."""
    if len(images) == 0:
        raise ValueError("RPRCNN: images must hold at least one image")
    for i, image in enumerate(images):
        if image.dim() != 3 or image.shape[0] != 3 or image.dtype != torch.uint8 or 0 in image.shape:
            raise ValueError(f"RPRCNN: images[{i}] must be uint8 [3, H, W], got {image.dtype} {list(image.shape)}")
    if not training:
        return
    if targets is None or len(targets) != len(images):
        raise ValueError(
            f"RPRCNN: training wants {len(images)} targets, got {None if targets is None else len(targets)}"
        )
    for i, (image, target) in enumerate(zip(images, targets, strict=True)):
        missing = [key for key in ("boxes", "person_maps", "label_map") if key not in target]
        if missing:
            raise ValueError(f"RPRCNN: targets[{i}] must hold {', '.join(missing)}, got {', '.join(target)}")
        people, size = len(target["boxes"]), list(image.shape[1:])
        wanted = {"boxes": [people, 4], "person_maps": [people, *size], "label_map": size}
        for key, shape in wanted.items():
            if list(target[key].shape) != shape:
                raise ValueError(f"RPRCNN: targets[{i}][{key!r}] must be {shape}, got {list(target[key].shape)}")
