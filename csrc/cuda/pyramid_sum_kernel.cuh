// The common core of upsample_sum and gse_fuse on CUDA:
//   out = Σ_l act(γ_l rstd_l (bilinear(Q_l → size of Q_0) − mean_l) + β_l),   act = ReLU or nothing,
// with or without the GroupNorm affine, and its adjoint E_l = Aᵀ (grad ∘ [act's derivative]) B, where A and B are the
// interpolation matrices of level l's two axes.
//
// Fewest bytes of the sum: every level read once, the output written once. One thread an output element, neighbours in
// memory being neighbours in the warp: the output is coalesced in both layouts, and the coarse levels stay in cache.
// The adjoint gathers in two passes, first along x into a map [N, C, H, w_l], then along y: a pixel of P6 is read by
// 128×128 pixels of P2, which one thread would walk alone. A pass along an axis that is not resized is left out. No
// atomics, no zero fill, deterministic; the ReLU's mask is recomputed, no up-sampled map is ever stored.
#pragma once

#include "device.cuh"

namespace rpcnn {

// GroupNorm of one level; without gamma there is none.
template <typename A>
struct GroupAffine {
  const A *mean, *rstd;   // [N, G], `stride` apart from image to image
  const A *gamma, *beta;  // [C]
  int64_t stride, group;  // group: channels in one
};

template <typename T>
struct PyramidLevel {
  using A = device_accumulate_t<T>;
  const T* map;
  int64_t H, W;
  GroupAffine<A> affine;
};

template <typename T>
struct PyramidLevels {
  PyramidLevel<T> level[kMaxLevels];
  int count;
  bool align_corners;
};

// A NaN passes both, as in PyTorch.
template <bool kRelu, typename A>
RPCNN_HOST_DEVICE A activate(A value) {
  return kRelu && value < A(0) ? A(0) : value;
}
template <typename A>
RPCNN_HOST_DEVICE bool passes_gradient(A value) {
  return !(value <= A(0));
}

// A level's up-sampled value before the ReLU. The mean is subtracted from the pixels: folded into β it would cancel.
template <bool kAffine, typename T, typename A>
RPCNN_HOST_DEVICE A upsampled(const PyramidLevel<T>& level, const MapShape& shape, int64_t n, int64_t c,
                              const Tap<A>& y, const Tap<A>& x) {
  A center = 0, scale = 1, shift = 0;
  if constexpr (kAffine) {
    const int64_t i = n * level.affine.stride + c / level.affine.group;
    center = level.affine.mean[i];
    scale = level.affine.gamma[c] * level.affine.rstd[i];
    shift = level.affine.beta[c];
  }
  const T* q = level.map;
  const A upper = x.w_lo * (A(q[shape.offset(n, c, y.lo, x.lo)]) - center) +
                  x.w_hi * (A(q[shape.offset(n, c, y.lo, x.hi)]) - center);
  const A lower = x.w_lo * (A(q[shape.offset(n, c, y.hi, x.lo)]) - center) +
                  x.w_hi * (A(q[shape.offset(n, c, y.hi, x.hi)]) - center);
  return scale * (y.w_lo * upper + y.w_hi * lower) + shift;
}

template <typename T, bool kRelu, bool kAffine>
__global__ void pyramid_sum_kernel(PyramidLevels<T> levels, T* out, MapShape shape, int64_t count) {
  using A = device_accumulate_t<T>;
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  const bool align = levels.align_corners;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    int64_t n, c, y, x;
    shape.split(i, &n, &c, &y, &x);
    A sum = 0;
    for (int l = 0; l < levels.count; ++l) {
      const auto& level = levels.level[l];
      const auto ty = interpolation_tap<A>(y, level.H, interpolation_step<A>(level.H, shape.H, align), align);
      const auto tx = interpolation_tap<A>(x, level.W, interpolation_step<A>(level.W, shape.W, align), align);
      const MapShape coarse{shape.C, level.H, level.W, shape.channels_last};
      sum += activate<kRelu>(upsampled<kAffine>(level, coarse, n, c, ty, tx));
    }
    out[i] = T(sum);
  }
}

// out [N, C, H, w] = the masked gradient [N, C, H, W] gathered along x.
template <typename T, typename O, bool kRelu, bool kAffine>
__global__ void pyramid_adjoint_x_kernel(PyramidLevel<T> level, const T* grad, MapShape shape, bool align, O* out,
                                         int64_t count) {
  using A = device_accumulate_t<T>;
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  const MapShape coarse{shape.C, level.H, level.W, shape.channels_last};
  const MapShape half{shape.C, shape.H, level.W, shape.channels_last};
  const A step = interpolation_step<A>(level.W, shape.W, align);
  const A y_step = interpolation_step<A>(level.H, shape.H, align);
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    int64_t n, c, y, x, first, last;
    half.split(i, &n, &c, &y, &x);
    interpolation_readers<A>(x, level.W, shape.W, step, align, &first, &last);
    const auto ty = interpolation_tap<A>(y, level.H, y_step, align);
    A sum = 0;
    for (int64_t r = first; r < last; ++r) {
      const auto tx = interpolation_tap<A>(r, level.W, step, align);
      const A weight = (tx.lo == x ? tx.w_lo : A(0)) + (tx.hi == x ? tx.w_hi : A(0));
      if (weight == A(0)) continue;
      if (kRelu && !passes_gradient(upsampled<kAffine>(level, coarse, n, c, ty, tx))) continue;
      sum += weight * A(grad[shape.offset(n, c, y, r)]);
    }
    out[i] = O(sum);
  }
}

// out [N, C, h, w] = the map [N, C, H, w] gathered along y.
template <typename A, typename O>
__global__ void pyramid_adjoint_y_kernel(const A* half, MapShape shape, int64_t H, bool align, O* out, int64_t count) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  const MapShape tall{shape.C, H, shape.W, shape.channels_last};
  const A step = interpolation_step<A>(shape.H, H, align);
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    int64_t n, c, y, x, first, last;
    shape.split(i, &n, &c, &y, &x);
    interpolation_readers<A>(y, shape.H, H, step, align, &first, &last);
    A sum = 0;
    for (int64_t r = first; r < last; ++r) {
      const A weight = interpolation_weight<A>(r, y, shape.H, step, align);
      if (weight != A(0)) sum += weight * half[tall.offset(n, c, r, x)];
    }
    out[i] = O(sum);
  }
}

template <typename T, bool kRelu, bool kAffine>
void launch_pyramid_sum(const PyramidLevels<T>& levels, T* out, int64_t images, MapShape shape, Stream stream) {
  const int64_t items = images * shape.C * shape.H * shape.W;
  if (items)
    SIMT_LAUNCH((pyramid_sum_kernel<T, kRelu, kAffine>), blocks_for(items), kBlock, 0, stream, levels, out, shape,
                items);
}

// Values that `half`, the buffer between the two passes, must hold.
inline int64_t adjoint_buffer(int64_t images, const MapShape& shape, int64_t h, int64_t w) {
  return h == shape.H ? 0 : images * shape.C * shape.H * w;
}

// E of one level into `out`, of type O and the level's shape; `shape` is the gradient's.
template <bool kRelu, bool kAffine, typename T, typename O>
void launch_pyramid_adjoint(const PyramidLevel<T>& level, const T* grad, int64_t images, MapShape shape, bool align,
                            device_accumulate_t<T>* half, O* out, Stream stream) {
  using A = device_accumulate_t<T>;
  const int64_t wide = images * shape.C * shape.H * level.W, items = images * shape.C * level.H * level.W;
  if (!wide || !items) return;
  if (level.H == shape.H) {
    SIMT_LAUNCH((pyramid_adjoint_x_kernel<T, O, kRelu, kAffine>), blocks_for(wide), kBlock, 0, stream, level, grad,
                shape, align, out, wide);
    return;
  }
  SIMT_LAUNCH((pyramid_adjoint_x_kernel<T, A, kRelu, kAffine>), blocks_for(wide), kBlock, 0, stream, level, grad, shape,
              align, half, wide);
  const MapShape coarse{shape.C, level.H, level.W, shape.channels_last};
  SIMT_LAUNCH((pyramid_adjoint_y_kernel<A, O>), blocks_for(items), kBlock, 0, stream, half, coarse, shape.H, align, out,
              items);
}

}  // namespace rpcnn
