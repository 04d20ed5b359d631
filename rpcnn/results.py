"""What is known about one image after parsing: people, parts, scores; and how it is written to disk."""

import io
import json
import os
import pathlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .labels import LabelSet


@dataclass
class ParsingResult:
    """People of one image of H × W pixels, N of them, best parsing score first."""

    boxes: Tensor
    """float32 [N, 4] x1 y1 x2 y2 in pixels."""
    box_scores: Tensor
    """float32 [N] in 0..1: S_cls, that the box holds a person."""
    iou_scores: Tensor
    """float32 [N] in 0..1: S_iou, the predicted mIoU of the person's map (1 without a re-scoring network)."""
    scores: Tensor
    """float32 [N] in 0..1: S_parsing = sqrt(S_cls · S_iou) (Sec. 3.5)."""
    people: Tensor
    """uint8 [N, H, W]: each person's own label map, 0 elsewhere; maps may overlap."""
    labels: Tensor
    """uint8 [H, W]: the combined label map (Fig. 4)."""
    instances: Tensor
    """Integers [H, W]: 0 nobody, 1 the best person, 2 the next, …"""
    label_set: LabelSet
    """Names and colours of the labels."""

    def __len__(self) -> int:
        return len(self.scores)

    def _map(self, f) -> "ParsingResult":
        return replace(self, **{k: f(v) for k, v in vars(self).items() if k != "label_set"})

    def cpu(self) -> "ParsingResult":
        """The same on the CPU."""
        return self._map(lambda value: value.cpu())

    def numpy(self) -> dict[str, np.ndarray]:
        """The fields as numpy arrays by name."""
        return {key: value.cpu().numpy() for key, value in vars(self).items() if key != "label_set"}

    def above(self, score: float) -> "ParsingResult":
        """Only the people with a parsing score of at least `score`; labels and instances stay."""
        keep = self.scores >= score
        fields = ("boxes", "box_scores", "iou_scores", "scores", "people")
        return replace(self, **{name: getattr(self, name)[keep] for name in fields})

    def to_coco(self, image_id: int | str) -> list[dict]:
        """One COCO-style entry per person: bbox [x, y, w, h], score, RLE segmentation, and the scores it is made of."""
        from pycocotools import mask

        entries = []
        for i in range(len(self)):
            x1, y1, x2, y2 = self.boxes[i].tolist()
            rle = mask.encode(np.asfortranarray((self.people[i] > 0).cpu().numpy().astype(np.uint8)))
            entries.append(
                {
                    "image_id": image_id,
                    "category_id": 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": float(self.scores[i]),
                    "box_score": float(self.box_scores[i]),
                    "iou_score": float(self.iou_scores[i]),
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
                }
            )
        return entries

    def plot(self, image=None) -> Image.Image:
        """The overlay picture on `image` (uint8 RGB [H, W, 3]; black without one)."""
        from .visualize import overlay

        height, width = self.labels.shape
        return overlay(np.zeros((height, width, 3), np.uint8) if image is None else np.asarray(image), self)

    def save(self, folder: str | pathlib.Path, stem: str, image=None) -> list[pathlib.Path]:
        """Writes <stem>_overlay.png, <stem>_labels.png, <stem>_instances.png and <stem>.json; returns their paths.

        The label PNG is a palette image whose values are the class ids. The instance PNG has 8 bits, or 16 where there
        are more than 255 people. Files appear whole or not at all.
        """
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        instances = self.instances.cpu().numpy()
        wide = instances.size and instances.max() > 255
        people = Image.fromarray(instances.astype(np.uint16 if wide else np.uint8))
        labels = Image.fromarray(self.labels.cpu().numpy()).convert("P")
        labels.putpalette([value for colour in self.label_set.palette for value in colour])
        record = {
            "labels": list(self.label_set.names),
            "height": self.labels.shape[0],
            "width": self.labels.shape[1],
            "people": [
                {
                    "instance": i + 1,
                    "box": [round(v, 2) for v in self.boxes[i].tolist()],
                    "score": float(self.scores[i]),
                    "box_score": float(self.box_scores[i]),
                    "iou_score": float(self.iou_scores[i]),
                    "parts": [self.label_set.names[k] for k in torch.unique(self.people[i]).tolist() if k],
                }
                for i in range(len(self))
            ],
        }
        contents = {
            f"{stem}_overlay.png": _png(self.plot(image)),
            f"{stem}_labels.png": _png(labels),
            f"{stem}_instances.png": _png(people),
            f"{stem}.json": json.dumps(record, indent=1).encode(),
        }
        for name, data in contents.items():
            partial = folder / f".{name}.partial"
            partial.write_bytes(data)
            os.replace(partial, folder / name)
        return [folder / name for name in contents]


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
