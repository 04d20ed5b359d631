"""ROIAlign and NonMaxSuppression of OpenVINO's CPU device in float32, each as a model of one node."""

import numpy as np
import openvino
from openvino import opset9

from . import Timed, by_class

THREADS = "INFERENCE_NUM_THREADS"


def _compile(outputs: list, parameters: list, threads: int) -> openvino.CompiledModel:
    rule = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    return openvino.Core().compile_model(openvino.Model(outputs, parameters), "CPU", rule)


def _runner(compiled: openvino.CompiledModel, inputs: list):
    """Make a call that copies neither what goes in nor what comes out."""
    request = compiled.create_infer_request()
    return lambda: request.infer(inputs, share_inputs=True, share_outputs=True)


def nms(arrays: dict, threads: int) -> Timed:
    """NMS, within every class where there are classes."""
    boxes, scores, source = by_class.batch(arrays)
    parameters = [opset9.parameter(array.shape, np.float32) for array in (boxes, scores)]
    most, threshold = np.int64(boxes.shape[1]), np.float32(arrays["threshold"])
    constants = [opset9.constant(value) for value in (most, threshold, np.float32(0))]
    node = opset9.non_max_suppression(*parameters, *constants, sort_result_descending=False)
    run = _runner(_compile([node.output(0), node.output(2)], parameters, threads), [boxes, scores])
    read = lambda out: by_class.read(out[0][: int(out[1][0])].astype(np.int64), source, arrays["scores"])
    return Timed(run, read, THREADS)


batched_nms = nms


def roi_align(arrays: dict, threads: int) -> Timed:
    """RoIAlign of a contiguous map."""
    size, inputs = int(arrays["size"]), [arrays["feature"], arrays["boxes"], arrays["image"].astype(np.int32)]
    parameters = [opset9.parameter(array.shape, array.dtype) for array in inputs]
    node = opset9.roi_align(*parameters, size, size, 2, 0.25, "avg", "half_pixel_for_nn")
    return Timed(_runner(_compile([node.output(0)], parameters, threads), inputs), lambda out: out[0].copy(), THREADS)
