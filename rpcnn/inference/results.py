"""The result of parsing one image: people, parts and scores; saving and plotting."""

import io
import json
import os
import pathlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rpcnn.label_schemes import Scheme, find_scheme
from rpcnn.labels import LabelSet, voc_palette
from rpcnn.pictures import Picture
from rpcnn.visualize import flat_palette, overlay

_KINDS = ("_overlay.png", "_labels.png", "_instances.png", ".json")


def result_names(stem: str) -> list[str]:
    """The names of the files that :meth:`ParsingResult.save` writes, the JSON last."""
    return [f"{stem}{kind}" for kind in _KINDS]


def is_result(path: pathlib.Path) -> bool:
    """Whether a file is one of the four that :meth:`ParsingResult.save` wrote, by its name and its JSON's content."""
    kind = next((kind for kind in _KINDS if path.name.endswith(kind)), "")
    if not kind:
        return False
    try:
        record = json.loads(path.with_name(path.name.removesuffix(kind) + ".json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and {"height", "width", "label_set", "labels", "people"} <= record.keys()


_OF_PEOPLE = ("boxes", "box_scores", "iou_scores", "scores", "person_maps")


@dataclass
class ParsingResult:
    """N people of one image of H × W pixels, best parsing score first.

    `len(result)` is N. `result[i]`, `result[:3]`, `result[mask]` and `result.above(0.5)` select people.
    """

    def __repr__(self) -> str:
        height, width = self.label_map.shape
        scores = ", ".join(f"{score:.2f}" for score in self.scores[:5].tolist()) + (", …" if len(self) > 5 else "")
        return f"ParsingResult({len(self)} people, {height} x {width}, {self.label_set.name}, scores [{scores}])"

    boxes: Tensor
    """float32 [N, 4] x1 y1 x2 y2 in pixels, width = x2 − x1."""
    box_scores: Tensor
    """float32 [N] in 0..1: S_cls, the probability that the box contains a person."""
    iou_scores: Tensor
    """float32 [N]: S_iou, the predicted mIoU of the person's map, in 0..1 unless clamp_iou is false; 1 without a
    re-scoring network."""
    scores: Tensor
    """float32 [N] in 0..1: S_parsing = sqrt(S_cls · S_iou) (Sec. 3.5)."""
    person_maps: Tensor
    """uint8 [N, H, W]: the label map of each person, 0 outside; people may overlap."""
    label_map: Tensor
    """uint8 [H, W]: the combined label map (Fig. 4)."""
    instance_map: Tensor
    """uint8 or uint16 [H, W] instance ids: 0 is background, i + 1 is person i, so that 1 is the best."""
    label_set: LabelSet
    """Names and colors of the labels."""

    @property
    def people(self) -> Tensor:
        """Alias of `person_maps`."""
        return self.person_maps

    @property
    def labels(self) -> Tensor:
        """Alias of `label_map`."""
        return self.label_map

    @property
    def instances(self) -> Tensor:
        """Alias of `instance_map`."""
        return self.instance_map

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> "ParsingResult":
        """Select people by index, slice, list of indices or bool mask [N], in that order.

        instance_map is renumbered; label_map is not changed.
        """
        kept = torch.arange(len(self), device=self.scores.device)[index].reshape(-1)
        old = self.instance_map.long()  # uint16 tensors know few operations
        number = old.new_zeros(max(len(self), int(old.max()) if old.numel() else 0) + 1)
        number[kept + 1] = torch.arange(1, len(kept) + 1, device=kept.device)
        instance_map = number[old].to(torch.uint8 if len(kept) < 256 else torch.uint16)
        return replace(self, instance_map=instance_map, **{name: getattr(self, name)[kept] for name in _OF_PEOPLE})

    def above(self, score: float) -> "ParsingResult":
        """Select the people with a parsing score >= `score`."""
        return self[self.scores >= score]

    def cpu(self) -> "ParsingResult":
        """A copy with all tensors on the CPU."""
        return replace(self, **{name: v.cpu() for name, v in vars(self).items() if name != "label_set"})

    def numpy(self) -> dict[str, np.ndarray]:
        """The fields as numpy arrays by name."""
        return {name: _to_numpy(value) for name, value in vars(self).items() if name != "label_set"}

    def to_coco(self, image_id: int | str) -> list[dict]:
        """COCO-style annotations, one dict per person, ready for JSON.

        Keys: image_id; category_id (1); bbox [x, y, width, height]; score (S_parsing), box_score, iou_score;
        segmentation, the run-length encoding of the person's whole mask.
        """
        from pycocotools import mask

        person_maps = self.numpy()["person_maps"]
        boxes = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in self.boxes.tolist()]
        scores = self._scores()
        entries = []
        for i, (person, box) in enumerate(zip(person_maps, boxes, strict=True)):
            code = mask.encode(np.asfortranarray(person > 0, dtype=np.uint8))
            entries.append(
                {"image_id": image_id, "category_id": 1, "bbox": box}
                | {name: values[i] for name, values in scores.items()}
                | {"segmentation": {"size": list(code["size"]), "counts": code["counts"].decode("ascii")}}
            )
        return entries

    def remap(self, scheme: Scheme | str) -> "ParsingResult":
        """The result in other labels; parts that they do not have become background.

        Args:
            scheme: of `rpcnn.label_schemes`, its name (lip, atr, pascal_person_part, body) or a TOML file.

        Raises:
            ValueError: unknown scheme, or one that has none of this result's labels.
        """
        scheme = find_scheme(scheme) if isinstance(scheme, str) else scheme
        table = torch.from_numpy(scheme.table(self.label_set)).to(self.label_map.device)
        return replace(
            self,
            label_map=table[self.label_map.long()],
            person_maps=torch.stack([table[person.long()] for person in self.person_maps])
            if len(self)
            else self.person_maps,
            label_set=scheme.label_set,
        )

    def plot(self, image: Picture | None = None) -> Image.Image:
        """The overlay picture on `image` (a path, PIL, or uint8 RGB [H, W, 3]; black without one).

        See :func:`rpcnn.visualize.overlay`. Raises ValueError if the image has another size.
        """
        height, width = self.label_map.shape
        return overlay(Image.new("RGB", (width, height)) if image is None else image, self)

    def save(self, folder: str | pathlib.Path, stem: str, image: Picture | None = None) -> list[pathlib.Path]:
        """Writes four files; each appears whole or not at all.

        <stem>_overlay.png    the picture of :meth:`plot`
        <stem>_labels.png     palette PNG whose values are the class ids
        <stem>_instances.png  0 nobody, 1 the best person, …: palette PNG, or 16 bits where there are more than 255
                              people
        <stem>.json           height, width, label names, and of every person: number in the instance PNG, box
                              x1 y1 x2 y2 in pixels, score (S_parsing), box_score, iou_score, names of its parts

        Args:
            folder: made if it is not there.
            stem: a plain file name.
            image: as for :meth:`plot`.

        Returns:
            The four paths.

        Raises:
            ValueError: the stem is no plain file name, or the image has another size.
        """
        if not stem or stem != pathlib.PurePath(stem).name:
            raise ValueError(f"ParsingResult.save: stem must be a plain file name, got {stem!r}")
        folder = pathlib.Path(folder)
        contents = (
            _png(self.plot(image)),
            _png(self.label_image()),
            _png(self.instance_image()),
            json.dumps(self.record(), indent=1).encode(),
        )
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(folder / name, data) for name, data in zip(result_names(stem), contents, strict=True)]

    def label_image(self) -> Image.Image:
        """label_map as a palette image (mode P) with the colors of the label set; pixel values are class ids."""
        picture = Image.fromarray(self.numpy()["label_map"])
        picture.putpalette(flat_palette(self.label_set))
        return picture

    def instance_image(self) -> Image.Image:
        """instance_map as a palette image (mode P) with a color for each id, or 16 bits (mode I;16) if one exceeds 255.

        Pixel values are ids.
        """
        numbers = self.numpy()["instance_map"]
        if numbers.max(initial=0) > 255:
            return Image.fromarray(numbers.astype(np.uint16))
        picture = Image.fromarray(numbers.astype(np.uint8))
        picture.putpalette([value for color in voc_palette(256) for value in color])
        return picture

    def record(self) -> dict:
        """What :meth:`save` writes as JSON."""
        scores, boxes = self._scores(), self.numpy()["boxes"]
        people = []
        for i, person in enumerate(self.numpy()["person_maps"]):
            parts = [self.label_set.names[label] for label in np.flatnonzero(np.bincount(person.ravel())) if label]
            numbers = {"instance": i + 1, "box": [_shortest(value) for value in boxes[i]]}
            people.append(numbers | {name: values[i] for name, values in scores.items()} | {"parts": parts})
        height, width = self.label_map.shape
        labels = {"label_set": self.label_set.name, "labels": list(self.label_set.names)}
        return {"height": height, "width": width} | labels | {"people": people}

    def _scores(self) -> dict[str, list[float]]:
        named = {"score": self.scores, "box_score": self.box_scores, "iou_score": self.iou_scores}
        return {name: [_shortest(value) for value in _to_numpy(values)] for name, values in named.items()}


def _to_numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _shortest(value: np.float32) -> float:
    """The shortest decimal number that reads back as the same float32: 0.3, not 0.30000001192092896."""
    return float(str(value))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _write(path: pathlib.Path, data: bytes) -> pathlib.Path:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path
