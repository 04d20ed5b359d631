"""Writes the page's folder: index.html, its data, and a script with the maps of each image.

Maps travel as PNGs inside scripts, because a page that is opened as a file may run scripts beside it but not read the
pixels of pictures.
"""

import base64
import importlib.resources
import io
import json
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from rpcnn.labels import LabelSet
from rpcnn.visualize import flat_palette

from .items import Item, Maps, compare, confusion

THUMBNAIL = 240  # pixels of the longer side
SHOWN = 1600  # pixels of the longer side of a photo and its maps; larger ones are reduced


class PageWriter:
    """Writes a page item by item; `finish` completes it.

    Args:
        folder: made if it is not there.
        title: of the page.
        models: names of the predictions of every item.
        label_set: of all maps.
    """

    def __init__(self, folder: pathlib.Path, title: str, models: list[str], label_set: LabelSet):
        self.folder, self.title, self.models, self.label_set = folder, title, models, label_set
        self.index: list[dict] = []
        self.confusions = [np.zeros((label_set.num_classes,) * 2, np.int64) for _ in models]
        for name in ("items", "thumbnails"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def add(self, item: Item) -> dict:
        """Add an image; returns its entry of the data."""
        number = len(self.index)
        height, width = item.photo.shape[:2]
        scores: list[dict | None] = [None] * len(item.predictions)
        if item.truth is not None:
            scores = [compare(item.truth, maps, self.label_set) for maps in item.predictions]
            for total, maps in zip(self.confusions, item.predictions, strict=True):
                total += confusion(item.truth.labels, maps.labels, self.label_set.num_classes)
        entry = {"id": item.id, "height": height, "width": width, "predictions": []}
        for maps, score in zip(item.predictions, scores, strict=True):
            entry["predictions"].append({"people": maps.people, "score": score})
        self.index.append(entry)
        content = {"photo": picture_url(reduced(Image.fromarray(item.photo), Image.Resampling.BILINEAR), "JPEG")}
        content["predictions"] = [map_urls(maps, self.label_set) for maps in item.predictions]
        content["truth"] = map_urls(item.truth, self.label_set) if item.truth is not None else None
        script = f"rpcnnItem({number}, {json.dumps(content)});\n"
        (self.folder / "items" / f"{number:05d}.js").write_text(script, encoding="utf-8")
        self.thumbnail(item).save(self.folder / "thumbnails" / f"{number:05d}.jpg", quality=82)
        return entry

    def thumbnail(self, item: Item) -> Image.Image:
        """The photo with the first prediction over it."""
        photo = Image.fromarray(item.photo)
        photo.thumbnail((THUMBNAIL, THUMBNAIL))
        labels = Image.fromarray(item.predictions[0].labels).resize(photo.size, Image.Resampling.NEAREST)
        colors = np.array(flat_palette(self.label_set), np.uint8).reshape(-1, 3)[np.asarray(labels)]
        mixed = np.where(np.asarray(labels)[..., None] > 0, 0.45 * np.asarray(photo) + 0.55 * colors, np.asarray(photo))
        return Image.fromarray(mixed.astype(np.uint8))

    def data(self, tables: dict[str, dict[str, Any]] | None = None, curves: list[dict] | None = None) -> str:
        """The script data.js, with all images so far; arguments as for :meth:`finish`."""
        palette = np.array(flat_palette(self.label_set)).reshape(-1, 3)[: self.label_set.num_classes].tolist()
        data = {
            "title": self.title,
            "models": self.models,
            "labels": list(self.label_set.names),
            "palette": palette,
            "items": self.index,
            "tables": tables or {},
            "curves": curves or [],
            "confusions": [matrix.tolist() for matrix in self.confusions]
            if any(m.any() for m in self.confusions)
            else [],
        }
        return f"const RPCNN = {json.dumps(data).replace('NaN', 'null')};\n"

    def finish(self, tables: dict[str, dict[str, Any]] | None = None, curves: list[dict] | None = None) -> pathlib.Path:
        """Write the page; returns the path of index.html.

        Args:
            tables: for each model its metrics by title, in percent.
            curves: records of a metrics.jsonl.
        """
        (self.folder / "data.js").write_text(self.data(tables, curves), encoding="utf-8")
        for name in ("index.html", "style.css", "page.js"):
            (self.folder / name).write_text(asset(name), encoding="utf-8")
        return self.folder / "index.html"


def asset(name: str) -> str:
    """A file of the page that is the same for all pages."""
    return (importlib.resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")


def map_urls(maps: Maps, label_set: LabelSet) -> dict[str, str]:
    """The maps as data URLs: gray PNGs whose values are class numbers and people."""
    labels = reduced(Image.fromarray(maps.labels), Image.Resampling.NEAREST)
    instances = reduced(Image.fromarray(np.minimum(maps.instances, 255).astype(np.uint8)), Image.Resampling.NEAREST)
    return {"labels": picture_url(labels, "PNG"), "instances": picture_url(instances, "PNG")}


def reduced(image: Image.Image, how: Image.Resampling) -> Image.Image:
    """The image with at most `SHOWN` pixels a side."""
    factor = SHOWN / max(image.size)
    if factor >= 1:
        return image
    return image.resize((max(round(image.width * factor), 1), max(round(image.height * factor), 1)), how)


def picture_url(image: Image.Image, kind: str) -> str:
    """The image as a data URL."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 88} if kind == "JPEG" else {"optimize": False}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
