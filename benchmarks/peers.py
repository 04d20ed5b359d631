"""Our kernels against other fast libraries, each in a process and an environment of its own.

    python benchmarks/peers.py --cache ~/.cache/rpcnn-peers --prepare
    python benchmarks/peers.py --cache ~/.cache/rpcnn-peers --output benchmarks/PEERS.md

The first installs the peers with pip, 4 GB with the torch that intel-extension-for-pytorch needs; the second measures.
Both sides get the same arrays, keep them in memory, and run in turns with a pause between, so that neither computes or
spins in the other's turn. What they return is compared before anything is timed. sides/ says what each side runs.
"""

import argparse
import itertools
import pathlib
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from measure import copy_bandwidth, speedups  # noqa: E402
from report import machine, milliseconds  # noqa: E402
from sides.cases import CASES, matches  # noqa: E402
from sides.environments import PEERS, prepare, title  # noqa: E402
from sides.process import Side  # noqa: E402

from rpcnn.selfcheck.times import Times  # noqa: E402

TURN = 0.02  # seconds that a turn lasts at least
PAUSE = 0.01  # seconds between two turns; the threads of a library wait actively for some milliseconds
FEWEST, MOST = 7, 25  # rounds


@dataclass(frozen=True)
class Row:
    """One comparison."""

    case: str
    ours: str
    peer: str
    function: str
    our_times: Times
    peer_times: Times
    threads: str

    @property
    def ratios(self) -> Times:
        """The speedups over the peer."""
        return speedups(self.our_times, self.peer_times)

    def __str__(self):
        low, high = self.ratios.interval
        cells = [
            *(self.case, f"`{self.ours}`", f"{title(self.peer)}, `{self.function}`"),
            *(milliseconds(self.our_times), milliseconds(self.peer_times)),
            *(f"**{self.ratios.median:.2f}**", f"{low:.2f}–{high:.2f}", str(len(self.ratios.samples))),
        ]
        return f"| {' | '.join(cells)} |"


def assert_agree(case: str, ours: np.ndarray, peer: np.ndarray) -> None:
    """Raise AssertionError unless both sides found the same, floating-point values to their rounding."""
    tolerance = {"roi_align": dict(rtol=0, atol=5e-4), "ap_bbox": dict(rtol=0, atol=1e-6)}
    np.testing.assert_allclose(peer, ours, **tolerance.get(case.split(",")[0], dict(rtol=0, atol=0)), err_msg=case)


def result(side: Side, folder: pathlib.Path) -> np.ndarray:
    """What the side's function returned."""
    side.ask(result=str(folder / "result.npy"))
    return np.load(folder / "result.npy")


def turn(side: Side, calls: int) -> float:
    """Let a side run, after a pause; seconds a call."""
    time.sleep(PAUSE)
    return side.ask(time=calls)["seconds"]


def calls_of_a_turn(seconds: float) -> int:
    """How many calls of so many seconds make a turn."""
    return max(1, round(TURN / seconds))


def time_both(ours: Side, peer: Side, budget: float) -> tuple[Times, Times]:
    """Time what both sides made last in alternating rounds, for about `budget` seconds.

    Seven rounds at least, or three where one takes over a second.
    """
    sides = ours, peer
    once = [turn(side, calls_of_a_turn(turn(side, 1))) for side in sides]  # the first call alone says too much
    calls = [calls_of_a_turn(seconds) for seconds in once]
    a_round = sum(PAUSE + count * seconds for count, seconds in zip(calls, once, strict=True))
    rounds = min(max(int(budget / a_round), FEWEST if a_round < 1 else 3), MOST)
    pairs = [[turn(side, count) for side, count in zip(sides, calls, strict=True)] for _ in range(rounds)]
    return tuple(Times(tuple(1e6 * seconds for seconds in side)) for side in zip(*pairs, strict=True))


def compare(ours: Side, peer: Side, name: str, case: str, functions: tuple[str, str], budget: float) -> Row:
    """Check one case and time it.

    Raises:
        AssertionError: the results differ.
        RuntimeError: a side failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = [side.ask(make=f, case=case) for side, f in zip((ours, peer), functions, strict=True)]
        assert_agree(case, *(result(side, pathlib.Path(folder)) for side in (ours, peer)))
    return Row(case, functions[0], name, functions[1], *time_both(ours, peer, budget), made[1]["threads"])


def write_inputs(path: pathlib.Path, cases: list[str]) -> None:
    """Write the arrays of some cases to an .npz."""
    np.savez(path, **{f"{case}/{name}": array for case in cases for name, array in CASES[case]().items()})


def report(rows: list[Row], failures: list[str], threads: int) -> str:
    """The page."""
    told = {row.peer: row.threads for row in rows}
    words = ["DIR" if before == "--cache" else word for before, word in itertools.pairwise(sys.argv)]
    return "\n".join(
        [
            "# Our kernels and other fast libraries",
            "",
            f"`{' '.join(['python', 'benchmarks/peers.py', *words])}`",
            "",
            machine("cpu", copy_bandwidth()),
            "",
            "Each side in a process and an environment of its own, in alternating turns on the same arrays; both "
            "find the same: the same boxes, RoIAlign's values to 5e-4, AP^bbox to 1e-6. Milliseconds: medians of a "
            "call, with the quartiles in brackets. *Ratio*: the peer's time over ours in each round, its median, and "
            "the interval that holds the true median with 95 % confidence; of fewer than six rounds, the range. "
            "Outside the times: conversion of the inputs to what a library takes, and making its model. `ap_bbox` "
            "starts with arrays in memory, `ap_bbox_loaded` of a peer with its own objects, loaded beforehand. "
            "RoIAlign of onnxruntime and OpenVINO reads a contiguous map; for `roi_align_channels_last` ours reads "
            "channels_last.",
            "",
            "| case | ours | peer | ours, ms | peer, ms | ratio | 95 % | rounds |",
            "|---|---|---|---|---|---|---|---|",
            *map(str, rows),
            "",
            f"Threads, at most {threads}; every process is bound to as many processors. "
            f"rpcnn: `torch.set_num_threads`; {'; '.join(f'{peer}: {how}' for peer, how in told.items())}.",
            *(f"\nNot measured: {failure}" for failure in failures),
        ]
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=pathlib.Path, required=True, help="folder for the peers' environments")
    parser.add_argument("--prepare", action="store_true", help="install the peers and end")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="PEER", help=" ".join(PEERS))
    parser.add_argument("--only", default="", help="cases whose title holds this")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--budget", type=float, default=2, help="seconds for a comparison, more where seven rounds need it"
    )
    parser.add_argument("--output", default="", help="file for the page, e.g. benchmarks/PEERS.md")
    options = parser.parse_args()

    environments, failures = {}, []
    for peer in options.peers:
        try:
            environments[peer] = prepare(peer, options.cache)
        except subprocess.CalledProcessError as error:
            failures.append(f"{title(peer)}, which pip could not install ({error.returncode})")
    if options.prepare:
        parser.exit(bool(failures), "\n".join(failures))

    torch.set_num_threads(options.threads)
    cases, rows = [case for case in CASES if options.only in case], []
    with tempfile.TemporaryDirectory() as folder:
        inputs = pathlib.Path(folder) / "inputs.npz"
        write_inputs(inputs, cases)
        with Side("sides.ours", inputs, options.threads, folders=[HERE.parent]) as ours:
            for peer, environment in environments.items():
                with Side(f"sides.{peer}", inputs, options.threads, *environment) as side:
                    for case in cases:
                        for our_function, name, function in matches(case):
                            if name != peer:
                                continue
                            try:
                                row = compare(ours, side, peer, case, (our_function, function), options.budget)
                            except (AssertionError, RuntimeError) as error:
                                failures.append(f"{title(peer)}, {case}: {error}")
                                print(failures[-1], file=sys.stderr)
                            else:
                                rows.append(row)
                                print(row, flush=True)
    rows.sort(key=lambda row: cases.index(row.case))
    text = report(rows, failures, options.threads)
    if options.output:
        pathlib.Path(options.output).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
