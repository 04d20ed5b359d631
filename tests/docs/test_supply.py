"""What comes with the package is listed, and what is in the repository belongs there."""

import re
import subprocess
import tomllib

import pytest
from helpers.markdown import ROOT

SUFFIXES = {
    *("", ".py", ".pyi", ".typed", ".toml", ".in", ".md", ".txt", ".ipynb", ".js", ".css", ".html", ".sh", ".yaml"),
    *(".yml", ".npz", ".h", ".c", ".cpp", ".cu", ".cuh", ".tsv", ".png", ".jpg", ".json", ".jsonl", ".safetensors"),
}


def test_every_dependency_has_a_lower_bound_and_a_listed_license():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = dict(re.findall(r"^\| `([\w-]+)` \| [^|]+ \| ([^|]+) \|$", (ROOT / "docs/trust.md").read_text(), re.M))
    names = [re.fullmatch(r"([\w-]+)>=[\d.]+", line) for line in project["dependencies"]]
    assert all(names), project["dependencies"]
    assert {match.group(1) for match in names} == listed.keys() & {match.group(1) for match in names}


def test_the_repository_holds_no_strange_or_huge_file():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("no git repository here")
    files = [ROOT / name for name in listing.stdout.split("\0") if name]
    strange = [path for path in files if path.suffix not in SUFFIXES]
    limits = {path: 20 << 20 if path.suffix == ".safetensors" else 512 << 10 for path in files if path.is_file()}
    assert strange + [path for path, limit in limits.items() if path.stat().st_size > limit] == []
