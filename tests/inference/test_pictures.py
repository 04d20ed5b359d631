"""Pictures of every kind become the RGB that a viewer shows, or are refused by name."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from rpcnn.data.files import DataFault, read_image, read_labels
from rpcnn.formats.prediction import read_png
from rpcnn.pictures import FORMATS, PictureError, load_picture, opened

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def gray(values):
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, 2)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bits_keep_their_brightness(name, tmp_path):
    wide = RAMP.astype(np.uint16) * 257
    Image.fromarray(wide).save(tmp_path / name)
    assert np.array_equal(load_picture(tmp_path / name), gray(RAMP))
    assert np.array_equal(read_image(tmp_path / name)[0], gray(RAMP))


def test_integers_of_32_bits_are_16_bit_values_or_refused(tmp_path):
    Image.fromarray(RAMP.astype(np.int32) * 257).save(tmp_path / "a.tif")
    assert np.array_equal(load_picture(tmp_path / "a.tif"), gray(RAMP))
    Image.fromarray(RAMP.astype(np.int32) * 70_000).save(tmp_path / "b.tif")
    with pytest.raises(ValueError, match=r"b.tif cannot be read: its pixels must lie in 0..65535"):
        load_picture(tmp_path / "b.tif")


def test_floats_are_refused_by_name(tmp_path):
    Image.fromarray(RAMP.astype(np.float32) / 255).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a.tif cannot be read: its pixels are floats"):
        load_picture(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"the PIL image F \(16, 16\) cannot be read"):
        load_picture(Image.fromarray(RAMP.astype(np.float32)))
    with pytest.raises(DataFault, match=r"a.tif: cannot be read as an image \(its pixels are floats"):
        read_image(tmp_path / "a.tif")
    with pytest.raises(DataFault, match=r"a.tif: a label map must hold integers, got float32"):
        read_labels(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA"])
def test_transparent_pixels_lie_on_white(mode):
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[:, :3] = (200, 30, 90, 255)
    if mode in ("LA", "PA"):
        pixels[:, :3, :3] = 90
    image = Image.fromarray(pixels).convert("RGBA" if mode == "P" else mode)
    if mode == "P":
        image = image.quantize(4, method=Image.Quantize.FASTOCTREE)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        image = Image.open(buffer)
    got = load_picture(image)
    assert (got[:, 3:] == 255).all() and (np.abs(got[:, :3].astype(int) - pixels[:, :3, :3]) <= 8).all()


@pytest.mark.parametrize(("name", "options"), [("a.gif", {}), ("a.tif", {}), ("a.webp", {"lossless": True})])
def test_the_first_frame_is_taken(name, options, tmp_path):
    frames = [Image.fromarray(np.full((8, 9, 3), value, np.uint8)) for value in (10, 200)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    assert (load_picture(tmp_path / name) == 10).all()


def test_a_ghostscript_program_is_not_started(tmp_path, monkeypatch):
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    started = []
    sys.addaudithook(lambda event, _: started.append(event) if event in ("subprocess.Popen", "os.system") else None)
    for name in ("a.png", "a.jpg", "a.eps"):
        (tmp_path / name).write_bytes(program)
        for read in (load_picture, read_image, read_labels, read_png):
            with pytest.raises(ValueError, match=f"{name}.*it is none of"):
                read(tmp_path / name)
    assert not started and not {"EPS", "PSD", "PDF", "WMF", "FPX"} & set(FORMATS)


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, MemoryError, KeyError, RecursionError, EOFError])
def test_whatever_a_decoder_raises_is_named(error, tmp_path, monkeypatch):
    Image.fromarray(RAMP).convert("RGB").save(tmp_path / "a.jpg")

    def broken(*arguments):
        raise error("decoder")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", broken)
    with pytest.raises(ValueError, match=r"image: .*a\.jpg cannot be read: .*decoder"):
        load_picture(tmp_path / "a.jpg")
    with pytest.raises(DataFault, match=r"a\.jpg: cannot be read as an image"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg: cannot be read: it is none of PNG"):
        read_png(tmp_path / "a.jpg")


def test_a_picture_that_is_missing_or_a_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.jpg does not exist"):
        load_picture(tmp_path / "none.jpg")
    with pytest.raises(ValueError, match=rf"image: {tmp_path} cannot be read"):
        load_picture(tmp_path)
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    with pytest.raises(ValueError, match=r"loop\.jpg cannot be read"):
        load_picture(tmp_path / "loop.jpg")


def test_a_truncated_picture_is_named_by_its_path(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"image: .*/a\.jpg cannot be read: image file is truncated"):
        load_picture(tmp_path / "a.jpg")


def test_pixels_are_counted_before_they_are_decoded(tmp_path):
    Image.new("1", (5000, 4000)).save(tmp_path / "a.png")
    with pytest.raises(PictureError, match="5000 x 4000 pixels"), opened(tmp_path / "a.png", max_pixels=19_999_999):
        pass
    with opened(tmp_path / "a.png", max_pixels=20_000_000) as image:
        assert image.size == (5000, 4000)
