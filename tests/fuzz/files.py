"""Readers of files: of damaged and hostile ones they give what the file says, or an error that names it."""

import functools
import io
import json
import pathlib
import tempfile
from random import Random

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from rpcnn.config import load_config, preset_names
from rpcnn.config.load import preset_folder
from rpcnn.data.files import DataFault, read_image, read_labels
from rpcnn.data.labels_file import read_labels_file
from rpcnn.formats import FORMATS, Prediction, make_format
from rpcnn.inference.load import load_weights
from rpcnn.pictures import load_picture
from rpcnn.runtime.unpickle import read_state_dict

RUN = pathlib.Path(__file__).parents[1] / "cli" / "run_of_version_0_1"
LABELS_TOML = (
    b'name = "own"\nnames = ["Background", "Head", "Left", "Right"]\npairs = [["Left", "Right"]]\nignore = 9\n'
)


def mutated(r: Random, data: bytes) -> bytes:
    """Change, insert, remove, repeat or cut some bytes."""
    data = bytearray(data)
    for _ in range(r.choice([0, 1, 1, 2, 5, 20])):
        at = r.randrange(len(data) + 1)
        kind = r.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << r.randrange(8)
        elif kind == 1:
            data[at : at + r.choice([1, 2, 4, 8])] = r.choice(
                [b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff" * 8, b"\x80"]
            )
        elif kind == 2:
            del data[at : at + r.choice([1, 3, 50])]
        elif kind == 3:
            data[at:at] = data[max(at - r.choice([1, 20, 300]), 0) : at]
        elif kind == 4:
            data[at:at] = bytes(r.randrange(256) for _ in range(r.choice([1, 4, 30])))
        elif r.random() < 0.2:
            del data[at:]
    return bytes(data)


def written(r: Random, suffix: str, data: bytes):
    """A temporary file, as a context."""
    file = tempfile.NamedTemporaryFile(suffix=suffix)  # noqa: SIM115  (the caller's)
    file.write(mutated(r, data))
    file.flush()
    return file


@functools.cache
def _pictures() -> list[tuple[str, bytes]]:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 31, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    image, found = Image.fromarray(pixels), []
    for name, options, mode in (
        ("JPEG", {"exif": exif}, "RGB"), ("JPEG", {"progressive": True}, "CMYK"), ("PNG", {}, "RGBA"), ("PNG", {}, "P"),
        ("PNG", {}, "1"), ("TIFF", {"compression": "tiff_lzw"}, "RGB"), ("TIFF", {}, "F"), ("GIF", {}, "P"),
        ("WEBP", {}, "RGBA"), ("BMP", {}, "RGB"), ("PPM", {}, "RGB"), ("AVIF", {}, "RGB"), ("JPEG2000", {}, "RGB"),
    ):  # fmt: skip
        buffer = io.BytesIO()
        try:
            image.convert(mode).save(buffer, name, **options)
        except (KeyError, OSError):  # a Pillow without this format
            continue
        found.append((name, buffer.getvalue()))
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(buffer, "PNG")
    return [*found, ("PNG", buffer.getvalue()), ("EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")]


def pictures(r: Random) -> None:
    """A picture is an array or an error with its path."""
    _, data = r.choice(_pictures())
    with written(r, r.choice([".jpg", ".png", ".tif", ".eps"]), data) as file:
        try:
            picture = load_picture(file.name, max_pixels=10_000_000)
            assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
        except ValueError as error:
            assert file.name in str(error)
        for pixels in (True, False):
            try:
                read_image(pathlib.Path(file.name), pixels)
            except DataFault as error:
                assert file.name in str(error)


@functools.cache
def _label_maps() -> list[bytes]:
    values = (np.random.default_rng(0).integers(0, 20, (24, 31)) // 4).astype(np.uint8)
    found = []
    for image in (
        Image.fromarray(values),
        Image.fromarray(values).convert("P"),
        Image.fromarray(values.astype(np.uint16)),
    ):
        for level in (0, 9):
            buffer = io.BytesIO()
            image.save(buffer, "PNG", compress_level=level)
            found.append(buffer.getvalue())
    return found


def label_maps(r: Random) -> None:
    """A label map is an array of bytes or an error with its path; so are labels.toml and its classes."""
    with written(r, ".png", r.choice(_label_maps())) as file:
        try:
            assert read_labels(pathlib.Path(file.name), r.choice([None, 0])).dtype == np.uint8
        except DataFault as error:
            assert file.name in str(error)
    with written(r, ".toml", LABELS_TOML) as file:
        try:
            assert 2 <= read_labels_file(pathlib.Path(file.name))[0].num_classes <= 255
        except ValueError as error:
            assert file.name in str(error)


@functools.cache
def _predictions(name: str) -> tuple[tuple[str, bytes], ...]:
    with tempfile.TemporaryDirectory() as folder:
        maps = (np.arange(2 * 9 * 12).reshape(2, 9, 12) // 20 % 5).astype(np.uint8)
        format, root = make_format(name), pathlib.Path(folder)
        format.write(root, "a", Prediction(maps[0], maps, np.array([0.9, 0.4])))
        format.finish(root)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return tuple((str(path.relative_to(root)), path.read_bytes()) for path in files)


TOKENS = [
    "null",
    "true",
    "-1",
    "1e999",
    "0.5",
    '"x"',
    "[]",
    "{}",
    "[[1]]",
    "99999999999999999999",
    "NaN",
    '{"score": 1}',
]


def _json_mutated(r: Random, data: bytes) -> bytes:
    """Replace some values of a JSON by others."""
    places = []

    def walk(value):
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, child in children:
            places.append((value, key))
            walk(child)

    record = json.loads(data)
    walk(record)
    for number in range(r.choice([1, 1, 2, 4])):
        inner, key = r.choice(places)
        try:
            inner[key] = f"@{number}"
        except (IndexError, KeyError):
            continue
    text = json.dumps(record)
    for number in range(4):
        text = text.replace(f'"@{number}"', r.choice(TOKENS))
    return text.encode()


def predictions(r: Random) -> None:
    """Files of predictions are a prediction or an error that names the folder."""
    name = r.choice(list(FORMATS))
    files = _predictions(name)
    spoilt = r.randrange(len(files))
    with tempfile.TemporaryDirectory() as folder:
        for number, (path, data) in enumerate(files):
            if number == spoilt:
                as_json = path.endswith("json") and r.random() < 0.7
                data = _json_mutated(r, data) if as_json else mutated(r, data)
            target = pathlib.Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        format = make_format(name)
        try:
            for stem in format.stems(pathlib.Path(folder)):
                if format.size(pathlib.Path(folder), stem) not in (None, (9, 12)):
                    continue  # the evaluation reads no further
                prediction = format.read(pathlib.Path(folder), stem)
                assert prediction.label_map.dtype == np.uint8 and np.isfinite(prediction.scores).all()
        except ValueError as error:
            assert folder in str(error) or "NumberedPersonMaps" in str(error), error


@functools.cache
def _weights() -> list[tuple[str, bytes]]:
    state = {f"layer.{k}.weight": torch.arange(12.0).view(3, 4) + k for k in range(3)} | {"steps": torch.tensor(3)}
    found = [(".safetensors", save(state)), (".safetensors", (RUN / "model.safetensors").read_bytes())]
    for content in (state, {"model": state, "optimizer": {"state": {0: torch.ones(2)}, "groups": [{"lr": 0.1}]}}):
        for zipped in (True, False):
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
            found.append((".pth", buffer.getvalue()))
    return found


def weights(r: Random) -> None:
    """A file of weights is a dict of tensors or an error that names it."""
    suffix, data = r.choice(_weights())
    with written(r, suffix, data) as file:
        for read in (read_state_dict, *([load_weights] if suffix == ".safetensors" else [])):
            try:
                assert read(file.name)
            except ValueError as error:
                assert file.name in str(error) or "LabelSet" in str(error), error


@functools.cache
def _configurations() -> list[bytes]:
    return [(preset_folder() / f"{name}.toml").read_bytes() for name in preset_names()] + [
        (RUN / "config.toml").read_bytes()
    ]


VALUES = [b"nan", b"inf", b"-1", b"0", b"99999999999999999999", b"[]", b"{}", b'"x"', b"true", b"[1, [2]]", b"1e400"]


def configurations(r: Random) -> None:
    """A TOML file is a configuration or an error that names it."""
    data = r.choice(_configurations())
    if r.random() < 0.6:
        lines = data.split(b"\n")
        for _ in range(r.choice([1, 2, 5])):
            at = r.randrange(len(lines))
            key, equals, _ = lines[at].partition(b"=")
            lines[at] = key + equals + b" " + r.choice(VALUES) if equals else lines[at]
        data = b"\n".join(lines)
    else:
        data = mutated(r, data)
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(data)
        file.flush()
        try:
            load_config(file.name)
        except ValueError as error:
            assert file.name in str(error) or "is neither a file nor a preset" in str(error), error
