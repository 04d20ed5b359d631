// group_norm: act(γ rstd (x − mean) + β [+ residual]), act = ReLU or nothing, and its gradient. Two launches each: sums
// of stretches of pixels, one pair per channel; then every block of the second pass adds up what it needs of them (a
// few kilobytes from the L2 cache) and passes over its pixels.
//
// Forward sums: Σ(x − k) and Σ(x − k)² with k the channel's first pixel, so that a large mean does not cancel. Backward
// sums, e being the gradient where the ReLU passes it: Σe and Σe (x − mean). Then, with m = channels of a group ·
// pixels,
//   dβ = Σe,  dγ = rstd Σe (x − mean),  s = Σ_group γ dβ,  t = Σ_group γ Σe (x − mean),
//   dx = γ rstd e − rstd s / m − rstd³ t / m (x − mean).
// A block's channels fill one 128-byte line of each pixel (8 lanes of 16 bytes, 32 pixels at a time), so that what a
// block reads of the sums is small. Every thread has four packs in flight. Sums are added in a fixed order, in double
// across the threads: no atomics, the same result every time.
//
// Fewest bytes: forward the map read twice and written once, backward map and gradient read twice and one map written.
// Ladder: launches and instructions per 16 bytes of a pixel, forward / backward, for [2, 256, 200, 304] bfloat16,
// channels innermost (counted from SASS for sm_90, not timed):
//   5 / 4 launches, 700 / 920  a level of gse_fuse: 64-bit indices, the affine loaded by numbers for every pack
//   2 / 2 launches, 168 / 281  this file. An H100 issues that in 22 / 37 µs; the bytes take it 56 / 93
// Not done: a map of 32 × 32 fits shared memory, and a single pass would save a third of its bytes.
#pragma once

#include <cmath>

#include "channels.cuh"

namespace rpcnn {

// Pixels of a thread that are loaded together: four packs of 16 bytes either way, the backward having two maps.
template <bool kBackward>
constexpr int kInFlight = kBackward ? 2 : 4;
constexpr int kPassPixels = 16;     // of a thread in the second pass
constexpr int kMaxStretches = 128;  // whose sums a block of the second pass adds up

// V neighboring channels a thread, `kLanes` threads along the channels, the others along the pixels. Planes: V = kLanes
// = 1, and pixels lie side by side.
template <int V, int kLanes>
struct PixelMapping {
  static constexpr int kPlaces = kBlock / kLanes, kChannels = kLanes * V;
  static RPCNN_HOST_DEVICE int lane(const uint3& thread) { return static_cast<int>(thread.x); }
  static RPCNN_HOST_DEVICE int place(const uint3& thread) { return static_cast<int>(thread.y); }
  static dim3 block() { return dim3(kLanes, kPlaces); }
  static int64_t pieces(int64_t C) { return (C + kChannels - 1) / kChannels; }
};

// Calls f(V as a constant, kLanes as a constant); `whole`: 16 bytes of channels can be moved at once everywhere.
template <typename T, typename F>
void choose_pixels(bool channels_last, bool whole, F&& f) {
  using One = std::integral_constant<int, 1>;
  using Eight = std::integral_constant<int, 8>;
  if (!channels_last) return f(One{}, One{});
  if (whole) return f(std::integral_constant<int, 16 / int(sizeof(T))>{}, Eight{});
  f(One{}, Eight{});
}

// A map, or a level of gse_fuse.
template <typename T>
struct GroupNorm {
  using A = device_accumulate_t<T>;
  int64_t N, C, pixels, groups;
  int64_t values;  // behind a mean and channel: the pixels, or those that they are up-sampled to
  int64_t stride;  // of mean and rstd, from image to image
  bool channels_last;
  int stretches;          // pixels a stretch: ⌈pixels / stretches⌉
  const T *x, *residual;  // residual: or null
  const A *gamma, *beta;  // [C]
  A *mean, *rstd;         // [N, G], `stride` apart
  A* partial;             // [N, stretches, 2, C]
  T* out;
  // backward
  const T* grad;
  T *grad_x, *grad_residual;  // grad_residual: or null
  A *grad_gamma, *grad_beta;

  static int stretches_of(int64_t pixels) {
    const int64_t wanted = (pixels + 1023) / 1024;
    return static_cast<int>(wanted < 1 ? 1 : (wanted > kMaxStretches ? kMaxStretches : wanted));
  }
  RPCNN_HOST_DEVICE int group() const { return int(C) / int(groups); }
  RPCNN_HOST_DEVICE double count() const { return double(group()) * double(values); }
  // Offset of channel c of image n at pixel p.
  RPCNN_HOST_DEVICE int64_t at(int64_t n, int64_t c, int64_t p) const {
    return channels_last ? (n * pixels + p) * C + c : (n * C + c) * pixels + p;
  }
  // Element of mean and rstd.
  RPCNN_HOST_DEVICE int64_t statistic(int64_t n, int64_t g) const { return n * stride + g; }
  RPCNN_HOST_DEVICE int step() const { return channels_last ? static_cast<int>(C) : 1; }
  // The pixels of a stretch.
  RPCNN_HOST_DEVICE int64_t begin(int stretch) const { return stretch * ((pixels + stretches - 1) / stretches); }
  RPCNN_HOST_DEVICE int length(int stretch) const {  // may be below 0
    const int64_t each = (pixels + stretches - 1) / stretches, left = pixels - begin(stretch);
    return static_cast<int>(each < left ? each : left);
  }
  // The second pass' chunks, and the pixels of one.
  template <int V, int kLanes>
  RPCNN_HOST_DEVICE int chunks() const {
    constexpr int kPixels = kPassPixels * PixelMapping<V, kLanes>::kPlaces;
    return static_cast<int>((pixels + kPixels - 1) / kPixels);
  }
  template <int V, int kLanes>
  RPCNN_HOST_DEVICE int chunk_length(int chunk) const {
    constexpr int kPixels = kPassPixels * PixelMapping<V, kLanes>::kPlaces;
    const int64_t left = pixels - int64_t(chunk) * kPixels;
    return static_cast<int>(left < kPixels ? left : kPixels);
  }
  RPCNN_HOST_DEVICE int64_t sums(int64_t n, int s, int which) const { return ((n * stretches + s) * 2 + which) * C; }
};

// A thread's channels of one image: act's argument is scale (x − center) + shift [+ residual].
template <typename T, int V>
struct ChannelAffine {
  using A = device_accumulate_t<T>;
  A center[V], scale[V], shift[V];

  // From the mean and rstd of image n.
  RPCNN_HOST_DEVICE void load(const GroupNorm<T>& norm, int64_t n, int64_t c) {
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const int64_t at = norm.statistic(n, int(c + k) / norm.group());
      center[k] = norm.mean[at];
      scale[k] = norm.gamma[c + k] * norm.rstd[at];
      shift[k] = norm.beta[c + k];
    }
  }
};

template <typename T, int V>
RPCNN_HOST_DEVICE void load_pack(const T* from, device_accumulate_t<T>* value) {
  Channels<T, V, true>::load(from, 0, 0, 0, 0, value);
}
template <typename T, int V>
RPCNN_HOST_DEVICE void store_pack(T* to, const device_accumulate_t<T>* value) {
  Channels<T, V, true>::store(to, 0, 0, 0, 0, value);
}

// e[k]: the gradient where the ReLU passes it. NaN passes, as in PyTorch.
template <typename T, int V, bool kRelu>
RPCNN_HOST_DEVICE void masked(const ChannelAffine<T, V>& affine, const device_accumulate_t<T>* x, const T* residual,
                              int offset, device_accumulate_t<T>* e) {
  using A = device_accumulate_t<T>;
  if constexpr (kRelu) {
    A onto[V] = {};
    if (residual) load_pack<T, V>(residual + offset, onto);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const A u = fused_sum(affine.scale[k], x[k] - affine.center[k], affine.shift[k]) + onto[k];  // as in the forward
      e[k] = u <= A(0) ? A(0) : e[k];
    }
  }
}

// Adds the sums of the `count` pixels from `begin` on, as far as they are the thread's.
template <typename T, int V, int kLanes, bool kBackward, bool kRelu>
__device__ inline void add_pixels(const GroupNorm<T>& norm, int64_t n, int64_t c, int64_t begin, int count,
                                  device_accumulate_t<T>* one, device_accumulate_t<T>* two) {
  using A = device_accumulate_t<T>;
  using M = PixelMapping<V, kLanes>;
  const int step = norm.step();
  const int64_t start = norm.at(n, c, begin);
  const T* x = norm.x + start;
  ChannelAffine<T, V> affine;
  if constexpr (kBackward)
    affine.load(norm, n, c);
  else
    load_pack<T, V>(norm.x + norm.at(n, c, 0), affine.center);
  const T* grad = kBackward ? norm.grad + start : nullptr;
  const T* residual = kBackward && norm.residual ? norm.residual + start : nullptr;
  for (int p = M::place(threadIdx); p < count; p += kInFlight<kBackward> * M::kPlaces) {
    A value[kInFlight<kBackward>][V], e[kInFlight<kBackward>][V];
#pragma unroll
    for (int i = 0; i < kInFlight<kBackward>; ++i) {
      const int at = p + i * M::kPlaces;
      if (at >= count) continue;
      load_pack<T, V>(x + at * step, value[i]);
      if constexpr (kBackward) load_pack<T, V>(grad + at * step, e[i]);
    }
#pragma unroll
    for (int i = 0; i < kInFlight<kBackward>; ++i) {
      const int at = p + i * M::kPlaces;
      if (at >= count) continue;
      if constexpr (kBackward) masked<T, V, kRelu>(affine, value[i], residual, at * step, e[i]);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const A q = value[i][k] - affine.center[k];
        const A weight = kBackward ? e[i][k] : q;
        one[k] += weight;
        two[k] += weight * q;
      }
    }
  }
}

// The block's sums of one stretch to `partial`; `buffer` is the block's.
template <typename T, int V, int kLanes, typename Buffer>
__device__ inline void store_sums(const GroupNorm<T>& norm, int64_t n, int stretch, int64_t first_channel,
                                  const device_accumulate_t<T>* one, const device_accumulate_t<T>* two,
                                  Buffer& buffer) {
  using A = device_accumulate_t<T>;
  using M = PixelMapping<V, kLanes>;
  const int lane = M::lane(threadIdx), place = M::place(threadIdx);
#pragma unroll
  for (int k = 0; k < V; ++k) {
    buffer[0][lane * V + k][place] = one[k];
    buffer[1][lane * V + k][place] = two[k];
  }
  __syncthreads();
  for (int i = place * kLanes + lane; i < 2 * M::kChannels; i += kBlock) {
    const int which = i / M::kChannels, channel = i - which * M::kChannels;
    if (first_channel + channel >= norm.C) continue;
    double sum = 0;
    for (int j = 0; j < M::kPlaces; ++j) sum += double(buffer[which][channel][j]);
    norm.partial[norm.sums(n, stretch, which) + first_channel + channel] = A(sum);
  }
}

// The pairs of sums of a stretch to `partial`. Grid: images × stretches, pieces of the channels.
template <typename T, int V, int kLanes, bool kBackward, bool kRelu>
__global__ void __launch_bounds__(kBlock, resident_blocks<device_accumulate_t<T>>(2))
    group_norm_sums_kernel(GroupNorm<T> norm) {
  using A = device_accumulate_t<T>;
  using M = PixelMapping<V, kLanes>;
  SIMT_SHARED(A, buffer, [2][M::kChannels][M::kPlaces + 1]);
  const int n = int(blockIdx.x) / norm.stretches, stretch = int(blockIdx.x) - n * norm.stretches;
  const int64_t first_channel = int64_t(blockIdx.y) * M::kChannels, c = first_channel + M::lane(threadIdx) * V;
  A one[V] = {}, two[V] = {};
  if (c < norm.C)
    add_pixels<T, V, kLanes, kBackward, kRelu>(norm, n, c, norm.begin(stretch), norm.length(stretch), one, two);
  store_sums<T, V, kLanes>(norm, n, stretch, first_channel, one, two, buffer);
}

__device__ inline double warp_sum(double value) {
  for (int half = 16; half > 0; half /= 2) value += __shfl_xor_sync(~0u, value, half);
  return value;
}

// By a warp: what the second pass needs of group g of image n. Forward: its mean and rstd. Backward: the factors of the
// constant and of x − mean.
template <typename T, bool kBackward>
__device__ inline void group_terms(const GroupNorm<T>& norm, int64_t n, int64_t g, double eps, int lane,
                                   device_accumulate_t<T>* first, device_accumulate_t<T>* second) {
  using A = device_accumulate_t<T>;
  const int group = static_cast<int>(norm.group());
  const int64_t begin = g * group;
  const double about = kBackward ? 0.0 : double(A(norm.x[norm.at(n, begin, 0)]));
  double one = 0, two = 0;
  for (int i = lane; i < group * norm.stretches; i += 32) {
    const int s = i / group;
    const int64_t c = begin + i - s * group;
    const double a = double(norm.partial[norm.sums(n, s, 0) + c]), b = double(norm.partial[norm.sums(n, s, 1) + c]);
    if constexpr (kBackward) {
      one += double(norm.gamma[c]) * a;
      two += double(norm.gamma[c]) * b;
    } else {  // from about the channel's shift to about the group's
      const double apart = double(A(norm.x[norm.at(n, c, 0)])) - about;
      const double here = s ? 0.0 : double(norm.values);
      one += a + here * apart;
      two += b + apart * (2 * a + here * apart);
    }
  }
  one = warp_sum(one) / norm.count();
  two = warp_sum(two) / norm.count();
  if constexpr (kBackward) {
    const double rstd = double(norm.rstd[norm.statistic(n, g)]);
    *first = A(rstd * one);
    *second = A(rstd * rstd * rstd * two);
  } else {
    const double variance = two - one * one;
    *first = A(about + one);
    *second = A(1.0 / std::sqrt((variance < 0.0 ? 0.0 : variance) + eps));
  }
}

// The terms of the groups that the block's channels lie in, in order. Ends with a barrier.
template <typename T, int V, int kLanes, bool kBackward, typename Terms>
__device__ inline void block_terms(const GroupNorm<T>& norm, int64_t n, int64_t first_channel, double eps,
                                   Terms& term) {
  using A = device_accumulate_t<T>;
  using M = PixelMapping<V, kLanes>;
  const int own = M::place(threadIdx) * kLanes + M::lane(threadIdx);
  const int64_t last_channel = first_channel + M::kChannels < norm.C ? first_channel + M::kChannels : norm.C;
  const int first_group = int(first_channel) / norm.group(), last_group = int(last_channel - 1) / norm.group() + 1;
  for (int64_t g = first_group + own / 32; g < last_group; g += kBlock / 32) {
    A first, second;
    group_terms<T, kBackward>(norm, n, g, eps, own % 32, &first, &second);
    if (own % 32 == 0) {
      term[0][g - first_group] = first;
      term[1][g - first_group] = second;
    }
  }
  __syncthreads();
}

// dγ and dβ of the block's channels from the sums of all images. `buffer`: two values a thread.
template <typename T, int V, int kLanes>
__device__ inline void channel_gradients(const GroupNorm<T>& norm, int64_t first_channel, double* buffer) {
  using A = device_accumulate_t<T>;
  using M = PixelMapping<V, kLanes>;
  const int own = M::place(threadIdx) * kLanes + M::lane(threadIdx);
  constexpr int kShare = kBlock / M::kChannels;  // threads of a channel
  const int channel = own % M::kChannels, share = own / M::kChannels;
  const int64_t c = first_channel + channel;
  double beta = 0, gamma = 0;
  if (c < norm.C)
    for (int64_t i = share; i < norm.N * norm.stretches; i += kShare) {
      const int64_t n = i / norm.stretches;
      const int s = static_cast<int>(i - n * norm.stretches);
      beta += double(norm.partial[norm.sums(n, s, 0) + c]);
      gamma +=
          double(norm.rstd[norm.statistic(n, int(c) / norm.group())]) * double(norm.partial[norm.sums(n, s, 1) + c]);
    }
  buffer[2 * own] = beta;
  buffer[2 * own + 1] = gamma;
  __syncthreads();
  if (share == 0 && c < norm.C) {
    for (int i = 1; i < kShare; ++i) {
      beta += buffer[2 * (own + i * M::kChannels)];
      gamma += buffer[2 * (own + i * M::kChannels) + 1];
    }
    norm.grad_beta[c] = A(beta);
    norm.grad_gamma[c] = A(gamma);
  }
}

// The second pass of a thread over a chunk of the pixels; `affine`, `constant` and `slope` are its channels'.
template <typename T, int V, int kLanes, bool kBackward, bool kRelu>
__device__ inline void pass_over(const GroupNorm<T>& norm, int64_t n, int64_t c, int chunk,
                                 const ChannelAffine<T, V>& affine, const device_accumulate_t<T>* constant,
                                 const device_accumulate_t<T>* slope) {
  using A = device_accumulate_t<T>;
  using M = PixelMapping<V, kLanes>;
  constexpr int kPacks = kInFlight<kBackward>;
  const int step = norm.step(), count = norm.template chunk_length<V, kLanes>(chunk);
  const int64_t begin = int64_t(chunk) * kPassPixels * M::kPlaces, start = norm.at(n, c, begin);
  const T *x = norm.x + start, *residual = norm.residual ? norm.residual + start : nullptr;
  const T* grad = kBackward ? norm.grad + start : nullptr;
  for (int p = M::place(threadIdx); p < count; p += kPacks * M::kPlaces) {
    A value[kPacks][V], other[kPacks][V];  // other: the residual forward, the gradient backward
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const int at = p + i * M::kPlaces;
      if (at >= count) continue;
      load_pack<T, V>(x + at * step, value[i]);
      if constexpr (kBackward)
        load_pack<T, V>(grad + at * step, other[i]);
      else if (residual)
        load_pack<T, V>(residual + at * step, other[i]);
    }
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const int at = p + i * M::kPlaces;
      if (at >= count) continue;
      A result[V];
      if constexpr (kBackward) {
        masked<T, V, kRelu>(affine, value[i], residual, at * step, other[i]);
        if (kRelu && norm.grad_residual) store_pack<T, V>(norm.grad_residual + start + at * step, other[i]);
#pragma unroll
        for (int k = 0; k < V; ++k)
          result[k] = affine.scale[k] * other[i][k] - constant[k] - slope[k] * (value[i][k] - affine.center[k]);
        store_pack<T, V>(norm.grad_x + start + at * step, result);
      } else {
#pragma unroll
        for (int k = 0; k < V; ++k) {
          A u = fused_sum(affine.scale[k], value[i][k] - affine.center[k], affine.shift[k]);
          if (residual) u += other[i][k];
          result[k] = kRelu && u < A(0) ? A(0) : u;
        }
        store_pack<T, V>(norm.out + start + at * step, result);
      }
    }
  }
}

// The second pass. Grid: images × chunks of the pixels, pieces of the channels.
template <typename T, int V, int kLanes, bool kBackward, bool kRelu>
__global__ void __launch_bounds__(kBlock, resident_blocks<device_accumulate_t<T>>(2))
    group_norm_pass_kernel(GroupNorm<T> norm, double eps) {
  using A = device_accumulate_t<T>;
  using M = PixelMapping<V, kLanes>;
  SIMT_SHARED(A, term, [2][M::kChannels + 1]);
  SIMT_SHARED(double, buffer, [kBackward ? 2 * kBlock : 1]);
  const int chunks = norm.template chunks<V, kLanes>(), n = int(blockIdx.x) / chunks,
            chunk = int(blockIdx.x) - n * chunks;
  const int own = M::place(threadIdx) * kLanes + M::lane(threadIdx);
  const int64_t first_channel = int64_t(blockIdx.y) * M::kChannels, c = first_channel + M::lane(threadIdx) * V;
  const int first_group = int(first_channel) / norm.group();
  if constexpr (kBackward)
    if (blockIdx.x == 0) channel_gradients<T, V, kLanes>(norm, first_channel, buffer);
  block_terms<T, V, kLanes, kBackward>(norm, n, first_channel, eps, term);
  if (!kBackward && chunk == 0) {
    const int64_t g = first_group + own, begin = g * norm.group();
    if (begin >= first_channel && begin < first_channel + M::kChannels && g < norm.groups) {
      norm.mean[norm.statistic(n, g)] = term[0][own];
      norm.rstd[norm.statistic(n, g)] = term[1][own];
    }
  }
  if (c >= norm.C) return;
  ChannelAffine<T, V> affine;
  A constant[V], slope[V];
  if constexpr (kBackward) affine.load(norm, n, c);
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const int g = int(c + k) / norm.group() - first_group;
    if constexpr (kBackward) {
      constant[k] = term[0][g], slope[k] = term[1][g];
    } else {
      affine.center[k] = term[0][g];
      affine.scale[k] = norm.gamma[c + k] * term[1][g];
      affine.shift[k] = norm.beta[c + k];
    }
  }
  pass_over<T, V, kLanes, kBackward, kRelu>(norm, n, c, chunk, affine, constant, slope);
}

// Both launches. norm.mean and norm.rstd are results forward and inputs backward.
template <bool kBackward, typename T>
void launch_group_norm(const GroupNorm<T>& norm, bool relu, double eps, Stream stream) {
  bool whole = packs_divide<T>(norm.C);
  for (const void* address : {(const void*)norm.x, (const void*)norm.residual, (const void*)norm.out,
                              (const void*)norm.grad, (const void*)norm.grad_x, (const void*)norm.grad_residual})
    whole = whole && starts_pack(address);
  const auto launch = [&](auto v, auto lanes, auto with_relu) {
    constexpr int V = decltype(v)::value, kLanes = decltype(lanes)::value;
    constexpr bool kRelu = decltype(with_relu)::value;
    using M = PixelMapping<V, kLanes>;
    const unsigned pieces = static_cast<unsigned>(M::pieces(norm.C));
    SIMT_LAUNCH((group_norm_sums_kernel < T, V, kLanes, kBackward, kRelu && kBackward >),
                dim3(unsigned(norm.N * norm.stretches), pieces), M::block(), 0, stream, norm);
    SIMT_LAUNCH((group_norm_pass_kernel<T, V, kLanes, kBackward, kRelu>),
                dim3(unsigned(norm.N * norm.template chunks<V, kLanes>()), pieces), M::block(), 0, stream, norm, eps);
  };
  const auto choose = [&](auto with_relu) {
    choose_pixels<T>(norm.channels_last, whole, [&](auto v, auto lanes) { launch(v, lanes, with_relu); });
  };
  relu ? choose(std::true_type{}) : choose(std::false_type{});
}

}  // namespace rpcnn
