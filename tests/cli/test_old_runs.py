"""A run folder that version 0.1 wrote: its configuration loads, and its weights predict what they predicted then."""

import pathlib

import numpy as np
import pytest

from rpcnn import Predictor
from rpcnn.config import Config, load_config
from rpcnn.runtime.checkpoint import load_weights

OLD = pathlib.Path(__file__).parent / "run_of_version_0_1"


def test_its_configuration_is_read_as_what_it_is_now():
    config = load_config(OLD / "config.toml")
    assert isinstance(config, Config) and config.model.backbone_width == 0.0625
    assert config.model.parts == {
        "gse": {"num_convs": 1},
        "parsing_head": {"num_convs": 1, "aspp_channels": 8},
        "prsn": {"channels": 4, "hidden": 8},
        "box_head": {"resolution": 4},
    }
    loaded = load_weights(OLD)
    assert loaded.label_set.name == "CIHP" and loaded.config.model == config.model


def test_its_weights_predict_what_they_predicted():
    result = Predictor(OLD, "cpu")(OLD / "scene.png").numpy()
    with np.load(OLD / "prediction.npz") as expected:
        assert len(expected["boxes"]) == len(result["boxes"]) > 0
        np.testing.assert_allclose(result["boxes"], expected["boxes"], atol=1e-3)
        for name in ("scores", "box_scores", "iou_scores"):
            np.testing.assert_allclose(result[name], expected[name], atol=1e-5)
        for name, then in (("label_map", "labels"), ("person_maps", "people"), ("instance_map", "instances")):
            assert (result[name] != expected[then]).mean() < 1e-4


def test_its_command_line_names_are_gone():
    with pytest.raises(SystemExit):
        load_config("painted", ["--test.score-threshold", "0.5"])
