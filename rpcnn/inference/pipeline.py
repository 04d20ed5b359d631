"""From pictures to results with a trained model: resize, network (one pass or the augmented ones), combine."""

import itertools
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from rpcnn.config import Config
from rpcnn.data.transforms import TestTransform
from rpcnn.labels import LabelSet
from rpcnn.model import RPRCNN, Detections
from rpcnn.model.released import paste_rounded
from rpcnn.model.rp_rcnn import same_padded_size
from rpcnn.runtime.precision import autocast, autocast_dtype

from .augmented import AugmentedInference
from .combine import combine
from .results import ParsingResult

WINDOW = 4  # batches' worth of images that are looked through for images of one padded size


class Pipeline:
    """A trained model and what the configuration puts around it.

    Args:
        model: on its device; it is put into eval mode.
        config: its groups inference and run.precision, and its variant.
        label_set: of as many labels as the model has classes.
        progress: draw a bar of the passes of test-time augmentation.
    """

    def __init__(self, model: RPRCNN, config: Config, label_set: LabelSet, progress: bool = False):
        self.model, self.config, self.label_set = model.eval(), config, label_set
        self.device = model.pixel_mean.device
        self.dtype = autocast_dtype(config.run.precision, self.device, training=False)
        settings = config.inference
        resize = config.variant.test_resize
        self.transform = TestTransform(settings.test_short_side, settings.test_long_side_max, resize)
        self.augmented = None
        if settings.augment:
            others = [TestTransform(side, resize=resize, max_size=2000) for side in self.short_sides()[1:]]  # released
            self.augmented = AugmentedInference(
                model,
                label_set,
                [self.transform, *others],
                flip=settings.augment_flip,
                suppression=settings.soft_nms,
                voting_iou=settings.voting_iou,
                progress=progress,
            )

    def __call__(self, image: Tensor) -> ParsingResult:
        """One image, uint8 [3, H, W] RGB; the result is at its own size."""
        return next(self.stream([image]))

    def stream(self, images: Iterable[Tensor], batch_size: int = 1) -> Iterator[ParsingResult]:
        """As a call, for any number of images of any sizes, in their order.

        Images that have the same size after resizing and padding go through the network up to `batch_size` at a time.
        For that, 4 batches' worth of images are read at a time and no more. The results are those of one by one up to
        the order of additions, which convolutions and matrix products choose by batch size: on 40 scenes of 160 pixels
        in float32, 8e-5 pixels of a box, 3e-7 of a score and 1 label in 1.8 million at most. The passes of test-time
        augmentation run one by one: a batch would hold that many times their features.

        Raises ValueError if batch_size is not positive.
        """
        if batch_size < 1:
            raise ValueError(f"Pipeline: batch_size must be at least 1, got {batch_size}")
        if self.augmented:
            batch_size = 1
        images = iter(images)
        while window := list(itertools.islice(images, WINDOW * batch_size if batch_size > 1 else 1)):
            with torch.inference_mode(), autocast(self.device, self.dtype):
                detections = self._detect(window, batch_size)
                results = [self.finish(found, image) for found, image in zip(detections, window, strict=True)]
            yield from results

    def detect(self, image: Tensor) -> Detections:
        """What the network says about one image, uint8 [3, H, W] RGB, before `finish` paints it."""
        with torch.inference_mode(), autocast(self.device, self.dtype):
            return self._detect([image], 1)[0]

    def _detect(self, images: list[Tensor], batch_size: int) -> list[Detections]:
        if self.augmented:
            return [self.augmented(image) for image in images]
        resized = [self.transform(image) for image in images]
        detections = {}
        for group in same_padded_size(resized):
            for start in range(0, len(group), batch_size):
                batch = group[start : start + batch_size]
                detections |= zip(batch, self.model([resized[i].to(self.device) for i in batch]), strict=True)
        return [detections[i] for i in range(len(images))]

    def finish(self, detections: Detections, image: Tensor, semantic_mode: str | None = None) -> ParsingResult:
        """Detections of an image [3, H, W] painted at its own size (see `combine`), if wanted in another mode."""
        settings = self.config.inference
        return combine(
            detections,
            tuple(image.shape[-2:]),
            self.label_set,
            min_score=settings.min_parsing_score,
            semantic_gate=settings.semantic_gate,
            instance_semantic_weight=settings.instance_semantic_weight,
            semantic_mode=semantic_mode or settings.semantic_mode,
            boxes=self.model.box_head.boxes,
            stretch=paste_rounded if self.config.variant.pasting == "rounded" else None,
        )

    def short_sides(self) -> list[int]:
        """Pixels of the short side at each scale that the network sees, the base scale first."""
        base, settings = self.config.inference.test_short_side, self.config.inference
        scales = settings.augment_scales if settings.augment else ()
        return [base, *(max(round(scale * base), 1) for scale in scales)]

    def describe(self) -> str:
        """The passes that each image takes, in a line."""
        flip = self.config.inference.augment and self.config.inference.augment_flip
        sides = self.short_sides()
        passes = f"{len(sides) * (2 if flip else 1)} passes an image"
        return f"short side {', '.join(map(str, sides))}{', each mirrored, too' if flip else ''}: {passes}"
