"""Tables of what the kernels execute: the ops of a call are repeated on the machine code by tests/cuda/simt/sass.h."""

import contextlib
import os
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests"))

from helpers.machine_code import dump_machine_code
from helpers.machine_ops import OnMachineCode
from limits import GPUS

HEAD = (
    "| {} | launches | instructions, M | lanes | wavefronts, M | L2, MB "
    "| issue / units / LSU / L2 / DRAM of an H100, µs | H100, µs | A100, µs | RTX 4090, µs |"
)
UNITS = ("ALU", "FMA", "FP64", "XU")


@contextlib.contextmanager
def machine_code():
    """Let the emulator execute the compiled kernels' machine code."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RPCNN_SIMT_SASS"] = f"{folder}/kernels.sass"
        dump_machine_code(os.environ["RPCNN_SIMT_SASS"])
        yield


def launches_of(run) -> list[dict]:
    """Counts of the launches of one call on CPU tensors."""
    with OnMachineCode() as executed:
        run()
    return executed.launches


def microseconds(seconds: float) -> str:
    """Format seconds as microseconds with two digits, three from 100."""
    return f"{1e6 * seconds:.{3 if seconds >= 1e-4 else 2}g}"


def row(title: str, launches: list[dict], moved: int) -> str:
    """Format the line of a case; moved: bytes of memory, of which no more is ours than passes the level-2 cache."""
    total = lambda *keys: sum(launch[key] for launch in launches for key in keys)
    moved = min(moved, 32 * total("level2"))
    every = [GPUS[0].limits(launch) for launch in launches]
    limits = [sum(max(e[name] for name in names) for e in every) for names in (("issue",), UNITS, ("LSU",), ("L2",))]
    predicted = (gpu.predict(launches, moved) for gpu in GPUS)
    return (
        " | ".join(
            [
                f"| {title}",
                str(len(launches)),
                f"{total('instructions') / 1e6:.3g}",
                f"{100 * total('lanes') / (32 * total('instructions')):.0f} %",
                f"{total('global', 'shared') / 1e6:.3g}",
                f"{32 * total('level2') / 1e6:.3g}",
                " / ".join(map(microseconds, [*limits, moved / GPUS[0].memory])),
                *(f"{microseconds(seconds)} ({limit})" for seconds, limit in predicted),
            ]
        )
        + " |"
    )


KERNELS_HEAD = (
    "| run | kernel | blocks | instructions, k | lanes | lanes that load or store | their sectors | wavefronts, k "
    "| H100, µs |"
)


def kernel_rows(title: str, launches: list[dict]) -> list[str]:
    """Format a line for each kernel of a case; launches of one kernel are added up."""
    rows = []
    for kernel in dict.fromkeys(launch["kernel"] for launch in launches):
        own = [launch for launch in launches if launch["kernel"] == kernel]
        total = lambda *keys, own=own: sum(launch[key] for launch in own for key in keys)
        accesses = max(total("loads", "stores"), 1)
        seconds, limit = GPUS[0].predict(own, 0)
        rows.append(
            f"| {title} | `{kernel}` | {total('blocks'):,} | {total('instructions') / 1e3:,.0f} "
            f"| {100 * total('lanes') / (32 * total('instructions')):.0f} % "
            f"| {total('busy') / accesses:.0f} of 32 | {total('sectors') / accesses:.1f} "
            f"| {total('global', 'shared') / 1e3:,.0f} | {microseconds(seconds)} ({limit}) |"
        )
    return rows
