"""The exported network computes what the model does, in every format, for every size."""

import importlib.util

import numpy as np
import pytest
import torch
from helpers.layouts import needs_kernels
from helpers.models import NUM_CLASSES, configured, permissive, scene, with_varied_ious
from torch._dynamo.testing import CompileCounter

from rpcnn.config import Config
from rpcnn.export.exported import open_exported, settings_of, split_outputs
from rpcnn.export.network import InferenceNetwork
from rpcnn.export.onnx import save_onnx
from rpcnn.export.program import export_program, save_torch
from rpcnn.labels import LabelSet

pytestmark = needs_kernels

SIZES = [(96, 128), (70, 130), (160, 97)]
VARIANTS = {
    "paper": {},
    "parsing_rcnn": {"gse": False, "prsn": False},
    "released": {
        "pixel_format": "bgr255",
        "test_padding": "black",
        "inclusive_boxes": True,
        "aligned": False,
        "pyramid_levels": 4,
        "crop_semantic": False,
        "clamp_iou": False,
    },
}
LABELS = LabelSet("parts", tuple(f"part {i}" for i in range(NUM_CLASSES)))
needs_onnx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))),
    reason="needs onnx, onnxscript and onnxruntime: pip install 'rpcnn[export]'",
)


def make(name):
    """A model that finds many people, and its configuration."""
    changes = VARIANTS[name]
    model = permissive(max_detections=8, **changes)
    return with_varied_ious(model) if model.prsn else model, configured(Config(), **changes)


@torch.no_grad()
def check(run, model, config):
    """Compare with the model for several sizes and numbers of pictures."""
    for number, size in enumerate(SIZES, 1):
        batch = [scene(seed, *size)[0] for seed in range(number)]
        images = torch.stack(batch).float()
        found = split_outputs(run(images), images.shape, config)
        assert len(found) == number
        for got, image in zip(found, batch, strict=True):
            (want,) = model([image])
            assert len(got.boxes) == len(want.boxes) > 0
            for part in ("boxes", "box_scores", "scores", "person_probs", "label_probs"):
                torch.testing.assert_close(getattr(got, part), getattr(want, part), rtol=1e-4, atol=1e-4)
            assert got.image_size == want.image_size
            if want.label_probs is not None and not config.variant.crop_semantic:
                assert got.label_probs_size == want.label_probs_size


@pytest.mark.parametrize("name", VARIANTS)
def test_the_network_of_tensors_equals_the_model(name):
    model, config = make(name)
    check(InferenceNetwork(model), model, config)


@pytest.fixture(scope="module")
def exported():
    """The paper's model, its configuration, and its graph, which takes many seconds."""
    torch.manual_seed(0)
    model, config = make("paper")
    torch.nn.init.normal_(model.box_head.classes.bias, std=0.1)  # the exporter merges equal tensors, such as zeros
    return model, config, export_program(InferenceNetwork(model))


def test_one_graph_serves_all_sizes_and_numbers(exported):
    model, config, program = exported
    check(program.module(), model, config)


@pytest.mark.slow
def test_it_compiles_whole_and_once_for_all_sizes():
    torch.compiler.reset()
    model, config = make("paper")
    graphs = CompileCounter()
    compiled = torch.compile(InferenceNetwork(model), fullgraph=True, backend=graphs)
    check(compiled, model, config)
    assert graphs.frame_count <= 3  # a batch of one is a graph of its own


@pytest.mark.slow
@pytest.mark.parametrize("name", ["parsing_rcnn", "released"])
def test_variants_are_exported(name):
    model, config = make(name)
    check(export_program(InferenceNetwork(model)).module(), model, config)


@torch.no_grad()
def test_pictures_without_people_give_no_people(exported):
    run = exported[2].module()
    bias = run.get_parameter("model.box_head.classes.bias")  # shared by all tests
    before = bias.clone()
    bias.copy_(torch.tensor([100.0, -1e4]))
    try:
        boxes, *_, person_probs, label_probs = run(torch.zeros(2, 3, 70, 96))
    finally:
        bias.copy_(before)
    assert boxes.shape == (0, 4) and len(person_probs) == 0 and label_probs.shape == (2, NUM_CLASSES, 18, 24)


def test_a_file_of_torch_export_needs_no_python_of_the_model(exported, tmp_path):
    model, config, program = exported
    save_torch(program, tmp_path / "model.pt2", settings_of(config, LABELS))
    opened = open_exported(tmp_path / "model.pt2")
    assert opened.label_set == LABELS and opened.config == config
    check(opened.run, model, config)


@needs_onnx
@pytest.mark.slow
def test_an_onnx_file_gives_the_same_people(exported, tmp_path):
    import onnx

    model, config, program = exported
    save_onnx(program, tmp_path / "model.onnx", settings_of(config, LABELS))
    opened = open_exported(tmp_path / "model.onnx")
    assert opened.label_set == LABELS and opened.config == config
    check(opened.run, model, config)
    file = onnx.load(tmp_path / "model.onnx")
    assert {node.domain for node in file.graph.node} <= {"", "ai.onnx"}
    assert {"RoiAlign", "NonMaxSuppression", "Resize"} <= {node.op_type for node in file.graph.node}

    (bias,) = (value for value in file.graph.initializer if value.name == "model.box_head.classes.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.float32([100, -1e4]), bias.name))
    onnx.save(file, tmp_path / "nobody.onnx")
    for number in (1, 2):
        boxes, *_, person_probs, label_probs = open_exported(tmp_path / "nobody.onnx").run(
            torch.zeros(number, 3, 70, 96)
        )
        assert boxes.shape == (0, 4) and len(person_probs) == 0 and len(label_probs) == number


def test_a_foreign_file_is_refused(tmp_path):
    (tmp_path / "model.pt2").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="must be a file that rpcnn export wrote"):
        open_exported(tmp_path / "model.pt2")
