"""The clocks of devices, CUDA graphs as batches, and what the device says about itself."""

import subprocess
import time

import torch

from .measure import FEWEST, Call

UNKNOWN_CACHE = 64 << 20
"""Bytes assumed for the last cache where the device does not tell; more than most have."""


class HostClock:
    """Times batches by the clock of the processor that runs them."""

    megahertz: int | None = None
    cache = UNKNOWN_CACHE

    def times(self, batch: Call, count: int) -> list[float]:
        """Run the batch `count` times; return the microseconds of each."""
        measured = []
        for _ in range(count):
            start = time.perf_counter()
            batch()
            measured.append(1e6 * (time.perf_counter() - start))
        return measured


class EventClock:
    """Times batches by events in the stream of a GPU, without waiting between batches."""

    def __init__(self, device: torch.device):
        self.device = device
        self.megahertz: int | None = None
        """Frequency of the multiprocessors while the last batches ran, if the driver tells."""
        properties = torch.cuda.get_device_properties(device)
        self.cache: int = getattr(properties, "L2_cache_size", 0) or UNKNOWN_CACHE
        """Bytes of the level-2 cache."""

    def times(self, batch: Call, count: int) -> list[float]:
        """Run the batch `count` times; return the microseconds of each."""
        with torch.cuda.device(self.device):
            events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
            for start, end in events:
                start.record()
                batch()
                end.record()
            if count >= FEWEST:  # no warm-up, and the GPU is still busy
                self.megahertz = megahertz(self.device)
            torch.cuda.synchronize(self.device)
        return [1e3 * start.elapsed_time(end) for start, end in events]


def megahertz(device: torch.device) -> int | None:
    """Frequency of the GPU's multiprocessors now, or None: from nvidia-ml-py, which torch asks, or from nvidia-smi."""
    try:
        return int(torch.cuda.clock_rate(device))
    except Exception:  # no package, no driver, no permission: each has its own error
        pass
    try:
        uuid = torch.cuda.get_device_properties(device).uuid
        query = ["nvidia-smi", "-i", f"GPU-{uuid}", "--query-gpu=clocks.sm", "--format=csv,noheader,nounits"]
        return int(subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout)
    except Exception:
        return None


def as_graph(batch: Call, device: torch.device) -> Call:
    """Capture the batch in a CUDA graph and return its replay."""
    with torch.cuda.device(device):
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            batch()
        torch.cuda.current_stream(device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            batch()
    return graph.replay


def clock_of(device: torch.device) -> HostClock | EventClock:
    """The clock of a device."""
    return EventClock(device) if device.type == "cuda" else HostClock()
