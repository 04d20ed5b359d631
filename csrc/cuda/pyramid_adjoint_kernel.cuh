// The adjoint of the pyramid's sum (pyramid_sum_kernel.cuh): E_l = Aᵀ (grad ∘ [act's derivative]) B, where A and B are
// the interpolation matrices of level l's two axes. For upsample_sum and gse_fuse.
//
// Fewest bytes: the gradient read once, every E written once. It gathers in two launches, each for all levels: first
// along x, the blocks of one gradient row next to each other, so that the gradient comes from memory once; then along
// y. Between the two lie maps [N, C, H, w_l] in the accumulation type, for levels l with h_l ≠ H: with P2..P6 they are
// 0.94 of the output, written and read. Gathering both axes at once needs no such maps, but a pixel of P6 is read by
// 32×32 pixels of P2, which one thread would walk alone.
// No atomics, no zero fill, deterministic; the ReLU's mask is recomputed, no up-sampled map is ever stored.
//
// Along x a thread owns a few neighboring columns of a level and walks along the gradient's pixels that read them. Two
// sums are open at a time, those of the two columns that the present pixel reads; so a pixel's mask is made once for
// both, and the four coarse pixels behind it stay in registers until the walk leaves them.
//
// Ladder (along x; instructions for eight bfloat16 channels of one gradient pixel and one enlarged level, masked and
// with the affine; sm_90's SASS times how often it runs for P2..P6 of 800×1216; counted, not timed):
//   800  every reader of every column found by division, its taps and its mask made anew for each of the two
//   250  this walk: 150 a pixel (1.2 times, a share's first pixels belong to its neighbor, too), 170 a coarse column.
//        Two such images: 133 µs of issue on an H100 (452 before); along y, by tables, 11 (37)
// Registers decide here: the affine in shared memory, steps from the host, one address for both kinds of results and no
// loop over the grid each kept bfloat16 from spilling at 128.
#pragma once

#include "pyramid_sum_kernel.cuh"

namespace rpcnn {

constexpr int kWalkTaps = 512;   // of the gradient's columns that a block tabulates at a time
constexpr int kWalkPixels = 40;  // most columns of the gradient that a thread's own columns of a level stand for

// A pyramid and where its adjoint goes, of type O; `half` are the maps between its two launches, of levels with h_l ≠
// H. In one argument: nvcc copies smaller tables of pointers to the stack to index them.
template <typename T, typename O>
struct PyramidAdjoint {
  Pyramid<T> pyramid;
  device_accumulate_t<T>* half[kMaxLevels];
  O* e[kMaxLevels];
  int first_block[kMaxLevels + 1];  // of the launch along x; none where there is no e
  int own[kMaxLevels];              // columns of a thread

  // Shares every level's columns out to blocks. Planes: a lane has one column, so that stores are coalesced.
  template <int V, bool kInnermost>
  void share_columns() {
    using L = WarpMapping<V, kInnermost>;
    const int64_t blocks = (pyramid.W + L::kPlaces * kWalkPixels - 1) / (L::kPlaces * kWalkPixels);
    for (int l = 0; l < pyramid.levels.count; ++l) {
      const int64_t w = pyramid.levels.W[l], threads = blocks * L::kPlaces;
      own[l] = kInnermost ? int((w + threads - 1) / threads) : 1;
      const int64_t each = int64_t(own[l]) * L::kPlaces;
      first_block[l + 1] = first_block[l] + (e[l] ? int((w + each - 1) / each) : 0);
    }
  }
};

template <typename A>
struct alignas(16) WalkTap : ShortTap<A> {};  // loaded at once

// The columns of the gradient that can read column x of level l.
struct ReaderRange {
  int first, last;
};
template <typename A, typename T>
__device__ ReaderRange readers(const Pyramid<T>& pyramid, int l, int x) {
  int64_t first, last;
  interpolation_readers<A>(x, pyramid.levels.W[l], pyramid.W, pyramid.step_x[l], pyramid.align_corners, &first, &last);
  return {int(first), int(last)};
}

// half_l [N, C, H, w_l] = the masked gradient [N, C, H, W] gathered along x; E_l itself where h_l = H.
// Grid: (images × pieces of the channels) × rows × shares of every level's columns, the shares neighbors. No loop runs
// over the grid: what it would keep for its next turn would spill.
template <typename T, typename O, int V, bool kInnermost, bool kRelu, bool kAffine>
__global__ void __launch_bounds__(kBlock, resident_blocks<device_accumulate_t<T>>(2))
    pyramid_adjoint_x_kernel(PyramidAdjoint<T, O> adjoint, const T* grad) {
  using A = device_accumulate_t<T>;
  using L = WarpMapping<V, kInnermost>;
  using Own = Channels<T, V, kInnermost>;
  SIMT_SHARED(WalkTap<A>, taps, [kWalkTaps + 1]);  // and the row's
  SIMT_SHARED(A, affine, [3][L::kChannels]);       // center, scale, shift: in registers they would spill
  const Pyramid<T>& pyramid = adjoint.pyramid;
  const int shares = adjoint.first_block[pyramid.levels.count], line = int(blockIdx.x) / shares;
  const int share = int(blockIdx.x) - line * shares, z = line / int(pyramid.H), y = line - z * int(pyramid.H);
  int l = 0;
  while (share >= adjoint.first_block[l + 1]) ++l;
  const int64_t C = pyramid.levels.C, H = pyramid.H, W = pyramid.W;
  const int64_t h = pyramid.levels.H[l], w = pyramid.levels.W[l];
  const bool align = pyramid.align_corners, same = pyramid.same_size(l);
  const int own = adjoint.own[l], pitch = kInnermost ? int(C) : 1, pieces = int(L::pieces(C));
  const int block_begin = (share - adjoint.first_block[l]) * (L::kPlaces * own);
  const int block_end = block_begin + L::kPlaces * own < int(w) ? block_begin + L::kPlaces * own : int(w);
  const int begin = block_begin + L::place(threadIdx) * own;
  const int end = begin + own < int(w) ? begin + own : int(w);  // may lie before begin
  // The pixels that can read the block's columns, and the first that can read the thread's.
  const int first = readers<A>(pyramid, l, block_begin).first, last = readers<A>(pyramid, l, block_end - 1).last;
  const int own_first = begin < end ? readers<A>(pyramid, l, begin).first : last;
  const int n = z / pieces, c = (z - n * pieces) * L::kChannels + L::channel(threadIdx);
  const bool working = c < C && begin < end;
  if (kAffine && L::place(threadIdx) == 0 && c < C) {
    const Normalization<T, V, kInnermost, kAffine> norm(pyramid.affine[l], n, c, C);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      affine[0][L::channel(threadIdx) + k] = norm.center[k];
      affine[1][L::channel(threadIdx) + k] = norm.scale[k];
      affine[2][L::channel(threadIdx) + k] = norm.shift[k];
    }
  }
  const T* pixels = Own::start(grad + n * C * H * W, y * W, H * W, c, C);
  const T* image = Own::start(pyramid.map[l] + n * C * h * w, 0, h * w, c, C);
  using ToE = Channels<O, V, kInnermost>;
  using ToHalf = Channels<A, V, kInnermost>;
  void* to = h == H ? static_cast<void*>(ToE::start(adjoint.e[l] + n * C * H * w, y * w, H * w, c, C))
                    : static_cast<void*>(ToHalf::start(adjoint.half[l] + n * C * H * w, y * w, H * w, c, C));
  const auto store = [&](int column, const A* sum) {
    if (h == H)
      ToE::store_to(static_cast<O*>(to) + column * pitch, H * w, C - c, sum);
    else
      ToHalf::store_to(static_cast<A*>(to) + column * pitch, H * w, C - c, sum);
  };
  // The sums of the columns `at` and at + 1, and the coarse pixels of the columns `at` and at_right.
  A here[V] = {}, next[V] = {}, left[2][V], right[2][V];
  int at = begin - 2, at_right = -1;  // the first pixel may read begin − 1
  const auto advance = [&] {
    if (at >= begin) store(at, here);
#pragma unroll
    for (int k = 0; k < V; ++k) here[k] = next[k], next[k] = A(0);
    ++at;
  };
  for (int base = first; base < last; base += kWalkTaps) {
    const int count = last - base < kWalkTaps ? last - base : kWalkTaps;
    __syncthreads();
#pragma unroll 1
    for (int i = int(threadIdx.y * 32 + threadIdx.x); i <= count; i += kBlock) {
      const bool row = i == count;
      taps[row ? kWalkTaps : i] = {
          short_tap<A>(row ? y : base + i, row ? h : w, row ? pyramid.step_y[l] : pyramid.step_x[l], align, 1)};
    }
    __syncthreads();
    if (!working) continue;
    const WalkTap<A> ty = taps[kWalkTaps];
    const T *top = image + ty.lo * w * pitch, *bottom = image + ty.hi * w * pitch;
    int i = own_first > base ? own_first - base : 0;
    const T* from = pixels + (base + i) * pitch;
    for (; i < count; ++i, from += pitch) {
      const WalkTap<A> tx = taps[i];
      if (tx.hi < begin) continue;
      if (tx.lo >= end) break;
      A e[V];
      const auto load = [&](int column, A(&value)[2][V]) {
#pragma unroll
        for (int row = 0; row < 2; ++row) {
          Own::load_from((row ? bottom : top) + column * pitch, h * w, C - c, value[row]);
          if constexpr (kAffine) {
#pragma unroll
            for (int k = 0; k < V; ++k) value[row][k] -= affine[0][L::channel(threadIdx) + k];
          }
        }
      };
      if (at < tx.lo) {
#pragma unroll 1
        do advance();
        while (at < tx.lo);
        if constexpr (kRelu) load(at, left);
      }
      Own::load_from(from, H * W, C - c, e);
      if constexpr (kRelu) {
        if (!same && at_right != tx.hi) load(at_right = tx.hi, right);
        A value[V];
        if (same) {
#pragma unroll
          for (int k = 0; k < V; ++k) value[k] = left[0][k];
        } else {
#pragma unroll
          for (int k = 0; k < V; ++k)
            value[k] = interpolated(ty.w_hi, interpolated(tx.w_hi, left[0][k], right[0][k]),
                                    interpolated(tx.w_hi, left[1][k], right[1][k]));
        }
#pragma unroll
        for (int k = 0; k < V; ++k) {
          const int channel = L::channel(threadIdx) + k;
          if constexpr (kAffine) value[k] = fused_sum(affine[1][channel], value[k], affine[2][channel]);
          e[k] = passes_gradient(value[k]) ? e[k] : A(0);
        }
      }
#pragma unroll
      for (int k = 0; k < V; ++k) here[k] += (A(1) - tx.w_hi) * e[k];
      if (tx.w_hi > A(0)) {  // else a NaN would spread to a column that is not read
#pragma unroll
        for (int k = 0; k < V; ++k) next[k] += tx.w_hi * e[k];
      }
    }
  }
#pragma unroll 1
  while (working && at < end) advance();
}

constexpr int kAdjointColumns = 4;  // of a thread along y: they share the table of the readers

// E_l [N, C, h_l, w_l] = half_l gathered along y. Grid: columns, rows of all levels, images × pieces of the channels.
template <typename T, typename O, int V, bool kInnermost>
__global__ void __launch_bounds__(kBlock, resident_blocks<device_accumulate_t<T>>(2))
    pyramid_adjoint_y_kernel(PyramidAdjoint<T, O> adjoint, int64_t rows) {
  using A = device_accumulate_t<T>;
  using L = WarpMapping<V, kInnermost>;
  using Half = Channels<A, V, kInnermost>;
  SIMT_SHARED(A, weights, [kBlock]);
  const Pyramid<T>& pyramid = adjoint.pyramid;
  const int64_t C = pyramid.levels.C, H = pyramid.H, pieces = L::pieces(C);
  const int64_t left = int64_t(blockIdx.x) * L::kPlaces * kAdjointColumns;
  const int thread = int(threadIdx.y * 32 + threadIdx.x);
  for (int64_t i = blockIdx.y; i < rows; i += gridDim.y) {
    int64_t y = i;
    const int l = pyramid.levels.level_of(&y);
    const int64_t h = pyramid.levels.H[l], w = pyramid.levels.W[l];
    if (h == H || left >= w) continue;
    const A step = pyramid.step_y[l];
    int64_t first, last;
    interpolation_readers<A>(y, h, H, step, pyramid.align_corners, &first, &last);
    const int line = int(w) * (kInnermost ? int(C) : 1);
    for (int64_t z = blockIdx.z; z < pyramid.levels.N * pieces; z += gridDim.z) {
      const int64_t n = z / pieces, c = (z - n * pieces) * L::kChannels + L::channel(threadIdx);
      A sum[kAdjointColumns][V] = {};
      for (int64_t base = first; base < last; base += kBlock) {
        const int count = last - base < kBlock ? int(last - base) : kBlock;
        __syncthreads();
        if (thread < count) weights[thread] = interpolation_weight<A>(base + thread, y, h, step, pyramid.align_corners);
        __syncthreads();
        if (c >= C) continue;
#pragma unroll
        for (int j = 0; j < kAdjointColumns; ++j) {
          const int64_t x = left + L::place(threadIdx) + j * L::kPlaces;
          if (x >= w) continue;
          const A* from = Half::start(adjoint.half[l] + n * C * H * w, base * w + x, H * w, c, C);
          for (int r = 0; r < count; ++r, from += line) {
            const A weight = weights[r];
            if (weight == A(0)) continue;
            A value[V];
            Half::load_from(from, H * w, C - c, value);
#pragma unroll
            for (int k = 0; k < V; ++k) sum[j][k] += weight * value[k];
          }
        }
      }
      if (c >= C) continue;
#pragma unroll
      for (int j = 0; j < kAdjointColumns; ++j) {
        const int64_t x = left + L::place(threadIdx) + j * L::kPlaces;
        if (x < w) Channels<O, V, kInnermost>::store(adjoint.e[l] + n * C * h * w, y * w + x, h * w, c, C, sum[j]);
      }
    }
  }
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
  PyramidAdjoint<T, O> adjoint{pyramid, {}, {}, {}, {}};
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
    using L = WarpMapping<V, kInnermost>;
    adjoint.template share_columns<V, kInnermost>();
    const int64_t lines = levels.N * L::pieces(levels.C) * pyramid.H;
    SIMT_LAUNCH((pyramid_adjoint_x_kernel<T, O, V, kInnermost, kRelu, kAffine>),
                dim3(unsigned(lines * adjoint.first_block[levels.count])), dim3(32, 8), 0, stream, adjoint, grad);
    if (two)
      SIMT_LAUNCH((pyramid_adjoint_y_kernel<T, O, V, kInnermost>),
                  (map_grid<V, kInnermost>((levels.widest() + kAdjointColumns - 1) / kAdjointColumns, levels.rows(),
                                           levels.N, levels.C)),
                  dim3(32, 8), 0, stream, adjoint, levels.rows());
  });
}

}  // namespace rpcnn
