"""What the CUDA kernels move, launch and wait for, counted without a GPU: `python benchmarks/static.py`.

NOTHING HERE WAS TIMED. Each case of this folder runs once on the CPU while the ops that it calls are noted, its peer
the same way; then both are counted by one rule. Bytes are traffic beyond the caches: every tensor argument read once
and every result written once, with what `OURS` and `PEERS` add from the code of the kernels (levels read twice, scratch
maps, copies inside an op). Launches: one for each op of PyTorch's that computes, and those of the kernels as their
launch functions have them. Waits: copies of a size or a value to the host. The time is bytes over the datasheet's
bandwidth, a floor that no kernel reaches.
"""

import argparse
import pathlib
import sys
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import report

BANDWIDTH = {"H100": 3350e9, "A100": 2039e9, "RTX 4090": 1008e9}  # bytes a second: SXM, SXM 80 GB
BAND = 4096  # boxes that nms resolves together, csrc/cuda/nms_kernel.cuh
WAITS = ("nonzero", "_local_scalar_dense", "masked_select", "unique")
FREE = ("empty", "new_empty", "detach", "lift_fresh", "resize_", "set_")


def size(tensors) -> int:
    """Bytes of tensors and lists of tensors."""
    return sum(t.numel() * t.element_size() for t in tree_leaves(tensors) if isinstance(t, torch.Tensor))


def wide(t) -> int:
    """Bytes of a map in the type that kernels add in."""
    return t.numel() * max(t.element_size(), 4)


def adjoint_launches(grad, levels) -> int:
    """Along x, and along y where a level has other rows than grad."""
    return 1 + any(f.shape[2] != grad.shape[2] for f in levels)


def adjoint_bytes(grad, levels) -> int:
    """Maps between the two launches, as tall as grad and as wide as the level: written and read."""
    return 2 * sum(wide(grad) // grad.shape[3] * f.shape[3] for f in levels if f.shape[2] != grad.shape[2])


def nms_bytes(boxes) -> int:
    """Keys, their sorting (four passes over key and index), sorted boxes and flags, the masks of all bands."""
    n = len(boxes)
    return n * (2 * 8 + 4 * 2 * 16 + 2 * 16 + 2) + 2 * (-(-n // BAND)) * min(n, BAND) ** 2 // 16


def gse_fuse_backward(grad, levels, *_):
    """E of the other sizes is written and read twice, the gradient read twice more for levels of its own size.

    Every level is read for the ReLU's mask, the moments and the gradient; one of grad's size for the latter two only.
    """
    others = [f for f in levels if f.shape != grad.shape]
    moved = adjoint_bytes(grad, others) + 3 * sum(map(wide, others)) + size(levels) + size(others)
    moved += (2 * (len(levels) - len(others)) - (not others)) * size(grad)
    return (adjoint_launches(grad, others) if others else 0) + 4, moved, 0


# op -> (launches, bytes beyond arguments and results, waits), of its arguments.
OURS = {
    "roi_align": lambda *a: (1, 0, 0),
    "roi_align_backward": lambda *a: (2, 0, 0),
    "multilevel_roi_align": lambda *a: (1, 0, 0),
    "multilevel_roi_align_backward": lambda *a: (2, 0, 0),
    "nms": lambda boxes, *a: (2 + 3 * -(-len(boxes) // BAND) - 1 + 1, nms_bytes(boxes), 1),
    "upsample_sum": lambda *a: (1, 0, 0),
    # Without ReLU the levels themselves are not read.
    "upsample_sum_backward": lambda grad, levels, align_corners, relu: (
        adjoint_launches(grad, levels),
        adjoint_bytes(grad, levels) - (0 if relu else size(levels)),
        0,
    ),
    "gse_fuse": lambda levels, *a: (5, size(levels), 0),
    "gse_fuse_backward": gse_fuse_backward,
    "downsample_add": lambda *a: (1, 0, 0),
    "downsample_add_backward": lambda *a: (1, 0, 0),
    "parsing_miou": lambda *a: (1, 0, 0),
    "paste_parsing": lambda *a: (1, 0, 0),
}


def contiguous_copy(t) -> tuple[int, int]:
    """Launches and bytes of the copy that torchvision's kernels make of a channels-last map."""
    return (0, 0) if t.is_contiguous() else (1, 2 * size(t))


def peer_roi_align(maps, *_):
    launches, copied = contiguous_copy(maps)
    return 1 + launches, copied, 0


def peer_roi_align_backward(grad, boxes, scale, height, width, batch, channels, map_height, map_width, *_):
    launches, copied = contiguous_copy(grad)  # then zeros, then additions in memory: the map once more in and out
    return 2 + launches, copied + 2 * batch * channels * map_height * map_width * grad.element_size(), 0


def peer_nms(boxes, *_):
    n = len(boxes)  # sort, gather, a mask of all pairs, a sweep over it, the kept ones' selection
    return 7, n * (4 * 2 * 12 + 2 * 16) + 2 * n * n // 8, 1


PEERS = {
    "roi_align": peer_roi_align,
    "_roi_align_backward": peer_roi_align_backward,
    "nms": peer_nms,
}


class Count(TorchDispatchMode):
    """Adds up launches, bytes and waits of the ops called while it is on."""

    def __init__(self):
        super().__init__()
        self.launches = self.bytes = self.waits = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        library, _, name = function._schema.name.partition("::")
        known = {"rpcnn": OURS, "torchvision": PEERS}.get(library, {}).get(name)
        aliases = any(r.alias_info and not r.alias_info.is_write for r in function._schema.returns)
        if known:
            launches, more, waits = known(*args)
        elif aliases or any(name.startswith(free) for free in FREE) or not size((args, kwargs, result)):
            return result
        else:
            masks = name == "index" and any(getattr(i, "dtype", None) == torch.bool for i in tree_leaves(args[1]))
            waits = int(masks or name in WAITS)
            launches, more = (3, 0) if waits and name != "_local_scalar_dense" else (1, 0)
        self.launches += launches
        self.bytes += size(args) + size(kwargs or {}) + size(result) + more
        self.waits += waits
        return result


def count(run) -> Count:
    """Of one call; the first one, which may prepare something, is not counted."""
    run()
    # On the CPU the ops look at the boxes' values, on a GPU they do not, nor while compiling.
    with mock.patch("torch.compiler.is_compiling", lambda: True), Count() as counted:
        run()
    return counted


def row(case) -> str | None:
    """One line of the table; None for what has no CUDA kernel."""
    contest = case.make("cpu")
    ours, peer = count(contest.ours), count(contest.peer)
    if not any(op in case.op for op in OURS) and case.op != "batched_nms":
        return None
    times = " / ".join(f"{1e6 * ours.bytes / bandwidth:.3g}" for bandwidth in BANDWIDTH.values())
    least = f"{contest.moved / 1e6:.4g}" if contest.moved else "–"
    return (
        f"| {case.op} | {case.name} | {least} | {ours.bytes / 1e6:.4g} | {peer.bytes / 1e6:.4g} | "
        f"{ours.launches} | {peer.launches} | {ours.waits} | {peer.waits} | {times} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose title holds this")
    parser.add_argument("--output", default="", help="file to write the table to, e.g. benchmarks/STATIC.md")
    options = parser.parse_args()
    lines = [
        "# What the CUDA kernels move",
        "",
        f"`{' '.join(['python', 'benchmarks/static.py', *sys.argv[1:]])}`",
        "",
        "**Nothing here was timed, no GPU was there.** Counted from the ops that each side calls and from the kernels' "
        "code; traffic beyond the caches, with every tensor read or written once by each op that takes or gives it. "
        "*Least*: what the function needs at all. The time is our bytes over the datasheet's bandwidth of "
        + ", ".join(f"{name} ({b / 1e12:.2f} TB/s)" for name, b in BANDWIDTH.items())
        + ": a floor, not a promise.",
        "",
        "| op | case | least, MB | ours, MB | peer, MB | launches | peer's | waits | peer's | floor of ours, µs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for case in report.cases(False, options.only):
        if line := row(case):
            lines.append(line)
            print(line, flush=True)
    if options.output:
        pathlib.Path(options.output).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
