"""People and their parts in one JSON file in COCO's style."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rpcnn.labelmaps.outlines import paint_segmentation
from rpcnn.labels import IGNORE, LabelSet
from rpcnn.strict_json import read_json

from .files import DataFault, all_faults, check_size


class CocoFile:
    """The annotations of a split, a JSON object with the lists `images` and `annotations`.

    An image has `id`, `file_name` (in the folder of the images), `height` and `width`. An annotation is a person with
    an `image_id` and `parts`, a list of objects. A part has a `category_id`, the number of the class in labels.toml,
    and a `segmentation` as in COCO: polygons [[x, y, x, y, …], …] in pixels, or run lengths {size, counts}, compressed
    or not. Later parts cover earlier ones of the same person, and later people are in front of earlier ones.
    `categories`, if given, must have the names of labels.toml. All other keys are ignored.

    Args:
        path: the file.
        labels: the classes of labels.toml.
        ignore: category_id of ignored pixels.

    Raises:
        DataFault: the file is invalid. The message has the file, the key, the expected and the given value.
    """

    def __init__(self, path: Path, labels: LabelSet, ignore: int):
        self.path, self.num_classes, self.ignore = path, labels.num_classes, ignore
        try:
            record = read_json(path)
        except ValueError as error:
            raise DataFault(str(error)) from None
        _require_none(path, _faults_of_form(record))
        _require_none(path, self._faults_of_values(record, labels))
        self.images = {Path(image["file_name"]).stem: image for image in record["images"]}
        stems = {image["id"]: stem for stem, image in self.images.items()}
        self.people: dict[str, list] = {stem: [] for stem in self.images}
        """Stem of each image to (annotation number, parts) of each of its people."""
        for number, person in enumerate(record["annotations"]):
            self.people[stems[person["image_id"]]].append((number, person.get("parts") or []))

    def _faults_of_values(self, record: dict, labels: LabelSet) -> Iterator[str]:
        for category in record.get("categories") or ():
            if not isinstance(category, dict):
                yield f"a category must be an object, got {type(category).__name__}"
                continue
            number, name = category.get("id"), category.get("name")
            known = isinstance(number, int) and 0 <= number < self.num_classes
            if number != self.ignore and (not known or labels.names[number] != name):
                is_there = repr(labels.names[number]) if known else f"{self.num_classes} names, from 0"
                yield f"category {number!r} is {name!r}, labels.toml has {is_there}"
        ids, stems = set(), set()
        for number, image in enumerate(record["images"]):
            stem = Path(image["file_name"]).stem
            if image["id"] in ids:
                yield f"images[{number}].id {image['id']!r} occurs twice"
            if stem in stems:
                yield f"images[{number}].file_name {image['file_name']!r} occurs twice, apart from its suffix"
            ids.add(image["id"])
            stems.add(stem)
        people = record["annotations"]
        for number, person in enumerate(people):
            if person["image_id"] not in ids:
                yield f"annotations[{number}].image_id {person['image_id']!r} is no image's id"
        if people and not any(person.get("parts") for person in people):
            yield (
                "no annotation has parts, the list of a person's {category_id, segmentation}; "
                "a segmentation of the whole person is not enough"
            )

    def read(self, stem: str, size: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
        """Make the label map uint8 [H, W] and the person maps uint8 [n, H, W] of an image. Raises DataFault."""
        image = self.images[stem]
        stated = image["height"], image["width"]
        if size is None:
            raise DataFault(f"{self.path}: the parts of {image['file_name']} are read only with the image")
        check_size(stated, size, f"{self.path}: image {image['file_name']}")
        person_maps = np.zeros((len(self.people[stem]), *stated), np.uint8)
        label_map = np.zeros(stated, np.uint8)
        with all_faults() as attempt:
            for own, (number, parts) in zip(person_maps, self.people[stem], strict=True):
                columns = np.zeros(own.shape[::-1], np.uint8)
                for k, part in enumerate(parts):
                    attempt(self._paint, columns, part, f"{self.path}: annotations[{number}].parts[{k}]")
                own[:] = columns.T
                np.copyto(label_map, own, where=own > 0)
        return label_map, person_maps

    def notes(self, stem: str) -> list[str]:
        """List the people of an image without parts."""
        return [
            f"{self.path}: annotations[{number}] has no parts: left out"
            for number, parts in self.people[stem]
            if not parts
        ]

    def _paint(self, columns: np.ndarray, part: dict, place: str) -> None:
        """Paint a part into a transposed map uint8 [W, H]. Raises DataFault, whose message begins with `place`."""
        if not isinstance(part, dict) or not {"category_id", "segmentation"} <= part.keys():
            raise DataFault(f"{place}: must have category_id and segmentation")
        label, outline = part["category_id"], part["segmentation"]
        if label != self.ignore and not (isinstance(label, int) and 0 < label < self.num_classes):
            raise DataFault(
                f"{place}.category_id: must be in 1..{self.num_classes - 1} or {self.ignore}, got {label!r}"
            )
        try:
            paint_segmentation(columns, outline, IGNORE if label == self.ignore else label, f"{place}.segmentation")
        except ValueError as error:
            raise DataFault(str(error)) from None


def _faults_of_form(record) -> Iterator[str]:
    """Yield what is missing or of a wrong type."""
    kinds = {
        "images": {"id": int | str, "file_name": str, "height": int, "width": int},
        "annotations": {"image_id": int | str, "parts": list | None},
    }
    for key, expected in kinds.items():
        entries = record.get(key) if isinstance(record, dict) else None
        if not isinstance(entries, list):
            yield f"must be an object with a list {key!r}"
            continue
        for number, entry in enumerate(entries):
            for name, kind in expected.items():
                value = entry.get(name) if isinstance(entry, dict) else None
                fits = isinstance(value, kind) and not isinstance(value, bool)
                if not fits or (name in ("height", "width") and value < 1):
                    yield f"{key}[{number}].{name} must be {getattr(kind, '__name__', kind)}, got {value!r}"


def _require_none(path: Path, faults: Iterator[str], most: int = 5) -> None:
    """Raise DataFault with the first faults, if there are any."""
    listed = list(faults)
    if listed:
        more = f"; and {len(listed) - most} more" if len(listed) > most else ""
        raise DataFault(f"{path}: {'; '.join(listed[:most])}{more}")
