"""Weights of any origin load right, or are refused by name."""

import json
import pathlib

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rpcnn import Predictor
from rpcnn.inference import load as loading
from rpcnn.labels import CIHP

RUN = pathlib.Path(__file__).parent.parent / "cli" / "run_of_version_0_1"


@pytest.fixture
def parts():
    """The tensors and the metadata of a small model."""
    with safe_open(RUN / "model.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata())  # noqa: SIM118


def load(path, state, metadata):
    metadata = {key: value for key, value in metadata.items() if key != "sha256"}
    save_file(state, path, metadata)
    return Predictor(path, "cpu")


def test_the_file_itself_loads(parts, tmp_path):
    assert load(tmp_path / "w.safetensors", *parts).label_set.name == "CIHP"


def test_photo_names_the_model_of_the_package_unless_such_a_folder_is_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "SHIPPED_FILE", RUN / "model.safetensors")
    assert Predictor(device="cpu").config.model.backbone_width == 0.0625
    (tmp_path / "photo").mkdir()
    with pytest.raises(ValueError, match=r"^weights: photo/model.safetensors does not exist"):
        Predictor(device="cpu")


def test_the_model_of_the_package_parses_a_picture_in_either_precision():
    for precision, dtype in (("", None), ("bf16", torch.bfloat16)):
        predictor = Predictor(device="cpu", precision=precision)
        assert predictor.pipeline.dtype is dtype and predictor.label_set.name == "CIHP"
        assert predictor(RUN / "scene.png").label_map.shape == (107, 142)
    with pytest.raises(ValueError, match="precision must be auto, fp32, bf16 or fp16, got 'half'"):
        Predictor(device="cpu", precision="half")


@pytest.mark.parametrize("key", ["config", "labels"])
def test_metadata_that_are_no_json_are_named_with_their_file(key, parts, tmp_path):
    state, metadata = parts
    with pytest.raises(
        ValueError, match=rf"^weights: .*w\.safetensors is damaged: the {key} in its metadata is no JSON"
    ):
        load(tmp_path / "w.safetensors", state, metadata | {key: metadata[key][:-5] + ",}"})


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn, torch.int64, torch.bool])
def test_a_tensor_of_another_kind_is_refused(dtype, parts, tmp_path):
    state, metadata = parts
    key = next(key for key in state if key.endswith("weight"))
    with pytest.raises(ValueError, match=r"^weights: "):
        load(tmp_path / "w.safetensors", state | {key: state[key].to(dtype)}, metadata)


@pytest.mark.parametrize("change", ["left out", "too many", "another shape", "a scalar"])
def test_tensors_that_do_not_fit_are_refused(change, parts, tmp_path):
    state, metadata = parts
    key = next(key for key in state if key.endswith("weight"))
    other = {"another shape": state[key][:1].clone(), "a scalar": torch.ones(())}
    changed = {name: value for name, value in state.items() if change != "left out" or name != key}
    changed |= (
        {key: other[change]} if change in other else {"extra.weight": torch.ones(3)} if change == "too many" else {}
    )
    with pytest.raises(ValueError, match="weights: they do not fit the configuration"):
        load(tmp_path / "w.safetensors", changed, metadata)


def set_in(key, *path):
    def change(metadata, value):
        record = json.loads(metadata[key])
        inner = record
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value
        return metadata | {key: json.dumps(record)}

    return change


HARMLESS = {"name-x", "a name-x", "pairs-[]", "palette-[]"}
NONSENSE = [None, [], {}, "x", -1, 10**30, float("nan"), [[[]]]]


@pytest.mark.parametrize("value", NONSENSE, ids=str)
@pytest.mark.parametrize(
    "change",
    [
        lambda metadata, value: metadata | {"config": json.dumps(value)},
        lambda metadata, value: metadata | {"labels": json.dumps(value)},
        set_in("config", "model"),
        set_in("config", "model", "fpn_channels"),
        set_in("config", "model", "anchor_sizes"),
        set_in("config", "test", "score_threshold"),
        set_in("config", "data", "test_short_side"),
        set_in("labels", "name"),
        set_in("labels", "names"),
        set_in("labels", "names", 3),
        set_in("labels", "pairs"),
        set_in("labels", "pairs", 0, 1),
        set_in("labels", "palette"),
        set_in("labels", "palette", 2),
    ],
    ids=[
        "config",
        "labels",
        "model",
        "channels",
        "anchors",
        "threshold",
        "side",
        "name",
        "names",
        "a name",
        "pairs",
        "a pair",
        "palette",
        "a color",
    ],
)
def test_metadata_that_are_nonsense_are_refused(change, value, parts, tmp_path, request):
    state, metadata = parts
    metadata |= {"labels": json.dumps(CIHP.to_dict())}  # version 0.1 wrote the names only
    if request.node.callspec.id in HARMLESS:
        load(tmp_path / "w.safetensors", state, change(metadata, value))
        return
    with pytest.raises(ValueError):
        load(tmp_path / "w.safetensors", state, change(metadata, value))
