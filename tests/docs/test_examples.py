"""Every program of examples/ runs, each with the arguments given here, and so does the notebook."""

import json
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


def test_the_cells_of_the_notebook_run_in_order(workshop):
    book = json.loads((ROOT / "examples" / "first_steps.ipynb").read_text(encoding="utf-8"))
    names = {"__name__": "notebook"}
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]  # what they show depends on the run
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert len(names["result"]) and names["results"]["images"] == 4


def test_the_others_have_a_test_of_their_own():
    for name, test in TESTED_ELSEWHERE.items():
        assert pathlib.Path(name).stem in (ROOT / test).read_text(encoding="utf-8")


def test_the_list_names_every_example():
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert [name for name in (*EXAMPLES, "first_steps.ipynb") if f"`{name}`" not in text] == []
