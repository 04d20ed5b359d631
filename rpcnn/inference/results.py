"""The result of parsing one image: people, parts and scores; saving and plotting."""

import difflib
import math
import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rpcnn.label_schemes import Scheme, find_scheme
from rpcnn.labels import LabelSet, voc_palette
from rpcnn.pictures import Picture
from rpcnn.visualize import as_picture, flat_palette, overlay

from . import saving
from .coco_file import mask_fields
from .person_crops import PersonCrops, StackedWhenRead, crop_of, remapped
from .probabilities import Probabilities

if TYPE_CHECKING:
    import supervision

_OF_PEOPLE = ("boxes", "box_scores", "iou_scores", "scores")
_TENSORS = (*_OF_PEOPLE, "person_maps", "label_map", "instance_map")


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
    """uint8 [N, H, W]: the label map of each person, 0 outside; people may overlap. Many people of a large picture are
    kept at the size of their boxes until this is read; `person_map` makes a single map."""
    label_map: Tensor
    """uint8 [H, W]: the combined label map (Fig. 4)."""
    instance_map: Tensor
    """uint8 or uint16 [H, W] instance ids: 0 is background, i + 1 is person i, so that 1 is the best."""
    label_set: LabelSet
    """Names and colors of the labels."""
    probabilities: Probabilities | None = None
    """What the maps are made of; None unless asked for (`keep_probabilities`)."""

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
        old = self.instance_map.int()  # uint16 tensors know few operations
        number = old.new_zeros(max(len(self), int(old.max()) if old.numel() else 0) + 1)
        number[kept + 1] = torch.arange(1, len(kept) + 1, device=kept.device, dtype=number.dtype)
        instance_map = number[old].to(torch.uint8 if len(kept) < 256 else torch.uint16)
        probabilities = self.probabilities and self.probabilities[kept]
        people = {name: getattr(self, name)[kept] for name in _OF_PEOPLE}
        maps = self._maps()[kept]
        return replace(self, instance_map=instance_map, probabilities=probabilities, person_maps=maps, **people)

    def above(self, score: float) -> "ParsingResult":
        """Select the people with a parsing score >= `score`."""
        return self[self.scores >= score]

    def cpu(self) -> "ParsingResult":
        """A copy with all tensors on the CPU."""
        probabilities = self.probabilities and self.probabilities.cpu()
        others = {name: getattr(self, name).cpu() for name in (*_OF_PEOPLE, "label_map", "instance_map")}
        return replace(self, probabilities=probabilities, person_maps=self._maps().cpu(), **others)

    def numpy(self) -> dict[str, np.ndarray]:
        """The fields as numpy arrays by name, without the probabilities."""
        return {name: _to_numpy(getattr(self, name)) for name in _TENSORS}

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """COCO-style annotations, one dict per person, ready for JSON.

        Keys: image_id; category_id (1); bbox [x, y, width, height]; iscrowd (0); score (S_parsing), box_score,
        iou_score; area in pixels and segmentation, the run-length encoding, of the person's whole mask.
        `save(kinds=["coco"])` writes a file with the parts, too.
        """
        boxes = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in self.boxes.tolist()]
        scores = self._scores()
        entries = []
        for i, box in enumerate(boxes):
            entries.append(
                {"image_id": image_id, "category_id": 1, "iscrowd": 0}
                | {name: values[i] for name, values in scores.items()}
                | mask_fields(_to_numpy(self.person_map(i)) > 0)
                | {"bbox": box}
            )
        return entries

    def to_supervision(self) -> "supervision.Detections":
        """The people as `supervision.Detections`, of the library supervision, which must be installed.

        xyxy, mask, confidence (S_parsing) and class_id 0; data holds class_name, box_score and iou_score.

        Raises:
            ImportError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError:
            raise ImportError("to_supervision needs the library supervision: pip install supervision") from None
        arrays = self.numpy()
        data: dict[str, Any] = {"class_name": np.array(["person"] * len(self), dtype=str)}
        data |= {name: arrays[f"{name}s"] for name in ("box_score", "iou_score")}
        return supervision.Detections(
            xyxy=arrays["boxes"],
            mask=arrays["person_maps"] > 0,
            confidence=arrays["scores"],
            class_id=np.zeros(len(self), int),
            data=data,
        )

    @property
    def shown(self) -> list[int]:
        """The people with a pixel in the instance map, best first; the others are hidden or below the threshold."""
        numbers = np.unique(_to_numpy(self.instance_map))
        return [int(number) - 1 for number in numbers if 0 < number <= len(self)]

    def mask(self, part: str | int = "person", person: int | None = None) -> Tensor:
        """Where a part is: bool [H, W].

        Args:
            part: the name of a label, in any case, or its number; "person" is all parts together.
            person: the number of a person, from 0; None takes the label map of the picture, with "person" the instance
                map.

        Raises:
            ValueError: no such part.
            IndexError: no such person.
        """
        whole = isinstance(part, str) and part.lower() == "person"
        everybody = self.instance_map.int() if whole else self.label_map
        labels = everybody if person is None else self.person_map(person)
        return labels > 0 if whole else labels == self._label(part)

    def _label(self, part: str | int) -> int:
        names = [name.lower() for name in self.label_set.names]
        if isinstance(part, str) and part.lower() in names:
            return names.index(part.lower())
        if isinstance(part, int) and 0 <= part < len(names):
            return part
        near = difflib.get_close_matches(str(part).lower(), [*names, "person"], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"its labels are {', '.join(self.label_set.names)}"
        raise ValueError(f"mask: {self.label_set.name} has no part {part!r}; {hint}")

    def _maps(self) -> Any:
        """The person maps as they are kept, [N, H, W] or `PersonCrops`."""
        return vars(self)["person_maps"]

    def person_map(self, person: int) -> Tensor:
        """The label map of a person, uint8 [H, W]. Raises IndexError if there is no such person."""
        maps = self._maps()
        return maps.map(person) if isinstance(maps, PersonCrops) else maps[person]

    def window(self, person: int) -> tuple[int, int, int, int]:
        """x1 y1 x2 y2 in whole pixels of the smallest part of the picture that holds a person's box and map.

        It has at least one pixel.
        """
        height, width = self.label_map.shape
        x1, y1, x2, y2 = self.boxes[person].tolist()
        (x, y), crop = crop_of(self._maps(), person)
        person_map = _to_numpy(crop)
        rows, columns = np.flatnonzero(person_map.any(1)), np.flatnonzero(person_map.any(0))
        if len(rows):
            x1, x2 = min(x1, x + columns[0]), max(x2, x + columns[-1] + 1)
            y1, y2 = min(y1, y + rows[0]), max(y2, y + rows[-1] + 1)
        left, top = min(max(math.floor(x1), 0), width - 1), min(max(math.floor(y1), 0), height - 1)
        return left, top, max(min(math.ceil(x2), width), left + 1), max(min(math.ceil(y2), height), top + 1)

    def crop(self, person: int, image: Picture) -> Image.Image:
        """The part of the picture that holds a person (`window`): RGB.

        Args:
            person: its number, from 0.
            image: the picture, as for :meth:`plot`.
        """
        return as_picture(image, self._size()).crop(self.window(person))

    def cutout(self, person: int, image: Picture) -> Image.Image:
        """A person without what is around: `crop` as RGBA, transparent where the person is not."""
        crop, window = self.crop(person, image), self.window(person)
        alpha = Image.fromarray((_to_numpy(self.person_map(person)) > 0).astype(np.uint8) * 255)
        crop.putalpha(alpha.crop(window))
        return crop

    def _size(self) -> tuple[int, int]:
        return self.label_map.shape[0], self.label_map.shape[1]

    def remap(self, scheme: Scheme | str) -> "ParsingResult":
        """The result in other labels; parts that they do not have become background.

        Probabilities of parts that become one are added; maps stay those of the model's labels.

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
            person_maps=remapped(self._maps(), table),
            label_set=scheme.label_set,
            probabilities=self.probabilities
            and self.probabilities.remap(table[: self.label_set.num_classes].long(), scheme.label_set.num_classes),
        )

    def plot(self, image: Picture | None = None) -> Image.Image:
        """The overlay picture on `image` (a path, PIL, or uint8 RGB [H, W, 3]; black without one).

        See :func:`rpcnn.visualize.overlay`. Raises ValueError if the image has another size.
        """
        height, width = self.label_map.shape
        return overlay(Image.new("RGB", (width, height)) if image is None else image, self)

    def save(
        self,
        folder: str | pathlib.Path,
        stem: str,
        image: Picture | None = None,
        kinds: Iterable[str] = saving.DEFAULT,
    ) -> list[pathlib.Path]:
        """Writes files of some kinds, and the record; each appears whole or not at all.

        overlay        <stem>_overlay.png, the picture of :meth:`plot`
        labels         <stem>_labels.png, a palette PNG whose values are the class ids
        instances      <stem>_instances.png, 0 nobody, 1 the best person, …: palette PNG, or 16 bits where there are
                       more than 255 people
        people         <stem>_person_<i>.png, the label map of person i of all N, from 1: palette PNG
        cutouts        <stem>_cutout_<i>.png, :meth:`cutout` of those that are :attr:`shown`
        crops          <stem>_crop_<i>.png, :meth:`crop` of those that are :attr:`shown`
        coco           <stem>_coco.json, people and parts as COCO JSON
        polygons       <stem>_polygons.json, outlines of the parts of those that are :attr:`shown`
        probabilities  <stem>_probabilities.npz, see :class:`rpcnn.inference.probabilities.Probabilities`
        always         <stem>.json: height, width, label names, and of every person: number in the instance PNG, box
                       x1 y1 x2 y2 in pixels, score (S_parsing), box_score, iou_score, names of its parts

        Args:
            folder: made if it is not there.
            stem: a plain file name.
            image: as for :meth:`plot`.
            kinds: of the first column; the record is always written.

        Returns:
            The paths, that of the record last.

        Raises:
            ValueError: the stem is no plain file name, the image has another size or is missing for crops and cutouts,
                there is no such kind, or probabilities were not kept.
        """
        if not stem or stem != pathlib.PurePath(stem).name:
            raise ValueError(f"ParsingResult.save: stem must be a plain file name, got {stem!r}")
        kinds = saving.checked_kinds(kinds)
        if image is None and {"crops", "cutouts"} & set(kinds):
            raise ValueError("ParsingResult.save: crops and cutouts are cut out of the image, which is not given")
        height, width = self._size()
        picture = Image.new("RGB", (width, height)) if image is None else as_picture(image, (height, width))
        return saving.save(self, pathlib.Path(folder), stem, picture, kinds)

    def label_image(self) -> Image.Image:
        """label_map as a palette image (mode P) with the colors of the label set; pixel values are class ids."""
        picture = Image.fromarray(_to_numpy(self.label_map))
        picture.putpalette(flat_palette(self.label_set))
        return picture

    def instance_image(self) -> Image.Image:
        """instance_map as a palette image (mode P) with a color for each id, or 16 bits (mode I;16) if one exceeds 255.

        Pixel values are ids.
        """
        numbers = _to_numpy(self.instance_map)
        if numbers.max(initial=0) > 255:
            return Image.fromarray(numbers.astype(np.uint16))
        picture = Image.fromarray(numbers.astype(np.uint8))
        picture.putpalette([value for color in voc_palette(256) for value in color])
        return picture

    def record(self) -> dict[str, Any]:
        """What :meth:`save` writes as JSON."""
        scores, boxes = self._scores(), _to_numpy(self.boxes)
        people = []
        for i in range(len(self)):
            person = _to_numpy(crop_of(self._maps(), i)[1])
            parts = [self.label_set.names[label] for label in np.flatnonzero(np.bincount(person.ravel())) if label]
            numbers = {"instance": i + 1, "box": [_shortest(value) for value in boxes[i]]}
            people.append(numbers | {name: values[i] for name, values in scores.items()} | {"parts": parts})
        height, width = self.label_map.shape
        labels = {"label_set": self.label_set.name, "labels": list(self.label_set.names)}
        return {"height": height, "width": width} | labels | {"people": people}

    def _scores(self) -> dict[str, list[float]]:
        named = {"score": self.scores, "box_score": self.box_scores, "iou_score": self.iou_scores}
        return {name: [_shortest(value) for value in _to_numpy(values)] for name, values in named.items()}


# Not in the class, where a dataclass would take it for the default of the field.
ParsingResult.person_maps = StackedWhenRead("person_maps")  # type: ignore[assignment]


def _to_numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _shortest(value: np.float32) -> float:
    """The shortest decimal number that reads back as the same float32: 0.3, not 0.30000001192092896."""
    return float(str(value))
