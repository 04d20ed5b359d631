"""A trained model, ready for pictures: what ``from rpcnn import Predictor`` gives."""

import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, overload

import torch

from rpcnn.config import Config, changed_inference
from rpcnn.labels import LabelSet
from rpcnn.pictures import Picture, load_picture
from rpcnn.runtime.checkpoint import load_weights
from rpcnn.runtime.distributed import pick_device

from .load import load_pipeline
from .results import ParsingResult


class Predictor:
    """A trained model, ready for pictures.

    >>> result = Predictor("runs/painted")("photo.jpg")     # doctest: +SKIP
    >>> result.save("out", "photo")                          # doctest: +SKIP

    Args:
        weights: a run folder or a model.safetensors of rpcnn.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".
        batch_size: pictures of a list that go through the network together where their sizes allow it.
        progress: draw a bar of the passes of test-time augmentation.
        changes: fields of the configuration's group inference by name, such as min_parsing_score=0.5, semantic_mode=
            "parsing", test_short_side=600 or augment=True; they take the place of those that the weights carry.

    Raises:
        ValueError: the weights do not exist, are not rpcnn's, or the device is not there; batch_size is not positive; a
            change is no such field, or its value is out of range.
    """

    def __init__(
        self,
        weights: str | pathlib.Path,
        device: str = "auto",
        *,
        batch_size: int = 1,
        progress: bool = False,
        **changes: Any,
    ):
        if batch_size < 1:
            raise ValueError(f"Predictor: batch_size must be at least 1, got {batch_size}")
        self.batch_size = batch_size
        loaded = load_weights(weights)
        config = changed_inference(loaded.config, changes, source="Predictor")
        self.pipeline = load_pipeline(loaded, config, pick_device(device), progress)

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.pipeline.config

    @property
    def label_set(self) -> LabelSet:
        """Names and colors of the labels."""
        return self.pipeline.label_set

    @overload
    def __call__(self, image: Picture) -> ParsingResult: ...
    @overload
    def __call__(self, image: list[Picture] | tuple[Picture, ...]) -> list[ParsingResult]: ...
    def __call__(self, image: Picture | list[Picture] | tuple[Picture, ...]) -> ParsingResult | list[ParsingResult]:
        """Parses a picture, or a list of them: the results are in its order.

        Args:
            image: a path, a PIL image, or a uint8 RGB array [H, W, 3]. Orientation tags are honored.

        Raises:
            ValueError: not a readable image, or an array of another shape or dtype.
        """
        if isinstance(image, list | tuple):
            return list(self.stream(image))
        return next(self.stream([image]))

    def stream(self, images: Iterable[Picture]) -> Iterator[ParsingResult]:
        """The results of any number of pictures, in their order, with a few of them in memory at a time.

        With batch_size 1 each picture is read when its result is asked for, else 4 batch_size pictures at once. Raises
        as a call.
        """
        pixels = (torch.from_numpy(load_picture(image)).permute(2, 0, 1) for image in images)
        return self.pipeline.stream(pixels, self.batch_size)
