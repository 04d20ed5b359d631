"""Mutation testing of the CUDA kernels: break each kernel in turn; a test must fail every time.

    python tests/nightly/mutants.py                        # all, some 100 minutes; writes tests/nightly/MUTANTS.md
    python tests/nightly/mutants.py --only parsing_miou         # these rows of the table

A mutant changes one place of csrc/. The emulator's tests of the op run first; if they pass, the sanitizers do
(a missing barrier shows only as a race). What catches a mutant must pass with the unchanged kernels.
"""

import argparse
import functools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT = 240
"""Seconds of one test run; the unchanged kernels need less than half of it where nothing else runs."""
SANITIZERS = ("thread", "address")
BARRIER, NOTHING = "__syncthreads();", "/* no barrier */;"


@dataclass
class Mutant:
    """One change to csrc/<file>; `nth` occurrence of `old` becomes `new`."""

    op: str
    what: str
    file: str
    old: str
    new: str
    nth: int = 0

    def apply(self, folder: pathlib.Path) -> None:
        path = folder / "csrc" / self.file
        parts = path.read_text().split(self.old)
        assert len(parts) > self.nth + 1, f"{self.file} no longer holds occurrence {self.nth} of {self.old!r}"
        head, tail = self.old.join(parts[: self.nth + 1]), self.old.join(parts[self.nth + 1 :])
        path.write_text(head + self.new + tail)


ROI, ROI_BACK = "cuda/roi_align_kernel.cuh", "cuda/roi_align_backward_kernel.cuh"
NMS, MIOU = "cuda/nms_kernel.cuh", "cuda/parsing_miou_kernel.cuh"
COUNTS, LOSS = "cuda/class_counts.cuh", "cuda/parsing_loss_kernel.cuh"
PASTE, GSE, SUM = "cuda/paste_parsing_kernel.cuh", "cuda/gse_fuse_kernel.cuh", "cuda/pyramid_sum_kernel.cuh"
NORM, ADJOINT = "cuda/group_norm_kernel.cuh", "cuda/pyramid_adjoint_kernel.cuh"
DOWN, CHANNELS = "cuda/downsample_add_kernel.cuh", "cuda/channels.cuh"
MATCH, MATCH_IOU = "cuda/match_boxes_kernel.cuh", "geometry/match.h"
ANCHORS, DECODE = "geometry/anchors.h", "cuda/decode_proposals_kernel.cuh"
DRAW, SAMPLES = "cuda/draw_samples_kernel.cuh", "geometry/samples.h"
ENCODE, TARGETS = "cuda/encode_boxes_kernel.cuh", "geometry/encode.h"
AXIS, BOX = "geometry/interpolate.h", "geometry/boxes.h"
ALL = [
    *(Mutant("roi_align", f"barrier {i + 1} dropped", ROI, BARRIER, NOTHING, i) for i in range(2)),
    Mutant("roi_align", "level 0 for every box", ROI, "if (maps.levels > 1)", "if (maps.levels > 9)"),
    Mutant(
        "roi_align", "tables for any number of pixels", ROI, "return axis.samples <= kCellPixels / 2", "return true"
    ),
    Mutant("roi_align", "samples outside listed", ROI, "if (is_outside(tap)) continue;", ""),
    Mutant(
        "roi_align",
        "lists filled up with another pixel",
        ROI,
        "{list[0].offset, A(0)}",
        "{list[0].offset + step, A(0)}",
    ),
    Mutant("roi_align", "first channels for every lane", ROI, "packs[own + y.offset", "packs[y.offset"),
    Mutant("roi_align", "first column of tiles", ROI, "tile % across * kCellTile", "0"),
    Mutant("roi_align", "mean left out", ROI, "A(axis.samples > 0 ? axis.samples : 1)", "A(1)"),
    Mutant("roi_align", "taps exchanged without tables", ROI, "tap & 1 ? x.hi : x.lo", "tap & 1 ? x.lo : x.hi"),
    *(Mutant("roi_align", f"backward: barrier {i + 1} dropped", ROI_BACK, BARRIER, NOTHING, i) for i in range(5)),
    Mutant("roi_align", "last of a box's tiles not reached", ROI_BACK, "side - *first + 1", "side - *first"),
    Mutant("roi_align", "list of boxes too short", ROI_BACK, "listed, [kSearch]", "listed, [kSearch / 64]"),
    Mutant("roi_align", "rank in the list off by one", ROI_BACK, "at = end - __popc(hits)", "at = end"),
    Mutant("roi_align", "weights table one row short", ROI_BACK, "A rows[kTileRows]", "A rows[kTileRows - 1]"),
    Mutant("roi_align", "too many samples listed", ROI_BACK, "axis.samples <= kStep / 2", "axis.samples <= kStep"),
    Mutant("roi_align", "cells of another axis", ROI_BACK, ">> (lane - k)", ">> 0"),
    Mutant("roi_align", "rows of another map", ROI_BACK, "tiles.first_row[l] + rows", "tiles.first_row[l]"),
    Mutant("roi_align", "last cell left out", ROI_BACK, "i_last = 32 - __clz(inner)", "i_last = 31 - __clz(inner)"),
    *(
        Mutant("roi_align", f"weight 0 times NaN added, {axis} axis", ROI_BACK, "if (w == A(0)) continue;", "", i)
        for i, axis in enumerate(("inner", "outer"))
    ),
    Mutant("roi_align", "channels beyond the last read", CHANNELS, "k < left ? A", "k < left + V ? A"),
    Mutant("roi_align", "16 bytes moved where C forbids it", CHANNELS, "% 16 == 0;", "% 1 == 0;"),
    Mutant("roi_align", "halves of a word exchanged", CHANNELS, "word = k % 2 ?", "word = k % 2 == 0 ?"),
    Mutant("roi_align", "sample half a step off", "geometry/roi.h", "T(sample) + T(0.5)", "T(sample) + T(1)"),
    Mutant(
        "roi_align", "samples before a pixel left out", "geometry/roi.h", "double(begin) - 1.0", "double(begin) + 3.0"
    ),
    *(Mutant("nms", f"barrier {i + 1} dropped", NMS, BARRIER, NOTHING, i) for i in range(7)),
    Mutant("nms", "box suppresses itself", NMS, "(uint64_t(1) << threadIdx.x) - 1", "(uint64_t(2) << threadIdx.x) - 1"),
    Mutant("nms", "limit ignored", NMS, " && slot < kept.limit", ""),
    Mutant("nms", "all runs of a tile counted", NMS, "take >> (63 - __clzll(starting))", "take"),
    Mutant("nms", "groups ignored", NMS, "if (groups[slot] != group) return false;", ""),
    Mutant("nms", "mirrored row off by one", NMS, "row_tile = tiles - 1 - row_tile", "row_tile = tiles - row_tile"),
    Mutant("nms", "filter rejects what double decides", BOX, "& !(excess < -margin)", "& (excess > margin)"),
    Mutant("nms", "suppressed boxes suppress", NMS, "take = alive & ~boxes_struck", "take = take & ~boxes_struck"),
    Mutant("nms", "next tile not dropped from", NMS, "dropped = boxes_struck(next, take)", "dropped = 0"),
    Mutant("nms", "step before last read", NMS, "chosen[(t - 1) & 1]", "chosen[t & 1]"),
    Mutant("nms", "run that goes on left out", NMS, "if (!starting && first > 0) return;", "if (!starting) return;"),
    Mutant("nms", "slot of a kept box", NMS, "(uint64_t(1) << bit) - 1", "(uint64_t(2) << bit) - 1"),
    Mutant(
        "nms", "later bands not suppressed", NMS, "const int64_t rest = all.n - begin - size", "const int64_t rest = 0"
    ),
    Mutant("nms", "keys ascend", NMS, "(bits < 0 ? bits & kLast : ~bits)", "bits"),
    Mutant("nms", "rank for position", NMS, "if (places) at[q] = places[at[q]];", ""),
    Mutant("nms", "counts of two steps in one place", NMS, "parity ^= 1", "parity ^= 0"),
    Mutant("nms", "union without the intersection", BOX, "- inter", "+ inter"),
    Mutant("grid_anchors", "level of an anchor", ANCHORS, "anchor >= first[level + 1]", "anchor > first[level + 1]"),
    Mutant("grid_anchors", "first level's cells", ANCHORS, "int64_t(level) * ratios + ratio", "ratio"),
    Mutant("grid_anchors", "row for column", ANCHORS, "place - row * widths[level]", "row"),
    Mutant("grid_anchors", "another level's stride", ANCHORS, "T(row * strides[level])", "T(row * strides[0])"),
    Mutant("decode_proposals", "level of a proposal", DECODE, "rank >= from.proposals", "rank > from.proposals"),
    Mutant("decode_proposals", "first image's deltas", DECODE, "4 * (image * A + index)", "4 * index"),
    Mutant("decode_proposals", "first level's anchors", DECODE, "4 * (from.anchors[l] + index)", "4 * index"),
    Mutant("decode_proposals", "images beyond a launch", DECODE, "image = sizes.first + own", "image = own"),
    Mutant("decode_proposals", "sizes of the first launch", DECODE, "heights[sizes.first + i]", "heights[i]"),
    Mutant("decode_proposals", "any index read", DECODE, "if (index >= 0 && index < A) {", "{"),
    Mutant("decode_proposals", "group of the level alone", DECODE, "image * from.levels + l;", "l;"),
    Mutant("decode_proposals", "growth without a limit", ANCHORS, "exp(dw > limit ? limit : dw)", "exp(dw)"),
    Mutant("decode_proposals", "boxes that clip to nothing", ANCHORS, "width - least), clamped", "width), clamped"),
    *(Mutant("match_boxes", f"barrier {i + 1} dropped", MATCH, BARRIER, NOTHING, i) for i in range(3)),
    Mutant("match_boxes", "first piece's maximum", MATCH, "p < pieces; p += 32", "p < 1; p += 32"),
    Mutant("match_boxes", "half of the lanes' maxima", MATCH, "half = 16; half > 0", "half = 8; half > 0"),
    Mutant("match_boxes", "half of the pieces' maxima", MATCH, "half = 16; half > 0", "half = 8; half > 0", 1),
    Mutant("match_boxes", "first warp's maximum", MATCH, "warp < kBlock / 32; ++warp", "warp < 1; ++warp"),
    Mutant("match_boxes", "first ground-truth boxes only", MATCH, "first + threadIdx.x >= G", "blockIdx.y > 0"),
    Mutant("match_boxes", "last of equal overlaps", MATCH, "iou > overlap", "iou >= overlap"),
    Mutant("match_boxes", "index within 32", MATCH, "index = first + k", "index = k"),
    Mutant("match_boxes", "an overlap of 0 promotes", MATCH, "most > T(0) ? most : T(2)", "most"),
    Mutant("match_boxes", "boxes without area match", MATCH_IOU, "if (!has_area(box)) return kIgnored;", ""),
    Mutant("match_boxes", "window left out", MATCH_IOU, "if (windowed &&", "if (false &&"),
    Mutant("match_boxes", "union without the overlap", MATCH_IOU, "other.area - inter", "other.area + inter"),
    Mutant("match_boxes", "positive threshold excluded", MATCH_IOU, "overlap < positive", "overlap <= positive"),
    Mutant("draw_samples", "bisection one short", DRAW, "high = n;", "high = n - 1;"),
    Mutant("draw_samples", "equal keys counted", DRAW, "sorted[middle] < limit", "sorted[middle] <= limit"),
    Mutant("draw_samples", "all that is not positive is negative", DRAW, "keys_below(sorted, n, kNotDrawn)", "n"),
    Mutant("draw_samples", "place for index", DRAW, "matched[indices[place]]", "matched[place]"),
    Mutant("draw_samples", "negatives in any case", SAMPLES, "matched == kBackground && !negatives", "false"),
    Mutant(
        "draw_samples",
        "positives without a limit",
        SAMPLES,
        "positives < max_positive ? positives : max_positive",
        "positives",
    ),
    Mutant("draw_samples", "positives left over are negatives", SAMPLES, "positives + i - drawn", "i"),
    Mutant("draw_samples", "keys below 0", SAMPLES, "(key > 0.0f ? key : 0.0f)", "key"),
    Mutant(
        "draw_samples",
        "keys above 1",
        SAMPLES,
        "key < 1.0f ? (key > 0.0f ? key : 0.0f) : 1.0f",
        "key > 0.0f ? key : 0.0f",
    ),
    Mutant("encode_boxes", "first ground-truth box for all", ENCODE, "gt_boxes + 4 * g", "gt_boxes"),
    Mutant("encode_boxes", "any match read", ENCODE, "g >= 0 && g < G", "g >= 0"),
    Mutant("encode_boxes", "matches of nobody read", ENCODE, "g >= 0 && g < G", "g < G"),
    Mutant("encode_boxes", "corner for center", TARGETS, "reference[1] + T(0.5)", "reference[1] + T(0)"),
    Mutant(
        "encode_boxes",
        "weight of the center for the size",
        TARGETS,
        "own_height) * size_weight",
        "own_height) * center_weight",
    ),
    *(Mutant("parsing_miou", f"barrier {i + 1} dropped", MIOU, BARRIER, NOTHING, i) for i in range(2)),
    *(Mutant("parsing_miou", f"barrier {i + 1} of the mean dropped", COUNTS, BARRIER, NOTHING, i) for i in range(2)),
    Mutant("parsing_miou", "counts not atomic", COUNTS, "atomicAdd(&counts[(", "counts_plus(&counts[("),
    Mutant("parsing_miou", "sums not atomic", COUNTS, "atomicAdd(&counts[i %", "counts_plus(&counts[i %"),
    Mutant("parsing_miou", "ignored pixels counted", MIOU, "|| truth == ignored", ""),
    Mutant("parsing_miou", "wrong labels not counted", COUNTS, "kWrong, static_cast<int>(label)", "kWrong, truth"),
    Mutant("parsing_miou", "class of a pack's start", MIOU, "best ? first + k", "best ? first"),
    Mutant("parsing_miou", "16 bytes read where a row forbids it", MIOU, "strides.row % V == 0 &&", ""),
    Mutant(
        "parsing_miou",
        "16 bytes read where the start forbids it",
        MIOU,
        "reinterpret_cast<uintptr_t>(logits) % (V * sizeof(T)) == 0",
        "logits",
    ),
    Mutant(
        "parsing_miou", "counts of one class short", COUNTS, "3 * K * copies * sizeof", "(3 * K - 1) * copies * sizeof"
    ),
    Mutant(
        "parsing_miou",
        "absent classes in the mean",
        COUNTS,
        "__ballot_sync(~0u, joined > 0)",
        "__ballot_sync(~0u, k < K)",
    ),
    Mutant("parsing_miou", "all pieces in one row", MIOU, "(roi * gridDim.y + blockIdx.y)", "(roi * gridDim.y)"),
    Mutant(
        "parsing_miou",
        "pixels beyond the last counted",
        MIOU,
        "begin + piece < H * W ? begin + piece : H * W",
        "begin + piece",
    ),
    Mutant(
        "parsing_miou",
        "scratch a piece short",
        MIOU,
        "return rois * Pieces(H * W, K).count",
        "return rois * (Pieces(H * W, K).count - 1)",
    ),
    *(Mutant("parsing_loss", f"barrier {i + 1} dropped", LOSS, BARRIER, NOTHING, i) for i in range(5)),
    Mutant("parsing_loss", "sum not rescaled", LOSS, "sum *= exponential(before - base);", ""),
    Mutant("parsing_loss", "one warp's losses only", LOSS, "loss += sums[warp]", "loss += 0 * sums[warp]"),
    Mutant("parsing_loss", "last tile's losses left out", LOSS, "i < rois * tiles;", "i < rois * tiles - 1;"),
    Mutant("parsing_loss", "counts of the first RoI for all", LOSS, "rows + roi * tiles * 3 * K", "rows"),
    Mutant("parsing_loss", "all counts in one row", LOSS, "rows + int64_t(blockIdx.x) * 3 * K", "rows"),
    Mutant("parsing_loss", "NaN not pooled", LOSS, "|| value[v] != value[v]", ""),
    Mutant("parsing_loss", "last maximum of a cell", LOSS, "value[v] > best[v] ||", "value[v] >= best[v] ||"),
    Mutant("parsing_loss", "tile beyond the row", LOSS, "columns - int(start) < tile ? columns - int(start) :", ""),
    Mutant("parsing_loss", "ignored pixels count", LOSS, "&& label != ignored", ""),
    Mutant("parsing_loss", "cell of a column", LOSS, "(65536 + pool - 1)", "65536"),
    Mutant(
        "parsing_loss",
        "classes beyond the last are 0",
        LOSS,
        ": -A(INFINITY);\n  }\n  static",
        ": A(0);\n  }\n  static",
    ),
    Mutant("parsing_loss", "classes beyond the last written", LOSS, "if (v < left) to[", "if (v <= left) to["),
    Mutant("parsing_loss", "8 bytes moved where K forbids it", LOSS, "maps.K * int(sizeof(T)) % bytes == 0 &&", ""),
    Mutant("parsing_loss", "place of a pack's first class", LOSS, ">> 8 * (v % sizeof(Word))", ""),
    Mutant("parsing_loss", "sign of the softmax's sum", LOSS, "scale -= own.hits[at]", "scale += own.hits[at]"),
    Mutant("parsing_loss", "gradient of the label left out", LOSS, "if (k + v == truth) value[v] -= weight;", ""),
    Mutant("parsing_loss", "gradient of ignored pixels", LOSS, "< 0 ? A(0) : weight", "< -1 ? A(0) : weight"),
    Mutant(
        "parsing_loss", "shared memory of a cell short", LOSS, "return cells * (size_t", "return (cells - 1) * (size_t"
    ),
    *(Mutant("paste_parsing", f"barrier {i + 1} dropped", PASTE, BARRIER, NOTHING, i) for i in range(2)),
    Mutant("paste_parsing", "last person on top", PASTE, "&& number == 0", ""),
    Mutant("paste_parsing", "first pixel of a box lost", PASTE, "ceil(low - 0.5)", "ceil(low + 0.5)"),
    Mutant("paste_parsing", "weight's sign", PASTE, "value + global.weight", "value - global.weight"),
    Mutant("paste_parsing", "background paints", PASTE, "own_label > 0 ?", "true ?"),
    Mutant("gse_fuse", "corner of the stencil lost", GSE, "dx <= 1", "dx <= 0"),
    Mutant("gse_fuse", "row above for the row below", GSE, "gy.product[dy + 1] * gx", "gy.product[1 - dy] * gx"),
    Mutant("gse_fuse", "Gram term's sign", GSE, "- slope[k] * gram", "+ slope[k] * gram"),
    Mutant("gse_fuse", "constant for one reader", GSE, "constant[k] * readers", "constant[k]"),
    Mutant("gse_fuse", "mean for one reader", GSE, ": readers * q", ": q"),
    Mutant("gse_fuse", "first level's columns", GSE, "{ return table[l][pyramid", "{ return table[0][pyramid"),
    Mutant("gse_fuse", "stretch counted over all levels", GSE, "- gse.first_stretch[l]", "- gse.first_stretch[0]"),
    Mutant("gse_fuse", "first chunk of a level only", GSE, "i - gse.first_chunk[l]", "0"),
    Mutant("gse_fuse", "row of a pixel not counted", GSE, "x -= w, ++y", "x -= w"),
    Mutant("gse_fuse", "E of the first image", GSE, "norm.at(n, c, p), other", "norm.at(0, c, p), other"),
    Mutant(
        "gse_fuse",
        "level's own pixels counted",
        GSE,
        "norm.values = pyramid.H * pyramid.W",
        "norm.values = norm.pixels",
    ),
    Mutant("gse_fuse", "statistics of the first group", GSE, "g = i - n * norm.groups", "g = 0"),
    Mutant("gse_fuse", "gamma of planes beyond the last", CHANNELS, "c + k < C ? c + k : C - 1", "true ? c + k : C"),
    Mutant(
        "gse_fuse",
        "first channel's group for all",
        SUM,
        "++g, next += int(affine.group);",
        "next += int(affine.group);",
    ),
    *(Mutant("group_norm", f"barrier {i + 1} dropped", NORM, BARRIER, NOTHING, i) for i in range(3)),
    Mutant("group_norm", "only the first stretch", NORM, "i < group * norm.stretches", "i < group"),
    Mutant(
        "group_norm", "channels about one shift", NORM, "const double apart = double", "const double apart = 0 * double"
    ),
    Mutant(
        "group_norm",
        "pixels in flight lost",
        NORM,
        "i < kInFlight<kBackward>; ++i",
        "i < kInFlight<kBackward> - 1; ++i",
        1,
    ),
    Mutant(
        "group_norm",
        "stretches overlap",
        NORM,
        "each < left ? each :",
        "each < left ? each + 1 :",
    ),
    Mutant("group_norm", "mask inverted", NORM, "u <= A(0) ? A(0) : e[k]", "u > A(0) ? A(0) : e[k]"),
    Mutant("group_norm", "slope's power", NORM, "rstd * rstd * rstd * two", "rstd * rstd * two"),
    Mutant("group_norm", "only the first image's gamma", NORM, "i < norm.N * norm.stretches", "i < norm.stretches"),
    Mutant(
        "group_norm",
        "group of the piece's first channel",
        NORM,
        "constant[k] = term[0][g]",
        "constant[k] = term[0][0]",
    ),
    *(Mutant("upsample_sum", f"barrier {i + 1} dropped", SUM, BARRIER, NOTHING, i) for i in range(2)),
    Mutant("upsample_sum", "taps exchanged", SUM, "tx.hi, h * w, C - c, right", "tx.lo, h * w, C - c, right"),
    Mutant("upsample_sum", "row's taps those of a column", SUM, "row ? levels.H[l] :", "false ? levels.H[l] :"),
    *(Mutant("upsample_sum", f"backward: barrier {i + 1} dropped", ADJOINT, BARRIER, NOTHING, i) for i in range(4)),
    Mutant("upsample_sum", "mask inverted", ADJOINT, "= passes_gradient", "= !passes_gradient"),
    Mutant("upsample_sum", "maps between the passes overlap", ADJOINT, "pyramid.H * levels.W[l];", "levels.W[l];"),
    Mutant("upsample_sum", "last column of a thread lost", ADJOINT, "working && at < end", "working && at < end - 1"),
    Mutant("upsample_sum", "first pixels of a walk left out", ADJOINT, "tx.hi < begin", "tx.lo < begin"),
    Mutant(
        "upsample_sum", "right column taken for the left", ADJOINT, "at_right = tx.hi, right", "at_right = tx.lo, right"
    ),
    Mutant("upsample_sum", "sum of the next column dropped", ADJOINT, "here[k] = next[k]", "here[k] = A(0)"),
    Mutant("upsample_sum", "weight 0 times NaN added", ADJOINT, "if (tx.w_hi > A(0)) {", "{"),
    Mutant("upsample_sum", "weight 0 times NaN added along y", ADJOINT, "if (weight == A(0)) continue;", ""),
    Mutant("upsample_sum", "pieces of the channels lost", ADJOINT, "(z - n * pieces) * L::kChannels", "0"),
    Mutant("upsample_sum", "columns of a level not shared out", ADJOINT, "(share - adjoint.first_block[l])", "(share)"),
    Mutant(
        "upsample_sum",
        "readers beyond a table left out",
        ADJOINT,
        "base < last; base += kBlock",
        "base == first; ++base",
    ),
    Mutant("upsample_sum", "second pass reads one row less", ADJOINT, "r < count; ++r", "r < count - 1; ++r"),
    Mutant("upsample_sum", "planes beyond the last written", CHANNELS, "|| k < left) to", "|| k < left + V) to"),
    Mutant(
        "upsample_sum", "second pack read twice", CHANNELS, "const int4 pack = packs[i]", "const int4 pack = packs[0]"
    ),
    Mutant("upsample_sum", "level of a row", CHANNELS, "*row >= H[l]", "*row > H[l]"),
    Mutant("downsample_add", "pyramid not added", DOWN, "sum[k] += weight[tap] *", "sum[k] = weight[tap] *"),
    Mutant(
        "downsample_add",
        "last level left out of the gradient",
        DOWN,
        "l < levels.count; ++l) {\n        const int64_t h",
        "l < levels.count - 1; ++l) {\n        const int64_t h",
    ),
    Mutant("downsample_add", "barrier 1 dropped", DOWN, BARRIER, NOTHING),
    Mutant("downsample_add", "second reader of a row lost", DOWN, "a < 2; ++a", "a < 1; ++a"),
    Mutant("downsample_add", "second reader of a column lost", DOWN, "b < 2; ++b", "b < 1; ++b"),
    Mutant("downsample_add", "first candidate taken for a reader", DOWN, "if (weight != A(0)) break;", "break;"),
    Mutant("downsample_add", "first level's rows for all", DOWN, "row = rows[l][j]", "row = rows[0][j]"),
    Mutant("downsample_add", "rows below the last written", DOWN, "if (top + j < height) Own", "Own"),
    Mutant("downsample_add", "tables where a pixel has three readers", DOWN, "return out <= in &&", "return"),
    Mutant("downsample_add", "row for column", DOWN, "a * w + b", "a * w + x_first"),
    Mutant("downsample_add", "half a pixel off", AXIS, "T(-0.5)", "T(-0.25)"),
]
UNTRIED: tuple[str, ...] = ()
"""Ops whose kernels have changed since their mutants were last run. `--only OP` runs them, on a machine with nothing
else to do, as a test that runs out of time counts as failed. Then their rows go into the table, and the op leaves this
list."""
MUTANTS = [mutant for mutant in ALL if mutant.op not in UNTRIED]
COUNTS_PLUS = "inline void counts_plus(uint32_t* at, uint32_t more) { *at += more; }\n"


def copy_files(folder: pathlib.Path, op: str) -> None:
    """Copy the files that the op's tests need into `folder`."""
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name in (
        "conftest.py",
        *("helpers/__init__.py", "helpers/emulator.py", "helpers/layouts.py", "helpers/pasting.py"),
        *(f"ops/test_{op}.py", f"cuda/test_cuda_{op}.py", "nightly/test_cuda_sanitizers.py"),
    ):
        (folder / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "tests" / name, folder / "tests" / name)
    simt = folder / "tests" / "cuda" / "simt"
    simt.mkdir()
    for path in (ROOT / "tests" / "cuda" / "simt").iterdir():
        if path.suffix != ".cpp" or path.stem in ("order", op):
            shutil.copy(path, simt)
    source = simt / f"{op}.cpp"
    source.write_text("#include <cstdint>\n" + COUNTS_PLUS + source.read_text())


def fails(folder: pathlib.Path, *arguments: str) -> bool:
    """Whether pytest fails or times out (an unguarded index can make a kernel loop over any number of samples)."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    with subprocess.Popen(command, cwd=folder, env=environment, **quiet) as process:
        try:
            code = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with what it started
            return True
    assert code in (0, 1, -6, -7, -11), f"pytest ended with {code} in {folder}"
    return code != 0


def caught_by(mutant: Mutant | None, op: str, sanitizers: Sequence[str] = SANITIZERS) -> str:
    """Name of the check that catches the mutant, or ""."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        copy_files(folder, op)
        if mutant:
            mutant.apply(folder)
        # A mutant that does not compile would count as caught without any test.
        build = "from helpers import emulator; emulator.build('libsimt.so')"
        subprocess.run([sys.executable, "-c", build], cwd=folder / "tests", check=True, timeout=600)
        if fails(folder, f"tests/cuda/test_cuda_{op}.py"):
            return "emulator"
        for sanitizer in sanitizers:
            if fails(folder, "-m", "nightly", "-k", sanitizer, "tests/nightly/test_cuda_sanitizers.py"):
                return f"{sanitizer} sanitizer"
    return ""


@functools.cache
def check_unchanged(op: str, sanitizers: Sequence[str] = ()) -> None:
    """Raise AssertionError if the op fails a check without a mutant: then it would catch anything."""
    assert not (found := caught_by(None, op, sanitizers)), f"{op} fails without a mutant: {found}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="mutants of this op")
    parser.add_argument("--output", default=str(ROOT / "tests" / "nightly" / "MUTANTS.md"))
    options = parser.parse_args()
    chosen = [m for m in ALL if options.only in m.op]
    output, others = pathlib.Path(options.output), []
    if options.only and output.exists():  # keep the rows of ops that were not run
        tried = {f"| {m.op} |" for m in chosen}
        others = [line for line in output.read_text("utf-8").splitlines() if line.startswith("| ")][1:]
        others = [line for line in others if not any(line.startswith(op) for op in tried)]
    rows = []
    for mutant in chosen:
        check_unchanged(mutant.op)
        found = caught_by(mutant, mutant.op)
        if "sanitizer" in found:
            check_unchanged(mutant.op, SANITIZERS)
        rows.append(f"| {mutant.op} | {mutant.what} | {found or '**nothing**'} |")
        print(rows[-1], flush=True)
    rows = sorted([*others, *rows], key=lambda row: row.split(" | ")[0])
    missed = sum("**nothing**" in row for row in rows)
    summary = f"{len(rows) - missed} of {len(rows)} caught."
    print(summary)
    table = ["| op | mutant | caught by |", "|---|---|---|", *rows]
    lines = ["# Mutants of the CUDA kernels", "", "`python tests/nightly/mutants.py`", "", *table, "", summary]
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
