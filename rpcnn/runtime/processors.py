"""The number of processors that this process may use."""

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_processors(cgroups: Path = CGROUPS) -> int:
    """Count the processors in the affinity mask, and no more than a container's quota, rounded up.

    Args:
        cgroups: where Linux shows the quota: cpu.max (version 2), or cpu/cpu.cfs_quota_us (version 1).
    """
    affinity = getattr(os, "sched_getaffinity", None)
    processors = len(affinity(0)) if affinity else os.cpu_count() or 1
    for files in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            quota, period = (int(word) for file in files for word in (cgroups / file).read_text().split())
        except (OSError, ValueError):  # no such version, or "max": no quota
            continue
        if quota > 0 and period > 0:
            processors = min(processors, -(-quota // period))
    return processors
