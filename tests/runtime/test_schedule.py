import pytest

from rpcnn.runtime.schedule import learning_rate

PAPER = dict(base=0.02, batch_size=16, steps=(105_000, 125_000), warmup_iterations=1000)


@pytest.mark.parametrize(
    ("iteration", "rate"),
    # it 1: 0.02 · (1e-4 · 0.999 + 0.001) = 2.1998e-5
    [(1, 2.1998e-5), (1000, 0.02), (104_999, 0.02), (105_000, 0.002), (125_000, 0.0002), (135_000, 0.0002)],
)
def test_the_papers_cihp_schedule(iteration, rate):
    assert learning_rate(iteration, **PAPER) == pytest.approx(rate)


def test_linear_rule():
    assert learning_rate(50_000, **{**PAPER, "batch_size": 4}) == pytest.approx(0.005)


def test_no_warmup():
    assert learning_rate(1, 0.02, 16, (), 0) == 0.02


def test_cosine_decays_from_the_base_rate_to_zero():
    rate = lambda iteration: learning_rate(iteration, 0.02, 16, (500,), 100, cosine_over=1100)
    assert [rate(100), rate(600), rate(1100)] == pytest.approx([0.02, 0.01, 0.0])
