"""What the kernels' machine code executes for one small call of each op, counted without a GPU: it may only fall.

`cuda_counts.tsv` holds the limits; `python tests/nightly/test_cuda_counts.py` rewrites it.
Machine code depends on nvcc: the table names its version, and its limits are skipped for any other.
"""

import os
import pathlib
import sys

import pytest
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # run as a script

from helpers.machine_code import dump_machine_code, nvcc_version
from helpers.machine_ops import OnMachineCode

from rpcnn.ops._library import OPS
from rpcnn.selfcheck.cases import Case, cases, prepared

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(
        os.environ.get("RPCNN_MACHINE_CODE") != "1", reason="takes long; RPCNN_MACHINE_CODE=1 executes the machine code"
    ),
]
TABLE = pathlib.Path(__file__).parent / "cuda_counts.tsv"
COLUMNS = ("instructions", "sectors", "wavefronts")
ALLOWED = 1.001  # another CPU rounds the arguments of a backward differently, and a branch may depend on it


def whole_calls() -> list[Case]:
    """Cases with the gradient where there is one."""
    every = cases(OPS, halves=True)
    return [c for c in every if c.backward or Case(c.op, True, c.dtype) not in every]


def counted(case: Case) -> dict[str, dict[str, int]]:
    """The sums of COLUMNS over all launches of each kernel."""
    run, _, _ = prepared(case, OPS[case.op](small=True), torch.device("cpu"))
    with OnMachineCode() as executed:
        run()
    kernels = {}
    for launch in executed.launches:
        sums = kernels.setdefault(f"{case} {launch['kernel']}", dict.fromkeys(COLUMNS, 0))
        for key in ("instructions", "sectors"):
            sums[key] += launch[key]
        sums["wavefronts"] += launch["global"] + launch["shared"]
    return kernels


def read_table() -> tuple[str, dict[str, dict[str, int]]]:
    """The nvcc version that the table was made with, and its rows by case and kernel."""
    version, _, *lines = TABLE.read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    numbers = {name: dict(zip(COLUMNS, map(int, row), strict=True)) for name, *row in rows}
    return version.removeprefix("# nvcc "), numbers


@pytest.fixture(scope="module")
def machine_code(tmp_path_factory):
    path = tmp_path_factory.mktemp("machine_code") / "kernels.sass"
    dump_machine_code(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RPCNN_SIMT_SASS", str(path))
        yield


@pytest.fixture(scope="module")
def limits():
    made_with, rows = read_table()
    if (version := nvcc_version()) != made_with:
        pytest.skip(f"cuda_counts.tsv was made with nvcc {made_with}, the kernels with nvcc {version}")
    return rows


@pytest.mark.parametrize("case", whole_calls(), ids=str)
def test_no_kernel_executes_more_than_the_table_says(case, machine_code, limits):
    kernels = counted(case)
    assert kernels and kernels.keys() <= limits.keys()
    worse = {k: (own, limits[k]) for k, own in kernels.items() if any(own[c] > ALLOWED * limits[k][c] for c in COLUMNS)}
    assert worse == {}


if __name__ == "__main__":
    path = pathlib.Path(os.environ.setdefault("RPCNN_SIMT_SASS", "kernels.sass"))
    dump_machine_code(path)
    rows = {name: sums for case in whole_calls() for name, sums in counted(case).items()}
    path.unlink()
    lines = [f"# nvcc {nvcc_version()}", "\t".join(("case and kernel", *COLUMNS))]
    lines += ["\t".join((name, *(str(sums[c]) for c in COLUMNS))) for name, sums in sorted(rows.items())]
    TABLE.write_text("\n".join(lines) + "\n")
    print(TABLE.read_text())
