"""What changed between two reports: ``rpcnn selfcheck --compare BEFORE.json AFTER.json``."""

from .report import Report, number, table
from .times import ratio_interval, verdict


def comparison(before: Report, after: Report) -> str:
    """A Markdown table with a verdict for each row of both reports."""
    about = lambda report: f"{report.device}, {report.date}, commit {report.commit or 'unknown'}"
    lines = [f"Before: {about(before)}", f"After: {about(after)}"]
    if before.device != after.device:
        lines.append("The devices differ: the verdicts are about them, not only about the code.")
    old, new = ({row.key: row for row in report.rows} for report in (before, after))
    rows = []
    for key in [key for key in old if key in new]:
        for cache in ("cold", "warm"):
            first, second = getattr(old[key], cache), getattr(new[key], cache)
            if first is None or second is None:
                continue
            low, high = ratio_interval(first, second)
            numbers = [number(first.median), number(second.median), f"{low:.3f} to {high:.3f}"]
            rows.append([*key, cache, *numbers, verdict(first, second)])
    header = ["op", "direction", "dtype", "cache", "before, µs", "after, µs", "after / before, 95 %", "verdict"]
    lines += ["", *table(header, rows)]
    for name, here, there in (("before", old, new), ("after", new, old)):
        if missing := [" ".join(key) for key in here if key not in there]:
            lines += ["", f"Only {name}: {', '.join(missing)}."]
    return "\n".join(lines)
