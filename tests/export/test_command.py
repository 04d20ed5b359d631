"""``rpcnn export``: writes the file, compares it with the model on pictures, and says what is wrong in one line."""

import sys

import numpy as np
import pytest
import torch
from helpers.layouts import needs_kernels
from helpers.models import TINY, configured, scene
from PIL import Image

from rpcnn import Predictor
from rpcnn.commands import UserError
from rpcnn.config import Config
from rpcnn.export.__main__ import main
from rpcnn.export.exported import open_exported
from rpcnn.labels import CIHP
from rpcnn.model import build_model
from rpcnn.runtime.checkpoint import save_weights

pytestmark = needs_kernels


@pytest.fixture
def folder(tmp_path):
    """A folder with a run whose model finds people, and a picture."""
    config = configured(Config(), **TINY | {"min_box_score": 0.0, "test_short_side": 80, "max_detections": 5})
    model = build_model(config, CIHP.num_classes)
    for head in (model.rpn.objectness, model.box_head.classes):
        torch.nn.init.normal_(head.weight)
    (tmp_path / "run").mkdir()
    save_weights(tmp_path / "run" / "model.safetensors", model, config, CIHP)
    Image.fromarray(scene(0, 90, 120)[0].permute(1, 2, 0).numpy()).save(tmp_path / "photo.png")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_the_file_gives_the_result_of_a_predictor(kind, folder, capsys):
    if kind == "onnx":
        pytest.importorskip("onnxscript", reason="needs the extra export")
        pytest.importorskip("onnxruntime", reason="needs the extra export")
    path = main([str(folder / "run"), "--format", kind, "--check", str(folder / "photo.png")])
    assert path.parent == folder / "run" and path.is_file()
    *_, last = capsys.readouterr().out.strip().splitlines()
    assert last.startswith("largest") and last.count("0.000 %") == 2
    got, want = open_exported(path)(folder / "photo.png"), Predictor(folder / "run", "cpu")(folder / "photo.png")
    assert len(got) == len(want) == 5 and got.label_set == want.label_set
    np.testing.assert_allclose(got.boxes, want.boxes, atol=1e-3)
    assert torch.equal(got.label_map, want.label_map)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "model.pt2"], r"--output must end in \.onnx for --format onnx, got model\.pt2"),
        (["--format", "torch", "--output", "model.onnx"], r"--output must end in \.pt2 for --format torch"),
        (["--output", "nowhere/model.onnx"], "--output: there is no folder nowhere"),
        (["--check", "nothing/*.jpg"], "source: 'nothing/\\*.jpg' is no image, folder of images or pattern"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(options, message, folder, capsys):
    with pytest.raises(UserError, match=message):
        main([str(folder / "run"), *options])


def test_missing_packages_name_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"onnx is not installed; pip install 'rpcnn\[export\]'"):
        main([str(folder / "run")])
