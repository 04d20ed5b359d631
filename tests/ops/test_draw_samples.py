"""draw_samples: positives and negatives with the smallest random keys."""

import pytest
import torch

from rpcnn.ops import draw_samples, draw_samples_reference
from rpcnn.ops.match_boxes import BACKGROUND, IGNORED

both = pytest.mark.parametrize("draw", [draw_samples, draw_samples_reference], ids=["op", "reference"])


def kinds(n):
    return torch.tensor([IGNORED, BACKGROUND, BACKGROUND, 0, 5])[torch.randint(0, 5, (n,))]


@pytest.mark.parametrize("negatives", [True, False])
@pytest.mark.parametrize("max_positive", [0, 1, 20, 1000])
@pytest.mark.parametrize("count", [0, 1, 40, 2000])
@pytest.mark.parametrize("n", [0, 1, 17, 1500])
def test_equals_reference(n, count, max_positive, negatives):
    arguments = kinds(n), torch.rand(n), count, max_positive, negatives
    got = draw_samples(*arguments)
    assert [t.shape for t in got] == [(min(n, count),)] * 2
    assert all(map(torch.equal, got, draw_samples_reference(*arguments)))


@both
def test_positives_come_first_each_kind_by_key(draw):
    matched = torch.tensor([4, BACKGROUND, 0, IGNORED, BACKGROUND, 7, BACKGROUND])
    keys = torch.tensor([0.9, 0.3, 0.2, 0.0, 0.1, 0.5, 0.4])
    samples, people = draw(matched, keys, 5, 2)
    assert samples.tolist() == [2, 5, 4, 1, 6] and people.tolist() == [0, 7] + [BACKGROUND] * 3
    assert draw(matched, keys, 3, 2)[0].tolist() == [2, 5, 4]
    assert draw(matched, keys, 7, 7, negatives=False)[1].tolist() == [0, 7, 4] + [IGNORED] * 4


@both
def test_padding(draw):
    samples, people = draw(torch.tensor([IGNORED, 3, BACKGROUND, IGNORED]), torch.rand(4), 4, 2)
    assert samples.tolist() == [1, 2, 0, 0] and people.tolist() == [3, BACKGROUND, IGNORED, IGNORED]


@both
def test_keys_that_are_equal_or_beyond_the_range(draw):
    nan, inf = float("nan"), float("inf")
    keys = torch.tensor([0.5, -1.0, nan, 0.0, 0.5, inf, 0.99999994, -0.0, -inf, 1.0, 3.0, 0.5])
    for matched in (torch.full((12,), BACKGROUND), torch.full((12,), 1)):
        assert draw(matched, keys, 12, 12)[0].tolist() == [1, 3, 7, 8, 0, 4, 11, 6, 2, 5, 9, 10]


def test_any_strides():
    matched, keys = kinds(60), torch.rand(60)
    got = draw_samples(torch.stack([matched, matched], 1)[:, 0], keys.repeat_interleave(2)[::2], 20, 5)
    assert all(map(torch.equal, got, draw_samples(matched, keys, 20, 5)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"matched": None}, "matched must be a tensor, got None"),
        ({"matched": torch.zeros(5)}, r"matched must be int64 \[n\], got torch.float32 \[5\]"),
        ({"matched": torch.zeros(5, 1).long()}, r"matched must be int64 \[n\], got torch.int64 \[5, 1\]"),
        ({"keys": torch.zeros(4)}, r"keys must be float32 \[5\] on cpu, got torch.float32 \[4\] on cpu"),
        ({"keys": torch.zeros(5).double()}, r"keys must be float32 \[5\] on cpu, got torch.float64"),
        ({"keys": torch.zeros(5, device="meta")}, r"keys must be float32 \[5\] on cpu, got .* on meta"),
        ({"count": -1}, "count must be >= 0, got -1"),
        ({"count": 2.5}, "count must be an integer, got 2.5"),
        ({"max_positive": -1}, "max_positive must be >= 0, got -1"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {"matched": torch.zeros(5, dtype=torch.int64), "keys": torch.rand(5), "count": 3, "max_positive": 2}
    with pytest.raises(ValueError, match=f"^draw_samples: {message}"):
        draw_samples(**arguments | change)
