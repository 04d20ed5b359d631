"""Every program of examples/ runs, each with the arguments given here."""

import pathlib
import runpy
import sys

import pytest
from helpers.markdown import ROOT

ARGUMENTS = {
    "predict.py": ["photo.jpg", "--weights", "runs/painted", "--min-score", "0"],
}
TESTED_ELSEWHERE = {
    "own_backbone.py": "tests/model/test_own_backbone.py",
    "own_data.py": "tests/cli/test_datasets_guide.py",
}
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in TESTED_ELSEWHERE])
def test_example_runs(name, workshop, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, *ARGUMENTS.get(name, [])])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")


def test_the_others_have_a_test_of_their_own():
    for name, test in TESTED_ELSEWHERE.items():
        assert pathlib.Path(name).stem in (ROOT / test).read_text(encoding="utf-8")


def test_the_list_names_every_example():
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert [name for name in EXAMPLES if f"`{name}`" not in text] == []
