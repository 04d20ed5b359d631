// The common core of upsample_sum and gse_fuse on CUDA:
//   out = Σ_l act(γ_l rstd_l (bilinear(Q_l → size of out) − mean_l) + β_l),   act = ReLU or nothing,
// with or without the GroupNorm affine, and its adjoint E_l = Aᵀ (grad ∘ [act's derivative]) B, where A and B are the
// interpolation matrices of level l's two axes.
//
// Fewest bytes of the sum: every level read once, the output written once. A thread makes several channels of one
// output pixel (channels.cuh), whose taps it computes once; neighboring pixels mostly read the same coarse pixels,
// which come from the L1 cache.
// Fewest bytes of the adjoint: the gradient read once, every E written once. It gathers in two launches, each for all
// levels: first along x, a block taking one stretch of one gradient row for all levels in turn, so that the gradient
// comes from memory once; then along y. Between the two lie maps [N, C, H, w_l] in the accumulation type, for levels l
// with h_l ≠ H: with P2..P6 they are 0.94 of the output, written and read. Gathering both axes at once needs no such
// maps, but a pixel of P6 is read by 32×32 pixels of P2, which one thread would walk alone.
// No atomics, no zero fill, deterministic; the ReLU's mask is recomputed, no up-sampled map is ever stored.
//
// Ladder (bytes beyond the caches for P2..P6 of two 800×1216 images, 256 channels, fp32, forward + backward; counted,
// not timed: benchmarks/STATIC.md):
//   1105 MB, 9 launches  one element a thread, the gradient read once per level
//    690 MB, 3 launches  packs of channels, all levels in a launch, the gradient read once; the minimum is 456 MB
// Instructions of the sum for 16 bytes of a pixel and a level of another size / of the output's size (sm_90's SASS,
// with the affine; counted, not timed):
//   fp32 400, bf16 565 / 334  every thread its own taps, divisions and conversions, 64-bit indices, affine by numbers
//   fp32 112, bf16 270 / 110  taps once a block in shared memory, affine in packs, four pixels a thread, two of eight
//                             channels (four: 231, but spilled registers on sm_120). Five levels of two such images:
//                             155 µs of issue on an H100 (353 before) where the bytes take 68
#pragma once

#include "channels.cuh"

namespace rpcnn {

// GroupNorm of one level.
template <typename A>
struct GroupAffine {
  const A *mean, *rstd;   // [N, G], `stride` apart from image to image
  const A *gamma, *beta;  // [C]
  int64_t stride, group;  // group: channels in one
};

// Levels that are brought to the size H × W.
template <typename T>
struct Pyramid {
  using A = device_accumulate_t<T>;
  Levels levels;
  int64_t H, W;
  bool align_corners;
  const T* map[kMaxLevels];
  GroupAffine<A> affine[kMaxLevels];

  RPCNN_HOST_DEVICE bool same_size(int l) const { return levels.H[l] == H && levels.W[l] == W; }
  RPCNN_HOST_DEVICE A step_y(int l) const { return interpolation_step<A>(levels.H[l], H, align_corners); }
  RPCNN_HOST_DEVICE A step_x(int l) const { return interpolation_step<A>(levels.W[l], W, align_corners); }
  bool packs_whole() const {
    bool whole = packs_divide<T>(levels.C);
    for (int l = 0; l < levels.count; ++l)
      whole = whole && starts_pack(map[l]) && starts_pack(affine[l].gamma) && starts_pack(affine[l].beta);
    return whole;
  }
};

// NaN passes both, as in PyTorch.
template <bool kRelu, typename A>
RPCNN_HOST_DEVICE A activate(A value) {
  return kRelu && value < A(0) ? A(0) : value;
}
template <typename A>
RPCNN_HOST_DEVICE bool passes_gradient(A value) {
  return !(value <= A(0));
}

// A level's normalization of the channels c .. c + V − 1 of image n: scale (value − center) + shift. γ and β of
// channels innermost are whole packs (packs_whole), and V channels mostly lie in one group.
template <typename T, int V, bool kInnermost, bool kAffine>
struct Normalization {
  using A = device_accumulate_t<T>;
  A center[V], scale[V], shift[V];
  int64_t group[V];

  RPCNN_HOST_DEVICE Normalization(const GroupAffine<A>& affine, int64_t n, int64_t c, int64_t C) {
    if constexpr (kAffine) {
      constexpr bool kPack = kInnermost && V > 1;
      if constexpr (kPack) {
        Channels<A, V, true>::load(affine.gamma + c, 0, 0, 0, 0, scale);
        Channels<A, V, true>::load(affine.beta + c, 0, 0, 0, 0, shift);
      }
      const A *mean = affine.mean + n * affine.stride, *rstd = affine.rstd + n * affine.stride;
      int g = int(c) / int(affine.group), next = (g + 1) * int(affine.group);
      A own_mean = mean[g], own_rstd = rstd[g];
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const int64_t channel = Channels<T, V, kInnermost>::index(c, k, C);
        if (channel >= next) {
          ++g, next += int(affine.group);
          own_mean = mean[g], own_rstd = rstd[g];
        }
        group[k] = g;
        center[k] = own_mean;
        if constexpr (!kPack) scale[k] = affine.gamma[channel], shift[k] = affine.beta[channel];
        scale[k] *= own_rstd;
      }
    }
  }
};

// value[k] = level l's up-sampled channel c + k before the ReLU. The mean is subtracted from the pixels: folded into
// β, a large one would lose digits by cancellation.
template <int V, bool kInnermost, bool kAffine, typename T, typename A>
RPCNN_HOST_DEVICE void upsampled(const Pyramid<T>& pyramid, int l, const Normalization<T, V, kInnermost, kAffine>& norm,
                                 int64_t n, int64_t c, int64_t y, int64_t x, A* value) {
  using Own = Channels<T, V, kInnermost>;
  const int64_t C = pyramid.levels.C, h = pyramid.levels.H[l], w = pyramid.levels.W[l];
  const T* image = pyramid.map[l] + n * C * h * w;
  if (pyramid.same_size(l)) {
    Own::load(image, y * w + x, h * w, c, C, value);
    if constexpr (kAffine) {
#pragma unroll
      for (int k = 0; k < V; ++k) value[k] -= norm.center[k];
    }
  } else {
    const Tap<A> ty = interpolation_tap<A>(y, h, pyramid.step_y(l), pyramid.align_corners);
    const Tap<A> tx = interpolation_tap<A>(x, w, pyramid.step_x(l), pyramid.align_corners);
    // Row by row, as PyTorch does it: what cancels there cancels here, and the ReLU's masks agree.
#pragma unroll(kInnermost ? 2 : 1)  // unrolled for planes, the loads would spill registers
    for (int row = 0; row < 2; ++row) {
      const int64_t start = (row ? ty.hi : ty.lo) * w;
      A left[V], right[V];
      Own::load(image, start + tx.lo, h * w, c, C, left);
      Own::load(image, start + tx.hi, h * w, c, C, right);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        if constexpr (kAffine) left[k] -= norm.center[k], right[k] -= norm.center[k];
        const A mixed = tx.w_lo * left[k] + tx.w_hi * right[k];
        value[k] = row ? value[k] + ty.w_hi * mixed : ty.w_lo * mixed;
      }
    }
  }
  if constexpr (kAffine) {
#pragma unroll
    for (int k = 0; k < V; ++k) value[k] = norm.scale[k] * value[k] + norm.shift[k];
  }
}

// The tap of an output column or row: offsets of its input pixels, and one weight, from which the other follows.
template <typename A>
struct ShortTap {
  int lo, hi;
  A w_hi;
};

// Pixels of a thread: with channels innermost neighbors, which mostly read the same coarse pixels; taps and affine are
// loaded once for all of them. Four pixels of eight channels spill registers on sm_120.
template <int V, bool kInnermost>
constexpr int kSumPixels = kInnermost ? (V < 8 ? 4 : 2) : 1;
template <int V, bool kInnermost>
constexpr int kSumColumns = WarpMapping<V, kInnermost>::kPlaces * kSumPixels<V, kInnermost>;  // of a block

// Grid: stretches of kColumns columns, rows, images × pieces of the channels. The taps of a row's stretch lie in
// shared memory: each costs two divisions and conversions that 256 threads would repeat.
template <typename T, int V, bool kInnermost, bool kRelu, bool kAffine>
__global__ void __launch_bounds__(kBlock, resident_blocks<device_accumulate_t<T>>(2))
    pyramid_sum_kernel(Pyramid<T> pyramid, T* out) {
  using A = device_accumulate_t<T>;
  using L = WarpMapping<V, kInnermost>;
  using Own = Channels<T, V, kInnermost>;
  constexpr int kPixels = kSumPixels<V, kInnermost>, kColumns = kSumColumns<V, kInnermost>;
  SIMT_SHARED(ShortTap<A>, taps, [kMaxLevels][kColumns + 1]);
  const Levels& levels = pyramid.levels;
  const int64_t C = levels.C, H = pyramid.H, W = pyramid.W, pieces = L::pieces(C);
  const int64_t first = int64_t(blockIdx.x) * kColumns;
  const int place = L::place(threadIdx) * kPixels;
  for (int64_t y = blockIdx.y; y < H; y += gridDim.y) {
    __syncthreads();
    for (int i = int(threadIdx.y * 32 + threadIdx.x); i < levels.count * (kColumns + 1); i += kBlock) {
      const int l = i / (kColumns + 1), column = i - l * (kColumns + 1);
      const bool row = column == kColumns;
      const int64_t x = first + column < W ? first + column : W - 1;
      const Tap<A> tap = interpolation_tap<A>(row ? y : x, row ? levels.H[l] : levels.W[l],
                                              row ? pyramid.step_y(l) : pyramid.step_x(l), pyramid.align_corners);
      const int step = kInnermost && !row ? int(C) : 1;
      taps[l][column] = {int(tap.lo) * step, int(tap.hi) * step, tap.w_hi};
    }
    __syncthreads();
    for (int64_t z = blockIdx.z; z < levels.N * pieces; z += gridDim.z) {
      const int64_t n = z / pieces, c = (z - n * pieces) * L::kChannels + L::channel(threadIdx);
      if (c >= C) continue;
      A sum[kPixels][V] = {};
      for (int l = 0; l < levels.count; ++l) {
        const Normalization<T, V, kInnermost, kAffine> norm(pyramid.affine[l], n, c, C);
        const int64_t h = levels.H[l], w = levels.W[l];
        const T* image = pyramid.map[l] + n * C * h * w + (kInnermost ? c : 0);
        const bool same = pyramid.same_size(l);
        const ShortTap<A> ty = taps[l][kColumns];
        const int64_t width = kInnermost ? w * C : w;
        const T *top = image + ty.lo * width, *bottom = image + ty.hi * width;
        const auto load = [&](const T* row, int offset, A* value) {
          if constexpr (kInnermost)
            Own::load(row + offset, 0, 0, 0, 0, value);
          else
            Own::load(row, offset, h * w, c, C, value);
        };
#pragma unroll
        for (int j = 0; j < kPixels; ++j) {
          const ShortTap<A> tx = taps[l][place + j];
          A value[V];
          // As in upsampled(), in the same order, so that the ReLU's mask is the backward's.
          if (same) {
            load(top, tx.lo, value);
            if constexpr (kAffine) {
#pragma unroll
              for (int k = 0; k < V; ++k) value[k] -= norm.center[k];
            }
          } else {
#pragma unroll(kInnermost ? 2 : 1)
            for (int row = 0; row < 2; ++row) {
              A left[V], right[V];
              load(row ? bottom : top, tx.lo, left);
              load(row ? bottom : top, tx.hi, right);
#pragma unroll
              for (int k = 0; k < V; ++k) {
                if constexpr (kAffine) left[k] -= norm.center[k], right[k] -= norm.center[k];
                const A mixed = (A(1) - tx.w_hi) * left[k] + tx.w_hi * right[k];
                value[k] = row ? value[k] + ty.w_hi * mixed : (A(1) - ty.w_hi) * mixed;
              }
            }
          }
#pragma unroll
          for (int k = 0; k < V; ++k)
            sum[j][k] += activate<kRelu>(kAffine ? norm.scale[k] * value[k] + norm.shift[k] : value[k]);
        }
      }
#pragma unroll
      for (int j = 0; j < kPixels; ++j)
        if (first + place + j < W) {
          // One address and small offsets: sm_100 spilled four of them.
          if constexpr (kInnermost)
            Own::store(out + ((n * H + y) * W + first + place) * C + c + j * int(C), 0, 0, 0, 0, sum[j]);
          else
            Own::store(out + n * C * H * W, y * W + first + place + j, H * W, c, C, sum[j]);
        }
    }
  }
}

// A pyramid and where its adjoint goes, of type O; `half` are the maps between its two launches, of levels with h_l ≠
// H. In one argument: nvcc copies smaller tables of pointers to the stack to index them.
template <typename T, typename O>
struct PyramidAdjoint {
  Pyramid<T> pyramid;
  device_accumulate_t<T>* half[kMaxLevels];
  O* e[kMaxLevels];
};

constexpr int kStretch = 4;  // columns of the gradient that a block gathers from, in units of its places

// half_l [N, C, H, w_l] = the masked gradient [N, C, H, W] gathered along x; E_l itself where h_l = H.
// Grid: stretches of a row, rows, images × pieces of the channels.
template <typename T, typename O, int V, bool kInnermost, bool kRelu, bool kAffine>
__global__ void __launch_bounds__(kBlock, resident_blocks<device_accumulate_t<T>>(V < 8 && kInnermost ? 3 : 2))
    pyramid_adjoint_x_kernel(PyramidAdjoint<T, O> adjoint, const T* grad) {
  const Pyramid<T>& pyramid = adjoint.pyramid;
  using A = device_accumulate_t<T>;
  using L = WarpMapping<V, kInnermost>;
  const int64_t C = pyramid.levels.C, H = pyramid.H, W = pyramid.W, pieces = L::pieces(C);
  const int64_t stretch = blockIdx.x, stretches = gridDim.x;
  const bool align = pyramid.align_corners;
  for (int64_t y = blockIdx.y; y < H; y += gridDim.y)
    for (int64_t z = blockIdx.z; z < pyramid.levels.N * pieces; z += gridDim.z) {
      const int64_t n = z / pieces, c = (z - n * pieces) * L::kChannels + L::channel(threadIdx);
      if (c >= C) continue;
      const T* row = grad + n * C * H * W;
      for (int l = 0; l < pyramid.levels.count; ++l) {
        if (!adjoint.e[l]) continue;
        const int64_t w = pyramid.levels.W[l];
        const A step = pyramid.step_x(l);
        const Normalization<T, V, kInnermost, kAffine> norm(pyramid.affine[l], n, c, C);
        // Every level's columns are shared out in proportion.
        const int64_t end = (stretch + 1) * w / stretches;
        for (int64_t x = stretch * w / stretches + L::place(threadIdx); x < end; x += L::kPlaces) {
          int64_t first, last;
          interpolation_readers<A>(x, w, W, step, align, &first, &last);
          A sum[V] = {};
          for (int64_t r = first; r < last; ++r) {
            const A weight = interpolation_weight<A>(r, x, w, step, align);
            if (weight == A(0)) continue;
            A value[V];
            Channels<T, V, kInnermost>::load(row, y * W + r, H * W, c, C, value);
            A before[V];
            if constexpr (kRelu) upsampled(pyramid, l, norm, n, c, y, r, before);
#pragma unroll
            for (int k = 0; k < V; ++k)
              if (!kRelu || passes_gradient(before[k])) sum[k] += weight * value[k];
          }
          const int64_t image = n * C * H * w;
          if (pyramid.levels.H[l] == H)
            Channels<O, V, kInnermost>::store(adjoint.e[l] + image, y * w + x, H * w, c, C, sum);
          else
            Channels<A, V, kInnermost>::store(adjoint.half[l] + image, y * w + x, H * w, c, C, sum);
        }
      }
    }
}

// E_l [N, C, h_l, w_l] = half_l gathered along y. Grid: columns, rows of all levels, images × pieces of the channels.
template <typename T, typename O, int V, bool kInnermost>
__global__ void __launch_bounds__(kBlock) pyramid_adjoint_y_kernel(PyramidAdjoint<T, O> adjoint, int64_t rows) {
  const Pyramid<T>& pyramid = adjoint.pyramid;
  using A = device_accumulate_t<T>;
  using L = WarpMapping<V, kInnermost>;
  const int64_t C = pyramid.levels.C, H = pyramid.H, pieces = L::pieces(C);
  const int64_t x = int64_t(blockIdx.x) * L::kPlaces + L::place(threadIdx);
  const bool align = pyramid.align_corners;
  for (int64_t i = blockIdx.y; i < rows; i += gridDim.y) {
    int64_t y = i;
    const int l = pyramid.levels.level_of(&y);
    const int64_t h = pyramid.levels.H[l], w = pyramid.levels.W[l];
    if (h == H || x >= w) continue;
    const A step = pyramid.step_y(l);
    int64_t first, last;
    interpolation_readers<A>(y, h, H, step, align, &first, &last);
    for (int64_t z = blockIdx.z; z < pyramid.levels.N * pieces; z += gridDim.z) {
      const int64_t n = z / pieces, c = (z - n * pieces) * L::kChannels + L::channel(threadIdx);
      if (c >= C) continue;
      A sum[V] = {};
      for (int64_t r = first; r < last; ++r) {
        const A weight = interpolation_weight<A>(r, y, h, step, align);
        if (weight == A(0)) continue;
        A value[V];
        Channels<A, V, kInnermost>::load(adjoint.half[l] + n * C * H * w, r * w + x, H * w, c, C, value);
#pragma unroll
        for (int k = 0; k < V; ++k) sum[k] += weight * value[k];
      }
      Channels<O, V, kInnermost>::store(adjoint.e[l] + n * C * h * w, y * w + x, h * w, c, C, sum);
    }
  }
}

template <bool kRelu, bool kAffine, typename T>
void launch_pyramid_sum(const Pyramid<T>& pyramid, T* out, Stream stream) {
  const Levels& levels = pyramid.levels;
  if (levels.N * levels.C * pyramid.H * pyramid.W == 0) return;
  choose_channels<T>(levels.channels_last, pyramid.packs_whole() && starts_pack(out), [&](auto v, auto innermost) {
    constexpr int V = decltype(v)::value;
    constexpr bool kInnermost = decltype(innermost)::value;
    using L = WarpMapping<V, kInnermost>;
    constexpr int kColumns = kSumColumns<V, kInnermost>;
    const dim3 grid(unsigned((pyramid.W + kColumns - 1) / kColumns), grid_size(pyramid.H),
                    grid_size(levels.N * L::pieces(levels.C)));
    SIMT_LAUNCH((pyramid_sum_kernel<T, V, kInnermost, kRelu, kAffine>), grid, dim3(32, 8), 0, stream, pyramid, out);
  });
}

// The total size, in elements, of the maps between the adjoint's two launches.
inline int64_t adjoint_scratch(const Levels& levels, int64_t H) {
  int64_t sum = 0;
  for (int l = 0; l < levels.count; ++l)
    if (levels.H[l] != H) sum += levels.N * levels.C * H * levels.W[l];
  return sum;
}

// E of every level into e[l], of type O and the level's shape, but where e[l] is null, which only a level of the
// gradient's size may have; `scratch` holds adjoint_scratch numbers.
template <bool kRelu, bool kAffine, typename T, typename O>
void launch_pyramid_adjoint(const Pyramid<T>& pyramid, const T* grad, device_accumulate_t<T>* scratch, O* const* e,
                            Stream stream) {
  const Levels& levels = pyramid.levels;
  if (levels.N * levels.C * levels.count == 0) return;
  PyramidAdjoint<T, O> adjoint{};
  adjoint.pyramid = pyramid;
  bool whole = pyramid.packs_whole() && starts_pack(grad) && starts_pack(scratch), any = false, two = false;
  for (int l = 0; l < levels.count; ++l) {
    adjoint.e[l] = e[l];
    whole = whole && starts_pack(e[l]);
    any = any || e[l];
    if (levels.H[l] == pyramid.H) continue;
    adjoint.half[l] = scratch;
    scratch += levels.N * levels.C * pyramid.H * levels.W[l];
    two = true;
  }
  if (!any) return;
  choose_channels<T>(levels.channels_last, whole, [&](auto v, auto innermost) {
    constexpr int V = decltype(v)::value;
    constexpr bool kInnermost = decltype(innermost)::value;
    SIMT_LAUNCH((pyramid_adjoint_x_kernel<T, O, V, kInnermost, kRelu, kAffine>),
                (map_grid<V, kInnermost>((pyramid.W + kStretch - 1) / kStretch, pyramid.H, levels.N, levels.C)),
                dim3(32, 8), 0, stream, adjoint, grad);
    if (two)
      SIMT_LAUNCH((pyramid_adjoint_y_kernel<T, O, V, kInnermost>),
                  (map_grid<V, kInnermost>(levels.widest(), levels.rows(), levels.N, levels.C)), dim3(32, 8), 0, stream,
                  adjoint, levels.rows());
  });
}

}  // namespace rpcnn
