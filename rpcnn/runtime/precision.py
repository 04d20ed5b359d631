"""Mixed precision: the dtype of convolutions and matrix products."""

import torch


def autocast_dtype(precision: str, device: torch.device, training: bool) -> torch.dtype | None:
    """The dtype of autocast, None for plain float32.

    Args:
        precision: "fp32", "bf16", "fp16", or "auto": bfloat16 for training on a GPU that supports it, else float32.
    """
    if precision == "auto":
        precision = "bf16" if training and device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def autocast_enabled(device: torch.device) -> bool:
    """Whether autocast is on for this type of device; False for types without autocast, such as meta."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """The autocast context for this dtype; disabled if it is None."""
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)
