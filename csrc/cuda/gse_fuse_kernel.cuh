// gse_fuse: GroupNorm's statistics and gradient of up-sampled maps, from the low-resolution ones. The formulas stand in
// csrc/cpu/gse_fuse.cpp, the sum over levels and its adjoint E in pyramid_sum_kernel.cuh.
//
// Statistics of one level: tables of the interpolation's column sums and tridiagonal Gram matrices; a shift, the mean
// of the group's first row; per channel the shifted first and second moments in chunks of pixels, in double; their sum
// per group. The backward takes the moments of E the same way, then writes the gradient with the same nine-point
// stencil. Fewest bytes: each level read once for the statistics (the stencil's neighbours come from cache) and once
// for the sum. Work is split so that a warp reads along memory: 256 pixels of one channel, or 8 pixels of 32 channels
// where channels are innermost. Partial sums are stored and added in a fixed order: no atomics, the same result every
// time.
#pragma once

#include <cmath>

#include "pyramid_sum_kernel.cuh"

namespace rpcnn {

// One level of the fusion. `count` is the number of up-sampled values behind one mean.
template <typename T>
struct GseLevel {
  const T* map;
  int64_t images;
  MapShape shape;
  int64_t H, W, groups;  // size of the output
  bool align_corners;

  RPCNN_HOST_DEVICE int64_t group() const { return shape.C / groups; }
  RPCNN_HOST_DEVICE int64_t pixels() const { return shape.H * shape.W; }
  RPCNN_HOST_DEVICE double count() const { return double(group()) * double(H) * double(W); }
  // Pixels per chunk: at most 1024 chunks, at least eight turns of a block of 256 threads each.
  RPCNN_HOST_DEVICE int64_t chunk() const { return pixels() > 2048 * 1024 ? (pixels() + 1023) / 1024 : 2048; }
  RPCNN_HOST_DEVICE int64_t chunks() const { return (pixels() + chunk() - 1) / chunk(); }
  // Doubles that the tables and the partial moments take.
  int64_t table_size() const { return 3 * (shape.H + shape.W); }
  int64_t partial_size() const { return images * shape.C * chunks() * 2; }
};

// Column sums, diagonal and next diagonal of one axis: next[i] couples i and i + 1, next[size − 1] is 0.
struct GramAxis {
  const double *sum, *diagonal, *next;
  RPCNN_HOST_DEVICE GramAxis(const double* table, int64_t size)
      : sum(table), diagonal(table + size), next(table + 2 * size) {}
  RPCNN_HOST_DEVICE double weight(int64_t i, int offset) const {
    return offset == 0 ? diagonal[i] : (offset > 0 ? next[i] : (i > 0 ? next[i - 1] : 0.0));
  }
};

template <typename A>
__global__ void gram_tables_kernel(double* table, int64_t h, int64_t w, int64_t H, int64_t W, bool align) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= h + w) return;
  const bool along_y = i < h;
  const int64_t in = along_y ? h : w, out = along_y ? H : W, index = along_y ? i : i - h;
  double* axis = table + (along_y ? 0 : 3 * h) + index;
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
  axis[0] = sum;
  axis[in] = diagonal;
  axis[2 * in] = next;
}

// (AᵀA)(Q − center)(BᵀB) at one pixel.
template <typename T, typename A>
RPCNN_HOST_DEVICE A gram_at(const T* map, const MapShape& shape, const GramAxis& gy, const GramAxis& gx, int64_t n,
                            int64_t c, int64_t y, int64_t x, A center) {
  A sum = 0;
  for (int dy = -1; dy <= 1; ++dy) {
    const A wy = A(gy.weight(y, dy));
    if (wy == A(0)) continue;
    A row = 0;
    for (int dx = -1; dx <= 1; ++dx) {
      const A wx = A(gx.weight(x, dx));
      if (wx != A(0)) row += wx * (A(map[shape.offset(n, c, y + dy, x + dx)]) - center);
    }
    sum += wy * row;
  }
  return sum;
}

// The sum over the threads of a block that agree in threadIdx.x % lanes (a power of two), added in a fixed order.
__device__ inline double lane_sum(double value, int lanes, double* buffer) {
  buffer[threadIdx.x] = value;
  __syncthreads();
  for (int half = kBlock / 2; half >= lanes; half /= 2) {
    if (int(threadIdx.x) < half) buffer[threadIdx.x] += buffer[threadIdx.x + half];
    __syncthreads();
  }
  const double total = buffer[threadIdx.x % lanes];
  __syncthreads();
  return total;
}

// shift [N, G] = mean of each group's first row. One block a group.
template <typename T>
__global__ void group_shift_kernel(GseLevel<T> level, device_accumulate_t<T>* shift) {
  using A = device_accumulate_t<T>;
  SIMT_SHARED(double, buffer, [kBlock]);
  const int64_t n = blockIdx.x / level.groups, g = blockIdx.x % level.groups;
  const int64_t group = level.group(), w = level.shape.W;
  double sum = 0;
  for (int64_t i = threadIdx.x; i < group * w; i += kBlock) {
    const int64_t c = level.shape.channels_last ? i % group : i / w, x = level.shape.channels_last ? i / group : i % w;
    sum += double(A(level.map[level.shape.offset(n, g * group + c, 0, x)]));
  }
  const double total = lane_sum(sum, 1, buffer);
  if (threadIdx.x == 0) shift[blockIdx.x] = A(total / double(group * w));
}

// What one pixel adds to the two moments: of the up-sampled map about the shift,
template <typename T>
struct MapMoments {
  using A = device_accumulate_t<T>;
  GseLevel<T> level;
  const double* table;
  const A* shift;  // [N, G]
  RPCNN_HOST_DEVICE void add(int64_t n, int64_t c, int64_t y, int64_t x, double* first, double* second) const {
    const GramAxis gy(table, level.shape.H), gx(table + 3 * level.shape.H, level.shape.W);
    const A center = shift[n * level.groups + c / level.group()];
    const double q = double(A(level.map[level.shape.offset(n, c, y, x)]) - center);
    *first += gy.sum[y] * gx.sum[x] * q;
    *second += q * double(gram_at<T, A>(level.map, level.shape, gy, gx, n, c, y, x, center));
  }
};

// or of the gathered gradient E: ΣE and ⟨Q − mean, E⟩.
template <typename T>
struct GradientMoments {
  using A = device_accumulate_t<T>;
  GseLevel<T> level;
  const A *e, *mean;
  int64_t stride;
  RPCNN_HOST_DEVICE void add(int64_t n, int64_t c, int64_t y, int64_t x, double* first, double* second) const {
    const int64_t i = level.shape.offset(n, c, y, x);
    const double value = double(e[i]);
    *first += value;
    *second += value * double(A(level.map[i]) - mean[n * stride + c / level.group()]);
  }
};

// partial [N, C, chunks, 2]. Grid: (images × channel blocks, chunks).
template <typename Moments>
__global__ void channel_moments_kernel(Moments moments, double* partial) {
  SIMT_SHARED(double, buffer, [kBlock]);
  const auto& level = moments.level;
  const int lanes = level.shape.channels_last ? 32 : 1;
  const int64_t C = level.shape.C, blocks = (C + lanes - 1) / lanes, chunks = level.chunks();
  const int64_t n = blockIdx.x / blocks, c = blockIdx.x % blocks * lanes + threadIdx.x % lanes;
  const int64_t begin = int64_t(blockIdx.y) * level.chunk();
  const int64_t end = begin + level.chunk() < level.pixels() ? begin + level.chunk() : level.pixels();
  double first = 0, second = 0;
  if (c < C)
    for (int64_t p = begin + threadIdx.x / lanes; p < end; p += kBlock / lanes)
      moments.add(n, c, p / level.shape.W, p % level.shape.W, &first, &second);
  const double one = lane_sum(first, lanes, buffer), two = lane_sum(second, lanes, buffer);
  if (int(threadIdx.x) < lanes && c < C) {
    double* out = partial + ((n * C + c) * chunks + blockIdx.y) * 2;
    out[0] = one;
    out[1] = two;
  }
}

// mean and rstd [N, G], `stride` apart from image to image. One block a group.
template <typename T>
__global__ void group_statistics_kernel(GseLevel<T> level, const device_accumulate_t<T>* shift, const double* partial,
                                        double eps, int64_t stride, device_accumulate_t<T>* mean,
                                        device_accumulate_t<T>* rstd) {
  using A = device_accumulate_t<T>;
  SIMT_SHARED(double, buffer, [kBlock]);
  const int64_t n = blockIdx.x / level.groups, g = blockIdx.x % level.groups;
  const int64_t entries = level.group() * level.chunks();
  const double* from = partial + int64_t(blockIdx.x) * entries * 2;  // a group's channels are neighbours
  double first = 0, second = 0;
  for (int64_t i = threadIdx.x; i < entries; i += kBlock) first += from[2 * i], second += from[2 * i + 1];
  const double offset = lane_sum(first, 1, buffer) / level.count();
  const double square = lane_sum(second, 1, buffer) / level.count();
  if (threadIdx.x != 0) return;
  const double variance = square - offset * offset;
  mean[n * stride + g] = A(double(shift[blockIdx.x]) + offset);
  rstd[n * stride + g] = A(1.0 / std::sqrt((variance < 0.0 ? 0.0 : variance) + eps));
}

// channel [N, C, 2] = dβ and dγ of each image, terms [N, G, 2] = the factors of the constant and of the Gram term.
template <typename T>
__global__ void gradient_terms_kernel(GseLevel<T> level, const device_accumulate_t<T>* rstd, int64_t stride,
                                      const device_accumulate_t<T>* gamma, const double* partial, double* channel,
                                      device_accumulate_t<T>* terms) {
  using A = device_accumulate_t<T>;
  SIMT_SHARED(double, buffer, [kBlock]);
  const int64_t n = blockIdx.x / level.groups, g = blockIdx.x % level.groups;
  const int64_t group = level.group(), chunks = level.chunks();
  const double r = double(rstd[n * stride + g]);
  double s1 = 0, s2 = 0;
  for (int64_t k = threadIdx.x; k < group; k += kBlock) {
    const int64_t c = g * group + k;
    const double* from = partial + (n * level.shape.C + c) * chunks * 2;
    double one = 0, two = 0;
    for (int64_t i = 0; i < chunks; ++i) one += from[2 * i], two += from[2 * i + 1];
    channel[(n * level.shape.C + c) * 2] = one;
    channel[(n * level.shape.C + c) * 2 + 1] = r * two;
    s1 += double(gamma[c]) * one;
    s2 += double(gamma[c]) * r * two;
  }
  s1 = lane_sum(s1, 1, buffer);
  s2 = lane_sum(s2, 1, buffer);
  if (threadIdx.x != 0) return;
  terms[2 * blockIdx.x] = A(r / level.count() * s1);
  terms[2 * blockIdx.x + 1] = A(r / level.count() * r * s2);
}

// grad_gamma and grad_beta [C]: the images' shares, added in order.
template <typename A>
__global__ void affine_gradient_kernel(const double* channel, int64_t images, int64_t C, A* grad_gamma, A* grad_beta) {
  const int64_t c = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= C) return;
  double beta = 0, gamma = 0;
  for (int64_t n = 0; n < images; ++n) beta += channel[(n * C + c) * 2], gamma += channel[(n * C + c) * 2 + 1];
  grad_beta[c] = A(beta);
  grad_gamma[c] = A(gamma);
}

// γ rstd E − constant (Aᵀ1)(1ᵀB) − slope (AᵀA)(Q − mean)(BᵀB). `out` may be `e` itself: an element is read, then
// written.
template <typename T>
__global__ void map_gradient_kernel(GseLevel<T> level, const double* table, const device_accumulate_t<T>* e,
                                    GroupAffine<device_accumulate_t<T>> affine, const device_accumulate_t<T>* terms,
                                    T* out, int64_t count) {
  using A = device_accumulate_t<T>;
  const GramAxis gy(table, level.shape.H), gx(table + 3 * level.shape.H, level.shape.W);
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    int64_t n, c, y, x;
    level.shape.split(i, &n, &c, &y, &x);
    const int64_t g = c / affine.group, s = n * affine.stride + g;
    const A* term = terms + 2 * (n * level.groups + g);
    const A gram = gram_at<T, A>(level.map, level.shape, gy, gx, n, c, y, x, affine.mean[s]);
    out[i] = T(affine.gamma[c] * affine.rstd[s] * e[i] - term[0] * A(gy.sum[y] * gx.sum[x]) - term[1] * gram);
  }
}

template <typename T>
void launch_gram_tables(const GseLevel<T>& level, double* table, Stream stream) {
  using A = device_accumulate_t<T>;
  const int64_t h = level.shape.H, w = level.shape.W;
  SIMT_LAUNCH((gram_tables_kernel<A>), blocks_for(h + w), kBlock, 0, stream, table, h, w, level.H, level.W,
              level.align_corners);
}

template <typename T, typename Moments>
void launch_channel_moments(const GseLevel<T>& level, const Moments& moments, double* partial, Stream stream) {
  const int64_t lanes = level.shape.channels_last ? 32 : 1;
  const dim3 grid(unsigned(level.images * ((level.shape.C + lanes - 1) / lanes)), unsigned(level.chunks()));
  SIMT_LAUNCH((channel_moments_kernel<Moments>), grid, kBlock, 0, stream, moments, partial);
}

// mean and rstd of one level; `table`, `shift` [N, G] and `partial` are work space.
template <typename T>
void launch_gse_statistics(const GseLevel<T>& level, double eps, int64_t stride, double* table,
                           device_accumulate_t<T>* shift, double* partial, device_accumulate_t<T>* mean,
                           device_accumulate_t<T>* rstd, Stream stream) {
  const unsigned groups = unsigned(level.images * level.groups);
  if (!groups || !level.shape.C) return;
  launch_gram_tables(level, table, stream);
  SIMT_LAUNCH((group_shift_kernel<T>), groups, kBlock, 0, stream, level, shift);
  launch_channel_moments(level, MapMoments<T>{level, table, shift}, partial, stream);
  SIMT_LAUNCH((group_statistics_kernel<T>), groups, kBlock, 0, stream, level, shift, partial, eps, stride, mean, rstd);
}

// The gradients of one level from its E; `table`, `partial`, `channel` [N, C, 2] and `terms` [N, G, 2] are work space.
template <typename T>
void launch_gse_gradient(const GseLevel<T>& level, const GroupAffine<device_accumulate_t<T>>& affine,
                         const device_accumulate_t<T>* e, double* table, double* partial, double* channel,
                         device_accumulate_t<T>* terms, device_accumulate_t<T>* grad_gamma,
                         device_accumulate_t<T>* grad_beta, T* grad, Stream stream) {
  using A = device_accumulate_t<T>;
  const int64_t C = level.shape.C, items = level.images * C * level.pixels();
  if (!C) return;
  if (items) {
    const unsigned groups = unsigned(level.images * level.groups);
    launch_gram_tables(level, table, stream);
    launch_channel_moments(level, GradientMoments<T>{level, e, affine.mean, affine.stride}, partial, stream);
    SIMT_LAUNCH((gradient_terms_kernel<T>), groups, kBlock, 0, stream, level, affine.rstd, affine.stride, affine.gamma,
                partial, channel, terms);
    SIMT_LAUNCH((map_gradient_kernel<T>), blocks_for(items), kBlock, 0, stream, level, table, e, affine, terms, grad,
                items);
  }
  SIMT_LAUNCH((affine_gradient_kernel<A>), blocks_for(C), kBlock, 0, stream, channel, level.images, C, grad_gamma,
              grad_beta);
}

}  // namespace rpcnn
