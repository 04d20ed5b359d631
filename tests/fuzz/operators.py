"""Operators: valid calls against the references, and calls with spoilt arguments, which must be refused by name."""

import contextlib
import functools
import inspect
from random import Random

import torch
from helpers.recorded import Recorded
from torch.utils._pytree import tree_map_only

from rpcnn import ops
from rpcnn.ops._library import OPS

LAYOUTS = [
    lambda t: t.contiguous(),
    lambda t: t.contiguous(memory_format=torch.channels_last),
    lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
    lambda t: torch.cat([t, t], 1)[:, : t.shape[1]],
]
DTYPES = [torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16]
ON_MAPS = [
    "roi_align",
    "multilevel_roi_align",
    "upsample_sum",
    "gse_fuse",
    "group_norm",
    "downsample_add",
    "paste_parsing",
]
TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def maps(r: Random, sizes, layout, dtype, channels=None, images=None) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(r.getrandbits(60))
    channels, images = channels or r.choice([1, 2, 3, 4, 8, 12, 33]), r.choice([1, 2]) if images is None else images
    make = lambda size: torch.randn(images, channels, *size, generator=generator)
    return [layout(make(size)).to(dtype) for size in sizes]


def pyramid_sizes(r: Random):
    sizes = [(r.randint(1, 24), r.randint(1, 24)) for _ in range(r.randint(1, 5))]
    return sorted(sizes, reverse=True) if r.random() < 0.7 else sizes


def some_boxes(r: Random, images: int, extent: float, dtype=torch.float32) -> torch.Tensor:
    rows = []
    for _ in range(r.choice([0, 1, 3, 17])):
        x, y = r.uniform(-extent, 1.5 * extent), r.uniform(-extent, 1.5 * extent)
        w, h = (r.choice([0, 1, r.uniform(-3, 2 * extent), 10 ** r.uniform(0, 9)]) for _ in range(2))
        row = [r.randrange(images), x, y, x + w, y + h]
        if r.random() < 0.1:
            row[r.randrange(1, 5)] = r.choice([float("nan"), float("inf"), -float("inf"), 1e38])
        rows.append(row)
    return torch.tensor(rows, dtype=dtype).view(-1, 5)


def call(r: Random, layout, dtype) -> tuple[str, dict, list[torch.Tensor]]:
    """An op, its arguments, and the maps among them."""
    op = r.choice(ON_MAPS)
    if op == "paste_parsing":
        k, people = r.randint(1, 21), r.randint(0, 6)
        generator = torch.Generator().manual_seed(r.getrandbits(60))
        make = lambda *size: torch.rand(size, generator=generator).softmax(-3)
        size = (r.randint(1, 50), r.randint(1, 50))
        arguments = {"probabilities": make(people, k, r.randint(1, 9), r.randint(1, 9)), "image_size": size}
        arguments["boxes"] = torch.cat([some_boxes(r, 1, 40)[:0, 1:], torch.rand(people, 4, generator=generator) * 60])
        if r.random() < 0.7:
            arguments |= {"semantic": make(k, r.randint(1, 9), r.randint(1, 9)), "semantic_weight": r.choice([0, 0.2])}
            arguments |= {"semantic_gate": r.choice([0.05, 0.7, -float("inf")])}
            arguments |= {"semantic_size": (size[0] * r.uniform(1, 2), size[1] * r.uniform(1, 2))}
        return op, arguments, []
    features = maps(
        r, pyramid_sizes(r) if op != "group_norm" else [(r.randint(1, 20), r.randint(1, 20))], layout, dtype
    )
    channels, images = features[0].shape[1], features[0].shape[0]
    if op == "upsample_sum":
        return op, {"features": features, "align_corners": r.random() < 0.5, "relu": r.random() < 0.5}, features
    if op == "downsample_add":
        return op, {"feature": features[0], "pyramid": features[1:] or features}, features
    groups = r.choice([g for g in (1, 2, 3, 4, 11) if channels % g == 0])
    affine = lambda: torch.rand(channels, dtype=dtype if dtype == torch.float64 else torch.float32) - 0.3
    if op == "group_norm":
        options = {"relu": r.random() < 0.5, "residual": features[0].flip(0) if r.random() < 0.5 else None}
        return (
            op,
            {"input": features[0], "num_groups": groups, "weight": affine(), "bias": affine()} | options,
            features,
        )
    if op == "gse_fuse":
        vectors = {name: [affine() for _ in features] for name in ("gn_weights", "gn_biases")}
        options = {"num_groups": groups, "align_corners": r.random() < 0.5}
        return op, {"features": features} | vectors | options, features
    rule = {"output_size": (r.randint(1, 9), r.randint(1, 9)), "sampling_ratio": r.choice([-1, 0, 1, 2, 3, 1024])}
    rule |= {"aligned": r.random() < 0.5, "boxes": some_boxes(r, images, 60)}
    if op == "roi_align":
        return op, {"input": features[0], "spatial_scale": r.choice([1.0, 0.5, 0.25])} | rule, features[:1]
    scales = [2.0 ** -(2 + level) for level in range(len(features))]
    return (
        op,
        {"features": features, "spatial_scales": scales, "canonical_size": r.choice([1.0, 56, 224])} | rule,
        features,
    )


def outputs(op: str, arguments: dict, name: str) -> list[torch.Tensor]:
    if op == "paste_parsing" and name.endswith("_reference"):
        return list(_paste_reference(**arguments))
    found = getattr(ops, name)(**arguments)
    return list(found) if isinstance(found, (list, tuple)) else [found]


def _paste_reference(probabilities, boxes, image_size, semantic=None, semantic_size=None, semantic_weight=0.0,
                     semantic_gate=float("inf")):  # fmt: skip
    painted, covered = torch.ones(len(boxes), dtype=torch.uint8), semantic_size or image_size
    numbers = (*map(float, covered), *image_size, semantic_weight, semantic_gate, True, True)
    return ops.paste_parsing_reference(probabilities, boxes, painted, semantic, *numbers)


def valid(r: Random) -> None:
    """The kernel gives what the reference gives, and leaves its arguments as they are."""
    if r.random() < 0.25:
        return _suppression(r) if r.random() < 0.5 else _parsing(r)
    layout, dtype = r.choice(LAYOUTS), r.choice(DTYPES)
    op, arguments, features = call(r, layout, dtype)
    before = [f.clone() for f in features]
    got, want = outputs(op, arguments, op), outputs(op, arguments, f"{op}_reference")
    for a, b in zip(got, want, strict=True):
        if op == "paste_parsing":
            assert (a != b).float().sum() <= 1 + 0.001 * a.numel(), f"{op}: labels differ"
            continue
        tolerance = TOLERANCE[dtype] * (10 if op == "gse_fuse" else 1)
        torch.testing.assert_close(
            a, b, rtol=tolerance, atol=tolerance * (1 + float(b.abs().max()) if b.numel() else 1)
        )
    assert all(torch.equal(a, b) for a, b in zip(features, before, strict=True)), f"{op} changed an argument"


def _suppression(r: Random) -> None:
    generator = torch.Generator().manual_seed(r.getrandbits(60))
    count = r.choice([0, 1, 5, 60, 700])
    corner = torch.randint(0, 30, (count, 2), generator=generator).to(r.choice(DTYPES))
    boxes = torch.cat([corner, corner + torch.randint(-1, 20, (count, 2), generator=generator)], 1)
    if count and r.random() < 0.3:
        boxes[r.randrange(count), r.randrange(4)] = r.choice([float("nan"), float("inf")])
    scores = torch.randint(0, 9, (count,), generator=generator) / 8
    idxs = torch.randint(0, 3, (count,), generator=generator) if r.random() < 0.5 else None
    threshold, most = r.choice([0.0, 0.3, 0.5, 0.7, 1.0]), r.choice([0, 3, 1000])
    got = ops.nms_padded(boxes, scores, idxs, threshold, most)
    want = ops.nms_padded_reference(boxes, scores, idxs, threshold, most)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True)), "nms_padded differs"


def _parsing(r: Random) -> None:
    generator = torch.Generator().manual_seed(r.getrandbits(60))
    pool, classes = r.choice([1, 2, 4]), r.choice([1, 2, 20, 256])
    shape = (r.randint(0, 3), pool * r.randint(1, 5), pool * r.randint(1, 5))
    logits = r.choice(LAYOUTS[:2])(torch.randn(shape[0], classes, *shape[1:], generator=generator))
    target = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    pool_logits = r.random() < 0.5
    got = ops.parsing_loss(logits, target, pool, pool_logits)
    for a, b in zip(got, ops.parsing_loss_reference(logits, target, pool, pool_logits), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ops.parsing_miou(logits, target), ops.parsing_miou_reference(logits, target))


def not_finite(r: Random) -> None:
    """Where maps hold a NaN, the reference's NaNs are NaN in the kernel's output."""
    while True:
        op, arguments, features = call(r, r.choice(LAYOUTS), torch.float32)
        if features and all(f.numel() for f in features):
            break
    poisoned = r.choice(features)
    index = tuple(r.randrange(side) for side in poisoned.shape)
    poisoned[index] = float("nan")
    wide = tree_map_only(torch.Tensor, lambda t: t.double() if t.is_floating_point() else t, arguments)
    got, want = outputs(op, arguments, op), outputs(op, arguments, f"{op}_reference")
    exact = outputs(op, wide, f"{op}_reference")
    for a, b, c in zip(got, want, exact, strict=True):
        # Where an output lies on a pixel, rounding decides which neighbor it reads: the references differ there, too.
        agreed = b.isnan() == c.isnan()
        counts = int(a.isnan().sum()), int(b.isnan().sum())
        assert torch.equal(a.isnan() & agreed, b.isnan() & agreed), f"{op}: {counts[0]} NaN, the reference {counts[1]}"


STRANGE = [
    *(None, True, "x", b"x", 1.5, -1, 0, 2**31, 2**40, 2**63, 2**70, 1j, float("nan"), float("inf"), -float("inf")),
    *([], [None], [1], (1, 2, 3), {}, object(), torch, torch.zeros(()), torch.zeros(0), torch.zeros(2, 3)),
    *(torch.zeros(1, 2, 3, 4, 5), torch.zeros(3, 4, dtype=torch.complex64), torch.zeros(3, 4, dtype=torch.int8)),
    *(torch.zeros(3, 4).to_sparse(), torch.zeros(3, 4, device="meta"), torch.zeros(3, 4, dtype=torch.float8_e4m3fn)),
    *(torch.full((3, 4), float("nan")), torch.full((1, 2, 8, 8), float("inf")), torch.zeros(1, 2, 0, 8)),
    *(torch.full((3, 5), -1e30), torch.zeros(5, 1).expand(5, 4), [torch.zeros(1, 2, 4, 4)] * 40),
]
EXAMPLES = {name: make(True) for name, make in OPS.items()}


def spoilt(r: Random) -> None:
    """An op with a strange argument raises ValueError, "op: …", or what else its docstring says, or returns."""
    op = r.choice(list(EXAMPLES))
    function, arguments = EXAMPLES[op].function, dict(EXAMPLES[op].arguments)
    for name in r.sample(list(inspect.signature(function).parameters), r.choice([1, 1, 2])):
        value, strange = arguments.get(name), r.choice(STRANGE)
        if isinstance(value, list) and r.random() < 0.5:
            value = list(value)
            value[r.randrange(len(value))] = strange
            strange = value
        arguments[name] = strange
    if op == "nms_padded" and isinstance(arguments["max_keep"], int) and arguments["max_keep"] > 2**20:
        return  # as asked, a table of gigabytes
    try:
        function(**arguments)
    except ValueError as error:
        assert f"{error}".startswith(f"{op}: "), f"{op}: the message is {error}"
    except RuntimeError as error:  # of values that the kernel reads, where the op says so
        assert "RuntimeError" in (function.__doc__ or "") and f"{op}: " in str(error), f"{op}: {error}"
    except TypeError as error:
        assert "missing a required" in str(error) or "required positional" in str(error), f"{op}: {error}"


@functools.cache
def _calls() -> list:
    with Recorded() as recorded:
        for example in EXAMPLES.values():
            example.run(example.function, "cpu")
    detached = functools.partial(tree_map_only, torch.Tensor, torch.Tensor.detach)
    return [(function, list(map(detached, arguments))) for function, arguments in recorded.calls]


def _strange_value(r: Random, value):
    """Another value of the kind of an argument."""
    if r.random() < 0.05:
        return r.choice(STRANGE)
    if isinstance(value, list):
        value = list(value)
        if not value or r.random() < 0.3:
            return value[: r.randint(0, len(value))]
        at = r.randrange(len(value))
        value[at] = _strange_value(r, value[at])
        return value
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return r.choice([0.5, 8.0, 0.0, -1.0, float("nan"), float("inf"), 1e300, 1e-300])
    if isinstance(value, int):
        return r.choice([1, 2, 3, 4, 0, -1, value + 1, 255, 2**40, 2**62, -(2**62)])
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or r.random() < 0.3:
        return r.choice(TENSORS)()
    sizes = list(value.shape)
    kind = r.randrange(7)
    if kind == 0 and sizes:
        dim = r.randrange(len(sizes))
        return value.narrow(dim, 0, r.choice([0, sizes[dim] // 2, sizes[dim]]))
    if kind == 1 and sizes:
        return value.transpose(0, r.randrange(len(sizes)))
    if kind == 2:
        return value.to(r.choice([torch.float64, torch.float32, torch.bfloat16, torch.uint8, torch.int64]))
    if kind == 3:
        numbers = [float("nan"), float("inf"), -1e30, 255.0, -1.0, 1e30]
        return torch.full_like(value, r.choice(numbers)) if value.is_floating_point() else torch.full_like(value, 127)
    if kind == 4 and value.dtype == torch.uint8:
        return torch.full_like(value, r.choice([255, 200, 16]))
    if kind == 5:
        return value[None]
    return value.flatten()


def raw(r: Random) -> None:
    """An operator called directly, with some arguments spoilt, raises or returns; it never ends the process."""
    operator, arguments = r.choice(_calls())
    arguments = list(arguments)
    for _ in range(r.choice([1, 1, 2, 3])):
        at = r.randrange(len(arguments))
        arguments[at] = _strange_value(r, arguments[at])
    expected = (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError, MemoryError, OverflowError)
    with contextlib.suppress(*expected):
        operator(*arguments)


TENSORS = [
    lambda: torch.randn(1, 4, 8, 8), lambda: torch.randn(2, 4, 8, 8), lambda: torch.randn(2, 4, 4, 4),
    lambda: torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last), lambda: torch.randn(4),
    lambda: torch.rand(2, 5) * 2, lambda: torch.rand(2, 4) * 8, lambda: torch.rand(2), lambda: torch.zeros(2, 2),
    lambda: torch.randint(0, 256, (2, 8, 8), dtype=torch.uint8), lambda: torch.randint(-9, 9, (2,)),
    lambda: torch.randint(0, 256, (2, 4, 4, 4), dtype=torch.uint8), lambda: torch.ones(2, dtype=torch.uint8),
    lambda: torch.randn(2, 4, 8, 8, dtype=torch.float64), lambda: torch.randn(2, 4, 8, 8).bfloat16(),
    lambda: torch.ones(()), lambda: torch.zeros(0, 5), lambda: torch.zeros(0, 4, 8, 8), lambda: torch.randn(4, 8, 8),
    lambda: torch.randn(2, 8, 8), lambda: torch.full((2, 5), float("nan")), lambda: torch.full((2, 4), float("inf")),
    lambda: torch.zeros(2, 4, 0, 3),
]  # fmt: skip
