// downsample_add: out_l = P_l + bilinear(feature → size of P_l), align_corners False, every level in one
// launch.
//
// Fewest bytes: the feature's sampled pixels and the pyramid read once, the outputs written once. One thread
// an output element; neighbours in memory are neighbours in the warp, so the pyramid and the output are
// coalesced in both layouts, and with channels innermost the four taps are too. The backward gathers, one
// thread a feature element: no atomics, no zero fill, deterministic.
#pragma once

#include "device.cuh"

namespace rpcnn {

template <typename T>
struct DownsampleLevels {
  const T* pyramid[kMaxLevels];  // null in the backward
  T* out[kMaxLevels];            // the gradients, read only, in the backward
  int64_t H[kMaxLevels], W[kMaxLevels], begin[kMaxLevels + 1];
  int count;
};

template <typename T>
__global__ void downsample_add_kernel(const T* feature, MapShape shape, DownsampleLevels<T> levels) {
  using A = device_accumulate_t<T>;
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < levels.begin[levels.count]; i += stride) {
    int l = 0;
    while (i >= levels.begin[l + 1]) ++l;
    const int64_t j = i - levels.begin[l];
    const MapShape level{shape.C, levels.H[l], levels.W[l], shape.channels_last};
    int64_t n, c, y, x;
    level.split(j, &n, &c, &y, &x);
    const auto ty = interpolation_tap<A>(y, shape.H, interpolation_step<A>(shape.H, level.H, false), false);
    const auto tx = interpolation_tap<A>(x, shape.W, interpolation_step<A>(shape.W, level.W, false), false);
    const A upper =
        tx.w_lo * A(feature[shape.offset(n, c, ty.lo, tx.lo)]) + tx.w_hi * A(feature[shape.offset(n, c, ty.lo, tx.hi)]);
    const A lower =
        tx.w_lo * A(feature[shape.offset(n, c, ty.hi, tx.lo)]) + tx.w_hi * A(feature[shape.offset(n, c, ty.hi, tx.hi)]);
    levels.out[l][j] = T(A(levels.pyramid[l][j]) + ty.w_lo * upper + ty.w_hi * lower);
  }
}

template <typename T>
__global__ void downsample_add_backward_kernel(T* grad_feature, MapShape shape, int64_t count,
                                               DownsampleLevels<T> levels) {
  using A = device_accumulate_t<T>;
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    int64_t n, c, y, x;
    shape.split(i, &n, &c, &y, &x);
    A sum = 0;
    for (int l = 0; l < levels.count; ++l) {
      const MapShape level{shape.C, levels.H[l], levels.W[l], shape.channels_last};
      const A y_step = interpolation_step<A>(shape.H, level.H, false);
      const A x_step = interpolation_step<A>(shape.W, level.W, false);
      int64_t y_first, y_last, x_first, x_last;
      interpolation_readers<A>(y, shape.H, level.H, y_step, false, &y_first, &y_last);
      interpolation_readers<A>(x, shape.W, level.W, x_step, false, &x_first, &x_last);
      for (int64_t a = y_first; a < y_last; ++a) {
        const A wy = interpolation_weight<A>(a, y, shape.H, y_step, false);
        if (wy == A(0)) continue;
        for (int64_t b = x_first; b < x_last; ++b) {
          const A wx = interpolation_weight<A>(b, x, shape.W, x_step, false);
          if (wx != A(0)) sum += wy * wx * A(levels.out[l][level.offset(n, c, a, b)]);
        }
      }
    }
    grad_feature[i] = T(sum);
  }
}

template <typename T>
void launch_downsample_add(const T* feature, MapShape shape, const DownsampleLevels<T>& levels, Stream stream) {
  const int64_t items = levels.begin[levels.count];
  if (items) SIMT_LAUNCH((downsample_add_kernel<T>), blocks_for(items), kBlock, 0, stream, feature, shape, levels);
}

template <typename T>
void launch_downsample_add_backward(T* grad_feature, int64_t images, MapShape shape, const DownsampleLevels<T>& levels,
                                    Stream stream) {
  const int64_t items = images * shape.C * shape.H * shape.W;
  if (items)
    SIMT_LAUNCH((downsample_add_backward_kernel<T>), blocks_for(items), kBlock, 0, stream, grad_feature, shape, items,
                levels);
}

}  // namespace rpcnn
