"""The self-check's statistics, its report on disk, and the comparison of two."""

import dataclasses
import random
import subprocess

import pytest

from rpcnn.commands import UserError
from rpcnn.selfcheck.__main__ import main
from rpcnn.selfcheck.compare import comparison
from rpcnn.selfcheck.report import Report, Row, commit_of, load_json, markdown, save_json
from rpcnn.selfcheck.times import Times, ratio_interval, verdict


def around(center, width, count=30, seed=0):
    draw = random.Random(seed)
    return Times(tuple(center + width * (draw.random() - 0.5) for _ in range(count)))


def test_quartiles_and_outliers():
    times = Times((5.0, 1.0, 2.0, 3.0, 4.0, 100.0, -50.0))
    assert times.median == 3.0 and times.quartiles == (1.5, 4.5) and times.outliers == 2
    assert Times((7.0,)).quartiles == (7.0, 7.0) and Times((7.0,)).outliers == 0


@pytest.mark.parametrize(("count", "ranks"), [(1, (1, 1)), (5, (1, 5)), (6, (1, 6)), (30, (10, 21)), (100, (40, 61))])
def test_the_interval_has_the_ranks_of_the_binomial_table(count, ranks):
    assert Times(tuple(map(float, range(1, count + 1)))).interval == ranks


def test_the_interval_holds_the_true_median_95_times_in_100():
    draw = random.Random(0)
    lows_and_highs = [Times(tuple(draw.expovariate(1.0) for _ in range(30))).interval for _ in range(1000)]
    assert sum(low <= 0.693147 <= high for low, high in lows_and_highs) >= 940


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (around(100, 1), "same"),
        (around(101, 0.5), "same"),  # surely slower, but by less than what clocks do
        (around(90, 2), "faster"),
        (around(110, 2), "slower"),
        (around(98, 20), "unclear"),
        (around(100, 60), "unclear"),
    ],
)
def test_verdicts(after, said):
    assert verdict(around(100, 1, seed=1), after) == said


def test_the_ratio_allows_for_both_intervals():
    assert ratio_interval(Times((10.0, 20.0)), Times((30.0, 40.0))) == (1.5, 4.0)


@pytest.fixture
def report():
    row = Row(
        op="roi_align",
        direction="forward",
        dtype="float32",
        cold=Times((100.0, 110.0, 120.0)),
        warm=Times((80.0, 80.0, 80.0)),
        moved=220_000_000,
        timed_by="graph",
        megahertz=1755,
        commit="0123456789ab",
        command="python -m rpcnn.selfcheck --no-checks --only 'roi_align forward float32'",
    )
    checks = {"roi_align": {"definition": "ok", "graph": "FAILED: AssertionError: results of the replay differ"}}
    return Report("NVIDIA H100", "2026-11-26", "0123456789ab", "rpcnn 0.2", checks, 2500.0, [row])


def test_the_text_is_one_table_with_commit_and_command(report):
    text = markdown(report)
    assert "1 checks failed." in text and "Copying 256 MB: 2500 GB/s" in text
    assert (
        "| roi_align | forward | float32 | 110 | 105 to 115 | 0 of 3 | 80 | 80 to 80 | 0 of 3 | 2000 | 80 % | graph "
        "| 1755 | 0123456789ab | `python -m rpcnn.selfcheck --no-checks --only 'roi_align forward float32'` |"
    ) in text.splitlines()
    widths = {
        line.count("|") for line in text.splitlines() if line.startswith("| roi_align | forward") or "warm, µs" in line
    }
    assert len(widths) == 1


def test_long_times_are_written_without_an_exponent(report):
    report.rows[0].warm = Times((123456.7,))
    assert "| 123457 | 123457 to 123457 |" in markdown(report)


def test_small_inputs_have_no_cold_time(report):
    report.rows[0].cold = report.rows[0].megahertz = None
    assert "| float32 | – | – | – | 80 |" in markdown(report) and "| 2750 | – | graph | – |" in markdown(report)


def test_a_report_is_read_as_it_was_written(report, tmp_path):
    save_json(report, tmp_path / "report.json")
    assert load_json(tmp_path / "report.json") == report


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 2}', '{"format": 1, "rows": [{}]}', '{"format": 1, "rows": []}']
)
def test_another_file_is_refused_by_name(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json must be a JSON report of rpcnn selfcheck in format 1"):
        load_json(path)


def test_a_comparison_has_a_verdict_for_cold_and_warm(report, tmp_path, capsys):
    (new,) = report.rows
    new = dataclasses.replace(new, cold=Times((50.0, 51.0, 52.0)), commit="fedcba987654")
    after = dataclasses.replace(report, rows=[new], commit="fedcba987654")
    for name, one in (("a", report), ("b", after)):
        save_json(one, tmp_path / f"{name}.json")
    assert main(["--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "Before: NVIDIA H100, 2026-11-26, commit 0123456789ab",
        "After: NVIDIA H100, 2026-11-26, commit fedcba987654",
    ]
    assert "| roi_align | forward | float32 | cold | 110 | 51 | 0.417 to 0.520 | faster |" in lines
    assert "| roi_align | forward | float32 | warm | 80 | 80 | 1.000 to 1.000 | same |" in lines


def test_other_devices_and_missing_rows_are_told(report):
    after = dataclasses.replace(report, device="NVIDIA A100", rows=[])
    text = comparison(report, after)
    assert "The devices differ" in text and "Only before: roi_align forward float32." in text


def test_a_missing_report_ends_with_one_line(tmp_path, capsys):
    with pytest.raises(UserError):
        main(["--compare", str(tmp_path / "none.json"), str(tmp_path / "none.json")])
    assert "none.json" in capsys.readouterr().err


def test_the_commit_is_that_of_the_checkout(tmp_path):
    assert commit_of(tmp_path) == ""
    git = lambda *words: subprocess.run(
        ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words],
        check=True,
        capture_output=True,
    )
    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file"), git("commit", "-m", "one")
    clean = commit_of(tmp_path)
    assert len(clean) == 12
    (tmp_path / "file").write_text("2")
    assert commit_of(tmp_path) == clean + "+"
