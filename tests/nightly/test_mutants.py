"""The mutation table matches the current kernels (tests/nightly/mutants.py writes it)."""

import pathlib

import pytest
from mutants import ALL, MUTANTS, ROOT

pytestmark = pytest.mark.nightly
TABLE = (pathlib.Path(__file__).parent / "MUTANTS.md").read_text("utf-8")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.op}: {m.what}")
def test_every_mutant_was_caught(mutant):
    (row,) = [line for line in TABLE.splitlines() if line.startswith(f"| {mutant.op} | {mutant.what} |")]
    assert row.endswith((" | emulator |", " | thread sanitizer |", " | address sanitizer |"))


def test_the_table_has_no_other_rows():
    assert sum(line.startswith("| ") for line in TABLE.splitlines()) == len(MUTANTS) + 1


@pytest.mark.parametrize("mutant", ALL, ids=lambda m: f"{m.op}: {m.what}")
def test_every_mutant_still_changes_the_kernels(mutant):
    source = (ROOT / "csrc" / mutant.file).read_text("utf-8")
    assert source.count(mutant.old) > mutant.nth and mutant.old != mutant.new
