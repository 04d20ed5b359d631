"""paste_parsing against its reference; its meaning is tested in test_combine.py."""

import math

import pytest
import torch
from helpers.pasting import K, assert_agree, scene

from rpcnn.ops import paste_parsing, paste_parsing_reference, sampling


def both(probabilities, boxes, image_size, painted, semantic=None, **options):
    """Results of the compiled and the reference implementation."""
    covered = options.pop("semantic_size", None)
    got = paste_parsing(probabilities, boxes, image_size, painted, semantic=semantic, semantic_size=covered, **options)
    knobs = {"semantic_weight": 0.0, "semantic_gate": math.inf, "paint_labels": True, "with_people": True} | options
    covered = covered or tuple(map(float, image_size))
    want = paste_parsing_reference(
        probabilities, boxes, painted.to(torch.uint8), semantic, *covered, *image_size, *knobs.values()
    )
    return got, want


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (37, 53), (130, 65)])
@pytest.mark.parametrize("map_size", [(1, 1), (8, 8), (16, 5)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"semantic_weight": 0.2, "semantic_gate": 0.7},
        {"semantic_weight": 0.2, "semantic_gate": math.inf},
        {"semantic_gate": -math.inf, "paint_labels": False, "with_people": False},
    ],
)
def test_agrees_with_the_definition(size, map_size, options):
    probabilities, boxes, painted, semantic = scene(size=size, map_size=map_size)
    covered = (size[0] * 1.1, size[1] * 1.05) if options else None
    assert_agree(
        both(probabilities, boxes, size, painted, semantic if options else None, semantic_size=covered, **options)
    )


def test_invalid_or_outside_boxes_paint_nothing():
    probabilities, boxes, _, _ = scene(people=5)
    boxes[0] = torch.tensor([math.nan, 0, 5, 5])
    boxes[1] = torch.tensor([0, 0, math.inf, 5])
    boxes[2] = torch.tensor([9.0, 9, 4, 4])
    boxes[3] = torch.tensor([500.0, 500, 600, 600])
    got, want = both(probabilities, boxes, (37, 53), torch.ones(5, dtype=torch.bool))
    assert not got[2][:4].any() and set(got[1].unique().tolist()) <= {0, 5}
    assert_agree((got, want))


def test_nan_is_below_every_number():
    probabilities, boxes, painted, semantic = scene()
    probabilities[:, 3], probabilities[0, :, 2:4, 2:4] = math.nan, math.nan
    semantic[5, 3:6], semantic[:, 0, 0] = math.nan, math.nan
    for options in ({}, {"semantic_weight": 0.2, "semantic_gate": 0.1}):
        got, want = both(probabilities, boxes, (37, 53), painted, semantic if options else None, **options)
        assert_agree((got, want))
        assert not (got[2] == 3).any()


def test_without_people_and_global_map_result_is_empty():
    labels, instances, people = paste_parsing(torch.zeros(0, K, 8, 8), torch.zeros(0, 4), (5, 6))
    assert not labels.any() and not instances.any() and people.shape == (0, 5, 6)


def test_equal_probabilities_take_the_lower_class():
    labels, _, people = paste_parsing(torch.full((1, 3, 4, 4), 0.25), torch.tensor([[0.0, 0, 6, 5]]), (5, 6))
    assert not people.any() and not labels.any()  # class 0 ties with the others


def test_any_number_of_threads_gives_the_same():
    arguments = scene(people=9, size=(200, 301), map_size=(32, 32))
    threads, results = torch.get_num_threads(), []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        results.append(
            paste_parsing(*arguments[:2], (200, 301), arguments[2], semantic=arguments[3], semantic_weight=0.2)
        )
    torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_reference_strips_do_not_change_the_result(monkeypatch):
    probabilities, boxes, painted, semantic = scene()
    arguments = (probabilities, boxes, painted.to(torch.uint8), semantic, 37.0, 53.0, 37, 53, 0.2, 0.3, True, True)
    whole = paste_parsing_reference(*arguments)
    monkeypatch.setattr(sampling, "STRIP_NUMBERS", 3 * 53 * K)
    assert all(torch.equal(a, b) for a, b in zip(whole, paste_parsing_reference(*arguments), strict=True))


@pytest.mark.parametrize("strided", [0, 1, 2])
def test_layouts_do_not_matter(strided):
    probabilities, boxes, painted, semantic = scene()
    want = paste_parsing(probabilities, boxes, (37, 53), painted, semantic=semantic, semantic_weight=0.2)
    spread = [t.repeat_interleave(2, -1)[..., ::2] for t in (probabilities, boxes, semantic)]
    arguments = [spread[i] if i == strided else t for i, t in enumerate((probabilities, boxes, semantic))]
    got = paste_parsing(*arguments[:2], (37, 53), painted, semantic=arguments[2], semantic_weight=0.2)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": torch.zeros(5, K, 8)}, r"probabilities must be \[R, K, h, w\], got \[5, 20, 8\]"),
        ({"probabilities": torch.zeros(5, 257, 2, 2)}, "at most 256 classes, got 257"),
        ({"boxes": torch.zeros(4, 4)}, r"boxes must be \[5, 4\], got \[4, 4\]"),
        ({"boxes": torch.zeros(5, 4, dtype=torch.int64)}, "boxes must be float32, float64, .* got torch.int64"),
        ({"image_size": (0, 5)}, "image_size must be positive"),
        ({"painted": torch.ones(5)}, r"painted must be bool \[5\], got torch.float32 \[5\]"),
        ({"semantic": torch.zeros(3, 4, 4)}, r"semantic must be \[20, hs, ws\]"),
        ({"semantic": torch.zeros(K, 4, 4), "semantic_size": (30, 53)}, "semantic_size must cover the image"),
        ({"semantic": torch.zeros(K, 4, 4), "semantic_size": (math.inf, math.inf)}, "semantic_size must be a finite"),
        ({"semantic_gate": math.nan}, "semantic_gate must be a number or infinite"),
        ({"boxes": torch.zeros(5, 4, device="meta")}, "boxes must be on cpu, got meta"),
    ],
)
def test_bad_input(change, message):
    probabilities, boxes, painted, _ = scene()
    arguments = {"probabilities": probabilities, "boxes": boxes, "image_size": (37, 53), "painted": painted} | change
    with pytest.raises(ValueError, match=message):
        paste_parsing(**arguments)
