"""The CUDA kernel of paste_parsing, executed by the emulator."""

import math

import pytest
import torch
from helpers import emulator
from helpers.pasting import assert_agree, scene

from rpcnn.ops import paste_parsing_reference

DEFAULTS = {"semantic_weight": 0.0, "semantic_gate": math.inf, "paint_labels": True, "with_people": True}


def emulated(probabilities, boxes, size, painted, semantic=None, covered=None, **options):
    """Outputs of the kernel; each is filled with 77 before."""
    knobs = DEFAULTS | options
    (people, classes, *cells), (height, width) = probabilities.shape, size
    labels = torch.full(size, 77, dtype=torch.uint8)
    instances = torch.full(size, 77, dtype=torch.int32)
    each = torch.full((people if knobs["with_people"] else 0, *size), 77, dtype=torch.uint8)
    emulator.call(
        *("paste_parsing", probabilities, people, classes, *cells, boxes, painted.to(torch.uint8), semantic),
        *(semantic.shape[1:] if semantic is not None else (1, 1)),
        torch.tensor(covered or size, dtype=torch.float64),
        torch.tensor([knobs["semantic_weight"], knobs["semantic_gate"]]),
        *(height, width, labels, instances, each if knobs["with_people"] else None, knobs["paint_labels"]),
    )
    return labels, instances, each


def both(probabilities, boxes, size, painted, semantic=None, covered=None, **options):
    knobs = DEFAULTS | options
    want = paste_parsing_reference(
        *(probabilities, boxes, painted.to(torch.uint8), semantic, *(covered or map(float, size)), *size),
        *knobs.values(),
    )
    return emulated(probabilities, boxes, size, painted, semantic, covered, **options), want


@pytest.mark.parametrize("order", emulator.ORDERS, ids=lambda order: order[0])
@pytest.mark.parametrize(("size", "map_size"), [((1, 1), (8, 8)), ((7, 100), (1, 1)), ((37, 53), (16, 5))])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"semantic_weight": 0.2, "semantic_gate": 0.7},
        {"semantic_weight": 0.2},
        {"semantic_gate": -math.inf, "paint_labels": False, "with_people": False},
    ],
)
def test_agrees_with_the_definition(size, map_size, options, order):
    emulator.schedule(order)
    probabilities, boxes, painted, semantic = scene(size=size, map_size=map_size)
    covered = (size[0] * 1.1, size[1] * 1.05) if options else None
    assert_agree(both(probabilities, boxes, size, painted, semantic if options else None, covered, **options))


def test_more_people_than_one_chunk():
    emulator.schedule(emulator.ORDERS[2])
    probabilities, boxes, painted, _ = scene(people=300, size=(9, 40), map_size=(3, 3))
    assert_agree(both(probabilities, boxes, (9, 40), painted))


def test_no_people():
    labels, instances, people = emulated(torch.zeros(0, 3, 4, 4), torch.zeros(0, 4), (5, 6), torch.zeros(0))
    assert not labels.any() and not instances.any() and people.shape == (0, 5, 6)


def test_non_finite_or_empty_boxes_paint_nothing():
    probabilities, boxes, _, _ = scene(people=5)
    boxes[0] = torch.tensor([math.nan, 0, 5, 5])
    boxes[1] = torch.tensor([0, 0, math.inf, 5])
    boxes[2] = torch.tensor([9.0, 9, 4, 4])
    boxes[3] = torch.tensor([500.0, 500, 600, 600])
    got, want = both(probabilities, boxes, (37, 53), torch.ones(5, dtype=torch.bool))
    assert not got[2][:4].any()
    assert_agree((got, want))


def test_equal_probabilities_take_the_lower_class():
    painted = torch.ones(1, dtype=torch.bool)
    labels, _, people = emulated(torch.full((1, 3, 4, 4), 0.25), torch.tensor([[0.0, 0, 6, 5]]), (5, 6), painted)
    assert not people.any() and not labels.any()
