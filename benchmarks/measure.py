"""What the benchmarks share: devices, layouts, and one timed call with its bytes per second."""

import torch

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
ROUNDS = 2


def measure(benchmark, f, *arguments, device: str = "cpu", moved: int = 0):
    """Times f(*arguments) and returns its result; `moved`: the fewest bytes it must read and write."""

    def call():
        result = f(*arguments)
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    result = benchmark.pedantic(call, rounds=ROUNDS, warmup_rounds=1)
    if benchmark.stats and moved:  # no statistics under --benchmark-disable
        benchmark.extra_info["GB/s of the fewest bytes"] = moved / benchmark.stats.stats.min / 1e9
    return result


def pyramid(images: int, channels: int, sizes, layout: str, device: str, spread: float = 1.0):
    """One map per size, standard normal times spread, the same in every call."""
    generator = torch.Generator().manual_seed(0)
    maps = [spread * torch.randn(images, channels, *size, generator=generator) for size in sizes]
    return [m.to(device, memory_format=LAYOUTS[layout]) for m in maps]


def size_of(tensors) -> int:
    """Bytes of some tensors."""
    return sum(t.numel() * t.element_size() for t in tensors)
