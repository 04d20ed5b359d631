"""Arguments of the parts that have no field of their own: any of them can be set by model.parts."""

import re

import pytest
from helpers.models import tiny

from rpcnn.config import load_config, to_toml


def test_parts_take_further_arguments():
    model = tiny(parts={"box_head": {"resolution": 5, "positive_fraction": 1}, "parsing_head": {"aspp_dilations": [2]}})
    assert (model.box_head.resolution, model.box_head.positive_fraction) == (5, 1.0)
    assert [branch[0].dilation for branch in model.parsing_head.aspp.branches] == [(1, 1), (2, 2)]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"rpm": {"samples": 1}}, "model.parts: unknown key 'rpm'; did you mean 'rpn'?"),
        ({"rpn": {"sample": 1}}, "model.parts.rpn: unknown key 'sample'; did you mean 'samples'?"),
        ({"rpn": {"top_train": 1}}, "model.parts.rpn: unknown key 'top_train'"),  # has a field of its own
        ({"rpn": {"samples": "many"}}, "model.parts.rpn.samples: must be int, got 'many'"),
        ({"rpn": {"anchor_ratios": 2}}, "model.parts.rpn.anchor_ratios: must be a list of float, got 2"),
        ({"rpn": 3}, "model.parts.rpn: must be a table, got 3"),
        ({"prsn": {"input": "logits"}}, "model.parts.prsn: unknown key 'input'; known keys: channels, hidden"),
    ],
)
def test_wrong_arguments_of_parts_are_named(parts, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny(parts=parts)


def test_a_part_that_is_switched_off_leaves_its_arguments_unused():
    assert tiny(prsn=False, parts={"prsn": {"hidden": 8}}).prsn is None  # as an ablation of a preset does


def test_command_line_adds_to_the_parts_of_a_file(tmp_path):
    (tmp_path / "mine.toml").write_text("[model.parts]\nrpn.samples = 128\nrpn.nms_threshold = 0.6\n")
    config = load_config(tmp_path / "mine.toml", ["--model.parts", "rpn.samples=64", "box_head.resolution=14"])
    assert config.model.parts == {"rpn": {"samples": 64, "nms_threshold": 0.6}, "box_head": {"resolution": 14}}
    (tmp_path / "again.toml").write_text(to_toml(config))
    assert load_config(tmp_path / "again.toml") == config
