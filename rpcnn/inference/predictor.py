"""``from rpcnn import Predictor``: inference with a trained model on image files, PIL images, arrays and tensors."""

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator
from typing import IO, Any, Literal, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rpcnn.config import Config, changed_inference
from rpcnn.labels import LabelSet
from rpcnn.pictures import MAX_PIXELS, Picture, load_picture
from rpcnn.runtime.distributed import pick_device

from .load import SHIPPED, load_pipeline, load_weights
from .results import ParsingResult


class Predictor:
    """A trained model for inference on image files, PIL images, arrays and tensors.

    >>> result = Predictor()("photo.jpg")                    # doctest: +SKIP
    >>> result.save("out", "photo")                          # doctest: +SKIP

    Args:
        weights: a run folder, a model.safetensors of rpcnn, or "photo", the model that comes with the package.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".
        batch_size: largest number of images in a batch; only images of the same size after resizing are batched.
        progress: show a progress bar of the passes of test-time augmentation.
        keep_probabilities: whether results have the probabilities that their maps are made of.
        backbone: "package.module:name" of the backbone, if the weights name one that is not rpcnn's. Code that weights
            name is imported only if the caller names it, too.
        max_pixels: images with more pixels raise ValueError before they are decoded.
        precision: fp32, bf16, fp16 or auto, in place of what is stored with the weights. bf16 is faster on devices with
            units for it, and slower on others.
        changes: fields of the configuration's group inference by name, such as min_parsing_score=0.5, semantic_mode=
            "parsing", test_short_side=600 or augment=True; they replace the values stored with the weights.

    Raises:
        ValueError: the weights do not exist or are not from rpcnn; the device does not exist; batch_size or
            max_pixels is not positive; an unknown precision; a change names no such field or has a value out of range.
    """

    def __init__(
        self,
        weights: str | pathlib.Path = SHIPPED,
        device: str = "auto",
        *,
        batch_size: int = 1,
        progress: bool = False,
        keep_probabilities: bool = False,
        backbone: str = "",
        max_pixels: int = MAX_PIXELS,
        precision: Literal["", "auto", "fp32", "bf16", "fp16"] = "",
        **changes: Any,
    ):
        for name, value in (("batch_size", batch_size), ("max_pixels", max_pixels)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"Predictor: {name} must be at least 1, got {value!r}")
        self.batch_size, self.max_pixels = batch_size, max_pixels
        loaded = load_weights(weights)
        config = changed_inference(loaded.config, changes, source="Predictor")
        if precision not in ("", "auto", "fp32", "bf16", "fp16"):
            raise ValueError(f"Predictor: precision must be auto, fp32, bf16 or fp16, got {precision!r}")
        if precision:
            config = dataclasses.replace(config, run=dataclasses.replace(config.run, precision=precision))
        if backbone:
            config = dataclasses.replace(config, model=dataclasses.replace(config.model, backbone=backbone))
        self.pipeline = load_pipeline(
            loaded, config, device=pick_device(device), progress=progress, keep_probabilities=keep_probabilities
        )

    @property
    def config(self) -> Config:
        """The configuration of the weights with the changes applied."""
        return self.pipeline.config

    @property
    def label_set(self) -> LabelSet:
        """Names and colors of the labels."""
        return self.pipeline.label_set

    @overload
    def __call__(self, image: list[Picture] | tuple[Picture, ...]) -> list[ParsingResult]: ...
    @overload
    def __call__(self, image: np.ndarray | Tensor) -> ParsingResult | list[ParsingResult]: ...
    @overload
    def __call__(self, image: str | pathlib.Path | IO[bytes] | Image.Image) -> ParsingResult: ...
    def __call__(self, image: Picture | list[Picture] | tuple[Picture, ...]) -> ParsingResult | list[ParsingResult]:
        """Parse an image, or a list or batch of images.

        Args:
            image: whatever :func:`rpcnn.pictures.load_picture` reads: a path, a binary file object, a PIL image, an
                array or a tensor, uint8 or floats in 0..1; a list of these; or a batch: an array or tensor [B, H, W, C]
                or a tensor [B, 3, H, W]. EXIF orientation is applied.

        Returns:
            One result, or a list of results in the order of the images for a list and a batch.

        Raises:
            ValueError: not a readable image, or an array of another shape, dtype or range.
        """
        if isinstance(image, list | tuple) or (isinstance(image, np.ndarray | Tensor) and image.ndim == 4):
            return list(self.stream(image))
        return next(self.stream([image]))

    def stream(self, images: Iterable[Picture]) -> Iterator[ParsingResult]:
        """Parse any number of images, or a batch as of `__call__`; yields results in the order of the images.

        Images are read lazily: one at a time with batch_size 1, else 4 * batch_size at a time. Raises as `__call__`.
        """
        if isinstance(images, np.ndarray | Tensor) and images.ndim != 4:
            raise ValueError(f"stream: a batch must have four axes, got {list(images.shape)}; put one image in a list")
        pixels = (torch.from_numpy(load_picture(image, self.max_pixels)).permute(2, 0, 1) for image in images)
        return self.pipeline.stream(pixels, self.batch_size)
