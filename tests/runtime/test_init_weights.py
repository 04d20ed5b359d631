"""Initializing from another run's weights: which tensors are copied, which stay new, and that both are logged."""

import pytest
import torch
from helpers.models import tiny

from rpcnn.config import Config
from rpcnn.labels import LabelSet
from rpcnn.runtime.checkpoint import Weights
from rpcnn.runtime.init_weights import CLASS_AXES, init_from

SIX = LabelSet("six", ("background", "hat", "hair", "face", "left arm", "right arm"))
FOUR = LabelSet("four", ("background", "Face", "shirt", "hat"))


def trained(labels=SIX, **changes) -> Weights:
    torch.manual_seed(5)
    model = tiny(num_classes=labels.num_classes, **changes)
    state = {key: torch.randn_like(value) for key, value in model.state_dict().items()}
    return Weights(state, Config(), labels)


def test_the_same_labels_take_every_tensor():
    weights, model = trained(), tiny()
    lines = init_from(model, weights, SIX)
    assert all(torch.equal(value, weights.state[key]) for key, value in model.state_dict().items())
    assert lines == [f"{len(weights.state)} of {len(weights.state)} tensors taken"]


def test_class_dependent_weights_stay_new_and_are_named():
    weights, model = trained(), tiny(num_classes=4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    lines = init_from(model, weights, FOUR)
    after = model.state_dict()
    for key in after.keys() - CLASS_AXES.keys():
        assert torch.equal(after[key], weights.state[key])
    for key in CLASS_AXES.keys() - {"prsn.conv1.weight"}:
        assert torch.equal(after[key], before[key])
    assert torch.equal(after["prsn.conv1.weight"][:, :16], weights.state["prsn.conv1.weight"][:, :16])
    assert torch.equal(after["prsn.conv1.weight"][:, 16:], before["prsn.conv1.weight"][:, 16:])
    assert lines[0] == f"{len(after) - 5} of {len(after)} tensors taken, 1 more in part"
    assert {line.split(": ")[1].split()[0] for line in lines[1:]} == CLASS_AXES.keys()
    assert "new: gse.logits.weight [4, 16, 1, 1], in the weights [6, 16, 1, 1]" in lines


def test_classes_of_equal_name_are_copied_on_request():
    weights, model = trained(), tiny(num_classes=4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    lines = init_from(model, weights, FOUR, "same-names")
    for key, axis in CLASS_AXES.items():
        first = before[key].shape[axis] - 4
        for number, expected in ((0, 0), (1, 3), (3, 1)):  # background, face, hat
            got = model.state_dict()[key].select(axis, first + number)
            assert torch.equal(got, weights.state[key].select(axis, first + expected)), (key, number)
        shirt = model.state_dict()[key].select(axis, first + 2)
        assert torch.equal(shirt, before[key].select(axis, first + 2))
    assert sum("3 classes of the same name copied" in line for line in lines) == len(CLASS_AXES)


def test_classes_are_compared_by_name():
    others = LabelSet("others", ("background", "a", "b", "c", "d", "e"))
    model = tiny()
    before = model.state_dict()["gse.logits.bias"].clone()
    lines = init_from(model, trained(), others)
    assert torch.equal(model.state_dict()["gse.logits.bias"], before) and len(lines) == 1 + len(CLASS_AXES)


def test_parts_that_only_one_side_has_are_named():
    lines = init_from(tiny(), trained(prsn=False), SIX)
    assert any(line.startswith("new: prsn.fc1.weight") and "do not have" in line for line in lines)
    lines = init_from(tiny(prsn=False), trained(), SIX)
    assert any(line.startswith("unused: prsn.fc1.weight") for line in lines)


def test_weights_of_another_network_are_a_warning_and_few_lines():
    wide = trained(fpn_channels=32, parsing_channels=32, box_channels=64, parts={"parsing_head": {"aspp_channels": 16}})
    lines = init_from(tiny(), wide, SIX)
    assert "most do not fit" in lines[1] and lines[-1].startswith("… and ") and len(lines) < 25


def test_weights_without_any_match_raise():
    with pytest.raises(ValueError, match=r"train\.init_weights: none of the weights fits"):
        init_from(tiny(), Weights({"other": torch.zeros(1)}, Config(), SIX), SIX)
