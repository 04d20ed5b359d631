"""What changed between two reports: `python benchmarks/compare.py BEFORE.json AFTER.json`.

The .json files are those that report.py writes beside its tables. Compared are the times of our side in units of the
baseline's time in the same round, since that cancels most of what differs between two machines or two hours. A case is
"same", "faster" or "slower" only if the intervals that hold the true medians with 95 % confidence say so; else it is
"unclear".
"""

import argparse
import json
import pathlib

from rpcnn.selfcheck.times import Times, ratio_interval, verdict


def relative(row: dict) -> Times:
    """The times of a row in units of the baseline's."""
    sides = row["ours"]["samples"], row["baseline"]["samples"]
    return Times(tuple(ours / baseline for ours, baseline in zip(*sides, strict=True)))


def comparison(before: dict, after: dict) -> str:
    """A Markdown table with a verdict for each case of both reports."""
    old, new = ({(row["op"], row["case"]): row for row in report["rows"]} for report in (before, after))
    lines = [f"Before: {before['machine']}", "", f"After: {after['machine']}", ""]
    lines += [
        "| op | case | before, times faster | after | time after / before, 95 % | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for key in [key for key in old if key in new]:
        first, second = relative(old[key]), relative(new[key])
        low, high = ratio_interval(first, second)
        ratios = [f"{1 / times.median:.1f}" for times in (first, second)]
        lines.append(f"| {' | '.join([*key, *ratios, f'{low:.2f} to {high:.2f}', verdict(first, second)])} |")
    for name, here, there in (("before", old, new), ("after", new, old)):
        if missing := [" ".join(key) for key in here if key not in there]:
            lines += ["", f"Only {name}: {', '.join(missing)}."]
    return "\n".join(lines)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=pathlib.Path)
    parser.add_argument("after", type=pathlib.Path)
    options = parser.parse_args()
    print(comparison(*(json.loads(path.read_text("utf-8")) for path in (options.before, options.after))))


if __name__ == "__main__":
    main()
