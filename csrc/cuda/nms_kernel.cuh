// nms: greedy suppression within groups, best score first, ties in input order.
//
// The boxes, sorted by score, are taken in bands of 4096. Inside a band every pair is tested at once into a triangular
// bit mask (2 MB), which one block of threads sweeps in order, 64 boxes a step; then the band's kept boxes are tested
// against all later boxes that are not dropped yet. Memory beyond the boxes is constant, whatever R. There are at most
// (kept + 4096) · R tests, each about 20 instructions without a division. Tests run in float with a margin for
// rounding; the few inside the margin are decided in double (geometry/boxes.h). Everything stays on the
// device, the number of kept boxes included. The sweep is the serial part: per 64 boxes one resolution inside a warp
// (a shuffle per kept box, the words prefetched), two barriers, and one read of the kept boxes' mask rows.
#pragma once

#include <cstring>

#include "../geometry/boxes.h"
#include "device.cuh"

namespace rpcnn {

constexpr int kTile = 64;                  // boxes of one mask word, and of one step of the sweep
constexpr int kBand = 4096;                // boxes resolved together
constexpr int kBandTiles = kBand / kTile;  // mask words a row
constexpr int kHalves = 2 * kBandTiles;    // the same in 32-bit words, which shared memory combines natively
constexpr int kSweepThreads = 1024;
constexpr int kSlices = 8;  // blocks that share the kept boxes when these are tested against the same later boxes

// The boxes in the order of their scores.
template <typename T>
struct Candidates {
  Corners<T>* boxes;
  int64_t* groups;  // null: all one group
  uint8_t* dead;
  int64_t n;
};

// What is kept so far; the totals stay on the device.
struct Kept {
  int64_t* positions;  // among the candidates
  int64_t* indices;    // among the input
  int64_t* counts;     // [before the current band, now]
  int64_t limit;
};

// Integers that ascend where scores descend; NaN last, -0 equal to 0.
template <typename S>
__global__ void nms_keys_kernel(const S* scores, int64_t stride, int64_t n, int64_t* keys) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) {
    const double score = double(device_accumulate_t<S>(scores[i * stride])) + 0.0;  // -0 becomes 0
    int64_t bits;
    memcpy(&bits, &score, sizeof bits);
    keys[i] = score != score ? INT64_MAX : (bits < 0 ? bits & INT64_MAX : ~bits);
  }
}

template <typename B, typename T>
__global__ void nms_gather_kernel(const B* boxes, int64_t row_stride, int64_t corner_stride, const int64_t* idxs,
                                  int64_t idx_stride, const int64_t* order, Candidates<T> to, int64_t* counts) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < to.n; i += step) {
    const B* box = boxes + order[i] * row_stride;
    to.boxes[i] =
        finite_or_empty(T(box[0]), T(box[corner_stride]), T(box[2 * corner_stride]), T(box[3 * corner_stride]));
    if (to.groups) to.groups[i] = idxs[order[i] * idx_stride];
    to.dead[i] = 0;
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) counts[0] = counts[1] = 0;
}

// Boxes in shared memory, which every thread tests its own box against.
template <typename T, int N>
struct SharedBoxes {
  Corners<T> boxes[N];
  T areas[N];
  int64_t groups[N];
  RPCNN_HOST_DEVICE void load(int slot, const Candidates<T>& from, int64_t i) {
    boxes[slot] = from.boxes[i];
    areas[slot] = area_of(boxes[slot]);
    groups[slot] = from.groups ? from.groups[i] : 0;
  }
  RPCNN_HOST_DEVICE bool suppress(int slot, const Corners<T>& box, T area, int64_t group, double threshold) const {
    if (groups[slot] != group) return false;
    const Corners<T>& other = boxes[slot];
    const Overlap found = overlap(other, areas[slot], box, area, T(threshold));
    if (!found.unsure) return found.more;
    return overlaps_more({double(other.x1), double(other.y1), double(other.x2), double(other.y2)},
                         {double(box.x1), double(box.y1), double(box.x2), double(box.y2)}, threshold);
  }
};

// mask[row][tile]: which boxes of that tile the row's box suppresses. One block of 64 threads a tile on or above the
// diagonal. Row r has tiles - r of them; with row tiles - 1 - r that makes tiles + 1, the width of the grid.
template <typename T>
__global__ void nms_mask_kernel(Candidates<T> all, int64_t begin, int tiles, double threshold, Kept kept,
                                uint64_t* mask) {
  using Columns = SharedBoxes<T, kTile>;
  SIMT_SHARED(Columns, columns, [1]);
  if (kept.counts[1] >= kept.limit) return;
  int row_tile = blockIdx.y, column_tile = row_tile + blockIdx.x;
  if (column_tile >= tiles) {
    column_tile -= tiles;  // steps into the mirrored row, counted from its diagonal: blockIdx.x - (tiles - row_tile)
    row_tile = tiles - 1 - row_tile;
    if (row_tile == int(blockIdx.y)) return;  // the middle row of an odd number
    column_tile += row_tile;
  }
  const int64_t first = begin + int64_t(column_tile) * kTile, row = begin + int64_t(row_tile) * kTile + threadIdx.x;
  const int count = static_cast<int>(smaller<int64_t>(kTile, all.n - first));
  if (int(threadIdx.x) < count) columns->load(threadIdx.x, all, first + threadIdx.x);
  __syncthreads();
  if (row >= all.n) return;
  uint64_t bits = 0;
  if (!all.dead[row]) {
    const Corners<T> box = all.boxes[row];
    const T area = area_of(box);
    const int64_t group = all.groups ? all.groups[row] : 0;
    for (int j = row_tile == column_tile ? threadIdx.x + 1 : 0; j < count; ++j)
      bits |= uint64_t(columns->suppress(j, box, area, group, threshold)) << j;
  }
  mask[(row - begin) * kBandTiles + column_tile] = bits;
}

// Walks the band in order. One block: warp 0 resolves 64 boxes, then all warps drop what these suppress in the band.
static __global__ void __launch_bounds__(kSweepThreads)
    nms_sweep_kernel(const uint64_t* mask, const uint8_t* dead, const int64_t* order, int64_t begin, int size,
                     Kept kept) {
  SIMT_SHARED(uint32_t, removed, [kHalves]);
  SIMT_SHARED(uint64_t, chosen, [1]);
  SIMT_SHARED(bool, full, [1]);
  const int thread = threadIdx.x, lane = thread & 31, tiles = (size + kTile - 1) / kTile;
  int64_t total = kept.counts[1];
  if (total >= kept.limit) return;
  if (thread == 0) kept.counts[0] = total;
  for (int i = thread; i < kBand; i += kSweepThreads) {
    const unsigned gone = __ballot_sync(~0u, i >= size || dead[begin + i]);
    if (lane == 0) removed[i / 32] = gone;
  }
  __syncthreads();
  uint64_t low = 0, high = 0;  // the diagonal words of rows lane and lane + 32
  const auto diagonal = [&](int tile, int row) {
    const int box = tile * kTile + row;
    return box < size ? mask[int64_t(box) * kBandTiles + tile] : uint64_t(0);
  };
  if (thread < 32) low = diagonal(0, lane), high = diagonal(0, lane + 32);
  for (int tile = 0; tile < tiles; ++tile) {
    if (thread < 32) {
      uint64_t alive = ~(uint64_t(removed[2 * tile + 1]) << 32 | removed[2 * tile]), take = 0;
      for (int64_t room = kept.limit - total; alive && room; --room) {
        const int j = __ffsll(alive) - 1;
        const uint64_t row = __shfl_sync(~0u, j < 32 ? low : high, j & 31);
        take |= uint64_t(1) << j;
        alive &= ~(row | uint64_t(1) << j);
      }
      for (int j = lane; j < kTile; j += 32) {
        if (!(take >> j & 1)) continue;
        const int64_t at = total + __popcll(take & ((uint64_t(1) << j) - 1)), position = begin + tile * kTile + j;
        kept.positions[at] = position;
        kept.indices[at] = order[position];
      }
      total += __popcll(take);
      if (lane == 0) *chosen = take, *full = total >= kept.limit, kept.counts[1] = total;
      if (tile + 1 < tiles) low = diagonal(tile + 1, lane), high = diagonal(tile + 1, lane + 32);
    }
    __syncthreads();
    if (*full) return;
    // Threads side by side read words side by side; eight of them share the 64 rows.
    const uint64_t take = *chosen;
    const int word = thread % kHalves;
    if (word > 2 * tile + 1 && word < 2 * tiles) {
      const uint32_t* rows = reinterpret_cast<const uint32_t*>(mask) + int64_t(tile) * kTile * kHalves + word;
      uint32_t gone = 0;
#pragma unroll
      for (int k = 0; k < kTile; k += kSweepThreads / kHalves) {
        const int j = k + thread / kHalves;
        if (take >> j & 1) gone |= rows[int64_t(j) * kHalves];
      }
      if (gone) atomicOr(&removed[word], gone);  // the order of ORs changes nothing
    }
    __syncthreads();
  }
}

// Drops the boxes from `begin` on that a box kept in the last band suppresses. One thread a later box, the kept ones
// through shared memory.
template <typename T>
__global__ void nms_suppress_kernel(Candidates<T> all, int64_t begin, double threshold, Kept kept) {
  using Strong = SharedBoxes<T, kBlock>;
  SIMT_SHARED(Strong, strong, [1]);
  const int64_t first = kept.counts[0], last = kept.counts[1];
  if (last >= kept.limit) return;
  const int64_t i = begin + int64_t(blockIdx.x) * kBlock + threadIdx.x;
  bool undecided = i < all.n && !all.dead[i];
  const Corners<T> box = undecided ? all.boxes[i] : Corners<T>{0, 0, 0, 0};
  const T area = area_of(box);
  const int64_t group = undecided && all.groups ? all.groups[i] : 0;
  for (int64_t start = first + int64_t(blockIdx.y) * kBlock; start < last; start += int64_t(gridDim.y) * kBlock) {
    if (!__syncthreads_or(undecided)) return;
    const int count = static_cast<int>(smaller<int64_t>(kBlock, last - start));
    if (int(threadIdx.x) < count) strong->load(threadIdx.x, all, kept.positions[start + threadIdx.x]);
    __syncthreads();
    for (int k = 0; undecided && k < count; ++k) {
      if (!strong->suppress(k, box, area, group, threshold)) continue;
      all.dead[i] = 1;  // several slices may write it, all the same value
      undecided = false;
    }
  }
}

template <typename S>
void launch_nms_keys(const S* scores, int64_t stride, int64_t n, int64_t* keys, Stream stream) {
  SIMT_LAUNCH((nms_keys_kernel<S>), blocks_for(n), kBlock, 0, stream, scores, stride, n, keys);
}

// order [n] sorts the scores; all's arrays hold n, kept's min(n, limit), mask min(n, kBand) rows.
template <typename B, typename T>
void launch_nms(const B* boxes, int64_t row_stride, int64_t corner_stride, const int64_t* idxs, int64_t idx_stride,
                const int64_t* order, double threshold, Candidates<T> all, Kept kept, uint64_t* mask, Stream stream) {
  SIMT_LAUNCH((nms_gather_kernel<B, T>), blocks_for(all.n), kBlock, 0, stream, boxes, row_stride, corner_stride, idxs,
              idx_stride, order, all, kept.counts);
  for (int64_t begin = 0; begin < all.n; begin += kBand) {
    const int size = static_cast<int>(smaller<int64_t>(kBand, all.n - begin));
    const int tiles = (size + kTile - 1) / kTile;
    SIMT_LAUNCH((nms_mask_kernel<T>), dim3(tiles + 1, (tiles + 1) / 2), kTile, 0, stream, all, begin, tiles, threshold,
                kept, mask);
    SIMT_LAUNCH(nms_sweep_kernel, 1, kSweepThreads, 0, stream, mask, all.dead, order, begin, size, kept);
    const int64_t rest = all.n - begin - size;
    if (rest > 0)
      SIMT_LAUNCH((nms_suppress_kernel<T>), dim3(static_cast<unsigned>((rest + kBlock - 1) / kBlock), kSlices), kBlock,
                  0, stream, all, begin + size, threshold, kept);
  }
}

}  // namespace rpcnn
