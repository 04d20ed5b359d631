"""A moving average of the weights, which often predicts better than the last ones."""

import copy

import torch
from torch import nn


class MovingAverage:
    """Exponential moving average of a model's weights.

    After n updates the average keeps min(decay, (1 + n) / (10 + n)) of itself, so that the first, random weights are
    soon forgotten. Buffers are copied.

    Args:
        model: is copied; the copy is `self.model`.
        decay: part of the average that an update keeps, in 0..1; 0.999 averages some thousand steps.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights of `model`, which has the same tensors."""
        kept = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - kept)
        for own, new in zip(self.model.buffers(), model.buffers(), strict=True):
            own.copy_(new)

    def state_dict(self) -> dict:
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]
