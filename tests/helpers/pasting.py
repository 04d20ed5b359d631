"""Inputs and comparison shared by the CPU and emulator tests of paste_parsing."""

import torch

K = 20


def scene(people=5, size=(37, 53), map_size=(8, 8), global_size=(10, 14), seed=0):
    """Random probabilities and boxes, some across the border; multiples of 1/256 keep sums of two exact."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.rand(*shape, generator=generator)
    probabilities = draw(people, K, *map_size).mul(256).round() / 256
    corner = draw(people, 2) * torch.tensor([size[1], size[0]]) - 6
    boxes = torch.cat([corner, corner + 2 + 30 * draw(people, 2)], 1)
    semantic = draw(K, *global_size).mul(256).round() / 256
    return probabilities, boxes, draw(people) < 0.7, semantic


def assert_agree(pair):
    """Assert equality up to ties: where two classes are equally probable, rounding may pick either."""
    for got, expected in zip(*pair, strict=True):
        assert got.dtype == expected.dtype and got.shape == expected.shape
        assert (got != expected).float().mean() < 2e-3 if got.numel() else True
