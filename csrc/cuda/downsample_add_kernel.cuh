// downsample_add: out_l = P_l + bilinear(feature → size of P_l), align_corners False, every level in one launch.
//
// Fewest bytes: the feature's sampled pixels and the pyramid read once, the outputs written once; backward: every
// gradient read once, the feature's written once. A thread makes several channels of one pixel (channels.cuh), whose
// taps it computes once. The backward gathers: no atomics, no zero fill, deterministic. Where a level is no larger than
// the feature, at most two of its pixels an axis read a feature pixel, and none reads most pixels of levels beyond 1/2:
// a block tabulates the readers of its columns and of kReaderRows rows, and its threads make kReaderRows pixels each.
//
// Ladder of the backward. Instructions that a thread executes per feature pixel, from SASS (sm_90) and how often each
// part runs; five levels of a 200 × 304 feature, channels innermost in packs of 16 bytes. Counted, never timed.
//                                                                        float    bfloat16
//   readers searched by each thread, weights of the candidates computed   2,581       2,658   (4 divisions a level)
//   table of the block's columns and of one row, one pixel a thread         440               (a prototype)
//   four rows a block and thread, offsets within an image of 32 bits        162         172   (64, 72 registers)
// Of the 162, 20 make the tables, 29 place the thread, 12 store. Issue takes less time now than the bytes (a third to a
// half of it on an H100). With tables the first rows of 64-bit offsets took 72 registers and spilled when held to 64.
#pragma once

#include "channels.cuh"

namespace rpcnn {

// Whether no pixel of an axis has more than two readers, the pixels of a level that read it: those of weight > 0 lie
// less than a pixel away from it, and a pixel or more from each other where out ≤ in. Rounding does not squeeze a third
// one in: with sources rounded to multiples of u, whole numbers among them, three inside (i − 1, i + 1) span at most
// 2 − 2u, but two true steps of at least 1, rounded by u / 2 at each end, at least 2 − u. The limit makes u < 1 / 2,
// and a grid's rows fewer than 65536.
inline bool has_reader_pairs(int64_t in, int64_t out) {
  return out <= in && in < 1 << 17;
}

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
  // Whether the backward of a feature of H × W can use downsample_add_backward_kernel.
  bool have_reader_pairs(int64_t H, int64_t W) const {
    bool all = levels.C * H * W <= INT32_MAX;
    for (int l = 0; l < levels.count; ++l)
      all = all && has_reader_pairs(H, levels.H[l]) && has_reader_pairs(W, levels.W[l]);
    return all;
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

// The pixels of a level that read a row or column of the feature: `first` and the one after it, with these weights, of
// which the second or both may be 0. `first` counts in elements.
template <typename A>
struct alignas(4 * sizeof(A)) ReaderPair {
  int first;
  A weight[2];
};

template <typename A>
__device__ ReaderPair<A> reader_pair(int index, int in, int out, int spacing) {
  const A step = interpolation_step<A>(in, out, false);
  int64_t first, last;
  interpolation_readers<A>(index, in, out, step, false, &first, &last);
  A weight = A(0);
  for (; first < last; ++first) {
    weight = interpolation_weight<A>(first, index, in, step, false);
    if (weight != A(0)) break;
  }
  const A next = first + 1 < last ? interpolation_weight<A>(first + 1, index, in, step, false) : A(0);
  return {int(first) * spacing, {weight, next}};
}

constexpr int kReaderRows = 4;  // feature rows of a block: they share the columns' readers

// For levels that have_reader_pairs; positions within an image fit an int.
// Grid: columns, kReaderRows rows of the feature, images × pieces of the channels.
template <typename T, int V, bool kInnermost>
__global__ void __launch_bounds__(kBlock, resident_blocks<device_accumulate_t<T>>(3))
    downsample_add_backward_kernel(T* grad_feature, int64_t H, int64_t W, DownsampleLevels<T> all) {
  using A = device_accumulate_t<T>;
  using Own = Channels<T, V, kInnermost>;
  using L = WarpMapping<V, kInnermost>;
  using Pair = ReaderPair<A>;
  SIMT_SHARED(Pair, columns, [kMaxLevels][L::kPlaces]);
  SIMT_SHARED(Pair, rows, [kMaxLevels][kReaderRows]);
  const Levels& levels = all.levels;
  const int C = int(levels.C), height = int(H), width = int(W), spacing = kInnermost ? C : 1;
  const int left = int(blockIdx.x) * L::kPlaces, top = int(blockIdx.y) * kReaderRows;
  constexpr int kLines = L::kPlaces + kReaderRows;
  for (int i = int(threadIdx.y * 32 + threadIdx.x); i < levels.count * kLines; i += kBlock) {
    const int l = i / kLines, line = i - l * kLines, row = line - L::kPlaces, w = int(levels.W[l]);
    const bool is_row = row >= 0;
    const int in = is_row ? height : width, out = is_row ? int(levels.H[l]) : w;
    (is_row ? rows[l][row] : columns[l][line]) =
        reader_pair<A>(is_row ? top + row : left + line, in, out, is_row ? w * spacing : spacing);
  }
  __syncthreads();
  const int place = L::place(threadIdx), x = left + place, pieces = int(L::pieces(C));
  if (x >= width) return;
  for (int z = blockIdx.z; z < int(levels.N) * pieces; z += gridDim.z) {
    const int n = z / pieces, c = (z - n * pieces) * L::kChannels + L::channel(threadIdx);
    if (c >= C) continue;
    A sum[kReaderRows][V] = {};
    for (int l = 0; l < levels.count; ++l) {
      const Pair column = columns[l][place];
      if (column.weight[0] == A(0)) continue;
      const int h = int(levels.H[l]), w = int(levels.W[l]), plane = h * w;
      const T* image = all.out[l] + int64_t(n) * (C * plane) + column.first;
#pragma unroll
      for (int j = 0; j < kReaderRows; ++j) {
        const Pair row = rows[l][j];
#pragma unroll
        for (int a = 0; a < 2; ++a) {
          if (row.weight[a] == A(0)) break;
          const T* from = image + (row.first + a * w * spacing);
#pragma unroll
          for (int b = 0; b < 2; ++b) {
            if (b > 0 && column.weight[b] == A(0)) break;
            A value[V];
            Own::load(from + b * spacing, 0, plane, c, C, value);
            const A weight = row.weight[a] * column.weight[b];
#pragma unroll
            for (int k = 0; k < V; ++k) sum[j][k] += weight * value[k];
          }
        }
      }
    }
    const int plane = height * width;
    T* to = grad_feature + int64_t(n) * (C * plane) + (top * width + x) * spacing;
#pragma unroll
    for (int j = 0; j < kReaderRows; ++j)
      if (top + j < height) Own::store(to + j * width * spacing, 0, plane, c, C, sum[j]);
  }
}

// For any levels, also larger than the feature: searches the readers of every pixel.
// Grid: columns, rows of the feature, images × pieces of the channels.
template <typename T, int V, bool kInnermost>
__global__ void __launch_bounds__(kBlock)
    downsample_add_search_kernel(T* grad_feature, int64_t H, int64_t W, DownsampleLevels<T> all) {
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
  const bool pairs = all.have_reader_pairs(H, W);
  choose_channels<T>(levels.channels_last, pairs && all.packs_whole(grad_feature), [&](auto v, auto innermost) {
    constexpr int V = decltype(v)::value;
    constexpr bool kInnermost = decltype(innermost)::value;
    const dim3 block(32, 8);
    dim3 grid = map_grid<V, kInnermost>(W, H, levels.N, levels.C);
    if (pairs) {
      grid.y = grid_size(H, kReaderRows);
      SIMT_LAUNCH((downsample_add_backward_kernel<T, V, kInnermost>), grid, block, 0, stream, grad_feature, H, W, all);
    } else if constexpr (V == 1 || !kInnermost) {
      SIMT_LAUNCH((downsample_add_search_kernel<T, V, kInnermost>), grid, block, 0, stream, grad_feature, H, W, all);
    }
  });
}

}  // namespace rpcnn
