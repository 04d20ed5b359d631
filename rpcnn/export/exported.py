"""Running an exported model: from a picture to its result, with the settings that the file carries."""

import json
import pathlib
import zipfile
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from rpcnn.config import Config, from_dict, to_dict
from rpcnn.inference.pipeline import combine_as_configured, resize_as_configured
from rpcnn.inference.results import ParsingResult
from rpcnn.labels import LabelSet
from rpcnn.model import Detections
from rpcnn.pictures import Picture, load_picture

from .onnx import open_onnx
from .program import open_torch


def settings_of(config: Config, label_set: LabelSet) -> dict[str, str]:
    """What an exported file carries as metadata: the configuration and the labels, as JSON."""
    return {"config": json.dumps(to_dict(config)), "labels": json.dumps(label_set.to_dict())}


def read_settings(metadata: Mapping[str, str]) -> tuple[Config, LabelSet]:
    """The configuration and the labels from the metadata of an exported file. Raises ValueError if it has none."""
    for key in ("config", "labels"):
        if key not in metadata:
            raise ValueError(f"export: the file has no {key} of rpcnn in its metadata")
    config = from_dict(json.loads(metadata["config"]), source="metadata of the exported file")
    return config, LabelSet.from_dict(json.loads(metadata["labels"]))


def split_outputs(outputs: Sequence[Tensor], batch_shape: Sequence[int], config: Config) -> list[Detections]:
    """The outputs of an exported model as `Detections` of each image.

    Args:
        outputs: tensors in the order of `rpcnn.export.network.OUTPUTS`.
        batch_shape: [N, 3, H, W] of what went in.
        config: that of the model.
    """
    boxes, box_scores, iou_scores, images, person_probs, *semantic = outputs
    size, found = tuple(batch_shape[2:]), []
    for i in range(batch_shape[0]):
        own = images == i
        found.append(
            Detections(
                boxes=boxes[own],
                box_scores=box_scores[own],
                iou_scores=iou_scores[own] if config.model.prsn else None,
                person_probs=person_probs[own],
                label_probs=semantic[0][i] if semantic else None,
                image_size=size,
                label_probs_size=None if config.variant.crop_semantic else size,
            )
        )
    return found


class ExportedModel:
    """A model that `rpcnn export` wrote, on the CPU, called with a picture like a `Predictor`.

    Args:
        run: takes images float32 [N, 3, H, W] and returns what the network does.
        metadata: of the file.

    Raises:
        ValueError: the metadata are not rpcnn's.
    """

    def __init__(self, run: Callable[[Tensor], Sequence[Tensor]], metadata: Mapping[str, str]):
        self.run = run
        self.config, self.label_set = read_settings(metadata)
        self.transform = resize_as_configured(self.config)

    def __call__(self, picture: Picture) -> ParsingResult:
        """Parse a path, a PIL image or an array uint8 [H, W, 3]. Raises ValueError as `Predictor`."""
        image = torch.from_numpy(load_picture(picture)).permute(2, 0, 1)
        return combine_as_configured(self.detect(image), tuple(image.shape[1:]), self.config, self.label_set)

    def detect(self, image: Tensor) -> Detections:
        """Run the network on one image uint8 [3, H, W]."""
        batch = self.transform(image)[None].float().contiguous()
        with torch.no_grad():  # torch's formats have parameters
            (found,) = split_outputs(self.run(batch), batch.shape, self.config)
        return found


def open_exported(path: str | pathlib.Path) -> ExportedModel:
    """Open a file that `rpcnn export` wrote.

    Raises:
        ValueError: the file is none of these, or onnxruntime is not installed.
    """
    path = pathlib.Path(path)
    if path.suffix == ".onnx":
        return ExportedModel(*open_onnx(path))
    if not zipfile.is_zipfile(path):
        raise ValueError(f"export: {path} must be a file that rpcnn export wrote, .onnx or .pt2")
    return ExportedModel(*open_torch(path))
