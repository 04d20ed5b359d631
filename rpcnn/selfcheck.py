"""Checks and times the kernels on this machine's GPU: ``python -m rpcnn.selfcheck``.

Every op is held against its plain-PyTorch definition on the CPU, forward and backward, in float32, float16 and
bfloat16; called again and again for bit-equal results; on a side stream; on every further device; captured in a CUDA
graph where its sizes allow. Then its speed: milliseconds, GB/s of the fewest bytes, share of the copying speed.
The report is one Markdown file, ready to be pasted into an issue. Without a GPU it says so; ``--device cpu`` does what
can be done without one.
"""

import argparse
import datetime
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rpcnn import ops
from rpcnn.info import OPS, compiled_ops, report

SIZES = [(200, 304), (100, 152), (50, 76), (25, 38), (13, 19)]  # P2..P6 of an 800×1216 image
SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64]
TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}


@dataclass
class Case:
    """One way to call an op."""

    op: str
    call: Callable[..., object]
    """Of `maps` and `rest`: a tensor or several."""
    definition: Callable[..., object]
    """The same in plain PyTorch."""
    maps: list[Tensor]
    """float32, contiguous; tried in every dtype and layout, and differentiated where the op is."""
    rest: list[Tensor] = field(default_factory=list)
    """Boxes, scores, labels: as they are."""
    differentiable: bool = True
    exact: bool = False
    """Integers that must be equal, up to one in a thousand where two sums may round apart."""
    fixed_size: bool = True
    """Whether it can be captured in a graph."""

    def on(self, device, dtype=torch.float32, layout=torch.contiguous_format) -> tuple[list[Tensor], list[Tensor]]:
        """Its inputs elsewhere."""
        shaped = lambda m: m.to(memory_format=layout) if m.dim() == 4 else m
        maps = [shaped(m.to(device, dtype)) if m.is_floating_point() else m.to(device) for m in self.maps]
        return maps, [t.to(device) for t in self.rest]


def cases(small: bool) -> list[Case]:
    """Every op once, at a quarter of the paper's sizes for checking, at the paper's for timing."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    shrink, channels, people = (4, 32, 64) if small else (1, 256, 512)
    sizes = [(-(-h // shrink), -(-w // shrink)) for h, w in SIZES]
    pyramid = [draw(1, channels, *size) for size in sizes]
    extent = torch.tensor([1216.0, 800]) / shrink
    corner = torch.rand(people, 2, generator=generator) * extent * 0.7
    size = extent * (0.05 + 0.4 * torch.rand(people, 2, generator=generator))
    rows = torch.cat([torch.zeros(people, 1), corner, corner + size], 1)
    crowd = (corner + size * 0.2 * torch.rand(people, 2, generator=generator)).repeat(4, 1)
    boxes = torch.cat([crowd, crowd + size.repeat(4, 1)], 1)
    scores, groups = torch.rand(len(boxes), generator=generator), torch.arange(len(boxes)) % 5
    norms = [torch.ones(channels)] * 5, [torch.zeros(channels)] * 5
    logits = draw(4 if small else 16, 20, 32 if small else 128, 32 if small else 128)
    target = torch.randint(0, 20, (len(logits), *logits.shape[2:]), generator=generator)
    maps = logits.softmax(1)
    canvas = tuple(int(v) for v in extent.flip(0))
    painted, semantic = torch.ones(len(maps), dtype=torch.bool), draw(20, *sizes[0]).softmax(0)
    knobs = {"semantic_weight": 0.2, "semantic_gate": 0.7}

    def paste(maps, rows, painted, semantic):
        return ops.paste_parsing(maps.float(), rows[: len(maps), 1:], canvas, painted, semantic=semantic, **knobs)

    def paste_definition(maps, rows, painted, semantic):
        arguments = maps.float(), rows[: len(maps), 1:], painted.to(torch.uint8), semantic, *map(float, canvas), *canvas
        return ops.paste_parsing_reference(*arguments, *knobs.values(), True, True)

    level = lambda f: lambda *t: f(list(t[:5]), t[5], 7, SCALES, 2, True)
    fuse = lambda f: (
        lambda *t: f(list(t), [w.to(t[0].device) for w in norms[0]], [b.to(t[0].device) for b in norms[1]], 32)
    )
    return [
        Case(
            "roi_align",
            lambda m, r: ops.roi_align(m, r, 7, 0.25, 2, True),
            lambda m, r: ops.roi_align_reference(m, r, 7, 0.25, 2, True),
            pyramid[:1],
            [rows],
        ),
        Case(
            "multilevel_roi_align",
            level(ops.multilevel_roi_align),
            level(ops.multilevel_roi_align_reference),
            pyramid,
            [rows],
        ),
        Case("upsample_sum", lambda *t: ops.upsample_sum(list(t)), lambda *t: ops.upsample_sum_reference(t), pyramid),
        Case("gse_fuse", fuse(ops.gse_fuse), fuse(ops.gse_fuse_reference), pyramid),
        Case(
            "downsample_add",
            lambda *t: ops.downsample_add(t[0], list(t)),
            lambda *t: ops.downsample_add_reference(t[0], list(t)),
            pyramid,
        ),
        Case(
            "parsing_miou",
            ops.parsing_miou,
            ops.parsing_miou_reference,
            [logits],
            [target],
            differentiable=False,
        ),
        Case(
            "paste_parsing",
            paste,
            paste_definition,
            [maps],
            [rows, painted, semantic],
            differentiable=False,
            exact=True,
        ),
        Case(
            "nms",
            lambda b, s: ops.nms(b, s, 0.5),
            lambda b, s: ops.nms_reference(b, s, 0.5),
            [],
            [boxes, scores],
            differentiable=False,
            exact=True,
            fixed_size=False,
        ),
        Case(
            "nms_padded",
            lambda b, s, g: ops.nms_padded(b, s, g, 0.5, 300),
            lambda b, s, g: ops.nms_padded_reference(b, s, g, 0.5, 300),
            [],
            [boxes, scores, groups],
            differentiable=False,
            exact=True,
        ),
    ]


def tensors(result) -> list[Tensor]:
    """A result as a list."""
    return [result] if isinstance(result, Tensor) else list(result)


def run(case: Case, f: Callable, device, dtype=torch.float32, layout=torch.contiguous_format) -> list[Tensor]:
    """Outputs, and the gradients of their sum of squares."""
    maps, rest = case.on(device, dtype, layout)
    maps = [m.detach().requires_grad_(case.differentiable) for m in maps]
    out = tensors(f(*maps, *rest))
    if case.differentiable:
        loss = sum((t.float() ** 2).sum() for t in out)
        out += torch.autograd.grad(loss, maps)
    return [t.detach() for t in out]


def agree(case: Case, mine: list[Tensor], wanted: list[Tensor], tolerance: float):
    """Raises AssertionError where they differ."""
    for got, want in zip(mine, wanted, strict=True):
        got = got.cpu()
        if case.exact or not want.is_floating_point():
            assert got.shape == want.shape, f"shape {list(got.shape)}, wanted {list(want.shape)}"
            wrong = (got != want).float().mean().item() if want.numel() else 0.0
            assert wrong <= 1e-3, f"{100 * wrong:.2f} % differ"
        else:
            error = (got.double() - want.double()).norm() / want.double().norm().clamp(min=1e-12)
            assert error <= tolerance, f"relative error {error:.1e}, allowed {tolerance:.0e}"


def check_definition(case: Case, device):
    """Every dtype and layout against the definition in float64 of the same rounded numbers."""
    for dtype, tolerance in TOLERANCE.items():
        if dtype != torch.float32 and not case.maps:
            continue
        rounded = Case(**{**vars(case), "maps": [m.to(dtype).float() for m in case.maps]})
        wanted = run(rounded, case.definition, "cpu")
        for layout in (torch.contiguous_format, torch.channels_last):
            agree(case, run(rounded, case.call, device, dtype, layout), wanted, tolerance)


def check_repeats(case: Case, device):
    """Five calls, bit for bit."""
    first = run(case, case.call, device)
    for _ in range(4):
        assert all(map(torch.equal, run(case, case.call, device), first)), "two calls differ"


def check_stream(case: Case, device):
    """Two side streams at once, beside the current one."""
    wanted = run(case, case.call, device)
    streams, results = [torch.cuda.Stream(device) for _ in range(2)], []
    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            results.append(run(case, case.call, device))
    torch.cuda.synchronize(device)
    assert all(all(map(torch.equal, result, wanted)) for result in results), "a side stream gives something else"


def check_graph(case: Case, device):
    """Captured once, replayed on other numbers."""
    maps, rest = case.on(device)
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side), torch.no_grad():
        case.call(*maps, *rest)
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        captured = tensors(case.call(*maps, *rest))
    for m in maps:
        m.mul_(0.5)
    graph.replay()
    with torch.no_grad():
        wanted = tensors(case.call(*maps, *rest))
    assert all(map(torch.equal, captured, wanted)), "the replay gives something else"


def check_second_device(case: Case, device):
    """On every other device, with the first one current."""
    wanted = run(case, case.call, device)
    for index in range(torch.cuda.device_count()):
        got = [t.to(device) for t in run(case, case.call, f"cuda:{index}")]
        assert all(map(torch.equal, got, wanted)), f"cuda:{index} gives something else"


def milliseconds(f, device) -> float:
    """Median of 20 calls after three."""
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
    """A table: forward, and forward + backward, at the paper's sizes."""
    source = torch.ones(1 << 26, device=device)
    target = torch.empty_like(source)
    copying = 2 * source.nbytes / milliseconds(lambda: target.copy_(source), device) / 1e6
    lines = [f"Copying 256 MB: {copying:.0f} GB/s, read and write counted.", ""]
    lines += ["| op | forward, ms | GB/s | of copying | forward + backward, ms |", "|---|---|---|---|---|"]
    for case in cases(small=False):
        layout = torch.channels_last
        maps, rest = case.on(device, layout=layout)
        with torch.no_grad():
            out = tensors(case.call(*maps, *rest))
            forward = milliseconds(lambda case=case, maps=maps, rest=rest: case.call(*maps, *rest), device)
        speed = sum(t.nbytes for t in (*maps, *rest, *out)) / forward / 1e6
        both = "–"
        if case.differentiable:
            leaves = [m.requires_grad_() for m in maps]
            grads = [torch.ones_like(t) for t in out]

            def step(case=case, leaves=leaves, rest=rest, grads=grads):
                torch.autograd.grad(tensors(case.call(*leaves, *rest)), leaves, grads)

            both = f"{milliseconds(step, device):.3f}"
        lines.append(f"| {case.op} | {forward:.3f} | {speed:.0f} | {100 * speed / copying:.0f} % | {both} |")
    return lines


def checks(device: torch.device) -> dict[str, Callable]:
    """Those that this device allows."""
    chosen = {"definition": check_definition, "repeats": check_repeats}
    if device.type == "cuda":
        chosen |= {"streams": check_stream, "graph": check_graph}
        if torch.cuda.device_count() > 1:
            chosen |= {"devices": check_second_device}
    return chosen


def check_all(device: torch.device) -> tuple[list[str], int]:
    """The table of the checks, and how many failed; a failure never keeps the rest from running."""
    chosen, failed = checks(device), 0
    lines = ["| op | " + " | ".join(chosen) + " |", "|---|" + "---|" * len(chosen)]
    for case in cases(small=True):
        cells = []
        for name, check in chosen.items():
            if name == "graph" and not case.fixed_size:
                cells.append("size varies")
                continue
            try:
                check(case, device)
                cells.append("ok")
            except Exception as error:
                failed += 1
                cells.append(f"FAILED: {type(error).__name__}: {error}".replace("\n", " ").replace("|", "/")[:300])
        lines.append(f"| {case.op} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return lines, failed


def main(arguments: list[str] | None = None) -> int:
    """0: all is well, or there is no GPU to check; 1: something failed; 2: the kernels for the device are missing."""
    parser = argparse.ArgumentParser(
        prog="python -m rpcnn.selfcheck", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default cuda)")
    parser.add_argument("--output", default="", help="where the report goes (default selfcheck-<date>.md)")
    parser.add_argument("--no-timing", action="store_true", help="checks only")
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("rpcnn: no GPU is visible here, so nothing was checked. --device cpu checks the CPU kernels.")
        return 0
    device = torch.device(options.device)
    kind = device.type.upper()
    missing = [op for op in OPS if not compiled_ops()[op][kind]]
    if missing:
        print(
            f"rpcnn: no {kind} kernel is compiled for {', '.join(missing)}; see python -m rpcnn.info", file=sys.stderr
        )
        return 2
    table, failed = check_all(device)
    lines = [f"# rpcnn selfcheck on {device}, {datetime.date.today()}", "", "```", report(), "```", "", *table]
    lines += ["", f"{failed} checks failed." if failed else "All checks passed."]
    if not options.no_timing:
        lines += ["", *timings(device)]
    path = pathlib.Path(options.output or f"selfcheck-{datetime.date.today()}.md")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines[-12 if not options.no_timing else -1 :]))
    print(f"rpcnn: the report is in {path}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
