"""RoiAlign and NonMaxSuppression of onnxruntime's CPU provider, each as a model of one node."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from . import Timed, by_class

THREADS = "intra_op_num_threads"


def _session(node: onnx.NodeProto, inputs: dict, output: int, threads: int) -> onnxruntime.InferenceSession:
    """Make a session of one node; output: the type of its result."""
    describe = lambda name, array: helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
    )
    infos = [describe(name, array) for name, array in inputs.items()]
    graph = helper.make_graph([node], "one", infos, [helper.make_tensor_value_info("out", output, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def nms(arrays: dict, threads: int) -> Timed:
    """NMS, within every class where there are classes."""
    boxes, scores, source = by_class.batch(arrays)
    inputs = {
        "boxes": boxes,
        "scores": scores,
        "most": np.array([boxes.shape[1]], np.int64),
        "threshold": arrays["threshold"].astype(np.float32).reshape(1),
    }
    session = _session(helper.make_node("NonMaxSuppression", [*inputs], ["out"]), inputs, TensorProto.INT64, threads)
    read = lambda out: by_class.read(out[0], source, arrays["scores"])
    return Timed(lambda: session.run(None, inputs), read, THREADS)


batched_nms = nms


def roi_align(arrays: dict, threads: int) -> Timed:
    """RoIAlign of a contiguous map."""
    size = int(arrays["size"])
    inputs = {"feature": arrays["feature"], "boxes": arrays["boxes"], "image": arrays["image"]}
    rule = dict(spatial_scale=0.25, sampling_ratio=2, mode="avg", coordinate_transformation_mode="half_pixel")
    node = helper.make_node("RoiAlign", [*inputs], ["out"], output_height=size, output_width=size, **rule)
    session = _session(node, inputs, TensorProto.FLOAT, threads)
    return Timed(lambda: session.run(None, inputs), lambda out: out[0], THREADS)
