"""Calls of rpcnn's ops on CPU tensors, repeated on the kernels' machine code, as csrc/cuda/<op>.cu launches them.

`LAUNCH` maps an operator to a function of its arguments. Results are thrown away: what is wanted are the counts.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from . import emulator

F64 = torch.float64


def innermost(t) -> bool:
    """Whether channels lie innermost."""
    return t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous()


def dense(t, last: bool):
    """Copy where needed, channels innermost if `last`."""
    return t.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def sizes(maps):
    """Heights and widths of maps."""
    return [m.shape[2] for m in maps], [m.shape[3] for m in maps]


def pool(maps, boxes, scales, height, width, ratio, aligned, *canonical):
    last, boxes = innermost(maps[0]), boxes.to(emulator.accumulation(maps[0].dtype))
    maps = [dense(m, last) for m in maps]
    out = torch.empty(len(boxes), maps[0].shape[1], height, width, dtype=maps[0].dtype)
    out = out.to(memory_format=torch.channels_last) if last else out
    shape = (*maps[0].shape[:2], len(maps), *sizes(maps), last)
    rule = (len(boxes), height, width, ratio, aligned, torch.tensor([*(canonical or (224, 4, 0))]).float())
    emulator.call("roi_align", out.dtype, *shape, maps, boxes, *rule, out)


def unpool(grad, boxes, scales, batch, heights, widths, ratio, aligned, *rest):
    *canonical, last = rest
    grad, boxes = dense(grad, last), boxes.to(emulator.accumulation(grad.dtype))
    layout = torch.channels_last if last else torch.contiguous_format
    shape = (batch, grad.shape[1])
    out = [
        torch.empty(*shape, h, w, dtype=grad.dtype, memory_format=layout) for h, w in zip(heights, widths, strict=True)
    ]
    rule = (len(boxes), *grad.shape[2:], ratio, aligned, torch.tensor([*(canonical or (224, 4, 0))]).float())
    levels = (len(out), list(heights), list(widths), last)
    emulator.call("roi_align_backward", grad.dtype, *shape, *levels, out, boxes, *rule, grad)


def nms(boxes, scores, idxs, threshold, max_keep, slots=0):
    n = len(boxes)
    if n == 0:
        return
    keys = torch.empty(n, dtype=torch.int64 if scores.dtype == F64 else torch.int32)
    emulator.call("nms_keys", scores.dtype, scores, scores.stride(0), n, keys)
    best, ranks, buckets = keys.argsort(stable=True), None, None
    if idxs is not None:
        buckets = torch.empty(n, dtype=torch.int16)
        emulator.call("nms_buckets", idxs, idxs.stride(0), best, n, buckets)
        buckets, ranks = buckets.sort(stable=True)
    limit = n if max_keep < 0 else min(n, max_keep)
    results = torch.empty(max(limit, slots), dtype=torch.int64), torch.empty((), dtype=torch.int64)
    order = (idxs, 0 if idxs is None else idxs.stride(0), best, ranks, buckets, n)
    rule = (torch.tensor([threshold], dtype=F64), 8192, limit, slots)
    emulator.call("nms", boxes.dtype, boxes, *boxes.stride(), *order, *rule, *results)


def grid_anchors(cells, strides, heights, widths):
    anchors = sum(h * w for h, w in zip(heights, widths, strict=True)) * cells.shape[1]
    out = torch.empty(anchors, 4, dtype=cells.dtype)
    emulator.call("grid_anchors", cells.dtype, cells, *cells.shape[:2], [*strides], [*heights], [*widths], out)


def decode_proposals(deltas, best, anchors, heights, widths, min_size):
    counts, kept = [d.shape[1] for d in deltas], [b.shape[1] for b in best]
    boxes = torch.empty(len(heights), sum(kept), 4, dtype=anchors.dtype)
    results = boxes, torch.empty(boxes.shape[:2], dtype=torch.int64)
    deltas, best = [d.contiguous() for d in deltas], [b.contiguous() for b in best]
    levels = (len(deltas), deltas, best, counts, kept, anchors)
    images = (len(heights), [*heights], [*widths], min_size)
    emulator.call("decode_proposals", deltas[0].dtype, *levels, *images, *results)


def match_boxes(boxes, gt_boxes, positive, negative, promote_best, height, width):
    rule = (torch.tensor([positive, negative], dtype=F64), promote_best, height, width)
    matched = torch.empty(len(boxes), dtype=torch.int64)
    emulator.call("match_boxes", boxes.dtype, boxes, len(boxes), gt_boxes, len(gt_boxes), *rule, matched)


def draw_samples(matched, keys, count, max_positive, negatives):
    n, size = len(matched), min(count, len(matched))
    unsorted = torch.empty(n, dtype=torch.int32)
    emulator.call("sample_keys", matched, keys, n, negatives, unsorted)
    ordered, indices = unsorted.sort(stable=True)
    samples = torch.empty(2, size, dtype=torch.int64)
    emulator.call("take_samples", ordered, indices, matched, n, size, max_positive, *samples)


def encode_boxes(gt_boxes, references, matched, *weights):
    counts = (gt_boxes, len(gt_boxes), references, matched, len(references))
    emulator.call("encode_boxes", references.dtype, *counts, *map(float, weights), torch.empty_like(references))


def upsample_sum(features, align_corners, relu):
    last = innermost(features[0])
    features = [dense(f, last) for f in features]
    options = (*features[0].shape[:2], last, align_corners, relu, len(features), *sizes(features))
    emulator.call("upsample_sum", features[0].dtype, torch.empty_like(features[0]), *options, features)


def upsample_sum_backward(grad, features, align_corners, relu):
    last = innermost(features[0])
    features = [dense(f, last) for f in features]
    shape = features[0].shape[:2]
    between = emulator.adjoint_scratch(*shape, [f.shape[2:] for f in features], grad.dtype)
    options = (*shape, last, align_corners, relu, len(features), *sizes(features))
    grads = [torch.empty_like(f) for f in features]
    emulator.call("upsample_sum_backward", grad.dtype, dense(grad, last), between, *options, features, grads)


def gse_options(features, groups, align_corners):
    last = innermost(features[0])
    features = [dense(f, last) for f in features]
    shape = features[0].shape[:2]
    return features, (*shape, groups, last, align_corners, len(features), *sizes(features))


def gse_fuse(features, weights, biases, groups, eps, align_corners):
    features, options = gse_options(features, groups, align_corners)
    statistics = torch.empty(2, len(features[0]), len(features), groups, dtype=weights[0].dtype)
    out = torch.empty_like(features[0])
    emulator.call("gse_fuse", out.dtype, out, *statistics, *options, features, [*weights], [*biases])


def gse_fuse_backward(grad, features, weights, biases, mean, rstd, groups, align_corners):
    features, options = gse_options(features, groups, align_corners)
    between = emulator.adjoint_scratch(*features[0].shape[:2], [f.shape[2:] for f in features], grad.dtype)
    results = [[torch.empty_like(t) for t in like] for like in (features, weights, biases)]
    given = (dense(grad, innermost(features[0])), mean, rstd, between, *options, features, [*weights], [*biases])
    emulator.call("gse_fuse_backward", grad.dtype, *given, *results)


def norm_options(x, groups):
    last, (images, channels, height, width) = innermost(x), x.shape
    stretches = min(max(-(-height * width // 1024), 1), 128)
    partial = torch.empty(images * stretches * 2 * channels, dtype=emulator.accumulation(x.dtype))
    return last, dense(x, last), partial, (x.dtype, images, channels, height * width, groups, last)


def group_norm(x, weight, bias, groups, eps, relu, residual):
    last, x, partial, options = norm_options(x, groups)
    residual = None if residual is None else dense(residual, last)
    statistics = torch.empty(2, len(x), groups, dtype=weight.dtype)
    vectors = (weight, bias, *statistics, partial, relu)
    emulator.call("group_norm", *options, x, residual, *vectors, torch.empty_like(x))


def group_norm_backward(grad, x, weight, bias, mean, rstd, groups, relu, residual):
    last, x, partial, options = norm_options(x, groups)
    onto = None if residual is None else dense(residual, last)
    results = torch.empty_like(x), torch.empty_like(x) if relu and onto is not None else None
    vectors = (weight, bias, mean, rstd, partial, relu, dense(grad, last))
    both = torch.empty_like(weight), torch.empty_like(bias)
    emulator.call("group_norm_backward", *options, x, onto, *vectors, *results, *both)


def downsample_add(feature, pyramid):
    last = innermost(feature)
    pyramid = [dense(p, last) for p in pyramid]
    levels = (*feature.shape, last, len(pyramid), *sizes(pyramid))
    out = [torch.empty_like(p) for p in pyramid]
    emulator.call("downsample_add", feature.dtype, dense(feature, last), *levels, pyramid, out)


def downsample_add_backward(grads, height, width):
    last, shape = innermost(grads[0]), (*grads[0].shape[:2], height, width)
    grads = [dense(g, last) for g in grads]
    out = torch.empty(*shape, dtype=grads[0].dtype)
    out = out.to(memory_format=torch.channels_last) if last else out
    emulator.call("downsample_add_backward", out.dtype, out, *shape, last, len(grads), *sizes(grads), grads)


def labels(t):
    return t, t.element_size(), t.dtype != torch.uint8, [*t.stride()]


def parsing_miou(prediction, target, classes, ignored):
    shape = (*target.shape[:1], classes, *target.shape[1:], ignored, torch.empty(len(target)))
    if prediction.dim() == 4:
        given = (prediction.dtype, prediction, [*prediction.stride()])
        emulator.call("parsing_miou", *given, *labels(target), *shape)
    else:
        emulator.call("parsing_miou_labels", *labels(prediction), *labels(target), *shape)


def loss_options(logits, pool):
    last, (rois, classes, height, width) = innermost(logits), logits.shape
    return last, dense(logits, last), (rois, classes, height, width, pool, last)


def parsing_loss(logits, target, pool, pool_logits, ignored):
    last, logits, options = loss_options(logits, pool)
    rois, classes, height, width = logits.shape
    wide, empty = emulator.accumulation(logits.dtype), torch.empty
    cells = (rois, classes, height // pool, width // pool)
    layout = torch.channels_last if last else torch.contiguous_format
    loss, valid, miou = empty((), dtype=wide), empty(rois, dtype=torch.int64), empty(rois)
    pooled, log_sum = empty(cells, dtype=logits.dtype, memory_format=layout), empty(rois, height, width, dtype=wide)
    largest = empty(cells, dtype=torch.uint8, memory_format=layout)
    given = (logits.dtype, logits, target.contiguous(), *options, pool_logits, ignored)
    emulator.call("parsing_loss", *given, loss, valid, miou, pooled, log_sum, largest)


def parsing_loss_backward(grad_loss, grad_pooled, logits, target, log_sum, largest, pool, pool_logits, ignored):
    last, logits, options = loss_options(logits, pool)
    grad_pooled = None if grad_pooled is None else dense(grad_pooled, last)
    given = (logits.dtype, grad_loss, grad_pooled, logits, target.contiguous(), *options, pool_logits, ignored)
    saved = (log_sum.contiguous(), dense(largest, last))
    emulator.call("parsing_loss_backward", *given, *saved, torch.empty_like(logits))


def paste_parsing(maps, boxes, painted, semantic, sh, sw, height, width, weight, gate, paint, with_people):
    covered, knobs = torch.tensor([sh, sw], dtype=F64), torch.tensor([weight, gate])
    extent = (1, 1) if semantic is None else semantic.shape[1:]
    empty = lambda dtype, *shape: torch.empty(*shape, height, width, dtype=dtype)
    results = (empty(torch.uint8), empty(torch.int32), empty(torch.uint8, len(maps)) if with_people else None, paint)
    given = (maps.contiguous(), *maps.shape, boxes.contiguous(), painted)
    emulator.call("paste_parsing", *given, semantic, *extent, covered, knobs, height, width, *results)


LAUNCH = {
    "rpcnn::roi_align": lambda x, boxes, scale, *rule: pool([x], boxes, [scale], *rule),
    "rpcnn::roi_align_backward": lambda grad, boxes, scale, batch, height, width, *rule: unpool(
        grad, boxes, [scale], batch, [height], [width], *rule
    ),
    "rpcnn::multilevel_roi_align": pool,
    "rpcnn::multilevel_roi_align_backward": unpool,
    "rpcnn::nms": nms,
    "rpcnn::nms_padded": lambda *arguments: nms(*arguments, slots=arguments[-1]),
}
LAUNCH |= {
    f"rpcnn::{f.__name__}": f
    for f in (
        *(grid_anchors, decode_proposals, match_boxes, draw_samples, encode_boxes),
        *(upsample_sum, upsample_sum_backward, gse_fuse, gse_fuse_backward, group_norm, group_norm_backward),
        *(downsample_add, downsample_add_backward, parsing_miou, parsing_loss, parsing_loss_backward, paste_parsing),
    )
}


class OnMachineCode(TorchDispatchMode):
    """Repeats rpcnn's ops on the machine code; `launches` lists the counts of their kernels (emulator.counts)."""

    def __init__(self):
        super().__init__()
        self.launches = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if launch := LAUNCH.get(function._schema.name):
            launch(*args)
            self.launches += emulator.counts()
        return result
