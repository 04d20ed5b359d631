"""Backbones whose first stages do not train."""

from collections.abc import Sequence

from torch import nn


class FreezableBackbone(nn.Module):
    """What the package's own backbones share: `freeze`, and a `train` that leaves frozen stages alone."""

    frozen: Sequence[nn.Module] = ()

    def freeze(self, stages: Sequence[nn.Module], freeze_at: int) -> None:
        """Freezes the first `freeze_at` of the five stages (the stem and those of C2..C5).

        Their parameters do not train, and they stay in eval mode, so that batch norms keep their statistics. Raises
        ValueError unless freeze_at is in 0..5.
        """
        if not 0 <= freeze_at <= len(stages):
            raise ValueError(f"backbone: freeze_at must be in 0..{len(stages)}, got {freeze_at}")
        self.frozen = tuple(stages[:freeze_at])  # in a tuple, because the body has registered these modules already
        for stage in self.frozen:
            stage.requires_grad_(False).eval()

    def train(self, mode: bool = True):
        super().train(mode)
        for stage in self.frozen:
            stage.eval()
        return self
