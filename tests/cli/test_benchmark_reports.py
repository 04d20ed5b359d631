"""benchmarks/compare.py says what changed only where the intervals say so."""

import sys

import pytest
from helpers.markdown import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from compare import comparison


def report(*ours: float, baseline: float = 10.0) -> dict:
    row = {
        "op": "nms",
        "case": "2,000 boxes",
        "ours": {"samples": ours},
        "baseline": {"samples": [baseline] * len(ours)},
    }
    return {"machine": "some", "rows": [row]}


STEADY = (1.0, 1.001, 0.999, 1.0, 1.002, 1.0, 0.998, 1.0, 1.0)


@pytest.mark.parametrize(
    ("after", "word"),
    [
        (report(*STEADY), "same"),
        (report(*(0.8 * time for time in STEADY)), "faster"),
        (report(*(1.2 * time for time in STEADY)), "slower"),
        (report(*(3 * time for time in STEADY), baseline=30.0), "same"),  # a slower machine
        (report(0.5, 0.6, 0.9, 1.0, 1.1, 1.4, 1.5, 2.0, 3.0), "unclear"),
    ],
)
def test_a_verdict_follows_the_intervals(after, word):
    assert comparison(report(*STEADY), after).splitlines()[-1].endswith(f" {word} |")


def test_cases_of_one_report_only_are_named():
    assert "Only before: nms 2,000 boxes." in comparison(report(*STEADY), {"machine": "some", "rows": []})
