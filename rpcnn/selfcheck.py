"""Check and time the kernels on the GPU of this machine: ``python -m rpcnn.selfcheck``.

Every op is compared with its plain-PyTorch definition on the CPU, forward and backward, in float32, float16 and
bfloat16; run several times for bit-equal results; on side streams; on all other devices; and in a CUDA graph if its
output has a fixed size. Then it is timed: milliseconds, GB/s of inputs and outputs, share of the copy bandwidth. The
report is one Markdown file, ready to be pasted into an issue. ``--device cpu`` checks the CPU kernels.
"""

import dataclasses
import datetime
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor
from torch.utils._pytree import tree_leaves

from rpcnn.info import compiled_ops, report
from rpcnn.ops._examples import Example
from rpcnn.ops._library import OPS

TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def assert_close(example: Example, actual: list[Tensor], expected: list[Tensor], tolerance: float):
    """Raise AssertionError if the outputs differ."""
    for got, want in zip(actual, expected, strict=True):
        got = got.cpu()
        if example.exact or not want.is_floating_point():
            assert got.shape == want.shape, f"shape must be {list(want.shape)}, got {list(got.shape)}"
            wrong = (got != want).float().mean().item() if want.numel() else 0.0
            assert wrong <= 1e-3, f"{100 * wrong:.2f} % differ"
        else:
            error = (got.double() - want.double()).norm() / want.double().norm().clamp(min=1e-12)
            assert error <= tolerance, f"relative error {error:.1e}, allowed {tolerance:.0e}"


def check_definition(example: Example, device):
    """Compare every dtype and memory format with the definition in float32 on the same rounded inputs."""
    for dtype, tolerance in TOLERANCE.items():
        if dtype != torch.float32 and not example.maps:
            continue
        rounded = dataclasses.replace(example, arguments=example.on("cpu", dtype))
        expected = rounded.run(example.reference, "cpu")
        for layout in (torch.contiguous_format, torch.channels_last):
            assert_close(example, rounded.run(example.function, device, dtype, layout), expected, tolerance)


def check_repeats(example: Example, device):
    """Five calls give bit-equal results."""
    first = example.run(example.function, device)
    for _ in range(4):
        assert all(map(torch.equal, example.run(example.function, device), first)), "two calls differ"


def check_stream(example: Example, device):
    """Two side streams at once give the result of the current stream."""
    expected = example.run(example.function, device)
    streams, results = [torch.cuda.Stream(device) for _ in range(2)], []
    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            results.append(example.run(example.function, device))
    torch.cuda.synchronize(device)
    assert all(all(map(torch.equal, result, expected)) for result in results), "results on a side stream differ"


def check_graph(example: Example, device):
    """A captured graph is replayed with other values."""
    arguments = example.on(device)
    call = lambda: tree_leaves(example.function(**arguments))
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side), torch.no_grad():
        call()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        captured = call()
    for m in example.map_tensors(arguments):
        m.mul_(0.5)
    graph.replay()
    with torch.no_grad():
        expected = call()
    assert all(map(torch.equal, captured, expected)), "results of the replay differ"


def check_second_device(example: Example, device):
    """All other devices give the same result while the first one is current."""
    expected = example.run(example.function, device)
    for index in range(torch.cuda.device_count()):
        got = [t.to(device) for t in example.run(example.function, f"cuda:{index}")]
        assert all(map(torch.equal, got, expected)), f"cuda:{index}: results differ"


def milliseconds(f, device) -> float:
    """Median time of 20 calls after 3 warm-up calls, in milliseconds."""
    times = []
    for i in range(23):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        f()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if i >= 3:
            times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def timings(device) -> list[str]:
    """Time forward, and forward + backward, at the paper's sizes; returns the lines of a table."""
    source = torch.ones(1 << 26, device=device)
    target = torch.empty_like(source)
    copying = 2 * source.nbytes / milliseconds(lambda: target.copy_(source), device) / 1e6
    lines = [f"Copying 256 MB: {copying:.0f} GB/s, read and write counted.", ""]
    lines += ["| op | forward, ms | GB/s | of copying | forward + backward, ms |", "|---|---|---|---|---|"]
    for op, make in OPS.items():
        example = make(small=False)
        arguments = example.on(device, layout=torch.channels_last)
        with torch.no_grad():
            out = tree_leaves(example.function(**arguments))
            forward = milliseconds(lambda f=example.function, a=arguments: f(**a), device)
        moved = [t for t in tree_leaves([arguments, out]) if isinstance(t, Tensor)]
        speed = sum(t.nbytes for t in moved) / forward / 1e6
        both = "–"
        if example.differentiable:
            maps = [m.requires_grad_() for m in example.map_tensors(arguments)]
            grads = [torch.ones_like(t) for t in out]

            def step(f=example.function, arguments=arguments, maps=maps, grads=grads):
                torch.autograd.grad(tree_leaves(f(**arguments)), maps, grads)

            both = f"{milliseconds(step, device):.3f}"
        lines.append(f"| {op} | {forward:.3f} | {speed:.0f} | {100 * speed / copying:.0f} % | {both} |")
    return lines


def checks(device: torch.device) -> dict[str, Callable]:
    """The checks that this device supports."""
    chosen = {"definition": check_definition, "repeats": check_repeats}
    if device.type == "cuda":
        chosen |= {"streams": check_stream, "graph": check_graph}
        if torch.cuda.device_count() > 1:
            chosen |= {"devices": check_second_device}
    return chosen


def check_all(device: torch.device) -> tuple[list[str], int]:
    """Run all checks, also after failures; returns the lines of a table and the number of failures."""
    chosen, failed = checks(device), 0
    lines = ["| op | " + " | ".join(chosen) + " |", "|---|" + "---|" * len(chosen)]
    for op, make in OPS.items():
        example, cells = make(small=True), []
        for name, check in chosen.items():
            if name == "graph" and not example.fixed_size:
                cells.append("size varies")
                continue
            try:
                check(example, device)
                cells.append("ok")
            except Exception as error:
                failed += 1
                cells.append(f"FAILED: {type(error).__name__}: {error}".replace("\n", " ").replace("|", "/")[:300])
        lines.append(f"| {op} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return lines, failed


@dataclass
class Arguments:
    """The command line of rpcnn.selfcheck."""

    device: str = "cuda"
    """cuda, cuda:N or cpu."""
    output: str = ""
    """Folder for the report; empty: the current folder."""
    timing: bool = True
    """Also time the kernels."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0: all passed, or no GPU; 1: a check failed; 2: kernels for the device are missing."""
    options = tyro.cli(Arguments, args=arguments, prog="rpcnn selfcheck", description=__doc__)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("rpcnn: no GPU is visible here, so nothing was checked. --device cpu checks the CPU kernels.")
        return 0
    device = torch.device(options.device)
    kind = device.type.upper()
    missing = [op for op, kernels in compiled_ops().items() if not kernels[kind]]
    if missing:
        print(
            f"rpcnn: no {kind} kernel is compiled for {', '.join(missing)}; see python -m rpcnn.info", file=sys.stderr
        )
        return 2
    table, failed = check_all(device)
    lines = [f"# rpcnn selfcheck on {device}, {datetime.date.today()}", "", "```", report(), "```", "", *table]
    lines += ["", f"{failed} checks failed." if failed else "All checks passed."]
    if options.timing:
        lines += ["", *timings(device)]
    path = pathlib.Path(options.output) / f"selfcheck-{datetime.date.today()}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines[-12 if options.timing else -1 :]))
    print(f"rpcnn: the report is in {path}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
