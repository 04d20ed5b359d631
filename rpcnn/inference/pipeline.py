"""From pictures to results with a trained model: resize, network (one pass or the augmented ones), combine."""

import itertools
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from rpcnn.config import Config
from rpcnn.data.transforms import TestTransform
from rpcnn.model import RPRCNN, Detections
from rpcnn.model.rp_rcnn import same_padded_size
from rpcnn.runtime.precision import autocast, autocast_dtype

from .augmented import AugmentedInference
from .combine import combine
from .results import ParsingResult

WINDOW = 4  # batches' worth of images that are looked through for images of one padded size


def parse_image(
    model: RPRCNN, image: Tensor, config: Config, device: torch.device, progress: bool = False
) -> ParsingResult:
    """One image, uint8 [3, H, W] RGB, through the model in eval mode; the result is at the image's own size.

    With config.test.augment, `progress` draws a bar of the passes.
    """
    return next(parse_images(model, [image], config, device, progress=progress))


def parse_images(
    model: RPRCNN,
    images: Iterable[Tensor],
    config: Config,
    device: torch.device,
    batch_size: int = 1,
    progress: bool = False,
) -> Iterator[ParsingResult]:
    """As `parse_image`, for any number of images of any sizes, in their order.

    Images that have the same size after resizing and padding go through the network up to `batch_size` at a time. For
    that, 4 batches' worth of images are read at a time and no more. The results are those of one by one up to the order
    of additions, which convolutions and matrix products choose by batch size: on 40 scenes of 160 pixels in float32,
    8e-5 pixels of a box, 3e-7 of a score and 1 label in 1.8 million at most. The passes of test-time augmentation run
    one by one: a batch would hold that many times their features.

    Raises ValueError if batch_size is not positive.
    """
    if batch_size < 1:
        raise ValueError(f"parse_images: batch_size must be at least 1, got {batch_size}")
    if config.test.augment:
        augmented = augmented_inference(model, config, progress)
        batch_size = 1
    images = iter(images)
    while window := list(itertools.islice(images, WINDOW * batch_size if batch_size > 1 else 1)):
        with torch.inference_mode(), autocast(device, autocast_dtype(config.run.precision, device, training=False)):
            if config.test.augment:
                results = {0: finish(augmented(window[0]), window[0], config)}
            else:
                results = _parse_window(model, window, config, device, batch_size)
        yield from (results.pop(i) for i in range(len(window)))


def _parse_window(model, window: list[Tensor], config: Config, device, batch_size: int) -> dict[int, ParsingResult]:
    transform = test_transform(config)
    resized = [transform(image) for image in window]
    results = {}
    for group in same_padded_size(resized):
        for start in range(0, len(group), batch_size):
            batch = group[start : start + batch_size]
            for i, found in zip(batch, model([resized[i].to(device) for i in batch]), strict=True):
                results[i] = finish(found, window[i], config)
    return results


def detect_image(model: RPRCNN, image: Tensor, config: Config, device: torch.device) -> Detections:
    """What the model in eval mode says about one image, uint8 [3, H, W] RGB, before `finish` paints it."""
    with torch.inference_mode(), autocast(device, autocast_dtype(config.run.precision, device, training=False)):
        if config.test.augment:
            return augmented_inference(model, config)(image)
        return model([test_transform(config)(image).to(device)])[0]


def finish(detections: Detections, image: Tensor, config: Config) -> ParsingResult:
    """Detections of an image painted at its own size, as config.test says (see `combine`)."""
    test = config.test
    return combine(
        detections,
        tuple(image.shape[-2:]),
        label_set=config.labels,
        score_threshold=test.score_threshold,
        semantic_gate=test.semantic_gate,
        instance_semantic_weight=test.instance_semantic_weight,
        semantic_mode=test.semantic_mode,
        pasting=test.pasting,
        inclusive_boxes=config.model.inclusive_boxes,
    )


def test_transform(config: Config) -> TestTransform:
    """How a picture is resized for the network."""
    return TestTransform(config.data.test_short_side, config.data.test_long_side_max, config.data.test_resize)


def augmented_inference(model: RPRCNN, config: Config, progress: bool = False) -> AugmentedInference:
    """The configuration's test-time augmentation of a model; `progress` draws a bar of the passes."""
    test = config.test
    short_sides = augmented_short_sides(config)[1:]
    other = lambda side: TestTransform(side, test.augment_long_side_max, config.data.test_resize)
    scales = [test_transform(config), *map(other, short_sides)]
    return AugmentedInference(
        model, config.labels, scales, test.augment_flip, test.soft_nms, test.soft_nms_sigma, test.voting_iou, progress
    )


def augmented_short_sides(config: Config) -> list[int]:
    """Pixels of the short side at each scale of the test-time augmentation, the base scale first."""
    base = config.data.test_short_side
    return [base, *(max(round(scale * base), 1) for scale in config.test.augment_scales)]


def describe_augmentation(config: Config) -> str:
    """What `config.test.augment` does to each image, in a line."""
    sides = augmented_short_sides(config)
    mirrored = ", each mirrored, too" if config.test.augment_flip else ""
    passes = len(sides) * (2 if config.test.augment_flip else 1)
    return f"test-time augmentation: short side {', '.join(map(str, sides))}{mirrored}: {passes} passes an image"
