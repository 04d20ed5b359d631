"""Runs cases in child processes, so that a crash, a hang or hunger for memory ends a child and is recorded.

Case k of a field is a function of (seed, field, k) alone: ``python -m tests.fuzz FIELD --seed S --first k --cases 1``
runs it again.
"""

import contextlib
import json
import os
import pathlib
import random
import selectors
import signal
import subprocess
import sys
import time
import traceback
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Finding(NamedTuple):
    """A case that went wrong."""

    field: str
    seed: int
    case: int
    what: str
    """The exception and its place, the signal, or the limit that was passed."""


def source(field: str, seed: int, case: int) -> random.Random:
    """The source of all random choices of a case."""
    return random.Random(f"{seed} {field} {case}")


def run_here(field: str, seed: int, first: int, last: int, fields: dict) -> None:
    """The child: run cases [first, last); print the number of each before it runs, and what went wrong as JSON."""
    run = fields[field]
    for case in range(first, last):
        print(case, flush=True)
        try:
            run(source(field, seed, case))
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {error}"[:400] + f" ({pathlib.Path(place.filename).name}:{place.lineno})"
            print(json.dumps(what), flush=True)


def run(
    field: str, seed: int, first: int, cases: int, seconds: float = 60, megabytes: float = 4000, most: int = 50
) -> list[Finding]:
    """Run cases of a field in children, each a process group of its own; returns what went wrong, `most` at most.

    Args:
        seconds: limit of one case. The first of a child may take a minute more, for imports.
        megabytes: limit of a child's resident memory, beyond what it has before its first case.
    """
    findings: list[Finding] = []
    case, end = first, first + cases
    while case < end and len(findings) < most:
        command = [sys.executable, "-m", "tests.fuzz", field, "--seed", str(seed), "--first", str(case)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        with subprocess.Popen(
            [*command, "--cases", str(end - case), "--child"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=environment, start_new_session=True,
        ) as child:  # fmt: skip
            case = _watch(child, field, seed, case, seconds, megabytes, findings, most)
            _end(child)
    return findings


def _watch(child, field: str, seed: int, case: int, seconds: float, megabytes: float, findings: list, most: int) -> int:
    """Follow a child to its end; returns the next case to run."""
    waiting = selectors.DefaultSelector()
    waiting.register(child.stdout, selectors.EVENT_READ)
    waiting.register(child.stderr, selectors.EVENT_READ)
    since, started, before = time.monotonic() + 60, False, 0.0
    text, errors = b"", b""
    while waiting.get_map():
        for key, _ in waiting.select(0.05):
            data = os.read(key.fd, 1 << 16)
            if not data:
                waiting.unregister(key.fileobj)
            elif key.fileobj is child.stderr:
                errors = (errors + data)[-20_000:]
            else:
                *lines, text = (text + data).split(b"\n")
                for line in lines:
                    if line.startswith(b'"'):
                        findings.append(Finding(field, seed, case, json.loads(line)))
                        if len(findings) >= most:
                            _end(child)
                            return case + 1
                        continue
                    case, since = int(line), time.monotonic()
                    before, started = before or _resident(child.pid), True
        what = ""
        if started and _resident(child.pid) - before > megabytes:
            what = f"took more than {megabytes:g} MB"
        if time.monotonic() - since > seconds:
            what = f"took more than {seconds:g} s"
        if what:
            _end(child)
            findings.append(Finding(field, seed, case, what))
            return case + 1
    code = child.wait()
    if code:
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        findings.append(Finding(field, seed, case, f"{name}: {errors.decode(errors='replace').strip()[-1500:]}"))
    return case + 1


def _resident(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20
    except (OSError, IndexError):
        return 0.0


def _end(child: subprocess.Popen) -> None:
    """End the process group that this child leads, and no other."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
