"""Check and time the kernels on the GPU of this machine: ``python -m rpcnn.selfcheck``.

Every op is compared with its plain-PyTorch definition on the CPU, forward and backward, in float32, float16 and
bfloat16; run several times for bit-equal results; on side streams; on all other devices; and in a CUDA graph if its
output has a fixed size. Then it is timed at the paper's sizes: medians and quartiles of many batches of calls, with
inputs in the level-2 cache and not, and the share of the copy bandwidth. The report is a Markdown file, ready to be
pasted into an issue, and a JSON file; ``--compare`` says what changed between two of the latter. ``--device cpu``
checks the CPU kernels.
"""

import datetime
import pathlib
import sys
from dataclasses import dataclass

import torch
import tyro

import rpcnn
from rpcnn.commands import run, user_errors
from rpcnn.info import compiled_ops, processor
from rpcnn.info import report as environment
from rpcnn.ops._library import OPS

from .cases import cases, copy_speed, time_case
from .checks import check_all
from .clock import clock_of
from .compare import comparison
from .report import Report, commit_of, load_json, markdown, save_json


@dataclass
class Arguments:
    """The command line of rpcnn.selfcheck."""

    device: str = "cuda"
    """cuda, cuda:N or cpu."""
    output: str = ""
    """Folder for the report; empty: the current folder."""
    checks: bool = True
    """Check the results of the kernels."""
    timing: bool = True
    """Time the kernels."""
    only: str = ""
    """Only ops and rows whose name holds this text, such as roi_align or 'gse_fuse forward bfloat16'."""
    compare: tuple[str, str] | None = None
    """Two JSON reports, before and after: check nothing, print what got faster, slower or stayed the same."""


def add_times(report: Report, device: torch.device, only: str) -> None:
    """Add the times of the cases to the report, and what could not be timed."""
    clock = clock_of(device)
    report.copying = copy_speed(device, clock)
    for case in cases(OPS, halves=device.type == "cuda", only=only):
        where = "" if str(device) == "cuda:0" else f" --device {device}"
        command = f"python -m rpcnn.selfcheck{where} --no-checks --only '{case}'"
        try:
            row = time_case(case, OPS[case.op](small=False), device, clock, report.commit, command)
        except Exception as error:
            report.faults.append(f"{case}: {type(error).__name__}: {error}".replace("\n", " ")[:300])
            print(report.faults[-1], flush=True)
        else:
            report.rows.append(row)
            print(f"{case}: {row.warm.median:.4g} µs", flush=True)


def write(report: Report, path: pathlib.Path) -> None:
    """Write the report as Markdown to `path` and as JSON beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(markdown(report), encoding="utf-8")
    save_json(report, path.with_suffix(".json"))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0: all passed, or no GPU; 1: a check or timing failed; 2: no kernels for the device."""
    options = tyro.cli(Arguments, args=arguments, prog="rpcnn selfcheck", description=__doc__)
    if options.compare:
        with user_errors():
            print(comparison(*(load_json(pathlib.Path(path)) for path in options.compare)))
        return 0
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("rpcnn: no GPU is visible here, so nothing was checked. --device cpu checks the CPU kernels.")
        return 0
    device = torch.device(options.device)
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    kind = device.type.upper()
    missing = [op for op, kernels in compiled_ops().items() if not kernels[kind]]
    if missing:
        print(
            f"rpcnn: no {kind} kernel is compiled for {', '.join(missing)}; see python -m rpcnn.info", file=sys.stderr
        )
        return 2
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    commit = commit_of(pathlib.Path(rpcnn.__file__).parents[1])
    report = Report(name, str(datetime.date.today()), commit, environment())
    path = pathlib.Path(options.output) / f"selfcheck-{datetime.datetime.now():%Y-%m-%d-%H%M%S}.md"
    if options.checks:
        chosen = {case.op for case in cases(OPS, halves=True, only=options.only)}
        report.checks = check_all(device, [op for op in OPS if op in chosen])
        write(report, path)  # also if a fault of the GPU ends the process later
    if options.timing:
        add_times(report, device, options.only)
    write(report, path)
    print(f"\n{markdown(report)}\nrpcnn: the report is in {path} and {path.with_suffix('.json').name}")
    return int(report.failed > 0 or bool(report.faults))


if __name__ == "__main__":
    run(main)
