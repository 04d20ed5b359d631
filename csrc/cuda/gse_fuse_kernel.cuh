// gse_fuse: GroupNorm's statistics and gradient of up-sampled maps, from the low-resolution ones. The formulas stand in
// csrc/cpu/gse_fuse.cpp, the sum over levels and its adjoint E in pyramid_sum_kernel.cuh. A single level is GroupNorm
// and ReLU.
//
// All levels of a step are one launch. Statistics: tables of the interpolation's column sums and tridiagonal Gram
// matrices; a shift, the mean of the group's first row; per channel the shifted first and second moments of stretches
// of pixels; their sum per group. The backward takes the moments of E the same way, then writes the gradient with the
// same nine-point stencil (one point along an axis that is not enlarged). Fewest bytes: each level read once for the
// statistics (the stencil's neighbors come from cache) and once for the sum; the backward reads E and the level twice.
// Long sums: kRun values at a time are added in the accumulation type, these partial sums in double. They are stored
// and added in a fixed order: no atomics, the same result every time.
//
// Ladder (P2..P6 of one 800×1216 image, 256 channels, fp32, forward + backward; counted, not timed):
//   57 launches, 1237 MB  level by level, one element a thread, every addition in double
//   13 launches,  988 MB  all levels at once, packs of channels
//   11 launches,  863 MB  no E where a level has the output's size: the moments and the gradient mask the incoming
//                         gradient themselves (GroupNorm and ReLU alone: five passes over a map instead of eight)
// The minimum is 539 MB; PyTorch's ops take 33 launches and 4524 MB. The rest is the maps between the adjoint's
// passes, and E of the coarser levels, which the moments of E and the gradient read.
#pragma once

#include <cmath>

#include "pyramid_sum_kernel.cuh"

namespace rpcnn {

constexpr int kStretchPixels = 256;  // pixels whose moments a block adds up
constexpr int kRun = 8;              // values added before they are in double

// Column sums, diagonal and next diagonal of one axis: next[i] couples i and i + 1, next[size − 1] is 0.
template <typename A>
struct GramAxis {
  const A *sum, *diagonal, *next;
  RPCNN_HOST_DEVICE GramAxis(const A* table, int64_t size)
      : sum(table), diagonal(table + size), next(table + 2 * size) {}
  RPCNN_HOST_DEVICE A weight(int64_t i, int offset) const {
    return offset == 0 ? diagonal[i] : (offset > 0 ? next[i] : (i > 0 ? next[i - 1] : A(0)));
  }
};

// The levels, their scratch in one buffer of doubles and one of A, and the results of the backward. One large argument:
// nvcc copies smaller tables of pointers to the stack to index them.
template <typename T>
struct GseFuse {
  using A = device_accumulate_t<T>;
  Pyramid<T> pyramid;
  int64_t groups, first_stretch[kMaxLevels + 1];
  double* partial[kMaxLevels];  // [N, C, stretches, 2]
  A* table[kMaxLevels];         // two GramAxis: h, then w
  A* shift;                     // [L, N, G]
  A* terms;                     // [L, N, G, 2]
  const T* grad;                // [N, C, H, W]
  A* e[kMaxLevels];  // the adjoint, null for levels of the output's size; a map's gradient may take its place
  T* grad_map[kMaxLevels];
  A *grad_gamma[kMaxLevels], *grad_beta[kMaxLevels];

  static int64_t stretches(const Levels& levels, int l) {
    return (levels.pixels(l) + kStretchPixels - 1) / kStretchPixels;
  }
  static int64_t doubles(const Levels& levels) {
    int64_t sum = 0;
    for (int l = 0; l < levels.count; ++l) sum += levels.N * levels.C * stretches(levels, l) * 2;
    return sum;
  }
  static int64_t singles(const Levels& levels, int64_t groups) {
    int64_t sum = 3 * levels.count * levels.N * groups;
    for (int l = 0; l < levels.count; ++l) sum += 3 * (levels.H[l] + levels.W[l]);
    return sum;
  }
  GseFuse(const Pyramid<T>& pyramid, int64_t groups, double* doubles, A* singles)
      : pyramid(pyramid), groups(groups), first_stretch{}, grad(nullptr), e{}, grad_map{}, grad_gamma{}, grad_beta{} {
    const Levels& levels = pyramid.levels;
    for (int l = 0; l < levels.count; ++l) {
      first_stretch[l + 1] = first_stretch[l] + stretches(levels, l);
      partial[l] = doubles;
      doubles += levels.N * levels.C * stretches(levels, l) * 2;
      table[l] = singles;
      singles += 3 * (levels.H[l] + levels.W[l]);
    }
    shift = singles;
    terms = shift + levels.count * levels.N * groups;
  }

  RPCNN_HOST_DEVICE int64_t stretches(int l) const { return first_stretch[l + 1] - first_stretch[l]; }
  RPCNN_HOST_DEVICE int64_t group(int l, int64_t n, int64_t g) const { return (l * pyramid.levels.N + n) * groups + g; }
  RPCNN_HOST_DEVICE GramAxis<A> y(int l) const { return {table[l], pyramid.levels.H[l]}; }
  RPCNN_HOST_DEVICE GramAxis<A> x(int l) const { return {table[l] + 3 * pyramid.levels.H[l], pyramid.levels.W[l]}; }
  // Up-sampled values behind one mean.
  RPCNN_HOST_DEVICE double count() const {
    return double(pyramid.levels.C / groups) * double(pyramid.H) * double(pyramid.W);
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
    A* axis = gse.table[l] + (along_y ? 0 : 3 * h) + index;
    const A step = interpolation_step<A>(in, out, align);
    int64_t first, last;
    interpolation_readers<A>(index, in, out, step, align, &first, &last);
    double sum = 0, diagonal = 0, next = 0;
    for (int64_t r = first; r < last; ++r) {
      const auto tap = interpolation_tap<A>(r, in, step, align);
      const double weight = (tap.lo == index ? double(tap.w_lo) : 0.0) + (tap.hi == index ? double(tap.w_hi) : 0.0);
      sum += weight;
      diagonal += weight * weight;
      if (tap.lo == index && tap.hi != index) next += double(tap.w_lo) * double(tap.w_hi);
    }
    axis[0] = A(sum);
    axis[in] = A(diagonal);
    axis[2 * in] = A(next);
  }
}

// sum[k] = (AᵀA)(Q − center)(BᵀB) at one pixel, channel c + k.
template <int V, bool kInnermost, typename T, typename A>
RPCNN_HOST_DEVICE void gram_at(const T* image, int64_t h, int64_t w, int64_t C, const GramAxis<A>& gy,
                               const GramAxis<A>& gx, int64_t c, int64_t y, int64_t x, const A* center, A* sum) {
#pragma unroll
  for (int k = 0; k < V; ++k) sum[k] = A(0);
  for (int dy = -1; dy <= 1; ++dy) {
    const A wy = gy.weight(y, dy);
    if (wy == A(0)) continue;
    for (int dx = -1; dx <= 1; ++dx) {
      const A weight = wy * gx.weight(x, dx);
      if (weight == A(0)) continue;
      A value[V];
      Channels<T, V, kInnermost>::load(image, (y + dy) * w + x + dx, h * w, c, C, value);
#pragma unroll
      for (int k = 0; k < V; ++k) sum[k] += weight * (value[k] - center[k]);
    }
  }
}

// The sum over the threads of a block, added in a fixed order.
__device__ inline double block_sum(double value, double* buffer) {
  buffer[threadIdx.x] = value;
  __syncthreads();
  for (int half = kBlock / 2; half > 0; half /= 2) {
    if (int(threadIdx.x) < half) buffer[threadIdx.x] += buffer[threadIdx.x + half];
    __syncthreads();
  }
  const double total = buffer[0];
  __syncthreads();
  return total;
}

// shift = mean of each group's first row. Grid: image × group, level.
template <typename T>
__global__ void __launch_bounds__(kBlock) group_shift_kernel(GseFuse<T> gse) {
  using A = device_accumulate_t<T>;
  SIMT_SHARED(double, buffer, [kBlock]);
  const Levels& levels = gse.pyramid.levels;
  const int l = static_cast<int>(blockIdx.y);
  const int64_t n = blockIdx.x / gse.groups, g = blockIdx.x % gse.groups;
  const int64_t group = levels.C / gse.groups, w = levels.W[l];
  const T* image = gse.pyramid.map[l] + n * levels.image(l);
  double sum = 0;
  for (int64_t i = threadIdx.x; i < group * w; i += kBlock) {
    const int64_t k = levels.channels_last ? i % group : i / w, x = levels.channels_last ? i / group : i % w;
    sum += double(
        A(levels.channels_last ? image[x * levels.C + g * group + k] : image[(g * group + k) * levels.pixels(l) + x]));
  }
  const double total = block_sum(sum, buffer);
  if (threadIdx.x == 0) gse.shift[gse.group(l, n, g)] = A(total / double(group * w));
}

// A pixel's terms of the two moments: of the up-sampled map about the shift,
template <typename T, int V, bool kInnermost>
struct MapMoments {
  using A = device_accumulate_t<T>;
  const GramAxis<A> gy, gx;
  const T* image;
  int64_t h, w, C, c;
  A center[V];

  RPCNN_HOST_DEVICE MapMoments(const GseFuse<T>& gse, int l, int64_t n, int64_t c)
      : gy(gse.y(l)),
        gx(gse.x(l)),
        image(gse.pyramid.map[l] + n * gse.pyramid.levels.image(l)),
        h(gse.pyramid.levels.H[l]),
        w(gse.pyramid.levels.W[l]),
        C(gse.pyramid.levels.C),
        c(c) {
    const int64_t group = C / gse.groups;
    for (int k = 0; k < V; ++k)
      center[k] = gse.shift[gse.group(l, n, Channels<T, V, kInnermost>::index(c, k, C) / group)];
  }
  RPCNN_HOST_DEVICE void add(int64_t y, int64_t x, A* first, A* second) const {
    A value[V], gram[V];
    Channels<T, V, kInnermost>::load(image, y * w + x, h * w, c, C, value);
    gram_at<V, kInnermost>(image, h, w, C, gy, gx, c, y, x, center, gram);
    const A readers = gy.sum[y] * gx.sum[x];
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const A q = value[k] - center[k];
      first[k] += readers * q;
      second[k] += q * gram[k];
    }
  }
};

// value[k] = E of the channel c + k: as gathered, or, for a level of the output's size, the masked gradient itself.
template <typename T, int V, bool kInnermost>
RPCNN_HOST_DEVICE void adjoint_at(const GseFuse<T>& gse, int l, const Normalization<T, V, kInnermost, true>& norm,
                                  int64_t n, int64_t c, int64_t y, int64_t x, device_accumulate_t<T>* value) {
  using A = device_accumulate_t<T>;
  const Levels& levels = gse.pyramid.levels;
  const int64_t place = y * levels.W[l] + x, plane = levels.pixels(l), image = n * levels.image(l);
  if (gse.e[l]) {
    Channels<A, V, kInnermost>::load(gse.e[l] + image, place, plane, c, levels.C, value);
    return;
  }
  A before[V];
  upsampled(gse.pyramid, l, norm, n, c, y, x, before);
  Channels<T, V, kInnermost>::load(gse.grad + image, place, plane, c, levels.C, value);
#pragma unroll
  for (int k = 0; k < V; ++k) value[k] = passes_gradient(before[k]) ? value[k] : A(0);
}

// or of E: ΣE and ⟨Q − mean, E⟩.
template <typename T, int V, bool kInnermost>
struct GradientMoments {
  using A = device_accumulate_t<T>;
  const GseFuse<T>& gse;
  const int l;
  const int64_t n, c;
  const Normalization<T, V, kInnermost, true> norm;

  RPCNN_HOST_DEVICE GradientMoments(const GseFuse<T>& gse, int l, int64_t n, int64_t c)
      : gse(gse), l(l), n(n), c(c), norm(gse.pyramid.affine[l], n, c, gse.pyramid.levels.C) {}
  RPCNN_HOST_DEVICE void add(int64_t y, int64_t x, A* first, A* second) const {
    const Levels& levels = gse.pyramid.levels;
    A value[V], gradient[V];
    Channels<T, V, kInnermost>::load(gse.pyramid.map[l] + n * levels.image(l), y * levels.W[l] + x, levels.pixels(l), c,
                                     levels.C, value);
    adjoint_at(gse, l, norm, n, c, y, x, gradient);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      first[k] += gradient[k];
      second[k] += gradient[k] * (value[k] - norm.center[k]);
    }
  }
};

// The sums over a block's places, one per channel, to `to`, two apart.
template <int V, bool kInnermost>
__device__ inline void sum_places(const double* value, double (*buffer)[WarpMapping<V, kInnermost>::kPlaces + 1],
                                  int64_t channels, double* to, int64_t apart) {
  using L = WarpMapping<V, kInnermost>;
  for (int k = 0; k < V; ++k) buffer[L::channel(threadIdx) + k][L::place(threadIdx)] = value[k];
  __syncthreads();
  const int own = static_cast<int>(threadIdx.y * 32 + threadIdx.x);
  if (own < L::kChannels && own < channels) {
    double sum = 0;
    for (int p = 0; p < L::kPlaces; ++p) sum += buffer[own][p];
    to[own * apart] = sum;
  }
  __syncthreads();
}

// partial. Grid: stretches of all levels, images × pieces of the channels.
template <typename T, int V, bool kInnermost, template <typename, int, bool> class Moments>
__global__ void __launch_bounds__(kBlock, resident_blocks<device_accumulate_t<T>>(2))
    channel_moments_kernel(GseFuse<T> gse) {
  using A = device_accumulate_t<T>;
  using L = WarpMapping<V, kInnermost>;
  SIMT_SHARED(double, buffer, [L::kChannels][L::kPlaces + 1]);
  const Levels& levels = gse.pyramid.levels;
  int l = 0;
  while (int64_t(blockIdx.x) >= gse.first_stretch[l + 1]) ++l;
  const int64_t stretch = int64_t(blockIdx.x) - gse.first_stretch[l];
  const int64_t stretches = gse.stretches(l);
  const int64_t C = levels.C, w = levels.W[l], pieces = L::pieces(C);
  const int64_t begin = stretch * kStretchPixels;
  const int64_t end = begin + kStretchPixels < levels.pixels(l) ? begin + kStretchPixels : levels.pixels(l);
  for (int64_t z = blockIdx.y; z < levels.N * pieces; z += gridDim.y) {
    const int64_t n = z / pieces, first_channel = (z - n * pieces) * L::kChannels;
    const int64_t c = first_channel + L::channel(threadIdx);
    double first[V] = {}, second[V] = {};
    if (c < C) {
      const Moments<T, V, kInnermost> moments(gse, l, n, c);
      int64_t p = begin + L::place(threadIdx), y = p / w, x = p - y * w;
      while (p < end) {
        A one[V] = {}, two[V] = {};
        for (int run = 0; run < kRun && p < end; ++run) {
          moments.add(y, x, one, two);
          p += L::kPlaces;
          x += L::kPlaces;
          while (x >= w) x -= w, ++y;
        }
#pragma unroll
        for (int k = 0; k < V; ++k) first[k] += double(one[k]), second[k] += double(two[k]);
      }
    }
    double* to = gse.partial[l] + ((n * C + first_channel) * stretches + stretch) * 2;
    sum_places<V, kInnermost>(first, buffer, C - first_channel, to, stretches * 2);
    sum_places<V, kInnermost>(second, buffer, C - first_channel, to + 1, stretches * 2);
  }
}

// mean and rstd [N, L, G]. Grid: image × group, level.
template <typename T>
__global__ void __launch_bounds__(kBlock)
    group_statistics_kernel(GseFuse<T> gse, double eps, device_accumulate_t<T>* mean, device_accumulate_t<T>* rstd) {
  using A = device_accumulate_t<T>;
  SIMT_SHARED(double, buffer, [kBlock]);
  const Levels& levels = gse.pyramid.levels;
  const int l = static_cast<int>(blockIdx.y);
  const int64_t n = blockIdx.x / gse.groups, g = blockIdx.x % gse.groups;
  const int64_t entries = levels.C / gse.groups * gse.stretches(l);
  // A group's channels are neighbors.
  const double* from = gse.partial[l] + (n * gse.groups + g) * entries * 2;
  double first = 0, second = 0;
  for (int64_t i = threadIdx.x; i < entries; i += kBlock) first += from[2 * i], second += from[2 * i + 1];
  const double count = gse.count();
  const double offset = block_sum(first, buffer) / count, square = block_sum(second, buffer) / count;
  if (threadIdx.x != 0) return;
  const double variance = square - offset * offset;
  const int64_t at = (n * levels.count + l) * gse.groups + g;
  mean[at] = A(double(gse.shift[gse.group(l, n, g)]) + offset);
  rstd[at] = A(1.0 / std::sqrt((variance < 0.0 ? 0.0 : variance) + eps));
}

// terms = the factors of the constant and of the Gram term; gradients of gamma and beta, images added in order.
// Grid: group, level. A warp takes one channel of the group after another.
template <typename T>
__global__ void __launch_bounds__(kBlock) gradient_terms_kernel(GseFuse<T> gse) {
  using A = device_accumulate_t<T>;
  SIMT_SHARED(double, buffer, [kBlock]);
  const Levels& levels = gse.pyramid.levels;
  const int l = static_cast<int>(blockIdx.y), lane = static_cast<int>(threadIdx.x % 32);
  const auto& affine = gse.pyramid.affine[l];
  const int64_t g = blockIdx.x, group = affine.group, begin = g * group;
  const int64_t stretches = gse.stretches(l);
  const double count = gse.count();
  A *gamma = gse.grad_gamma[l], *beta = gse.grad_beta[l];
  for (int64_t c = begin + threadIdx.x / 32; lane == 0 && c < begin + group; c += kBlock / 32)
    gamma[c] = A(0), beta[c] = A(0);
  for (int64_t n = 0; n < levels.N; ++n) {
    const double r = double(affine.rstd[n * affine.stride + g]);
    double s1 = 0, s2 = 0;
    for (int64_t c = begin + threadIdx.x / 32; c < begin + group; c += kBlock / 32) {
      const double* from = gse.partial[l] + (n * levels.C + c) * stretches * 2;
      double one = 0, two = 0;
      for (int64_t i = lane; i < stretches; i += 32) one += from[2 * i], two += from[2 * i + 1];
      for (int half = 16; half > 0; half /= 2) {
        one += __shfl_down_sync(~0u, one, half);
        two += __shfl_down_sync(~0u, two, half);
      }
      if (lane == 0) {
        beta[c] += A(one);
        gamma[c] += A(r * two);
        s1 += double(affine.gamma[c]) * one;
        s2 += double(affine.gamma[c]) * r * two;
      }
    }
    s1 = block_sum(s1, buffer);
    s2 = block_sum(s2, buffer);
    if (threadIdx.x == 0) {
      A* term = gse.terms + 2 * gse.group(l, n, g);
      term[0] = A(r / count * s1);
      term[1] = A(r / count * r * s2);
    }
  }
}

// γ rstd E − constant (Aᵀ1)(1ᵀB) − slope (AᵀA)(Q − mean)(BᵀB). A gradient may take E's place: a thread reads an element
// before it writes it. Grid: columns, rows of all levels, images × pieces of the channels.
template <typename T, int V, bool kInnermost>
__global__ void __launch_bounds__(kBlock, resident_blocks<device_accumulate_t<T>>(V == 4 && kInnermost ? 3 : 2))
    map_gradient_kernel(GseFuse<T> gse, int64_t rows) {
  const Pyramid<T>& pyramid = gse.pyramid;
  using A = device_accumulate_t<T>;
  using L = WarpMapping<V, kInnermost>;
  const Levels& levels = pyramid.levels;
  const int64_t x = int64_t(blockIdx.x) * L::kPlaces + L::place(threadIdx), C = levels.C, pieces = L::pieces(C);
  for (int64_t i = blockIdx.y; i < rows; i += gridDim.y) {
    int64_t y = i;
    const int l = levels.level_of(&y);
    const int64_t h = levels.H[l], w = levels.W[l];
    if (x >= w) continue;
    const GramAxis<A> gy = gse.y(l), gx = gse.x(l);
    const A readers = gy.sum[y] * gx.sum[x];
    for (int64_t z = blockIdx.z; z < levels.N * pieces; z += gridDim.z) {
      const int64_t n = z / pieces, c = (z - n * pieces) * L::kChannels + L::channel(threadIdx);
      if (c >= C) continue;
      const Normalization<T, V, kInnermost, true> norm(pyramid.affine[l], n, c, C);
      A gradient[V], gram[V];
      gram_at<V, kInnermost>(pyramid.map[l] + n * levels.image(l), h, w, C, gy, gx, c, y, x, norm.center, gram);
      adjoint_at(gse, l, norm, n, c, y, x, gradient);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const A* term = gse.terms + 2 * gse.group(l, n, norm.group[k]);
        gradient[k] = norm.scale[k] * gradient[k] - term[0] * readers - term[1] * gram[k];
      }
      Channels<T, V, kInnermost>::store(gse.grad_map[l] + n * levels.image(l), y * w + x, h * w, c, C, gradient);
    }
  }
}

template <typename T>
void launch_gram_tables(const GseFuse<T>& gse, Stream stream) {
  const Levels& levels = gse.pyramid.levels;
  int64_t most = 0;
  for (int l = 0; l < levels.count; ++l) most = levels.H[l] + levels.W[l] > most ? levels.H[l] + levels.W[l] : most;
  SIMT_LAUNCH((gram_tables_kernel<T>), dim3(blocks_for(most), levels.count), kBlock, 0, stream, gse);
}

template <template <typename, int, bool> class Moments, typename T>
void launch_channel_moments(const GseFuse<T>& gse, bool whole, Stream stream) {
  const Levels& levels = gse.pyramid.levels;
  choose_channels<T>(levels.channels_last, whole, [&](auto v, auto innermost) {
    constexpr int V = decltype(v)::value;
    constexpr bool kInnermost = decltype(innermost)::value;
    const dim3 grid(unsigned(gse.first_stretch[levels.count]),
                    grid_size(levels.N * WarpMapping<V, kInnermost>::pieces(levels.C)));
    SIMT_LAUNCH((channel_moments_kernel<T, V, kInnermost, Moments>), grid, dim3(32, 8), 0, stream, gse);
  });
}

// mean and rstd [N, L, G] of the levels.
template <typename T>
void launch_gse_statistics(const GseFuse<T>& gse, double eps, device_accumulate_t<T>* mean,
                           device_accumulate_t<T>* rstd, Stream stream) {
  const Levels& levels = gse.pyramid.levels;
  if (levels.N * levels.C == 0) return;
  const dim3 groups(unsigned(levels.N * gse.groups), levels.count);
  launch_gram_tables(gse, stream);
  SIMT_LAUNCH((group_shift_kernel<T>), groups, kBlock, 0, stream, gse);
  launch_channel_moments<MapMoments>(gse, gse.pyramid.packs_whole(), stream);
  SIMT_LAUNCH((group_statistics_kernel<T>), groups, kBlock, 0, stream, gse, eps, mean, rstd);
}

// The gradients from E.
template <typename T>
void launch_gse_gradient(const GseFuse<T>& gse, Stream stream) {
  const Levels& levels = gse.pyramid.levels;
  if (!levels.C) return;
  bool whole = gse.pyramid.packs_whole() && starts_pack(gse.grad);
  for (int l = 0; l < levels.count; ++l) whole = whole && starts_pack(gse.e[l]) && starts_pack(gse.grad_map[l]);
  if (levels.N) {
    launch_gram_tables(gse, stream);
    launch_channel_moments<GradientMoments>(gse, whole, stream);
  }
  SIMT_LAUNCH((gradient_terms_kernel<T>), dim3(unsigned(gse.groups), levels.count), kBlock, 0, stream, gse);
  if (!levels.N) return;
  choose_channels<T>(levels.channels_last, whole, [&](auto v, auto innermost) {
    constexpr int V = decltype(v)::value;
    constexpr bool kInnermost = decltype(innermost)::value;
    SIMT_LAUNCH((map_gradient_kernel<T, V, kInnermost>),
                (map_grid<V, kInnermost>(levels.widest(), levels.rows(), levels.N, levels.C)), dim3(32, 8), 0, stream,
                gse, levels.rows());
  });
}

}  // namespace rpcnn
