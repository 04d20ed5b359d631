"""``python -m tests.fuzz [FIELD …] --cases N --seed S``: hours of random input by hand; status 1 if it finds."""

import argparse
import pathlib
import sys
import time

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # tests/helpers

from .fields import FIELDS
from .run import run, run_here


def main() -> int:
    """Run the fields one after another and print what went wrong, with the command that repeats it."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("fields", nargs="*", metavar="FIELD", help=f"of {', '.join(FIELDS)}; all without one")
    parser.add_argument("--cases", type=int, default=1000, help="of each field")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seconds", type=float, default=60, help="limit of a case")
    parser.add_argument("--megabytes", type=float, default=4000, help="limit of a process, beyond what it starts with")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.fields) - set(FIELDS):
        parser.error(f"FIELD must be one of {', '.join(FIELDS)}, got {', '.join(unknown)}")
    if options.child:
        torch.set_num_threads(1)
        for field in options.fields:
            run_here(field, options.seed, options.first, options.first + options.cases, FIELDS)
        return 0
    found = 0
    for field in options.fields or FIELDS:
        start = time.monotonic()
        findings = run(field, options.seed, options.first, options.cases, options.seconds, options.megabytes)
        print(f"{field}: {options.cases} cases, {time.monotonic() - start:.0f} s, {len(findings)} findings", flush=True)
        for finding in findings:
            again = f"{field} --seed {finding.seed} --first {finding.case} --cases 1"
            print(f"  {finding.what}\n    python -m tests.fuzz {again}")
        found += len(findings)
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
