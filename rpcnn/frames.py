"""Pictures that other programs hold as arrays and tensors: of image nodes, video readers and batches of training."""

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray | Tensor
WANTED = (
    "uint8, uint16 or floats in 0..1, as an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] (transparent), or a tensor "
    "of these shapes or [3, H, W]"
)


def as_frame(image: Array) -> np.ndarray:
    """Convert an array or tensor to uint8 RGB [H, W, 3], or RGBA [H, W, 4] if it has four channels.

    Channels are the last axis of an array: gray [H, W] and [H, W, 1], RGB [H, W, 3], RGBA [H, W, 4]. A tensor may have
    them first, too, [3, H, W], if its last axis cannot be channels. uint16 is divided by 257; floats are in 0..1 and
    rounded to 1/255.

    Raises:
        ValueError: another shape or dtype, floats outside 0..1 or NaN, or a tensor whose first and last axis could
            both be channels.
    """
    shape = list(image.shape)
    last = len(shape) == 3 and shape[2] in (1, 3, 4)
    if len(shape) == 3 and isinstance(image, Tensor) and shape[0] == 3:
        if last:
            raise ValueError(f"image: a tensor {shape} may have its channels first or last; give an array [H, W, C]")
        image, last = image.permute(1, 2, 0), True
    if 0 in shape or not (last or len(shape) == 2):
        batch = "; a batch is given alone, not in a list" if len(shape) == 4 else ""
        raise ValueError(f"image: must be {WANTED}, got {shape}{batch}")
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        image = (image.float() if image.dtype == torch.bfloat16 else image).numpy()
    values = _to_bytes(image)
    values = values if values.ndim == 3 else values[..., None]
    return np.ascontiguousarray(np.repeat(values, 3, 2) if values.shape[2] == 1 else values)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"image: must be {WANTED}, got {values.dtype}")
    low, high = float(values.min()), float(values.max())
    if not (low > -0.5 / 255 and high < 1 + 0.5 / 255):  # false for NaN; half a step is rounding
        raise ValueError(f"image: must be floats in 0..1, got {low:g}..{high:g}")
    return np.rint(values * 255).clip(0, 255).astype(np.uint8)
