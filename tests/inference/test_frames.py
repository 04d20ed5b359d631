"""Arrays and tensors as image nodes, video readers and batches of training hold pictures."""

import io
import pathlib

import numpy as np
import pytest
import torch
from PIL import Image

from rpcnn import Predictor
from rpcnn.frames import as_frame
from rpcnn.pictures import load_picture

RUN = pathlib.Path(__file__).parents[1] / "cli" / "run_of_version_0_1"
RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


@pytest.mark.parametrize(
    "image",
    [
        RGB,
        torch.from_numpy(RGB),
        torch.from_numpy(RGB).permute(2, 0, 1),
        RGB / 255,
        (RGB / 255).astype(np.float32),
        torch.from_numpy(RGB).float() / 255,
        torch.from_numpy(RGB / 255).permute(2, 0, 1).requires_grad_(),
        RGB.astype(np.uint16) * 257,
        RGB[:, ::-1][:, ::-1],
    ],
    ids=range(9),
)
def test_channels_first_or_last_bytes_or_floats_are_the_same_picture(image):
    assert np.array_equal(load_picture(image), RGB) and load_picture(image).flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("image", [RGB[..., 0], RGB[..., :1], torch.from_numpy(RGB[..., 0])])
def test_gray_has_three_equal_channels(image):
    assert np.array_equal(load_picture(image), np.repeat(RGB[..., :1], 3, 2))


def test_half_precision_keeps_every_byte():
    for dtype in (torch.float16, torch.float32):
        assert np.array_equal(as_frame(torch.from_numpy(RGB).div(255).to(dtype)), RGB)


def test_transparent_pixels_lie_on_white():
    image = np.dstack([RGB, np.zeros_like(RGB[..., :1])])
    assert (load_picture(image) == 255).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (RGB.astype(np.float32), r"floats in 0..1, got 0..255|floats in 0..1, got"),
        (np.full((4, 5, 3), np.nan), "floats in 0..1, got nan"),
        (RGB / 127.5 - 1, "floats in 0..1, got -1"),
        (RGB.astype(np.int64), "got int64"),
        (RGB > 9, "got bool"),
        (RGB.transpose(2, 0, 1), r"got \[3, 6, 9\]"),
        (torch.zeros(3, 5, 3), "first or last"),
        (RGB[None], "a batch is given alone, not in a list"),
        (np.zeros((0, 9, 3), np.uint8), r"got \[0, 9, 3\]"),
    ],
)
def test_what_has_no_clear_meaning_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        load_picture(image)


def test_a_picture_may_be_an_open_file():
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG")
    assert np.array_equal(load_picture(file), RGB) and np.array_equal(load_picture(file), RGB)
    with pytest.raises(ValueError, match="the file object cannot be read: it is none of"):
        load_picture(io.BytesIO(b"nothing"))


@pytest.fixture(scope="module")
def predictor():
    return Predictor(RUN, "cpu")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("floats", [True, False])
def test_a_batch_is_parsed_as_its_frames_are(predictor, first, floats):
    frames = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, 40, 50, 3), np.uint8))
    batch = frames / 255 if floats else frames
    found = predictor(batch.permute(0, 3, 1, 2) if first else batch)
    assert len(found) == 3
    for result, frame in zip(found, frames, strict=True):
        assert torch.equal(result.label_map, predictor(frame.numpy()).label_map)


def test_one_picture_is_no_stream(predictor):
    with pytest.raises(ValueError, match=r"stream: a batch must have four axes, got \[6, 9, 3\]"):
        predictor.stream(RGB)
