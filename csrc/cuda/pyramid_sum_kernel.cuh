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
  A step_y[kMaxLevels], step_x[kMaxLevels];
  const T* map[kMaxLevels];
  GroupAffine<A> affine[kMaxLevels];

  Pyramid(const Levels& levels, int64_t H, int64_t W, bool align_corners)
      : levels(levels), H(H), W(W), align_corners(align_corners), step_y{}, step_x{}, map{}, affine{} {
    for (int l = 0; l < levels.count; ++l) {
      step_y[l] = interpolation_step<A>(levels.H[l], H, align_corners);
      step_x[l] = interpolation_step<A>(levels.W[l], W, align_corners);
    }
  }
  RPCNN_HOST_DEVICE bool same_size(int l) const { return levels.H[l] == H && levels.W[l] == W; }
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

// The two steps of a level's up-sampled value before the ReLU, in operations that leave nvcc no choice: the backward's
// masks are the forward's, bit for bit. Along x, then along y, as PyTorch does it: what cancels there cancels here. The
// mean is subtracted from the pixels: folded into β, a large one would lose digits by cancellation.
template <typename A>
RPCNN_HOST_DEVICE A interpolated(A w_hi, A low, A high) {
  return fused_sum(w_hi, high, rounded_product(A(1) - w_hi, low));
}
template <bool kAffine, typename T, int V, bool kInnermost, typename A>
RPCNN_HOST_DEVICE A normalized(const Normalization<T, V, kInnermost, kAffine>& norm, int k, A value) {
  return kAffine ? fused_sum(norm.scale[k], value, norm.shift[k]) : value;
}

// The tap of an output column or row: offsets of its input pixels, and one weight, from which the other follows. A
// single pixel has w_hi = 0.
template <typename A>
struct ShortTap {
  int lo, hi;
  A w_hi;
};
template <typename A>
__device__ ShortTap<A> short_tap(int64_t index, int64_t in, A step, bool align_corners, int pitch) {
  const Tap<A> tap = interpolation_tap<A>(index, in, step, align_corners);
  return {int(tap.lo) * pitch, int(tap.hi) * pitch, tap.hi > tap.lo ? tap.w_hi : A(0)};
}

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
      taps[l][column] =
          short_tap<A>(row ? y : x, row ? levels.H[l] : levels.W[l], row ? pyramid.step_y[l] : pyramid.step_x[l],
                       pyramid.align_corners, kInnermost && !row ? int(C) : 1);
    }
    __syncthreads();
    for (int64_t z = blockIdx.z; z < levels.N * pieces; z += gridDim.z) {
      const int64_t n = z / pieces, c = (z - n * pieces) * L::kChannels + L::channel(threadIdx);
      if (c >= C) continue;
      A sum[kPixels][V] = {};
      for (int l = 0; l < levels.count; ++l) {
        const Normalization<T, V, kInnermost, kAffine> norm(pyramid.affine[l], n, c, C);
        const int64_t h = levels.H[l], w = levels.W[l];
        const T* image = Own::start(pyramid.map[l] + n * C * h * w, 0, h * w, c, C);
        const bool same = pyramid.same_size(l);
        const ShortTap<A> ty = taps[l][kColumns];
        const int64_t width = kInnermost ? w * C : w;
        const T *top = image + ty.lo * width, *bottom = image + ty.hi * width;
#pragma unroll
        for (int j = 0; j < kPixels; ++j) {
          const ShortTap<A> tx = taps[l][place + j];
          A value[V];
          if (same) {
            Own::load_from(top + tx.lo, h * w, C - c, value);
            if constexpr (kAffine) {
#pragma unroll
              for (int k = 0; k < V; ++k) value[k] -= norm.center[k];
            }
          } else {
#pragma unroll(kInnermost ? 2 : 1)  // unrolled for planes, the loads would spill registers
            for (int row = 0; row < 2; ++row) {
              A left[V], right[V];
              Own::load_from((row ? bottom : top) + tx.lo, h * w, C - c, left);
              Own::load_from((row ? bottom : top) + tx.hi, h * w, C - c, right);
#pragma unroll
              for (int k = 0; k < V; ++k) {
                if constexpr (kAffine) left[k] -= norm.center[k], right[k] -= norm.center[k];
                const A mixed = interpolated(tx.w_hi, left[k], right[k]);
                value[k] = row ? interpolated(ty.w_hi, value[k], mixed) : mixed;
              }
            }
          }
#pragma unroll
          for (int k = 0; k < V; ++k) sum[j][k] += activate<kRelu>(normalized(norm, k, value[k]));
        }
      }
      // One address and small offsets: sm_100 spilled four of them.
      T* to = Own::start(out + n * C * H * W, y * W + first + place, H * W, c, C);
#pragma unroll
      for (int j = 0; j < kPixels; ++j)
        if (first + place + j < W) Own::store_to(to + (kInnermost ? j * int(C) : j), H * W, C - c, sum[j]);
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

}  // namespace rpcnn
