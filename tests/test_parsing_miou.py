import pytest
import torch
from layouts import LAYOUTS, compiled

from rpcnn.ops import parsing_miou, parsing_miou_reference

needs_kernels = pytest.mark.skipif(not compiled, reason="needs the compiled kernels")
INTEGERS = [torch.uint8, torch.int32, torch.int64]


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
    out = parsing_miou(logits.to(dtype), target.to(integer))
    torch.testing.assert_close(out, parsing_miou_reference(logits.to(dtype), target))


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


def test_the_easy_cases():
    target = torch.tensor([[[1, 2]], [[0, 0]], [[1, 1]], [[255, 255]]])
    prediction = torch.tensor([[[1, 2]], [[0, 0]], [[2, 2]], [[1, 2]]])
    # equal: 1; only background: 1 (the one class present); disjoint: 0; nothing valid: 0
    assert parsing_miou(prediction, target, 3).tolist() == [1, 1, 0, 0]


def test_targets_outside_the_classes_are_ignored():
    target = torch.tensor([[[0, 1, -1, 7, 2**40]]])
    assert parsing_miou(torch.tensor([[[0, 1, 0, 1, 2]]]), target, 3).item() == 1


def test_predictions_outside_the_classes_are_wrong():
    # class 1: 1 of 2 (one truth pixel is predicted 9); class 0 absent from both
    assert parsing_miou(torch.tensor([[[1, 9]]]), torch.tensor([[[1, 1]]]), 3).item() == 0.5


def test_ties_and_nan():
    logits = torch.tensor([[1.0, 0.0, float("nan")], [1.0, float("nan"), float("nan")]]).view(1, 2, 1, 3)
    assert parsing_miou(logits, torch.zeros(1, 1, 3, dtype=torch.int64)).item() == 1  # label 0 every time


def test_not_differentiable():
    logits, target = case()
    assert not parsing_miou(logits.requires_grad_(), target).requires_grad


@needs_kernels
def test_opcheck():
    torch.library.opcheck(torch.ops.rpcnn.parsing_miou, (*case(2, 3, (4, 5)), 3, 255))


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
    ],
)
def test_bad_input_is_named(prediction, target, classes, message):
    with pytest.raises(ValueError, match=message):
        parsing_miou(prediction, target, classes)
