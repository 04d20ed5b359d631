"""rpcnn."""

import numpy as np
import torch

from rpcnn import ops
from rpcnn.metrics import ap_bbox as average_precision

from . import Timed


def _tensors(arrays: dict, threads: int) -> dict:
    torch.set_num_threads(threads)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def nms(arrays: dict, threads: int) -> Timed:
    """Plain NMS."""
    t, threshold = _tensors(arrays, threads), float(arrays["threshold"])
    return Timed(lambda: ops.nms(t["boxes"], t["scores"], threshold), np.asarray, "torch.set_num_threads")


def batched_nms(arrays: dict, threads: int) -> Timed:
    """NMS within every class."""
    t, threshold = _tensors(arrays, threads), float(arrays["threshold"])
    run = lambda: ops.batched_nms(t["boxes"], t["scores"], t["classes"], threshold)
    return Timed(run, np.asarray, "torch.set_num_threads")


def _roi_align(arrays: dict, threads: int, layout: torch.memory_format) -> Timed:
    t, size = _tensors(arrays, threads), int(arrays["size"])
    feature = t["feature"].contiguous(memory_format=layout)
    rois = torch.cat([t["image"][:, None].float(), t["boxes"]], 1)
    run = lambda: ops.roi_align(feature, rois, size, 0.25, 2, True)
    return Timed(run, np.asarray, "torch.set_num_threads")


def roi_align(arrays: dict, threads: int) -> Timed:
    """RoIAlign of a contiguous map."""
    return _roi_align(arrays, threads, torch.contiguous_format)


def roi_align_channels_last(arrays: dict, threads: int) -> Timed:
    """RoIAlign of a channels_last map."""
    return _roi_align(arrays, threads, torch.channels_last)


def ap_bbox(arrays: dict, threads: int) -> Timed:
    """AP^bbox from arrays in memory, one list entry per image."""
    _tensors({}, threads)
    split = lambda name, image: np.split(arrays[name], np.searchsorted(arrays[image], range(1, int(arrays["images"]))))
    images = split("boxes", "image"), split("scores", "image"), split("true_boxes", "true_image")
    return Timed(lambda: average_precision(*images), lambda percent: np.array([percent / 100]), "torch.set_num_threads")
