"""Profiles the paper's network end to end, and compares it with the same network on torchvision's ops.

    python benchmarks/end_to_end.py            # one training step at 512×704, one prediction at 800 px with 20 people
    python benchmarks/end_to_end.py --precision bf16

The baseline is the same model with the same weights. Every op of rpcnn.ops is replaced by torchvision's op or by the
PyTorch composition that the paper's figures suggest: RoIAlign level by level, GSE-FPN with its 1×1 convolutions after
the up-sampling. "Share outside multiply-adds" is the time outside convolutions, matrix products and attention.
"""

import argparse
import contextlib
import datetime
import os
import pathlib
import re
import statistics
import subprocess
import sys

import torch
import torch.nn.functional as F
import torchvision

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from bench_gse_fuse import composition as up_sampled_branch
from bench_parsing_loss import composition as parsing_loss_by_ops
from measure import retain_memory, seconds

from rpcnn import ops
from rpcnn.config import Config
from rpcnn.data.painted.scene import paint_scene
from rpcnn.data.transforms import TestTransform
from rpcnn.inference.combine import combine
from rpcnn.info import processor
from rpcnn.labels import CIHP
from rpcnn.model import RPRCNN
from rpcnn.model.box_head import BoxHead
from rpcnn.model.gse_fpn import GSEFPN
from rpcnn.model.layers import GroupNorm

MULTIPLY_ADDS = ("conv", "mm", "linear", "attention", "bmm")  # substrings in the names of the ops that multiply-add


# --- the same network without our kernels ---------------------------------------------------------------------------


def baseline_multilevel(
    features, boxes, output_size, spatial_scales, sampling_ratio=2, aligned=True, canonical_size=224
):
    """Run one RoIAlign per level on the boxes of that level, and restore their order, as common pyramid poolers do."""
    rows = torch.cat([F.pad(b, (1, 0), value=i) for i, b in enumerate(boxes)])
    size = ((rows[:, 3] - rows[:, 1]) * (rows[:, 4] - rows[:, 2])).clamp(min=0).sqrt()
    levels = torch.floor(4 + torch.log2(size / canonical_size + 1e-6)).clamp(2, 1 + len(features)) - 2
    out = features[0].new_zeros(len(rows), features[0].shape[1], output_size, output_size)
    for level, (feature, scale) in enumerate(zip(features, spatial_scales, strict=True)):
        of_level = (levels == level).nonzero()[:, 0]
        pooled = torchvision.ops.roi_align(
            feature, rows[of_level].to(feature.dtype), output_size, scale, sampling_ratio, aligned
        )
        out = out.index_put((of_level,), pooled.to(out.dtype))
    return out


def baseline_roi_align(feature, boxes, output_size, spatial_scale, sampling_ratio, aligned):
    boxes = [b.to(feature.dtype) for b in boxes]
    return torchvision.ops.roi_align(feature, boxes, output_size, spatial_scale, sampling_ratio, aligned)


def baseline_downsample_add(feature, levels):
    return [p + F.interpolate(feature, p.shape[2:], mode="bilinear", align_corners=False) for p in levels]


def baseline_gse(self, pyramid):
    """GSEFPN.forward with the convolutions after the up-sampling, as in Fig. 3."""
    blocks = list(self.lateral)
    weights, biases = [b[1].weight for b in blocks], [b[1].bias for b in blocks]
    fused = up_sampled_branch(pyramid, weights, biases, [b[0].weight for b in blocks])
    feature = self.convs(fused)
    return self.logits(feature), baseline_downsample_add(self.embedding(feature), pyramid[: self.levels])


def baseline_group_norm(self, x, residual=None):
    out = torch.nn.GroupNorm.forward(self, x)
    out = out if residual is None else out.add_(residual)
    return F.relu_(out) if self.relu else out


@contextlib.contextmanager
def baseline_ops():
    """Replace our ops by the baseline's inside the context."""
    changes = {
        (ops, "roi_align"): baseline_roi_align,
        (ops, "multilevel_roi_align"): baseline_multilevel,
        (ops, "batched_nms"): torchvision.ops.batched_nms,
        (ops, "parsing_loss"): lambda *a, ignore_index, **k: parsing_loss_by_ops(*a, **k),
        (GSEFPN, "forward"): baseline_gse,
        (GroupNorm, "forward"): baseline_group_norm,
    }
    kept = {key: getattr(*key) for key in changes}
    try:
        for (owner, name), f in changes.items():
            setattr(owner, name, f)
        yield
    finally:
        for (owner, name), f in kept.items():
            setattr(owner, name, f)


# --- what is timed --------------------------------------------------------------------------------------------------


class Training:
    """One step of the paper's CIHP network on one image of 512×704 with four people, 16 parsing RoIs."""

    def __init__(self, dtype):
        self.dtype = dtype
        torch.manual_seed(0)
        self.model = RPRCNN.from_config(Config()).to(memory_format=torch.channels_last).train()
        self.sample = paint_scene(3, 512, 704, people=4)
        self.optimizer = torch.optim.SGD([p for p in self.model.parameters() if p.requires_grad], 1e-5, fused=True)

    def __call__(self):
        image, target = self.sample["image"], {k: v for k, v in self.sample.items() if k != "image"} | {"seed": 1}
        with torch.autocast("cpu", self.dtype or torch.bfloat16, enabled=self.dtype is not None):
            losses = self.model([image], [target])
        sum(losses.values()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class Prediction:
    """Prediction for one image at 800 px: 20 people parsed, pasted and combined."""

    def __init__(self, dtype):
        self.dtype = dtype
        torch.manual_seed(0)
        self.model = RPRCNN.from_config(Config()).to(memory_format=torch.channels_last).eval()
        generator = torch.Generator().manual_seed(0)
        size = torch.rand(20, 1, generator=generator) * 300 + 100
        size = torch.cat([size * 0.5, size], 1)
        corner = torch.rand(20, 2, generator=generator) * (torch.tensor([1066.0, 800.0]) - size)
        self.people = torch.cat([corner, corner + size], 1), torch.linspace(1, 0.5, 20)
        self.image = paint_scene(3, 800, 1066, people=4)["image"]

    @torch.inference_mode()
    def __call__(self):
        original = BoxHead.detect

        def detect(head, *arguments):
            original(head, *arguments)  # to include its time; its detections with random weights are not used
            return [self.people]

        BoxHead.detect = detect
        try:
            with torch.autocast("cpu", self.dtype or torch.bfloat16, enabled=self.dtype is not None):
                detections = self.model([TestTransform(800, 1333)(self.image)])[0]
            combine(
                detections,
                tuple(self.image.shape[-2:]),
                CIHP,
                min_score=0.0,
                semantic_gate=0.7,
                instance_semantic_weight=0.2,
                semantic_mode="combine",
            )
        finally:
            BoxHead.detect = original


def peak_memory(task: str, precision: str, side: str) -> float:
    """Measure the peak memory of one run, in GB above the loaded model, in a new process with glibc's defaults."""
    command = [sys.executable, __file__, "--only", task, "--precision", precision, "--memory-of", side]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def memory_of(f) -> float:
    """Measure the peak growth of this process while f runs, in GB. Nothing large may have been freed before."""
    status = lambda key: int(re.search(rf"{key}:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text()).group(1))
    before = status("VmRSS")
    f()
    return (status("VmHWM") - before) / 1e6


def profile(f) -> dict[str, float]:
    """Measure the seconds per op name."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        f()
    return {event.key: event.self_cpu_time_total / 1e6 for event in profiler.key_averages()}


def rest(times: dict[str, float]) -> float:
    """Compute the share of the time outside convolutions, matrix products and attention, in percent."""
    multiplying = sum(time for name, time in times.items() if any(part in name.lower() for part in MULTIPLY_ADDS))
    return 100 * (1 - multiplying / sum(times.values()))


def compare(name: str, sides: dict, rounds: int, rows: int, precision: str) -> list[str]:
    """Time the sides in alternating rounds and profile each three times. Returns the lines of the report."""
    for run in sides.values():
        run()
    times = {side: [] for side in sides}
    for _ in range(rounds):
        for side, run in sides.items():
            times[side].append(seconds(run))
    profiles = {side: sorted((profile(run) for _ in range(3)), key=rest)[1] for side, run in sides.items()}
    memory = {side: peak_memory(name, precision, side) for side in sides}
    middle = {side: statistics.median(values) for side, values in times.items()}
    lines = ["", f"## {name}, {precision}", "", "| | " + " | ".join(sides) + " |", "|---|" + "---|" * len(sides)]
    for title, show in {
        "seconds": lambda side: f"{middle[side]:.2f}",
        "times ours": lambda side: f"{middle[side] / middle['ours']:.2f}",
        "share outside multiply-adds": lambda side: f"{rest(profiles[side]):.1f} %",
        "peak memory above the model": lambda side: f"{memory[side]:.2f} GB",
    }.items():
        lines.append(f"| **{title}** | " + " | ".join(map(show, sides)) + " |")
    names = sorted(set().union(*profiles.values()), key=lambda key: -max(p.get(key, 0) for p in profiles.values()))
    for key in names[:rows]:
        lines.append(f"| {key}, ms | " + " | ".join(f"{1e3 * p.get(key, 0):.1f}" for p in profiles.values()) + " |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--only", choices=["training", "prediction"], default="")
    parser.add_argument("--no-baseline", action="store_true")
    parser.add_argument("--retain-memory", action="store_true", help="both sides with glibc keeping freed memory")
    parser.add_argument("--rows", type=int, default=24, help="lines of the profile")
    parser.add_argument("--output", default="", help="file to write the tables to, e.g. benchmarks/END_TO_END.md")
    parser.add_argument(
        "--memory-of", choices=["ours", "baseline"], help="print one run's peak memory in GB, nothing else"
    )
    options = parser.parse_args()
    if options.retain_memory:
        retain_memory()
        torch.ones(1 << 30)  # grow the heap by 4 GB now, or the system clears pages during any later op
    dtype = torch.bfloat16 if options.precision == "bf16" else None
    lines = ["# The whole network", "", f"`{' '.join(['python', 'benchmarks/end_to_end.py', *sys.argv[1:]])}`", ""]
    lines += [f"{datetime.date.today()}, {processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}."]
    lines += [
        "",
        "The baseline is the same network on torchvision's and PyTorch's ops only. Times per op are from one profiled",
    ]
    lines += ["run of three, the one with the median share."]
    for name, build in {"training": Training, "prediction": Prediction}.items():
        if options.only and name != options.only:
            continue
        run = build(dtype)

        def baseline(run=run):
            with baseline_ops():
                run()

        sides = {"ours": run} if options.no_baseline else {"ours": run, "baseline": baseline}
        if options.memory_of:
            print(memory_of({"ours": run, "baseline": baseline}[options.memory_of]))
            return
        lines += compare(name, sides, options.rounds, options.rows, options.precision)
        print("\n".join(lines[-options.rows - 9 :]), flush=True)
    if options.output:
        pathlib.Path(options.output).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
