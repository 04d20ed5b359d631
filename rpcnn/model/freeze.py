"""Freezing the first stages of a backbone."""

from collections.abc import Sequence

from torch import nn


class FreezableBackbone(nn.Module):
    """Base class of the package's own backbones: `freeze`, and a `train` that keeps frozen stages in eval mode."""

    frozen: Sequence[nn.Module] = ()

    def freeze(self, stages: Sequence[nn.Module], freeze_at: int) -> None:
        """Freeze the first `freeze_at` of the five stages: the stem and those of C2..C5.

        Their parameters get no gradient. They stay in eval mode, so that batch norms keep their statistics.

        Raises:
            ValueError: freeze_at is not in 0..5.
        """
        if not 0 <= freeze_at <= len(stages):
            raise ValueError(f"backbone: freeze_at must be in 0..{len(stages)}, got {freeze_at}")
        self.frozen = tuple(stages[:freeze_at])  # a tuple is not registered: these modules belong to the body
        for stage in self.frozen:
            stage.requires_grad_(False).eval()

    def train(self, mode: bool = True):
        super().train(mode)
        for stage in self.frozen:
            stage.eval()
        return self
