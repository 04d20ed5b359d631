// gse_fuse: GroupNorm's statistics and gradient of up-sampled maps, from the low-resolution ones. The formulas stand in
// csrc/cpu/gse_fuse.cpp, the sum over levels in pyramid_sum_kernel.cuh, its adjoint E in pyramid_adjoint_kernel.cuh. A
// level of the output's size is GroupNorm itself and shares the code of group_norm_kernel.cuh; the terms of a smaller
// one are sums over the few output pixels that read each of its pixels, tabulated per axis: how much is read of a pixel
// and, for the second moment, of it together with its neighbors (a tridiagonal Gram matrix).
//
// All levels of a step are one launch. Forward: the tables; per channel the shifted first and second moments of
// stretches of pixels; their sum per group. Backward, after the adjoint: the tables; the moments of E the same way; the
// gradient, whose blocks add up what they need of the moments. Fewest bytes: each level read once for the statistics
// (the stencil's neighbors come from cache) and once for the sum; the backward reads E and the level twice. Sums are
// stored and added in a fixed order, in double across the threads: no atomics, the same result every time.
//
// Ladder (P2..P6 of one 800×1216 image, 256 channels, fp32, forward + backward; counted, not timed):
//   57 launches, 1237 MB  level by level, one element a thread, every addition in double
//   13 launches,  988 MB  all levels at once, packs of channels
//   11 launches,  863 MB  no E where a level has the output's size: the moments and the gradient mask the incoming
//                         gradient themselves (GroupNorm and ReLU alone: five passes over a map instead of eight)
//    9 launches,  863 MB  a channel's first pixel is its shift; the gradient's blocks add up the terms themselves
// The minimum is 539 MB; PyTorch's ops take 33 launches and 4524 MB. The rest is the maps between the adjoint's
// passes, and E of the coarser levels, which the moments of E and the gradient read.
// Instructions for eight bfloat16 channels of a level's pixel, averaged over P2..P6, and issue on an H100 for two
// images (sm_90's SASS times how often it runs; counted, not timed):
//   statistics 340 (60 µs), moments and gradient 1090 (190 µs)  a load for every number of the affine and of the tables
//   statistics 150 (27 µs), moments and gradient  350 (62 µs)   group_norm's loops; a row of the tables is one pack
#pragma once

#include "group_norm_kernel.cuh"
#include "pyramid_adjoint_kernel.cuh"

namespace rpcnn {

// What output pixels read of pixel i of one axis: the sum of their weights, and of the products of their weights of i
// and of i − 1, i, i + 1.
template <typename A>
struct alignas(16) GramRow {
  A sum, product[3];
};

// The levels, their scratch, and the results of the backward. One large argument: nvcc copies smaller tables of
// pointers to the stack to index them.
template <typename T>
struct GseFuse {
  using A = device_accumulate_t<T>;
  Pyramid<T> pyramid;
  GroupNorm<T> level[kMaxLevels];
  int first_stretch[kMaxLevels + 1], first_chunk[kMaxLevels + 1];
  GramRow<A>* table[kMaxLevels];  // [h + w]
  A* e[kMaxLevels];  // the adjoint, null for levels of the output's size; a map's gradient may take its place

  // Elements of the scratch.
  static int64_t singles(const Levels& levels) {
    int64_t sum = 0;
    for (int l = 0; l < levels.count; ++l)
      sum += 4 * (levels.H[l] + levels.W[l]) + levels.N * GroupNorm<T>::stretches_of(levels.pixels(l)) * 2 * levels.C;
    return sum;
  }
  // `scratch` begins a pack.
  GseFuse(const Pyramid<T>& pyramid, int64_t groups, A* scratch)
      : pyramid(pyramid), level{}, first_stretch{}, first_chunk{}, table{}, e{} {
    const Levels& levels = pyramid.levels;
    for (int l = 0; l < levels.count; ++l) {
      table[l] = reinterpret_cast<GramRow<A>*>(scratch);
      scratch += 4 * (levels.H[l] + levels.W[l]);
    }
    for (int l = 0; l < levels.count; ++l) {
      GroupNorm<T>& norm = level[l];
      norm.N = levels.N, norm.C = levels.C, norm.pixels = levels.pixels(l), norm.groups = groups;
      norm.values = pyramid.H * pyramid.W;
      norm.channels_last = levels.channels_last;
      norm.stretches = GroupNorm<T>::stretches_of(norm.pixels);
      norm.x = pyramid.map[l];
      norm.gamma = pyramid.affine[l].gamma, norm.beta = pyramid.affine[l].beta;
      norm.mean = const_cast<A*>(pyramid.affine[l].mean), norm.rstd = const_cast<A*>(pyramid.affine[l].rstd);
      norm.stride = pyramid.affine[l].stride;
      norm.partial = scratch;
      scratch += norm.N * norm.stretches * 2 * norm.C;
      first_stretch[l + 1] = first_stretch[l] + norm.stretches;
    }
  }

  // The row and column of the table.
  RPCNN_HOST_DEVICE const GramRow<A>& y(int l, int i) const { return table[l][i]; }
  RPCNN_HOST_DEVICE const GramRow<A>& x(int l, int i) const { return table[l][pyramid.levels.H[l] + i]; }
  // f(pixel, y, x) for the thread's pixels of level l among the `count` from `begin` on.
  template <int V, int kLanes, typename F>
  __device__ void for_own_pixels(int l, int64_t begin, int count, F&& f) const {
    using M = PixelMapping<V, kLanes>;
    const int w = int(pyramid.levels.W[l]);
    int at = M::place(threadIdx), y = int((begin + at) / w), x = int(begin + at - int64_t(y) * w);
    for (; at < count; at += M::kPlaces) {
      f(begin + at, y, x);
      x += M::kPlaces;
      while (x >= w) x -= w, ++y;
    }
  }
  bool packs_whole() const {
    bool whole = pyramid.packs_whole();
    for (int l = 0; l < pyramid.levels.count; ++l)
      whole = whole && starts_pack(e[l]) && starts_pack(level[l].grad) && starts_pack(level[l].grad_x);
    return whole;
  }
};

template <typename T>
__global__ void gram_tables_kernel(GseFuse<T> gse) {
  using A = device_accumulate_t<T>;
  const Pyramid<T>& pyramid = gse.pyramid;
  const Levels& levels = pyramid.levels;
  const bool align = pyramid.align_corners;
  const int l = static_cast<int>(blockIdx.y);
  const int64_t h = levels.H[l], w = levels.W[l], stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < h + w; i += stride) {
    const bool along_y = i < h;
    const int64_t in = along_y ? h : w, out = along_y ? pyramid.H : pyramid.W, index = along_y ? i : i - h;
    const A step = along_y ? pyramid.step_y[l] : pyramid.step_x[l];
    int64_t first, last;
    interpolation_readers<A>(index, in, out, step, align, &first, &last);
    double sum = 0, before = 0, diagonal = 0, after = 0;
    for (int64_t r = first; r < last; ++r) {
      const auto tap = interpolation_tap<A>(r, in, step, align);
      const double weight = (tap.lo == index ? double(tap.w_lo) : 0.0) + (tap.hi == index ? double(tap.w_hi) : 0.0);
      sum += weight;
      diagonal += weight * weight;
      if (tap.lo == tap.hi) continue;
      const double product = double(tap.w_lo) * double(tap.w_hi);
      if (tap.lo == index) after += product;
      if (tap.hi == index) before += product;
    }
    gse.table[l][i] = {A(sum), {A(before), A(diagonal), A(after)}};
  }
}

// sum[k] = (AᵀA)(Q − center)(BᵀB) at pixel (y, x) of level l, of the channels from `image` on.
template <typename T, int V>
__device__ void gram_at(const GramRow<device_accumulate_t<T>>& gy, const GramRow<device_accumulate_t<T>>& gx,
                        const T* image, int row, int step, const device_accumulate_t<T>* center,
                        device_accumulate_t<T>* sum) {
  using A = device_accumulate_t<T>;
#pragma unroll
  for (int k = 0; k < V; ++k) sum[k] = A(0);
  // A weight is 0 beyond the border.
#pragma unroll
  for (int dy = -1; dy <= 1; ++dy) {
    if (gy.product[dy + 1] == A(0)) continue;
#pragma unroll
    for (int dx = -1; dx <= 1; ++dx) {
      const A weight = gy.product[dy + 1] * gx.product[dx + 1];
      if (weight == A(0)) continue;
      A value[V];
      load_pack<T, V>(image + (dy * row + dx) * step, value);
#pragma unroll
      for (int k = 0; k < V; ++k) sum[k] += weight * (value[k] - center[k]);
    }
  }
}

// The sums of a level's stretches: forward of the up-sampled map about the channel's first pixel and of its square,
// backward ΣE and ⟨Q − mean, E⟩. Grid: images × stretches of all levels, pieces of the channels.
template <typename T, int V, int kLanes, bool kBackward>
__global__ void __launch_bounds__(kBlock, resident_blocks<device_accumulate_t<T>>(2))
    level_sums_kernel(GseFuse<T> gse) {
  using A = device_accumulate_t<T>;
  using M = PixelMapping<V, kLanes>;
  SIMT_SHARED(A, buffer, [2][M::kChannels][M::kPlaces + 1]);
  const int all = gse.first_stretch[gse.pyramid.levels.count], n = int(blockIdx.x) / all, i = int(blockIdx.x) - n * all;
  int l = 0;
  while (i >= gse.first_stretch[l + 1]) ++l;
  const GroupNorm<T>& norm = gse.level[l];
  const int stretch = i - gse.first_stretch[l], step = norm.step();
  const int64_t first_channel = int64_t(blockIdx.y) * M::kChannels, c = first_channel + M::lane(threadIdx) * V;
  A one[V] = {}, two[V] = {};
  if (c < norm.C && gse.pyramid.same_size(l)) {
    add_pixels<T, V, kLanes, kBackward, true>(norm, n, c, norm.begin(stretch), norm.length(stretch), one, two);
  } else if (c < norm.C) {
    const T* x_first = norm.x + norm.at(n, c, 0);
    ChannelAffine<T, V> affine;
    if constexpr (kBackward)
      affine.load(norm, n, c);
    else
      load_pack<T, V>(x_first, affine.center);
    gse.template for_own_pixels<V, kLanes>(l, norm.begin(stretch), norm.length(stretch), [&](int64_t p, int y, int x) {
      A value[V], other[V], readers = A(1);
      load_pack<T, V>(x_first + p * step, value);
      if constexpr (kBackward) {
        load_pack<A, V>(gse.e[l] + norm.at(n, c, p), other);
      } else {
        const GramRow<A> gy = gse.y(l, y), gx = gse.x(l, x);
        gram_at<T, V>(gy, gx, x_first + p * step, int(gse.pyramid.levels.W[l]), step, affine.center, other);
        readers = gy.sum * gx.sum;
      }
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const A q = value[k] - affine.center[k];
        one[k] += kBackward ? other[k] : readers * q;
        two[k] += q * other[k];
      }
    });
  }
  store_sums<T, V, kLanes>(norm, n, stretch, first_channel, one, two, buffer);
}

// mean and rstd [N, L, G]. Grid: warps for images × groups, level.
template <typename T>
__global__ void __launch_bounds__(kBlock) level_statistics_kernel(GseFuse<T> gse, double eps) {
  using A = device_accumulate_t<T>;
  const GroupNorm<T>& norm = gse.level[blockIdx.y];
  const int64_t i = int64_t(blockIdx.x) * (kBlock / 32) + threadIdx.x / 32, n = i / norm.groups,
                g = i - n * norm.groups;
  if (n >= norm.N) return;
  A mean, rstd;
  group_terms<T, false>(norm, n, g, eps, int(threadIdx.x % 32), &mean, &rstd);
  if (threadIdx.x % 32 == 0) norm.mean[norm.statistic(n, g)] = mean, norm.rstd[norm.statistic(n, g)] = rstd;
}

// γ rstd E − constant (Aᵀ1)(1ᵀB) − slope (AᵀA)(Q − mean)(BᵀB), and the gradients of γ and β. A gradient may take E's
// place: a thread reads an element before it writes it. Grid: images × chunks of the pixels of all levels, pieces of
// the channels.
template <typename T, int V, int kLanes>
__global__ void __launch_bounds__(kBlock, resident_blocks<device_accumulate_t<T>>(2))
    level_gradient_kernel(GseFuse<T> gse) {
  using A = device_accumulate_t<T>;
  using M = PixelMapping<V, kLanes>;
  SIMT_SHARED(A, term, [2][M::kChannels + 1]);
  SIMT_SHARED(double, buffer, [2 * kBlock]);
  const int all = gse.first_chunk[gse.pyramid.levels.count], n = int(blockIdx.x) / all, i = int(blockIdx.x) - n * all;
  int l = 0;
  while (i >= gse.first_chunk[l + 1]) ++l;
  const GroupNorm<T>& norm = gse.level[l];
  const int chunk = i - gse.first_chunk[l], step = norm.step();
  const int64_t first_channel = int64_t(blockIdx.y) * M::kChannels, c = first_channel + M::lane(threadIdx) * V;
  if (n == 0 && chunk == 0) channel_gradients<T, V, kLanes>(norm, first_channel, buffer);
  if (n >= norm.N) return;  // there is no image
  block_terms<T, V, kLanes, true>(norm, n, first_channel, 0.0, term);
  if (c >= norm.C) return;
  ChannelAffine<T, V> affine;
  affine.load(norm, n, c);
  A constant[V], slope[V];
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const int g = int(c + k) / norm.group() - int(first_channel) / norm.group();
    constant[k] = term[0][g], slope[k] = term[1][g];
  }
  if (gse.pyramid.same_size(l)) {
    pass_over<T, V, kLanes, true, true>(norm, n, c, chunk, affine, constant, slope);
    return;
  }
  const T* x_first = norm.x + norm.at(n, c, 0);
  const int64_t begin = int64_t(chunk) * kPassPixels * M::kPlaces;
  const int count = norm.template chunk_length<V, kLanes>(chunk);
  gse.template for_own_pixels<V, kLanes>(l, begin, count, [&](int64_t p, int y, int x) {
    const GramRow<A> gy = gse.y(l, y), gx = gse.x(l, x);
    const A readers = gy.sum * gx.sum;
    A gradient[V], gram[V];
    load_pack<A, V>(gse.e[l] + norm.at(n, c, p), gradient);
    gram_at<T, V>(gy, gx, x_first + p * step, int(gse.pyramid.levels.W[l]), step, affine.center, gram);
#pragma unroll
    for (int k = 0; k < V; ++k)
      gradient[k] = affine.scale[k] * gradient[k] - constant[k] * readers - slope[k] * gram[k];
    store_pack<T, V>(norm.grad_x + norm.at(n, c, p), gradient);
  });
}

template <typename T>
void launch_gram_tables(const GseFuse<T>& gse, Stream stream) {
  const Levels& levels = gse.pyramid.levels;
  int64_t most = 0;
  for (int l = 0; l < levels.count; ++l) most = levels.H[l] + levels.W[l] > most ? levels.H[l] + levels.W[l] : most;
  SIMT_LAUNCH((gram_tables_kernel<T>), dim3(blocks_for(most), levels.count), kBlock, 0, stream, gse);
}

template <bool kBackward, typename T>
void launch_level_sums(const GseFuse<T>& gse, Stream stream) {
  const Levels& levels = gse.pyramid.levels;
  choose_pixels<T>(levels.channels_last, gse.packs_whole(), [&](auto v, auto lanes) {
    constexpr int V = decltype(v)::value, kLanes = decltype(lanes)::value;
    using M = PixelMapping<V, kLanes>;
    SIMT_LAUNCH((level_sums_kernel<T, V, kLanes, kBackward>),
                dim3(unsigned(levels.N * gse.first_stretch[levels.count]), unsigned(M::pieces(levels.C))), M::block(),
                0, stream, gse);
  });
}

// mean and rstd [N, L, G] of the levels, where the pyramid's affine points to.
template <typename T>
void launch_gse_statistics(const GseFuse<T>& gse, double eps, Stream stream) {
  const Levels& levels = gse.pyramid.levels;
  if (levels.N * levels.C == 0) return;
  launch_gram_tables(gse, stream);
  launch_level_sums<false>(gse, stream);
  const int64_t warps = levels.N * gse.level[0].groups, each = kBlock / 32;
  SIMT_LAUNCH((level_statistics_kernel<T>), dim3(unsigned((warps + each - 1) / each), levels.count), kBlock, 0, stream,
              gse, eps);
}

// The gradients from E.
template <typename T>
void launch_gse_gradient(GseFuse<T> gse, Stream stream) {
  const Levels& levels = gse.pyramid.levels;
  if (!levels.C) return;
  if (levels.N) {
    launch_gram_tables(gse, stream);
    launch_level_sums<true>(gse, stream);
  }
  choose_pixels<T>(levels.channels_last, gse.packs_whole(), [&](auto v, auto lanes) {
    constexpr int V = decltype(v)::value, kLanes = decltype(lanes)::value;
    using M = PixelMapping<V, kLanes>;
    for (int l = 0; l < levels.count; ++l)
      gse.first_chunk[l + 1] = gse.first_chunk[l] + gse.level[l].template chunks<V, kLanes>();
    // One image at least: without any, the gradients of γ and β are 0.
    SIMT_LAUNCH(
        (level_gradient_kernel<T, V, kLanes>),
        dim3(unsigned((levels.N ? levels.N : 1) * gse.first_chunk[levels.count]), unsigned(M::pieces(levels.C))),
        M::block(), 0, stream, gse);
  });
}

}  // namespace rpcnn
