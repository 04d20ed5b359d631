"""What the CPU kernels execute for one small call of each op: it may only fall. Needs no quiet machine.

`cpu_counts.tsv` holds the limits: instructions of rpcnn._C alone, without torch's, on one thread. They depend on the
compiler and on the clones of the kernels that the processor runs, so the table has a column for each such build, and a
build without one is skipped. `python tests/nightly/test_cpu_counts.py` rewrites the column of this one.
"""

import contextlib
import importlib
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator

import pytest
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # run as a script

from helpers.instructions import InstructionCounter
from helpers.layouts import needs_kernels
from helpers.small_calls import OP_NAMES, small_calls

pytestmark = [pytest.mark.nightly, needs_kernels]
TABLE = pathlib.Path(__file__).parent / "cpu_counts.tsv"
COMMAND = "python tests/nightly/test_cpu_counts.py"
ALLOWED = 1.02


def read_table() -> dict[str, dict[str, int]]:
    """The limits by call and build."""
    (_, *builds), *lines = (line.split("\t") for line in TABLE.read_text().splitlines())
    return {
        call: {build: int(limit) for build, limit in zip(builds, limits, strict=True) if limit}
        for call, *limits in lines
    }


def write_table(rows: dict[str, dict[str, int]]) -> None:
    builds = sorted({build for limits in rows.values() for build in limits})
    lines = [["call", *builds]]
    lines += [[call, *(str(limits.get(build, "")) for build in builds)] for call, limits in sorted(rows.items())]
    TABLE.write_text("".join("\t".join(line) + "\n" for line in lines))


def limits_of(build: str) -> dict[str, int]:
    """The limits of a build by call; skip if the table has none."""
    rows = read_table()
    if known := {call: limits[build] for call, limits in rows.items() if build in limits}:
        return known
    builds = sorted({build for limits in rows.values() for build in limits})
    pytest.skip(f"cpu_counts.tsv has counts of {', '.join(builds)}, not of {build}; `{COMMAND}` adds them")


def complaint(call: str, before: int, now: int) -> str:
    return f"{call}: {now:,} instructions, {before:,} before ({now / before - 1:+.1%})"


def count(counter: InstructionCounter, operator: Callable, arguments: tuple) -> int:
    """Count the instructions of an operator's second call; the first one resolves symbols."""
    with torch.no_grad():
        operator(*arguments)
        return counter.count(lambda: operator(*arguments))


@contextlib.contextmanager
def counting(folder: pathlib.Path) -> Iterator[InstructionCounter]:
    """Make a counter of the instructions of rpcnn._C. Meanwhile, torch runs on one thread."""
    counter = InstructionCounter(importlib.import_module("rpcnn._C").__file__, folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if count(counter, *small_calls("grid_anchors")["grid_anchors forward"]) < 1000:
            pytest.skip("this system does not report single steps")
        yield counter
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    with counting(tmp_path_factory.mktemp("instructions")) as made:
        yield made


@pytest.fixture(scope="module")
def limits(counter):
    return limits_of(counter.build())


def test_every_operator_is_called():
    reached = {operator._schema.name for op in OP_NAMES for operator, _ in small_calls(op).values()}
    every = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("rpcnn::")}
    assert reached == {name for name in every if not name.endswith("_traced")}


@pytest.mark.parametrize("op", OP_NAMES)
def test_no_call_executes_more_than_the_table_says(op, counter, limits):
    now = {call: count(counter, *operation) for call, operation in small_calls(op).items()}
    assert now.keys() <= limits.keys(), f"not in cpu_counts.tsv; `{COMMAND}` adds it"
    worse = [complaint(call, limits[call], own) for call, own in now.items() if own > ALLOWED * limits[call]]
    if worse:
        pytest.fail("\n".join([*worse, f"If that is meant to be: `{COMMAND}` rewrites the table."]), pytrace=False)


def test_counts_are_the_same_twice(counter):
    (operation,) = small_calls("grid_anchors").values()
    assert count(counter, *operation) == count(counter, *operation)


def test_another_build_is_skipped_with_the_reason():
    with pytest.raises(pytest.skip.Exception, match=r"counts of GCC .*, not of clang 19 x86-64-v1"):
        limits_of("clang 19 x86-64-v1")


if __name__ == "__main__":
    old, new = read_table() if TABLE.exists() else {}, {}
    with tempfile.TemporaryDirectory() as folder, counting(pathlib.Path(folder)) as counter:
        build = counter.build()
        for op in OP_NAMES:
            for call, operation in small_calls(op).items():
                new[call] = old.get(call, {}) | {build: count(counter, *operation)}
                print(complaint(call, old.get(call, {}).get(build, new[call][build]), new[call][build]), flush=True)
    write_table(new)
