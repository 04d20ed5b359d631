"""A trained model, ready for pictures: what ``from rpcnn import Predictor`` gives."""

import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from rpcnn.model import RPRCNN
from rpcnn.runtime import distributed
from rpcnn.runtime.checkpoint import load_weights

from .pipeline import parse_images
from .results import ParsingResult

Picture = str | pathlib.Path | Image.Image | np.ndarray


class Predictor:
    """A trained model, ready for pictures.

    >>> result = Predictor("runs/painted")("photo.jpg")     # doctest: +SKIP
    >>> result.save("out", "photo")                          # doctest: +SKIP

    Args:
        weights: a run folder or a model.safetensors of rpcnn.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".
        short_side, long_side_max: pixels the image is resized to; None takes those of the model's configuration.
        score_threshold: people enter the combined map from this parsing score on; None likewise.
        semantic_mode: "combine" (Fig. 4), "parsing", "semseg"; None likewise.
        augment: test-time augmentation, 18 passes a picture unless the configuration's test.augment_scales and
            test.augment_flip say otherwise; None likewise.
        batch_size: pictures of a list that go through the network together where their sizes allow it.

    Raises:
        ValueError: the weights do not exist, are not rpcnn's, or the device is not there; batch_size is not positive.
    """

    def __init__(
        self,
        weights: str | pathlib.Path,
        device: str = "auto",
        short_side: int | None = None,
        long_side_max: int | None = None,
        score_threshold: float | None = None,
        semantic_mode: str | None = None,
        augment: bool | None = None,
        batch_size: int = 1,
    ):
        if batch_size < 1:
            raise ValueError(f"Predictor: batch_size must be at least 1, got {batch_size}")
        self.batch_size = batch_size
        state, self.config = load_weights(weights)
        self.config.model.backbone_weights = ""
        data, test = self.config.data, self.config.test
        if short_side is not None:
            data.test_short_side = short_side
        if long_side_max is not None:
            data.test_long_side_max = long_side_max
        if score_threshold is not None:
            test.score_threshold = score_threshold
        if semantic_mode is not None:
            test.semantic_mode = semantic_mode
        if augment is not None:
            test.augment = augment
        self.device = distributed.start(device)
        self.model = RPRCNN.from_config(self.config)
        self.model.load_state_dict(state)
        self.model.eval().to(self.device)
        if self.config.run.channels_last:
            self.model.to(memory_format=torch.channels_last)

    def __call__(self, image: Picture | Sequence[Picture]) -> ParsingResult | list[ParsingResult]:
        """Parses a picture, or a list of them: the results are in its order.

        Args:
            image: a path, a PIL image, or a uint8 RGB array [H, W, 3]. Orientation tags are honoured.

        Raises:
            ValueError: not a readable image, or an array of another shape or dtype.
        """
        if isinstance(image, list | tuple):
            return list(self.stream(image))
        return next(self.stream([image]))

    def stream(self, images: Iterable[Picture], progress: bool = False) -> Iterator[ParsingResult]:
        """The results of any number of pictures, in their order, with a few of them in memory at a time.

        With batch_size 1 each picture is read when its result is asked for, else 4 batch_size pictures at once.
        `progress` draws a bar of the passes of test-time augmentation. Raises as a call.
        """
        pixels = (torch.from_numpy(load_picture(image)).permute(2, 0, 1) for image in images)
        return parse_images(self.model, pixels, self.config, self.device, self.batch_size, progress)


def load_picture(image: Picture) -> np.ndarray:
    """A path, PIL image or array as uint8 RGB [H, W, 3], upright. Raises ValueError, see :class:`Predictor`."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"image: must be a uint8 RGB array [H, W, 3], got {image.dtype} {list(image.shape)}")
        return np.ascontiguousarray(image)
    if isinstance(image, str | pathlib.Path):
        try:
            image = Image.open(image)
            image.load()
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
            raise ValueError(f"image: {image} cannot be read: {error}") from None
    if not isinstance(image, Image.Image):
        raise ValueError(f"image: must be a path, a PIL image or an array, got {type(image).__name__}")
    return np.array(ImageOps.exif_transpose(image).convert("RGB"))
