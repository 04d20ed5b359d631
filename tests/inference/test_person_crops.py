"""Many people of a large picture are kept at the size of their boxes, which nobody notices."""

import copy
import pickle

import numpy as np
import pytest
import torch
from helpers.inference import combined

from rpcnn.inference import saving
from rpcnn.inference.person_crops import PersonCrops
from rpcnn.labels import CIHP
from rpcnn.model.detections import Detections

BOXES = [[3.2, 4, 20.5, 30], [10, 0, 41, 33], [-5, -5, 9, 8], [30, 20, 60, 90], [5, 5, 5, 5], [25.5, 3, 26.4, 30]]


def detections(boxes=BOXES, label_probs=True):
    generator = torch.Generator().manual_seed(0)
    return Detections(
        boxes=torch.tensor(boxes),
        box_scores=torch.linspace(0.9, 0.1, len(boxes)),
        iou_scores=None,
        person_probs=(4 * torch.randn(len(boxes), 20, 8, 8, generator=generator)).softmax(1),
        label_probs=(4 * torch.randn(20, 10, 12, generator=generator)).softmax(0) if label_probs else None,
        image_size=(40, 48),
    )


def kept(result):
    return vars(result)["person_maps"]


@pytest.fixture
def pair(monkeypatch):
    """The same result, its maps whole and at the size of the boxes."""
    whole = combined(detections(), (40, 48), CIHP)
    monkeypatch.setattr("rpcnn.inference.combine.MOST_BYTES", 2 * 40 * 48)
    return whole, combined(detections(), (40, 48), CIHP)


@pytest.mark.parametrize("mode", ["combine", "parsing", "semseg"])
@pytest.mark.parametrize("people", [1, 2, 3, 5])
def test_a_few_at_a_time_give_the_same_maps(mode, people, monkeypatch):
    whole = combined(detections(), (40, 48), CIHP, semantic_mode=mode, min_score=0.2)
    monkeypatch.setattr("rpcnn.inference.combine.MOST_BYTES", people * 40 * 48)
    small = combined(detections(), (40, 48), CIHP, semantic_mode=mode, min_score=0.2)
    assert isinstance(kept(small), PersonCrops) and not isinstance(kept(whole), PersonCrops)
    for name, values in whole.numpy().items():
        assert np.array_equal(values, small.numpy()[name]), name
    assert whole.instance_map.dtype == small.instance_map.dtype and small.person_maps.any()


def test_boxes_that_are_not_finite_have_empty_maps(monkeypatch):
    monkeypatch.setattr("rpcnn.inference.combine.MOST_BYTES", 1)
    boxes = [*BOXES, [float("nan")] * 4, [0, 0, float("inf"), 9], [9, 9, 3, 3]]
    small = combined(detections(boxes), (40, 48), CIHP)
    monkeypatch.undo()
    assert torch.equal(small.person_maps, combined(detections(boxes), (40, 48), CIHP).person_maps)


@pytest.mark.parametrize(
    "made",
    [
        lambda result: result[[2, 0]],
        lambda result: result[:0],
        lambda result: result.above(0.3),
        lambda result: result.remap("body"),
        lambda result: result.cpu(),
        copy.deepcopy,
        lambda result: pickle.loads(pickle.dumps(result)),
    ],
    ids=["index", "nobody", "above", "remap", "cpu", "deepcopy", "pickle"],
)
def test_results_of_results_keep_their_crops_and_have_the_same_maps(made, pair):
    whole, small = map(made, pair)
    assert isinstance(kept(small), PersonCrops)
    assert torch.equal(whole.person_maps, small.person_maps) and torch.equal(whole.instance_map, small.instance_map)


def test_every_file_is_the_same_and_no_map_is_made_for_it(pair, tmp_path):
    photo = np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8)
    kinds = [kind for kind in saving.KINDS if kind != "probabilities"]
    paths = [result.save(tmp_path / str(i), "a", photo, kinds) for i, result in enumerate(pair)]
    assert [path.name for path in paths[0]] == [path.name for path in paths[1]]
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(*paths, strict=True))
    assert isinstance(kept(pair[1]), PersonCrops)


def test_maps_that_were_read_can_be_edited(pair):
    small = pair[1]
    small.person_maps[0] = 7
    assert (small.person_map(0) == 7).all() and (small.people[0] == 7).all()
    assert small.record()["people"][0]["parts"] == [CIHP.names[7]]
    small.person_maps = torch.zeros_like(small.person_maps)
    assert not small.person_map(1).any()
