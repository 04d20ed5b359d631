// downsample_add: out_l = P_l + bilinear(feature → size of P_l), align_corners False, every level in one launch.
//
// Fewest bytes: the feature's sampled pixels and the pyramid read once, the outputs written once; backward: every
// gradient read once, the feature's written once. A thread makes several channels of one pixel (channels.cuh), whose
// taps it computes once. The backward gathers, a thread a feature pixel: at most a few pixels of each level read it,
// for levels are no larger than the feature, and those of levels beyond 1/2 mostly none. No atomics, no zero fill,
// deterministic.
#pragma once

#include "channels.cuh"

namespace rpcnn {

template <typename T>
struct DownsampleLevels {
  Levels levels;
  const T* pyramid[kMaxLevels];  // null in the backward
  T* out[kMaxLevels];            // the gradients, read only, in the backward

  bool packs_whole(const void* feature) const {
    bool whole = packs_divide<T>(levels.C) && starts_pack(feature);
    for (int l = 0; l < levels.count; ++l) whole = whole && starts_pack(pyramid[l]) && starts_pack(out[l]);
    return whole;
  }
};

// Grid: columns, rows of all levels, images × pieces of the channels.
template <typename T, int V, bool kInnermost>
__global__ void __launch_bounds__(kBlock, resident_blocks<device_accumulate_t<T>>(4))
    downsample_add_kernel(const T* feature, int64_t H, int64_t W, DownsampleLevels<T> all, int64_t rows) {
  using A = device_accumulate_t<T>;
  using Own = Channels<T, V, kInnermost>;
  using L = WarpMapping<V, kInnermost>;
  const Levels& levels = all.levels;
  const int64_t x = int64_t(blockIdx.x) * L::kPlaces + L::place(threadIdx), C = levels.C, pieces = L::pieces(C);
  for (int64_t i = blockIdx.y; i < rows; i += gridDim.y) {
    int64_t y = i;
    const int l = levels.level_of(&y);
    const int64_t h = levels.H[l], w = levels.W[l];
    if (x >= w) continue;
    const bool same = h == H && w == W;
    const auto ty = interpolation_tap<A>(y, H, interpolation_step<A>(H, h, false), false);
    const auto tx = interpolation_tap<A>(x, W, interpolation_step<A>(W, w, false), false);
    const int64_t place[4] = {ty.lo * W + tx.lo, ty.lo * W + tx.hi, ty.hi * W + tx.lo, ty.hi * W + tx.hi};
    const A weight[4] = {ty.w_lo * tx.w_lo, ty.w_lo * tx.w_hi, ty.w_hi * tx.w_lo, ty.w_hi * tx.w_hi};
    for (int64_t z = blockIdx.z; z < levels.N * pieces; z += gridDim.z) {
      const int64_t n = z / pieces, c = (z - n * pieces) * L::kChannels + L::channel(threadIdx);
      if (c >= C) continue;
      const T* image = feature + n * C * H * W;
      A sum[V], value[V];
      Own::load(all.pyramid[l] + n * levels.image(l), y * w + x, h * w, c, C, sum);
#pragma unroll
      for (int tap = 0; tap < 4; ++tap) {
        if (same && tap > 0) continue;
        Own::load(image, place[tap], H * W, c, C, value);
#pragma unroll
        for (int k = 0; k < V; ++k) sum[k] += weight[tap] * value[k];
      }
      Own::store(all.out[l] + n * levels.image(l), y * w + x, h * w, c, C, sum);
    }
  }
}

// Grid: columns, rows of the feature, images × pieces of the channels.
template <typename T, int V, bool kInnermost>
__global__ void __launch_bounds__(kBlock)
    downsample_add_backward_kernel(T* grad_feature, int64_t H, int64_t W, DownsampleLevels<T> all) {
  using A = device_accumulate_t<T>;
  using Own = Channels<T, V, kInnermost>;
  using L = WarpMapping<V, kInnermost>;
  const Levels& levels = all.levels;
  const int64_t x = int64_t(blockIdx.x) * L::kPlaces + L::place(threadIdx), C = levels.C, pieces = L::pieces(C);
  if (x >= W) return;
  for (int64_t y = blockIdx.y; y < H; y += gridDim.y)
    for (int64_t z = blockIdx.z; z < levels.N * pieces; z += gridDim.z) {
      const int64_t n = z / pieces, c = (z - n * pieces) * L::kChannels + L::channel(threadIdx);
      if (c >= C) continue;
      A sum[V] = {};
      for (int l = 0; l < levels.count; ++l) {
        const int64_t h = levels.H[l], w = levels.W[l];
        const T* image = all.out[l] + n * levels.image(l);
        const A y_step = interpolation_step<A>(H, h, false), x_step = interpolation_step<A>(W, w, false);
        int64_t y_first, y_last, x_first, x_last;
        interpolation_readers<A>(y, H, h, y_step, false, &y_first, &y_last);
        interpolation_readers<A>(x, W, w, x_step, false, &x_first, &x_last);
        for (int64_t a = y_first; a < y_last; ++a) {
          const A wy = interpolation_weight<A>(a, y, H, y_step, false);
          if (wy == A(0)) continue;
          for (int64_t b = x_first; b < x_last; ++b) {
            const A wx = interpolation_weight<A>(b, x, W, x_step, false);
            if (wx == A(0)) continue;
            A value[V];
            Own::load(image, a * w + b, h * w, c, C, value);
#pragma unroll
            for (int k = 0; k < V; ++k) sum[k] += wy * wx * value[k];
          }
        }
      }
      Own::store(grad_feature + n * C * H * W, y * W + x, H * W, c, C, sum);
    }
}

template <typename T>
void launch_downsample_add(const T* feature, int64_t H, int64_t W, const DownsampleLevels<T>& all, Stream stream) {
  const Levels& levels = all.levels;
  if (levels.N * levels.C * levels.rows() * levels.widest() == 0) return;
  choose_channels<T>(levels.channels_last, all.packs_whole(feature), [&](auto v, auto innermost) {
    constexpr int V = decltype(v)::value;
    constexpr bool kInnermost = decltype(innermost)::value;
    SIMT_LAUNCH((downsample_add_kernel<T, V, kInnermost>),
                (map_grid<V, kInnermost>(levels.widest(), levels.rows(), levels.N, levels.C)), dim3(32, 8), 0, stream,
                feature, H, W, all, levels.rows());
  });
}

template <typename T>
void launch_downsample_add_backward(T* grad_feature, int64_t H, int64_t W, const DownsampleLevels<T>& all,
                                    Stream stream) {
  const Levels& levels = all.levels;
  if (levels.N * levels.C * H * W == 0) return;
  choose_channels<T>(levels.channels_last, all.packs_whole(grad_feature), [&](auto v, auto innermost) {
    constexpr int V = decltype(v)::value;
    constexpr bool kInnermost = decltype(innermost)::value;
    SIMT_LAUNCH((downsample_add_backward_kernel<T, V, kInnermost>), (map_grid<V, kInnermost>(W, H, levels.N, levels.C)),
                dim3(32, 8), 0, stream, grad_feature, H, W, all);
  });
}

}  // namespace rpcnn
