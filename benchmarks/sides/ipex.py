"""RoIAlign and NMS of intel-extension-for-pytorch, which brings kernels of its own for both."""

import intel_extension_for_pytorch  # noqa: F401  its ops
import numpy as np
import torch

from . import Timed

THREADS = "torch.set_num_threads"


def _tensors(arrays: dict, threads: int) -> dict:
    torch.set_num_threads(threads)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def nms(arrays: dict, threads: int) -> Timed:
    """Plain NMS. Its boxes include their last pixels."""
    t, threshold = _tensors(arrays, threads), float(arrays["threshold"])
    boxes = t["boxes"] - torch.tensor([0, 0, 1, 1])
    run = lambda: torch.ops.torch_ipex.nms(boxes, t["scores"], threshold, False)
    read = lambda kept: np.asarray(kept)[np.argsort(-arrays["scores"][np.asarray(kept)], kind="stable")]
    return Timed(run, read, THREADS)


def _roi_align(arrays: dict, threads: int, layout: torch.memory_format) -> Timed:
    t, size = _tensors(arrays, threads), int(arrays["size"])
    feature = t["feature"].contiguous(memory_format=layout)
    rois = torch.cat([t["image"][:, None].float(), t["boxes"]], 1)
    run = lambda: torch.ops.torch_ipex.ROIAlign_forward(feature, rois, 0.25, size, size, 2, True)
    return Timed(run, np.asarray, THREADS)


def roi_align(arrays: dict, threads: int) -> Timed:
    """RoIAlign of a contiguous map."""
    return _roi_align(arrays, threads, torch.contiguous_format)


def roi_align_channels_last(arrays: dict, threads: int) -> Timed:
    """RoIAlign of a channels_last map."""
    return _roi_align(arrays, threads, torch.channels_last)
