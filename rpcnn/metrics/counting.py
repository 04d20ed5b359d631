"""The counting core of the evaluator: joint label histograms. rpcnn._metrics where it is compiled, else numpy."""

import numpy as np

try:
    from .. import _metrics
except ImportError:  # built with RPCNN_BUILD=none, or not built
    _metrics = None


def joint_histogram(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """How many pixels have truth i and prediction j: int64 [K, K].

    Args:
        truth: uint8, any shape; pixels of K or more are ignored.
        prediction: uint8 of the same shape.
        num_classes: K, 1..256.

    Raises:
        ValueError: another dtype or shape, or a prediction of K or more on a pixel that counts.
    """
    for name, array in (("truth", truth), ("prediction", prediction)):
        if array.dtype != np.uint8:
            raise ValueError(f"joint_histogram: {name} must be uint8, got {array.dtype}")
    if truth.shape != prediction.shape:
        raise ValueError(
            f"joint_histogram: truth and prediction must have one shape, got {truth.shape} and {prediction.shape}"
        )
    if not 1 <= num_classes <= 256:
        raise ValueError(f"joint_histogram: num_classes must lie in 1..256, got {num_classes}")
    if _metrics is not None:
        full = _metrics.joint_histogram(np.ascontiguousarray(truth), np.ascontiguousarray(prediction))
    else:
        full = joint_histogram_numpy(truth, prediction)
    counted = full[:num_classes]
    if counted[:, num_classes:].any():
        worst = int(np.flatnonzero(counted.any(0)).max())
        raise ValueError(f"joint_histogram: prediction must lie in 0..{num_classes - 1}, got {worst}")
    return counted[:, :num_classes]


def joint_histogram_numpy(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """int64 [256, 256] counts of (truth, prediction) pairs, in plain numpy."""
    pairs = truth.astype(np.int64).ravel() * 256 + prediction.ravel()
    return np.bincount(pairs, minlength=65536).reshape(256, 256)
