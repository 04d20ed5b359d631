"""From images to results with a trained model: resize, run the network (once or with augmentation), combine."""

import itertools
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from rpcnn.box_convention import EDGES, PIXELS
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

WINDOW = 4  # images are read in windows of this many batches and grouped by padded size within a window


class Pipeline:
    """A trained model with pre- and postprocessing.

    Args:
        model: on its device; it is set to eval mode.
        config: its group inference, run.precision and its variant are used.
        label_set: has one label per class of the model.
        progress: show a progress bar of the passes of test-time augmentation.
        keep_probabilities: whether results have their probabilities.
    """

    def __init__(
        self,
        model: RPRCNN,
        config: Config,
        label_set: LabelSet,
        progress: bool = False,
        keep_probabilities: bool = False,
    ):
        self.keep_probabilities = keep_probabilities
        self.model, self.config, self.label_set = model.eval(), config, label_set
        self.device = model.pixel_mean.device
        self.dtype = autocast_dtype(config.run.precision, self.device, training=False)
        settings = config.inference
        self.transform = resize_as_configured(config)
        self.augmented = None
        if settings.augment:
            resize = config.variant.test_resize
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
        """Parse one image, uint8 [3, H, W] RGB; the result has the size of the image."""
        return next(self.stream([image]))

    def stream(self, images: Iterable[Tensor], batch_size: int = 1) -> Iterator[ParsingResult]:
        """Parse any number of images of any sizes; yields results in the order of the images.

        Images with the same size after resizing and padding are batched. For this, up to 4 batches of images are read
        at a time. Results may differ from those of single images by rounding, because convolutions and matrix products
        choose their order of summation by batch size: on 40 scenes of 160 pixels in float32, by at most 8e-5 pixels of
        a box, 3e-7 of a score and 1 label in 1.8 million. With test-time augmentation images are never batched, to
        save memory.

        Args:
            batch_size: largest number of images in a batch.

        Raises:
            ValueError: batch_size is not positive.
        """
        if batch_size < 1:
            raise ValueError(f"Pipeline: batch_size must be at least 1, got {batch_size}")
        if self.augmented:
            batch_size = 1
        images = iter(images)
        while window := list(itertools.islice(images, WINDOW * batch_size if batch_size > 1 else 1)):
            with torch.inference_mode(), autocast(self.device, self.dtype):
                detections = self._detect(window, batch_size)
            yield from [self.finish(found, image) for found, image in zip(detections, window, strict=True)]

    def detect(self, image: Tensor) -> Detections:
        """Run the network on one image, uint8 [3, H, W] RGB; `finish` makes the result from the detections."""
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
                detections |= zip(
                    batch, self.model([resized[i].to(self.device, non_blocking=True) for i in batch]), strict=True
                )
        return [detections[i] for i in range(len(images))]

    def finish(self, detections: Detections, image: Tensor, semantic_mode: str | None = None) -> ParsingResult:
        """Make the result of an image [3, H, W] from its detections, at the size of the image; see `combine`.

        Its tensors are ordinary ones, which can be edited and trained on, not those of inference mode.

        Args:
            semantic_mode: replaces inference.semantic_mode if given.
        """
        size = tuple(image.shape[-2:])
        with torch.no_grad(), autocast(self.device, self.dtype):
            return combine_as_configured(
                detections, size, self.config, self.label_set, semantic_mode, self.keep_probabilities
            )

    def short_sides(self) -> list[int]:
        """Short side in pixels of each scale, the base scale first."""
        base, settings = self.config.inference.test_short_side, self.config.inference
        scales = settings.augment_scales if settings.augment else ()
        return [base, *(max(round(scale * base), 1) for scale in scales)]

    def describe(self) -> str:
        """Describe the passes per image in one line."""
        flip = self.config.inference.augment and self.config.inference.augment_flip
        sides = self.short_sides()
        passes = f"{len(sides) * (2 if flip else 1)} passes an image"
        return f"short side {', '.join(map(str, sides))}{', each mirrored, too' if flip else ''}: {passes}"


def resize_as_configured(config: Config) -> TestTransform:
    """How the configuration resizes an image for one pass."""
    settings = config.inference
    return TestTransform(settings.test_short_side, settings.test_long_side_max, config.variant.test_resize)


def combine_as_configured(
    detections: Detections,
    image_size: tuple[int, int],
    config: Config,
    label_set: LabelSet,
    semantic_mode: str | None = None,
    keep_probabilities: bool = False,
) -> ParsingResult:
    """Call `combine` with the settings of a configuration; `semantic_mode` replaces inference.semantic_mode."""
    settings = config.inference
    return combine(
        detections,
        image_size,
        label_set,
        min_score=settings.min_parsing_score,
        semantic_gate=settings.semantic_gate,
        instance_semantic_weight=settings.instance_semantic_weight,
        semantic_mode=semantic_mode or settings.semantic_mode,
        boxes=PIXELS if config.variant.inclusive_boxes else EDGES,
        stretch=paste_rounded if config.variant.pasting == "rounded" else None,
        keep_probabilities=keep_probabilities,
    )
