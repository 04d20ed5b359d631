"""Checks of every op against its definition, against itself, on side streams, in CUDA graphs and on other devices."""

import dataclasses
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

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
    """All other devices give the same result while the first one is current: to the bit if they are of its model."""
    expected = [t.cpu() for t in example.run(example.function, device)]
    for index in range(torch.cuda.device_count()):
        got = [t.cpu() for t in example.run(example.function, f"cuda:{index}")]
        if same_model(device, index):
            assert all(map(torch.equal, got, expected)), f"cuda:{index}: results differ"
        else:  # other models may order or round sums in another way
            assert_close(example, got, expected, TOLERANCE[torch.float32])


def same_model(device, index: int) -> bool:
    """Whether the GPU of that index is of the same model as the device."""
    return torch.cuda.get_device_name(f"cuda:{index}") == torch.cuda.get_device_name(device)


def checks(device: torch.device) -> dict[str, Callable]:
    """The checks that this device supports. The graph's comes last: a capture that fails can disturb what follows."""
    chosen = {"definition": check_definition, "repeats": check_repeats}
    if device.type == "cuda":
        chosen |= {"streams": check_stream}
        if torch.cuda.device_count() > 1:
            chosen |= {"devices": check_second_device}
        chosen |= {"graph": check_graph}
    return chosen


def outcome(check: Callable, example: Example, device: torch.device) -> str:
    """Run one check; returns "ok" or one line that says what failed."""
    if check is check_graph and not example.fixed_size:
        return "size varies"
    try:
        check(example, device)
    except Exception as error:
        return f"FAILED: {type(error).__name__}: {error}".replace("\n", " ").replace("|", "/")[:300]
    return "ok"


def check_all(device: torch.device, ops: Iterable[str]) -> dict[str, dict[str, str]]:
    """Run every check on each op, also after failures; returns op → check → outcome."""
    results: dict[str, dict[str, str]] = {op: {} for op in ops}
    for name, check in checks(device).items():
        for op, found in results.items():
            found[name] = outcome(check, OPS[op](small=True), device)
            print(f"{name}: {op}: {found[name]}", flush=True)
    return results
