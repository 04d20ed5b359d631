import pytest
import torch
from helpers.layouts import LAYOUTS, needs_kernels

from rpcnn.ops import parsing_miou, parsing_miou_reference

INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


def case(rois=5, classes=20, size=(33, 40)):
    logits = torch.randn(rois, classes, *size)
    target = torch.randint(0, classes, (rois, *size))
    near = torch.rand(rois, *size) < 0.6
    target[near] = logits.argmax(1)[near]
    target[torch.rand(rois, *size) < 0.1] = 255
    return logits, target


@pytest.mark.parametrize("size", [(1, 1), (33, 40), (64, 64)])
@pytest.mark.parametrize(("rois", "classes"), [(0, 3), (1, 1), (5, 20), (17, 59)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_reference(layout, rois, classes, size):
    logits, target = case(rois, classes, size)
    out = parsing_miou(LAYOUTS[layout](logits), target)
    assert out.shape == (rois,) and out.dtype == torch.float32
    torch.testing.assert_close(out, parsing_miou_reference(logits, target), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("integer", INTEGERS)
def test_dtypes(integer, dtype):
    logits, target = case()
    target[target == 255] = 100  # fits int8
    out = parsing_miou(logits.to(dtype), target.to(integer), ignore_index=100)
    torch.testing.assert_close(out, parsing_miou_reference(logits.to(dtype), target, ignore_index=100))


@pytest.mark.parametrize("integer", INTEGERS)
def test_labels_give_what_their_logits_give(integer):
    logits, target = case()
    torch.testing.assert_close(parsing_miou(logits.argmax(1).to(integer), target, 20), parsing_miou(logits, target))


def test_by_hand():
    # truth 0 0 1 1 / 2 2 . .   prediction 0 1 1 1 / 2 0 0 1   ('.' ignored)
    target = torch.tensor([[[0, 0, 1, 1], [2, 2, 255, 255]]])
    prediction = torch.tensor([[[0, 1, 1, 1], [2, 0, 0, 1]]])
    # class 0: 1 of {2 truth + 2 predicted − 1} = 1/3; class 1: 2 of {2 + 3 − 2} = 2/3; class 2: 1 of {2 + 1 − 1} = 1/2
    assert parsing_miou(prediction, target, 3).item() == pytest.approx((1 / 3 + 2 / 3 + 1 / 2) / 3)


def test_trivial_cases():
    target = torch.tensor([[[1, 2]], [[0, 0]], [[1, 1]], [[255, 255]]])
    prediction = torch.tensor([[[1, 2]], [[0, 0]], [[2, 2]], [[1, 2]]])
    # equal: 1; only background: 1 (the one class present); disjoint: 0; nothing valid: 0
    assert parsing_miou(prediction, target, 3).tolist() == [1, 1, 0, 0]


def test_targets_outside_the_classes_are_ignored():
    target = torch.tensor([[[0, 1, -1, 7, 2**40]]])
    assert parsing_miou(torch.tensor([[[0, 1, 0, 1, 2]]]), target, 3).item() == 1


def test_predictions_outside_the_classes_count_as_errors():
    # class 1: 1 of 2 (one truth pixel is predicted 9); class 0 absent from both
    assert parsing_miou(torch.tensor([[[1, 9]]]), torch.tensor([[[1, 1]]]), 3).item() == 0.5


def test_ties_and_nan():
    logits = torch.tensor([[1.0, 0.0, float("nan")], [1.0, float("nan"), float("nan")]]).view(1, 2, 1, 3)
    assert parsing_miou(logits, torch.zeros(1, 1, 3, dtype=torch.int64)).item() == 1  # label 0 every time


def test_ignore_index_may_be_a_class():
    # without the two pixels of class 0: one pixel of class 1, right; predictions under ignored targets do not count
    assert parsing_miou(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 1]]]), 2, ignore_index=0).item() == 1


def test_no_pixels_score_zero():
    assert parsing_miou(torch.zeros(2, 3, 0, 4), torch.zeros(2, 0, 4, dtype=torch.uint8)).tolist() == [0, 0]


def test_thread_count_changes_neither_output_nor_input():
    logits, target = case(9)
    before, results = (logits.clone(), target.clone()), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(parsing_miou(logits, target))
    assert torch.equal(*results) and torch.equal(logits, before[0]) and torch.equal(target, before[1])


def test_not_differentiable():
    logits, target = case()
    assert not parsing_miou(logits.requires_grad_(), target).requires_grad


@needs_kernels
def test_vmap_scores_every_slice():
    logits, target = case(6)
    out = torch.vmap(parsing_miou)(logits.view(2, 3, *logits.shape[1:]), target.view(2, 3, *target.shape[1:]))
    assert torch.equal(out.flatten(), parsing_miou(logits, target))


@needs_kernels
def test_compiles_without_a_graph_break():
    logits, target = case()

    def twice(logits, target):
        return parsing_miou(logits, target) * 2

    compiled_twice = torch.compile(twice, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled_twice(logits, target), twice(logits, target))


@pytest.mark.parametrize(
    ("prediction", "target", "classes", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 5, dtype=torch.int64), None, "target must cover"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4), None, "target must hold integers"),
        (torch.zeros(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64), 3, "must hold integers where it is"),
        (
            torch.zeros(2, 4, 4, dtype=torch.int64),
            torch.zeros(2, 4, 4, dtype=torch.int64),
            None,
            "num_classes must be given",
        ),
        (
            torch.zeros(2, 3, 4, 4),
            torch.zeros(2, 4, 4, dtype=torch.int64),
            5,
            "num_classes must be the logits' channels",
        ),
        (torch.zeros(2, 3), torch.zeros(2, 4, 4, dtype=torch.int64), 5, "logits_or_labels must be"),
        (torch.zeros(2, 0, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64), None, "classes must be 1 to 4096, got 0"),
        (
            torch.zeros(2, 4, 4, dtype=torch.int64),
            torch.zeros(2, 4, 4, dtype=torch.int64),
            5000,
            "classes must be 1 to 4096, got 5000",
        ),
        (torch.zeros(2, 3, 4, 4), [[0]], None, "target must be a tensor, got list"),
    ],
)
def test_bad_input_is_named(prediction, target, classes, message):
    with pytest.raises(ValueError, match=message):
        parsing_miou(prediction, target, classes)


@needs_kernels
@pytest.mark.parametrize(
    ("prediction", "target", "classes"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 5, dtype=torch.int64), 3),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4), 3),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64), 5),
        (torch.zeros(2, 3, 4, 4, dtype=torch.int64), torch.zeros(2, 4, 4, dtype=torch.int64), 3),
        (torch.zeros(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64), 3),
        (torch.zeros(2, 4, 4, dtype=torch.int64), torch.zeros(2, 4, 4, dtype=torch.int64), 2**40),
        (torch.zeros(5), torch.zeros(2, 4, 4, dtype=torch.int64), 3),
    ],
)
def test_the_dispatcher_refuses_bad_input(prediction, target, classes):
    with pytest.raises(RuntimeError, match="parsing_miou: "):
        torch.ops.rpcnn.parsing_miou(prediction, target, classes, 255)
