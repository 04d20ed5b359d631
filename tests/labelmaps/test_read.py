"""Maps of labels: what every reader takes, and what it refuses, truth and prediction alike."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from rpcnn.data.files import DataFault, read_labels
from rpcnn.formats.prediction import read_png
from rpcnn.labels import voc_palette

LABELS = np.random.default_rng(0).integers(0, 20, (30, 40)).astype(np.uint8)
VOC = np.array(voc_palette(256), np.uint8)
GRAY = np.repeat(np.arange(256), 3).reshape(-1, 3)


def both(path):
    """The values of the truth's and of the predictions' reader, which are equal."""
    truth, prediction = read_labels(path), read_png(path)
    assert truth.dtype == prediction.dtype == np.uint8 and np.array_equal(truth, prediction)
    return truth


def refused(path, message):
    for read, error in ((read_labels, DataFault), (read_png, ValueError)):
        with pytest.raises(error, match=message) as raised:
            read(path)
        assert str(raised.value).startswith(str(path)) and "\n" not in str(raised.value)


def palette_image(values, colors):
    image = Image.fromarray(values)
    image.putpalette(np.asarray(colors, np.uint8).ravel().tolist())
    return image


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("colors", [VOC, VOC[:20], VOC[:20] // 3, GRAY], ids=["VOC", "short", "others", "gray"])
def test_the_indices_of_a_palette_count_whatever_its_colors(bits, colors, tmp_path):
    values = LABELS if bits == 8 else LABELS % 16
    palette_image(values, colors).save(tmp_path / "a.png", bits=bits)
    assert np.array_equal(both(tmp_path / "a.png"), values)


def test_a_palette_that_ends_in_black_may_have_ignored_pixels(tmp_path):
    values = LABELS.copy()
    values[0] = 255
    colors = np.zeros((256, 3), np.uint8)
    colors[:20] = VOC[:20]
    palette_image(values, colors).save(tmp_path / "a.png")
    assert np.array_equal(both(tmp_path / "a.png"), values)


@pytest.mark.parametrize("fast", [True, False])
def test_a_sorted_palette_of_the_labels_colors_is_noticed(fast, tmp_path):
    order = np.argsort(VOC[:20].sum(1), kind="stable")  # as an editor sorts by brightness
    number = np.argsort(order)
    image = palette_image(number[LABELS].astype(np.uint8), VOC[order])
    image.save(tmp_path / "a.png", **({} if fast else {"bits": 8, "interlace": 1}))
    refused(tmp_path / "a.png", r"has the colors of the labels in another order: value \d+ has the color of label \d+")


def test_a_shortened_palette_is_noticed(tmp_path):
    values = np.where(LABELS > 10, 0, 1).astype(np.uint8)
    palette_image(values, VOC[[0, 5]]).save(tmp_path / "a.png", bits=1)
    refused(tmp_path / "a.png", "value 1 has the color of label 5")


def test_sixteen_bits_hold_labels_too(tmp_path):
    Image.fromarray(LABELS.astype(np.uint16)).save(tmp_path / "a.png")
    assert np.array_equal(both(tmp_path / "a.png"), LABELS)
    Image.fromarray((LABELS * np.uint16(257)).astype(np.uint16)).save(tmp_path / "b.png")
    refused(tmp_path / "b.png", "in 0..255, got")


def gray_png(bits):
    row = b"\0" + bytes([0x01, 0x11])
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    header = struct.pack(">IIBBBBB", 16 // bits, 4, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 4)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_of_fewer_than_8_bits_is_refused(bits, tmp_path):
    (tmp_path / "a.png").write_bytes(gray_png(bits))
    refused(tmp_path / "a.png", f"has gray of {bits} bits, which readers stretch")


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("RGBA", 4), ("LA", 2)])
def test_colors_are_refused(mode, channels, tmp_path):
    Image.new(mode, (9, 6)).save(tmp_path / "a.png")
    refused(tmp_path / "a.png", rf"must hold a value per pixel \(gray or palette\), got {channels} channels")


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "JPEG2000"])
def test_lossy_files_are_refused_whatever_their_name(kind, tmp_path):
    Image.fromarray(LABELS).convert("L" if kind != "WEBP" else "RGB").save(tmp_path / "a.png", format=kind)
    refused(tmp_path / "a.png", "cannot be read")
