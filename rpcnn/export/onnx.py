"""The network as an ONNX file, of standard operators only.

RoIAlign and NMS become ONNX's own operators. The other ops become what they are defined as: their references in plain
PyTorch, which the exporter translates.
"""

import pathlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.export import ExportedProgram

from rpcnn import ops

from .network import OUTPUTS
from .program import Run

OPSET = 18
"""The version of the operators: RoIAlign-16 with half-pixel coordinates, NonMaxSuppression-11, Resize-18."""


def save_onnx(program: ExportedProgram, path: pathlib.Path, settings: dict[str, str]) -> None:
    """Write the graph of `export_program` as an ONNX file, with the settings as its metadata.

    Raises:
        ValueError: onnx or onnxscript is not installed.
    """
    outputs = len(program.graph_signature.user_outputs)
    written = translate(program, input_names=["images"], output_names=list(OUTPUTS[:outputs]))
    written.model.metadata_props.update(settings)
    written.save(path, external_data=False)


def translate(program: ExportedProgram, **names: list[str]) -> torch.onnx.ONNXProgram:
    """Translate a graph that calls rpcnn's ops. Raises ValueError as `save_onnx`."""
    operators = onnx_operators()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own internals
        written = torch.onnx.export(
            program.run_decompositions(definitions()),
            dynamo=True,
            opset_version=OPSET,
            custom_translation_table=translations(operators),
            verbose=False,
            **names,
        )
    assert written is not None  # only the exporter before it returned nothing
    return written


def open_onnx(path: pathlib.Path) -> tuple[Run, dict[str, str]]:
    """Read what `save_onnx` wrote in onnxruntime, on the CPU: the network, and the settings.

    Raises:
        ValueError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ValueError("export: onnxruntime is not installed; pip install 'rpcnn[export]'") from None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    run = lambda images: tuple(map(torch.from_numpy, session.run(None, {"images": images.numpy()})))
    return run, session.get_modelmeta().custom_metadata_map


def onnx_operators() -> Any:
    """The opset of onnxscript. Raises ValueError if onnx or onnxscript is not installed."""
    try:
        import onnx  # noqa: F401  (the exporter needs both)
        from onnxscript import opset18
    except ImportError as error:
        raise ValueError(f"export: {error.name} is not installed; pip install 'rpcnn[export]'") from None
    return opset18


def definitions() -> dict[Any, Callable]:
    """Ops that have no counterpart in ONNX, in terms of those that have one."""
    rpcnn = torch.ops.rpcnn
    return {
        rpcnn.group_norm.default: _group_norm,
        rpcnn.gse_fuse.default: _gse_fuse,
        rpcnn.grid_anchors.default: _grid_anchors,
        rpcnn.downsample_add.default: ops.downsample_add_reference,
        rpcnn.multilevel_roi_align.default: _multilevel_roi_align,
    }


def _group_norm(input, weight, bias, num_groups, eps, relu, residual):  # type: ignore[no-untyped-def]
    # Not the reference, which asks whether there are pixels: the number of people is unknown.
    out = F.group_norm(input, num_groups, weight, bias, eps)
    out = out if residual is None else out + residual
    return F.relu(out) if relu else out, *_unused_statistics(out, weight, num_groups)


def _gse_fuse(features, gn_weights, gn_biases, num_groups, eps, align_corners):  # type: ignore[no-untyped-def]
    out = ops.gse_fuse_reference(features, gn_weights, gn_biases, num_groups, eps, align_corners)
    return out, *_unused_statistics(out, gn_weights[0], len(features), num_groups)


def _unused_statistics(out: Tensor, weight: Tensor, *sizes: int) -> tuple[Tensor, Tensor]:
    """Stand-ins for the mean and reciprocal deviation, which only gradients need."""
    statistics = weight.new_zeros(out.shape[0], *sizes)
    return statistics, statistics


def _grid_anchors(cells, strides, heights, widths):  # type: ignore[no-untyped-def]
    return ops.grid_anchors_reference(cells, strides, list(zip(heights, widths, strict=True)))


def _multilevel_roi_align(  # type: ignore[no-untyped-def]
    features, boxes, scales, height, width, sampling_ratio, aligned, canonical_size, canonical_level, area_offset
):
    levels = ops.roi_levels(boxes[:, 1:], scales, canonical_size, canonical_level, area_offset)
    rows = [(levels == level).nonzero()[:, 0] for level in range(len(features))]
    pooled = [
        torch.ops.rpcnn.roi_align(feature, boxes[own], scale, height, width, sampling_ratio, aligned)
        for feature, own, scale in zip(features, rows, scales, strict=True)
    ]
    return torch.cat(pooled)[torch.cat(rows).argsort()]


def translations(op: Any) -> dict[Any, Callable]:
    """The ops that ONNX has, written with an opset of onnxscript.

    They differ from rpcnn's on boxes that are not finite and, by rounding, where an IoU is within float32's rounding of
    the threshold; nms_padded does not keep boxes whose score is -inf or NaN.
    """

    def roi_align(input, boxes, spatial_scale, output_height, output_width, sampling_ratio, aligned):
        index = op.Squeeze(op.Slice(boxes, [0], [1], [1]), [1])
        return op.RoiAlign(
            input,
            op.Slice(boxes, [1], [5], [1]),
            op.Cast(index, to=7),  # int64
            coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
            output_height=output_height,
            output_width=output_width,
            sampling_ratio=max(sampling_ratio, 0),
            spatial_scale=spatial_scale,
        )

    def nms_padded(boxes, scores, idxs, iou_threshold, max_keep):
        """Each group is a class of NonMaxSuppression, in which only its own boxes have a score."""
        lowest = op.Constant(value_float=torch.finfo(torch.float32).min)
        rows = op.Unsqueeze(scores, [0])
        if idxs is not None:
            groups = op.Range(0, op.Add(op.ReduceMax(idxs, keepdims=0), 1), 1)
            rows = op.Where(op.Equal(op.Unsqueeze(idxs, [0]), op.Unsqueeze(groups, [1])), rows, lowest)
        number = op.Shape(scores)
        kept = op.NonMaxSuppression(
            op.Unsqueeze(boxes, [0]), op.Unsqueeze(rows, [0]), number, op.Constant(value_floats=[iou_threshold]), lowest
        )
        kept = op.Slice(kept, [2], [3], [1])  # [kept, 1]
        alive = op.ScatterND(op.Expand(lowest, number), kept, op.GatherND(scores, kept))
        limit = op.Reshape(max_keep, [1])
        values, order = op.TopK(alive, op.Min(number, limit))  # equal scores in the order of the input
        order = op.Where(op.Greater(values, lowest), order, op.Constant(value_int=-1))
        padding = op.Expand(op.Constant(value_int=-1), op.Sub(limit, op.Min(number, limit)))
        count = op.Min(op.Squeeze(op.Shape(kept, start=0, end=1), [0]), op.Squeeze(limit, [0]))
        return op.Concat(order, padding, axis=0), count

    return {torch.ops.rpcnn.roi_align.default: roi_align, torch.ops.rpcnn.nms_padded.default: nms_padded}
