"""The fast label-map reader against Pillow, to which it leaves all other files."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from rpcnn.labelmaps import compiled
from rpcnn.labelmaps import png as module
from rpcnn.labelmaps.png import read_byte_png

pytestmark = pytest.mark.skipif(compiled.core is None, reason="rpcnn._labelmaps is not built")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(rows: bytes, width: int, height: int, header=(8, 0, 0, 0, 0), pieces: int = 1) -> bytes:
    packed = zlib.compress(rows)
    size = -(-len(packed) // pieces)
    data = b"".join(chunk(b"IDAT", packed[i : i + size]) for i in range(0, len(packed), size))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, *header))
        + data
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 8), (33, 65), (40, 500)])
@pytest.mark.parametrize("filters", [(0,), (1,), (2,), (3,), (4,), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("flat", [True, False])
def test_every_filter_is_undone_as_by_pillow(shape, filters, flat, tmp_path):
    rng = np.random.default_rng(shape[1])
    residuals = rng.integers(0, 256, shape) * (rng.random(shape) < (0.02 if flat else 1))
    rows = np.concatenate([np.resize(filters, shape[0])[:, None], residuals], 1).astype(np.uint8)
    path = tmp_path / "map.png"
    path.write_bytes(png(rows.tobytes(), shape[1], shape[0], pieces=3))
    assert np.array_equal(read_byte_png(path)[0], np.asarray(Image.open(path)))


def test_palettes_give_their_indices(tmp_path):
    labels = np.random.default_rng(0).integers(0, 20, (30, 40)).astype(np.uint8)
    picture = Image.fromarray(labels).convert("P")
    picture.putpalette([k for i in range(256) for k in (i, 255 - i, 7)])
    picture.putdata(labels.ravel().tolist())
    picture.save(tmp_path / "map.png")
    values, palette = read_byte_png(tmp_path / "map.png")
    assert np.array_equal(values, labels) and palette[:6] == bytes([0, 255, 7, 1, 254, 7])


@pytest.mark.parametrize("mode", ["1", "RGB", "RGBA", "LA", "I;16"])
def test_other_png_kinds_are_decoded_by_pillow(mode, tmp_path):
    Image.new(mode, (20, 10)).save(tmp_path / "map.png")
    assert read_byte_png(tmp_path / "map.png") is None


def test_sub_byte_palettes_are_decoded_by_pillow(tmp_path):
    Image.new("P", (20, 10)).save(tmp_path / "map.png", bits=4)
    assert read_byte_png(tmp_path / "map.png") is None


ROWS = bytes(12 * 9)
WHOLE = png(ROWS, 8, 12)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"JFIF" * 20,
        WHOLE[:-12],  # no end
        WHOLE[:50],
        WHOLE[:45] + b"\xff" + WHOLE[46:],  # a checksum that does not fit
        png(ROWS[:-1], 8, 12),  # too few pixels
        png(ROWS + b"\0", 8, 12),  # too many
        png(b"\5" + ROWS[1:], 8, 12),  # no such filter
        png(ROWS, 8, 12, header=(8, 0, 0, 0, 1)),  # interlaced
        png(ROWS, 1 << 30, 1 << 30),
        png(ROWS, 0, 12),
    ],
)
def test_broken_files_are_decoded_by_pillow(data, tmp_path):
    (tmp_path / "map.png").write_bytes(data)
    assert read_byte_png(tmp_path / "map.png") is None


def test_zlib_is_used_without_isal(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "zlib", zlib)
    (tmp_path / "map.png").write_bytes(WHOLE)
    (tmp_path / "broken.png").write_bytes(png(ROWS[:-1], 8, 12))
    assert np.array_equal(read_byte_png(tmp_path / "map.png")[0], np.zeros((12, 8)))
    assert read_byte_png(tmp_path / "broken.png") is None


@pytest.mark.parametrize("inflater", [module.zlib, zlib], ids=["installed", "Python's"])
def test_a_decompression_bomb_stays_under_1_mb(inflater, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "zlib", inflater)
    (tmp_path / "map.png").write_bytes(png(bytes(50_000_000), 8, 12))
    tracemalloc.start()
    try:
        assert read_byte_png(tmp_path / "map.png") is None
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_missing_file_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_byte_png(tmp_path / "map.png")
