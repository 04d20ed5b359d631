"""Memory layouts, tolerances and the skip mark for tests that need compiled kernels."""

import pytest
import torch

from rpcnn.ops._library import CPU_MISSING

LAYOUTS = {
    "contiguous": lambda t: t.contiguous(),
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
    "sliced": lambda t: torch.cat([t, t], 3)[..., : t.shape[3]],
    "channel_sliced": lambda t: torch.cat([t, t], 1)[:, : t.shape[1]],
}

# Half types are compared with the float32 result rounded to them.
TOLERANCES = {
    torch.float64: dict(rtol=1e-10, atol=1e-10),
    torch.float32: dict(rtol=1e-5, atol=1e-5),
    torch.float16: dict(rtol=2e-3, atol=2e-3),
    torch.bfloat16: dict(rtol=1.6e-2, atol=1.6e-2),
}

needs_kernels = pytest.mark.skipif(CPU_MISSING is not None, reason="needs the compiled kernels")
