"""Results as COCO JSON that pycocotools loads: images, annotations of people and of their parts, categories."""

import json
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from rpcnn.labelmaps.run_lengths import encode
from rpcnn.labels import LabelSet

NAME = "coco.json"
"""Of the file for all pictures of a command."""
PERSON = 1
"""The category of people."""
PART = 100
"""Category of a part: 100 + its label."""
_INFO = {"description": "people and parts found by rpcnn predict"}


def categories(label_set: LabelSet) -> list[dict]:
    """The category of people, 1, and those of the parts, 100 + label."""
    parts = [
        {"id": PART + label, "name": name, "supercategory": "part"}
        for label, name in enumerate(label_set.names)
        if label
    ]
    return [{"id": PERSON, "name": "person", "supercategory": "person"}, *parts]


def coco_record(result, file_name: str) -> dict:
    """The COCO file of one result: its image has id 1, its annotations count from 1.

    An annotation of a person has the keys of :meth:`ParsingResult.to_coco`, one of a part also `person`, the id of the
    annotation of its person, whose scores it has; its bbox is that of its mask.
    """
    height, width = result.label_map.shape
    annotations: list[dict] = []
    for i, entry in enumerate(result.to_coco(1)):
        person = result.person_map(i).cpu().numpy()
        number = len(annotations) + 1
        annotations.append({"id": number} | entry)
        for label in np.flatnonzero(np.bincount(person.ravel(), minlength=1)):
            if 0 < label < result.label_set.num_classes:
                part = {"id": len(annotations) + 1, "person": number, "category_id": PART + int(label)}
                annotations.append(entry | part | mask_fields(person == label))
    image = {"id": 1, "file_name": file_name, "height": height, "width": width}
    labels = categories(result.label_set)
    return {"info": _INFO, "images": [image], "annotations": annotations, "categories": labels}


def mask_fields(mask: np.ndarray) -> dict:
    """The fields bbox, area and segmentation of a mask [H, W]."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = [0, 0, 0, 0]
    if len(rows):
        x, y = int(columns[0]), int(rows[0])
        box = [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]
    code = {"size": list(mask.shape), "counts": encode(mask)}
    return {"bbox": box, "area": int(mask.sum()), "segmentation": code}


def is_coco_file(path: pathlib.Path) -> bool:
    """Whether a file was written by :func:`merge`."""
    start = json.dumps({"info": _INFO})[:-1].encode()
    try:
        with open(path, "rb") as file:
            return file.read(len(start)) == start
    except OSError:
        return False


def merge(records: Iterable[dict], label_set: LabelSet) -> Iterator[str]:
    """The text of one COCO file of several, in pieces, so that a million pictures need no memory."""
    yield json.dumps({"info": _INFO, "categories": categories(label_set)})[:-1]
    images, first = [], 0
    yield ', "annotations": ['
    for number, record in enumerate(records, 1):
        images.append(json.dumps(record["images"][0] | {"id": number}))
        for entry in record["annotations"]:
            entry |= {"id": first + entry["id"], "image_id": number}
            entry |= {"person": first + entry["person"]} if "person" in entry else {}
            yield ("\n" if entry["id"] == 1 else ",\n") + json.dumps(entry)
        first += len(record["annotations"])
    yield '],\n"images": [' + ",\n".join(images) + "]}\n"
