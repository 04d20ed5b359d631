"""The gradients of a batch in parts, and batches that do not fit into memory."""

import pytest
import torch
from helpers.models import scene, tiny

from rpcnn.training.step import Step

SIZES = [(64, 96), (96, 64), (64, 64), (80, 96)]


def batch():
    images, targets = zip(*(scene(n, *size) for n, size in enumerate(SIZES)), strict=True)
    padded = tuple(max(side) for side in zip(*SIZES, strict=True))
    return list(images), [target | {"seed": n, "padded_to": padded} for n, target in enumerate(targets)]


def step(model, parts, say=print):
    return Step(model, model, parts, None, scaler=torch.amp.GradScaler("cpu", enabled=False), say=say)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def run(parts, say=print, model=None, images=None):
    model = (model or tiny()).train()
    return step(model, parts, say)(*batch()), gradients(model)


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_give_the_losses_and_gradients_of_the_whole_batch(parts):
    losses, whole = run(1)
    again, split = run(parts)
    for name, value in losses.items():
        assert again[name].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-7), name
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max() + 1))


def test_counting_leaves_running_statistics_alone():
    model = tiny(backbone_norm="bn").train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    counts = model.counts(*batch())
    assert (counts > 0).all()
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


class SmallMemory:
    """Raises torch's out-of-memory error for more than `most` images at a time."""

    def __init__(self, model, most, monkeypatch):
        forward = model.forward

        def limited(images, *rest):
            if len(images) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(images, *rest)

        monkeypatch.setattr(model, "forward", limited)


def test_a_batch_that_does_not_fit_is_repeated_in_parts(monkeypatch):
    losses, whole = run(1)
    model, said = tiny(), []
    SmallMemory(model, 1, monkeypatch)
    again, split = run(1, said.append, model)
    assert [line.split("repeated in ")[1] for line in said] == ["2 parts", "4 parts"]
    assert sum(again.values()).item() == pytest.approx(sum(losses.values()).item(), rel=1e-5)
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max() + 1))


def test_an_image_that_does_not_fit_names_the_remedy(monkeypatch):
    model = tiny()
    SmallMemory(model, 0, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError, match=r"CUDA out of memory\nA single image does not fit: use smaller"):
        run(1, lambda line: None, model)
