"""The fusion of GSE-FPN (Sec. 3.3, Fig. 3): up-sample every level, GroupNorm, ReLU, sum; stores no up-sampled map."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ._arguments import as_flag, as_int, as_list, check, check_floats
from ._examples import Example, pyramid
from ._library import compiled, dense_layout, refuse_forward_ad, register
from .group_norm import as_eps
from .upsample_sum import check_pyramid, resize


def gse_fuse(
    features: list[Tensor],
    gn_weights: list[Tensor],
    gn_biases: list[Tensor],
    num_groups: int,
    eps: float = 1e-5,
    align_corners: bool = True,
) -> Tensor:
    """Compute ``Σ_l relu(GroupNorm_l(bilinear(features[l] → size of features[0])))``.

    The statistics are exactly those of the up-sampled maps, computed from the low-resolution ones. With up(Q) = A Q Bᵀ
    the mean needs only the column sums of A and B, and Σ up(Q)² = ⟨Q, (AᵀA) Q (BᵀB)⟩, whose Gram matrices are
    tridiagonal. The affine transform is applied at low resolution, and one pass adds all levels. A NaN or an infinity
    in a pixel that the up-sampled map reads makes its whole group NaN, as in PyTorch's GroupNorm and ReLU.

    Args:
        features: L maps [N, C, H_l, W_l] of any sizes; different float dtypes are promoted to the common one.
        gn_weights, gn_biases: L vectors [C] each, the affine parameters of each level's GroupNorm. Converted to
            float32, or to float64 for float64 maps.
        num_groups: number of groups of each GroupNorm; must divide C.
        eps: added to the variance; not negative.
        align_corners: see torch.nn.functional.interpolate.

    Returns:
        [N, C, H_0, W_0] in the maps' common dtype and the first map's memory format. Differentiable once with respect
        to features, weights and biases.

    Raises:
        ValueError: an argument has the wrong shape, dtype or device.
        NotImplementedError: forward-mode differentiation, double backward.
    """
    op = "gse_fuse"
    features = check_pyramid(op, features)
    channels = features[0].shape[1]
    num_groups, eps, align_corners = (
        as_int(op, "num_groups", num_groups),
        as_eps(op, eps),
        as_flag(op, "align_corners", align_corners),
    )
    check(
        num_groups > 0 and channels % num_groups == 0,
        lambda: f"{op}: num_groups must divide {channels}, got {num_groups}",
    )
    affine = torch.float64 if features[0].dtype == torch.float64 else torch.float32
    gn_weights, gn_biases = as_list(op, "gn_weights", gn_weights), as_list(op, "gn_biases", gn_biases)
    for name, vectors in (("gn_weights", gn_weights), ("gn_biases", gn_biases)):
        check(
            len(vectors) == len(features), lambda: f"{op}: {name} must hold {len(features)} vectors, got {len(vectors)}"
        )
        for level, vector in enumerate(vectors):
            check_floats(op, f"{name}[{level}]", vector)
            check(
                list(vector.shape) == [channels] and vector.device == features[0].device,
                lambda: (
                    f"{op}: {name}[{level}] must be [{channels}] floats on {features[0].device}, "
                    f"got {list(vector.shape)} {vector.dtype} on {vector.device}"
                ),
            )
    gn_weights, gn_biases = [w.to(affine) for w in gn_weights], [b.to(affine) for b in gn_biases]
    if not compiled(features[0]):
        return gse_fuse_reference(features, gn_weights, gn_biases, num_groups, eps, align_corners)
    refuse_forward_ad(op, *features, *gn_weights, *gn_biases)
    return torch.ops.rpcnn.gse_fuse(features, gn_weights, gn_biases, num_groups, eps, align_corners)[0]


def gse_fuse_reference(
    features: list[Tensor],
    gn_weights: list[Tensor],
    gn_biases: list[Tensor],
    num_groups: int,
    eps: float = 1e-5,
    align_corners: bool = True,
) -> Tensor:
    """The definition of :func:`gse_fuse` in plain PyTorch; float16 and bfloat16 maps are computed in float32."""
    size, dtype = features[0].shape[2:], features[0].dtype
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    total = torch.zeros_like(features[0], dtype=wide)
    for feature, weight, bias in zip(features, gn_weights, gn_biases, strict=True):
        level = resize(feature.to(wide), size, align_corners)
        if level.numel():
            level = torch.group_norm(level, num_groups, weight.to(wide), bias.to(wide), eps)
        total = total + F.relu(level)
    return total.to(dtype)


def _fake(features, gn_weights, gn_biases, num_groups, eps, align_corners):
    statistics = gn_weights[0].new_empty(features[0].shape[0], len(features), num_groups)
    out = torch.empty_like(features[0], memory_format=dense_layout(features[0]))
    return out, statistics, torch.empty_like(statistics)


def _fake_backward(grad, features, gn_weights, gn_biases, mean, rstd, num_groups, align_corners):
    layout = dense_layout(features[0])
    maps = [torch.empty_like(feature, memory_format=layout) for feature in features]
    return maps, [torch.empty_like(w) for w in gn_weights], [torch.empty_like(b) for b in gn_biases]


def _setup_context(ctx, inputs, output):
    features, weights, biases, ctx.num_groups, _, ctx.align_corners = inputs
    ctx.levels = len(features)
    ctx.mark_non_differentiable(*output[1:])  # the first output's gradient includes the path through the statistics
    ctx.set_materialize_grads(False)  # do not make zero gradients for the statistics
    ctx.save_for_backward(*features, *weights, *biases, *output[1:])


def _backward(ctx, grad, grad_mean, grad_rstd):
    if grad is None:
        return *([None] * ctx.levels for _ in range(3)), None, None, None
    *tensors, mean, rstd = ctx.saved_tensors
    features, weights, biases = (tensors[i * ctx.levels : (i + 1) * ctx.levels] for i in range(3))
    grads = torch.ops.rpcnn.gse_fuse_backward(
        grad, features, weights, biases, mean, rstd, ctx.num_groups, ctx.align_corners
    )
    return *grads, None, None, None


def _double_backward(ctx, *grads):
    raise NotImplementedError("gse_fuse: double backward is not supported")


def _example(small: bool) -> Example:
    features = pyramid(small)
    ramps = [torch.linspace(-0.5, 0.5, feature.shape[1]) for feature in features]
    arguments = {"features": features, "gn_weights": [1 + ramp for ramp in ramps], "gn_biases": ramps}
    return Example(gse_fuse, gse_fuse_reference, arguments | {"num_groups": 32, "eps": 1e-5}, maps=("features",))


register("gse_fuse", fake=_fake, setup_context=_setup_context, backward=_backward, example=_example)
register("gse_fuse_backward", fake=_fake_backward, backward=_double_backward)
