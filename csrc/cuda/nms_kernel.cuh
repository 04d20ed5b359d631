// nms: greedy suppression within groups, best score first, ties in input order.
//
// Two stable sorts, by score and then by bucket, a 16-bit number made of the group, bring the boxes of a group into one
// run, best first. Groups may share a bucket; a box suppresses another only if their groups are the same. Then, in
// bands of 8192 boxes:
//   mask      for all pairs of a run at once: which better boxes suppress this one, in words of 64
//   sweep     one block a run walks its tiles of 64 boxes in order: a tile is resolved inside a warp by votes
//   suppress  the boxes kept from the one run that goes on into the next band against the rest of that run
// and at the end
//   collect   from the kept boxes as bits to their indices in the order of scores, at most max_keep of them
// Launches depend on the number of boxes alone, and everything stays on the device. The mask takes at most 8 MB. A run
// stops once it has kept max_keep boxes: what follows in it can no longer be among the best of all runs. Tests run in
// float with a margin for rounding; the few inside the margin are decided in double (geometry/boxes.h).
//
// Ladder: instructions executed, from the machine code for sm_90. Nothing was timed: clocks and µs are estimates for an
// H100 at 1.755 GHz, with 4 warp instructions a clock at most and 300 clocks for a read from L2.
//   mask: 46 instructions a pair, 18 if of two groups, for every pair of a band
//     16.1  a filter in 64 unrolled tests (comparisons instead of min and max: 6 more), the full test for the few pairs
//           that pass it, and only pairs of tiles that share a run
//   sweep: one block; 33 instructions and a chain of 115 clocks a kept box; a tile also waits twice in a row for global
//   memory, to translate positions to indices, and at two barriers
//     123 + 17 a turn of the votes, for a tile; a turn is about 48 clocks; proposals need 1.1 to 1.6 turns on average,
//           3 at most. About 460 clocks a tile, most of them the wait for the mask; 700 in runs of thousands, which
//           read 32 KB a tile. One barrier, no translation, a block a run.
//           A loop over the columns of a warp instead of loads at once waited for each of up to five in turn.
//   suppress: 52 instructions a pair
//     28    with the same filter
//   sorts: 8 passes over keys of 64 bits
//     4 + 2 passes, by 32-bit keys and by buckets. By the group itself 8 instead of 2; 8-bit buckets would take one and
//           make groups share runs from the 257th on.
//   collect, new: two waits a step of 4096 ranks; with the loads inside the loop over votes there were eight
//   RPN in training, 17,482 boxes in 10 groups: before 1,000 to 1,100 µs, of which the sweep 750
//     95    sorts 35; keys, buckets, gather 8; mask 17 (4,235 pairs of tiles); sweep 24 (32, 33, 13 tiles in a row);
//           suppress 6; collect 4. Bands of 4096 would sweep five times, 37; of 16,384 twice, 12, with 32 MB of mask.
//   12,000 boxes in one group: before 650 to 750 µs
//     140   sorts, keys, gather 25; mask 35; sweep 70 (128 and 60 tiles); suppress 8; collect 3
#pragma once

#include <cstring>
#include <type_traits>

#include "../geometry/boxes.h"
#include "device.cuh"

namespace rpcnn {

constexpr int kTile = 64;                  // boxes of one mask word, and of one step of the sweep
constexpr int kBand = 8192;                // boxes whose mask is in memory at one time
constexpr int kBandTiles = kBand / kTile;  // 128
constexpr int kSweepThreads = 1024;
constexpr int kCollectThreads = 1024;
constexpr int kSlices = 8;  // blocks that share the kept boxes when these are tested against the same later boxes

// Keys of scores: 32 bits for float and half types.
template <typename S>
using nms_key_t = std::conditional_t<std::is_same_v<S, double>, int64_t, int32_t>;

// How the boxes are sorted. A rank is a place in the order of scores, a position one in the order of (bucket, score).
struct Order {
  const int64_t* best;     // [n] the box of each rank
  const int64_t* ranks;    // [n] the rank at each position; null: all one group, rank and position agree
  const int16_t* buckets;  // [n] the bucket at each position; null with ranks
  RPCNN_HOST_DEVICE bool together(int64_t a, int64_t b) const { return !buckets || buckets[a] == buckets[b]; }
};

// The boxes by position. Those of one bucket, side by side, are a run.
template <typename T>
struct Candidates {
  Corners<T>* boxes;
  int64_t* groups;   // null: all one group
  uint8_t* dead;     // suppressed by a box of an earlier band
  uint64_t* starts;  // [tiles] the boxes that begin a run
  int32_t* places;   // the position of each rank; null with groups
  int64_t n;
};

// What is kept so far, all of it on the device.
struct Kept {
  uint64_t* boxes;         // [tiles] by position
  const int64_t* carried;  // how many of the run that goes on from the band before
  int64_t* carry;          // how many of the run that goes on into the next band
  int64_t limit;
};

// Integers that ascend where scores descend; NaN last, -0 equal to 0.
template <typename S>
__global__ void nms_keys_kernel(const S* scores, int64_t stride, int64_t n, nms_key_t<S>* keys) {
  using T = device_accumulate_t<S>;
  using Key = nms_key_t<S>;
  constexpr Key kLast = static_cast<Key>(sizeof(Key) == 8 ? INT64_MAX : INT32_MAX);
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) {
    const T score = T(scores[i * stride]) + T(0);  // -0 becomes 0
    Key bits;
    memcpy(&bits, &score, sizeof bits);
    keys[i] = score != score ? kLast : (bits < 0 ? bits & kLast : ~bits);
  }
}

// The bucket of each rank.
static __global__ void nms_buckets_kernel(const int64_t* idxs, int64_t stride, const int64_t* best, int64_t n,
                                          int16_t* buckets) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) {
    const auto group = static_cast<uint64_t>(idxs[best[i] * stride]);
    buckets[i] = static_cast<int16_t>(group ^ group >> 16 ^ group >> 32 ^ group >> 48);
  }
}

template <typename B, typename T>
__global__ void nms_gather_kernel(const B* boxes, int64_t row_stride, int64_t corner_stride, const int64_t* idxs,
                                  int64_t idx_stride, Order order, Candidates<T> to, uint64_t* kept) {
  const int64_t step = int64_t(gridDim.x) * kBlock, padded = (to.n + kTile - 1) / kTile * kTile;
  for (int64_t first = int64_t(blockIdx.x) * kBlock; first < padded; first += step) {
    const int64_t i = first + threadIdx.x;
    const unsigned starts = __ballot_sync(~0u, i < to.n && (i == 0 || !order.together(i - 1, i)));
    if (i % 32 == 0 && i < padded) {
      reinterpret_cast<uint32_t*>(to.starts)[i / 32] = starts;
      reinterpret_cast<uint32_t*>(kept)[i / 32] = 0;
    }
    if (i >= to.n) continue;
    const int64_t rank = order.ranks ? order.ranks[i] : i, from = order.best[rank];
    const B* box = boxes + from * row_stride;
    to.boxes[i] =
        finite_or_empty(T(box[0]), T(box[corner_stride]), T(box[2 * corner_stride]), T(box[3 * corner_stride]));
    to.dead[i] = 0;
    if (!to.groups) continue;
    to.groups[i] = idxs[from * idx_stride];
    to.places[rank] = static_cast<int32_t>(i);
  }
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
  // The filter: false for nearly all boxes, and only if the box in the slot certainly does not suppress this one.
  RPCNN_HOST_DEVICE bool may_suppress(int slot, const Corners<T>& box, T area, T threshold) const {
    return may_overlap(boxes[slot], areas[slot], box, area, threshold);
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

// mask[row tile][column tile][box of the column tile]: which boxes of the row tile, among those before it, suppress it.
// One block of 64 threads a pair of tiles on or above the diagonal. Row r has tiles - r of them; with row
// tiles - 1 - r that makes tiles + 1, the width of the grid. Pairs of tiles without a common run are left out.
template <typename T>
__global__ void nms_mask_kernel(Candidates<T> all, Order order, int64_t begin, int tiles, double threshold, Kept kept,
                                uint64_t* mask) {
  using Rows = SharedBoxes<T, kTile>;
  SIMT_SHARED(Rows, rows, [1]);
  int row_tile = blockIdx.y, column_tile = row_tile + blockIdx.x;
  if (column_tile >= tiles) {
    column_tile -= tiles;  // steps into the mirrored row, counted from its diagonal: blockIdx.x - (tiles - row_tile)
    row_tile = tiles - 1 - row_tile;
    if (row_tile == int(blockIdx.y)) return;  // the middle row of an odd number
    column_tile += row_tile;
  }
  const bool diagonal = row_tile == column_tile;
  const int64_t row = begin + int64_t(row_tile) * kTile, column = begin + int64_t(column_tile) * kTile;
  if (!diagonal && !order.together(row + kTile - 1, column)) return;
  // Nothing is needed of a run that has its full number from earlier bands.
  if (begin > 0 && *kept.carried >= kept.limit &&
      order.together(begin - 1, smaller<int64_t>(column + kTile, all.n) - 1))
    return;
  if (row + threadIdx.x < all.n) rows->load(threadIdx.x, all, row + threadIdx.x);
  __syncthreads();
  const int64_t i = column + threadIdx.x;
  uint64_t bits = 0;
  if (i < all.n && !all.dead[i]) {
    const Corners<T> box = all.boxes[i];
    const T area = area_of(box), level = T(threshold);
    const int64_t group = all.groups ? all.groups[i] : 0;
    uint64_t rest = 0;
    for (int half = 0; half < kTile; half += 32) {
      uint32_t some = 0;
#pragma unroll
      for (int j = 0; j < 32; ++j)
        if (rows->may_suppress(half + j, box, area, level)) some |= uint32_t(1) << j;
      rest |= uint64_t(some) << half;
    }
    if (diagonal) rest &= (uint64_t(1) << threadIdx.x) - 1;
    for (; rest; rest &= rest - 1) {
      const int j = __ffsll(rest) - 1;
      bits |= uint64_t(rows->suppress(j, box, area, group, threshold)) << j;
    }
  }
  mask[(row_tile * tiles + column_tile) * kTile + threadIdx.x] = bits;
}

// The mask words of a tile's boxes `lane` and `lane + 32`.
struct Words {
  uint64_t low, high;
};
// The boxes of the tile whose word has a bit of `by`. The whole warp calls it and gets the same answer.
inline __device__ uint64_t boxes_struck(const Words& words, uint64_t by) {
  const unsigned low = __ballot_sync(~0u, (words.low & by) != 0), high = __ballot_sync(~0u, (words.high & by) != 0);
  return uint64_t(high) << 32 | low;
}

// Walks the runs in order, 64 boxes a step. A block takes the runs that begin in one tile; only the last of them can
// reach the next tile, so block and tile have one number. In each step warp 0 resolves a tile while the other warps
// drop what the tile before suppresses in all later ones but the next; for that one warp 0 does it at once.
static __global__ void __launch_bounds__(kSweepThreads)
    nms_sweep_kernel(const uint64_t* mask, const uint8_t* dead, const uint64_t* starts, int64_t begin, int size,
                     Kept kept) {
  constexpr int warps = kSweepThreads / 32, kShare = (kBandTiles - 1) / (warps - 1) + 1;
  SIMT_SHARED(uint64_t, removed, [kBandTiles]);
  SIMT_SHARED(uint64_t, chosen, [2]);  // by the parity of the step, so that one barrier a step is enough
  SIMT_SHARED(bool, full, [2]);
  SIMT_SHARED(int, end, [1]);
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
  const int tiles = (size + kTile - 1) / kTile, first = blockIdx.x;
  dead += begin, starts += begin / kTile, kept.boxes += begin / kTile;
  const uint64_t starting = starts[first];
  if (!starting && first > 0) return;            // the first tile also has the run that goes on from the band before
  int64_t total = starting ? 0 : *kept.carried;  // of the last run of this block
  if (threadIdx.x == 0) *end = size;
  __syncthreads();
  if (const int t = first + 1 + threadIdx.x; t < tiles && starts[t]) atomicMin(end, t * kTile + __ffsll(starts[t]) - 1);
  __syncthreads();
  const int from = first * kTile + (first > 0 ? __ffsll(starting) - 1 : 0), until = *end, last = (until - 1) / kTile;
#pragma unroll 1
  for (int t = first + warp; t <= last; t += warps) {
    const auto gone = [&](int i) { return uint64_t(i < from || i >= until || dead[i]); };
    const uint64_t bits = boxes_struck({gone(t * kTile + lane), gone(t * kTile + lane + 32)}, 1);
    if (lane == 0) removed[t] = bits;
  }
  __syncthreads();
  const auto words = [&](int row, int column) {
    if (column > last) return Words{0, 0};
    const uint64_t* at = mask + (row * tiles + column) * kTile + lane;
    return Words{at[0], at[32]};
  };
  Words own_ahead{}, next_ahead{};  // of a tile in itself, and of the next tile in it
  uint64_t dropped = 0;             // in this tile, by the one before
  if (warp == 0) own_ahead = words(first, first), next_ahead = words(first, first + 1);
  for (int t = first; t <= last && total < kept.limit; ++t) {
    if (warp == 0) {
      const Words own = own_ahead, next = next_ahead;
      own_ahead = words(t + 1, t + 1), next_ahead = words(t + 1, t + 2);
      // Whether a box is kept depends on better boxes only, so each turn settles at least one more of them; it takes as
      // many turns as the longest chain of boxes in which each suppresses the next.
      const uint64_t alive = ~(removed[t] | dropped);
      uint64_t take = alive;
      for (uint64_t before = 0; take != before;) before = take, take = alive & ~boxes_struck(own, before);
      dropped = boxes_struck(next, take);
      // The first tile also has runs that end in it.
      const bool several = t == first && starting;
      total += __popcll(several ? take >> (63 - __clzll(starting)) : take);
      if (lane == 0) {
        chosen[t & 1] = take, full[t & 1] = total >= kept.limit;
        if (take) atomicOr(reinterpret_cast<unsigned long long*>(kept.boxes + t), take);  // two blocks share a tile
      }
    } else if (t > first) {
      const uint64_t take = chosen[(t - 1) & 1];
      Words share[kShare];  // all on their way before the first is needed
#pragma unroll
      for (int k = 0; k < kShare; ++k) share[k] = words(t - 1, t + warp + k * (warps - 1));
#pragma unroll
      for (int k = 0; k < kShare; ++k) {
        const int column = t + warp + k * (warps - 1);
        if (column > last) break;
        const uint64_t bits = boxes_struck(share[k], take);
        if (lane == 0) removed[column] |= bits;
      }
    }
    __syncthreads();
    if (full[t & 1]) break;
  }
  if (threadIdx.x == 0 && until == size) *kept.carry = total;
}

// Drops the boxes from `begin` on that a kept box of the band before suppresses: those of the run that goes on. One
// thread a later box, the kept ones through shared memory.
template <typename T>
__global__ void nms_suppress_kernel(Candidates<T> all, Order order, int64_t begin, int64_t band, double threshold,
                                    Kept kept) {
  using Strong = SharedBoxes<T, kBlock>;
  SIMT_SHARED(Strong, strong, [1]);
  if (*kept.carry >= kept.limit) return;
  const int64_t i = begin + int64_t(blockIdx.x) * kBlock + threadIdx.x;
  bool undecided = i < all.n && order.together(begin - 1, i) && !all.dead[i];
  const Corners<T> box = undecided ? all.boxes[i] : Corners<T>{0, 0, 0, 0};
  const T area = area_of(box);
  const int64_t group = undecided && all.groups ? all.groups[i] : 0;
  const int word = threadIdx.x / kTile, bit = threadIdx.x % kTile;
  for (int64_t start = begin - band + int64_t(blockIdx.y) * kBlock; start < begin;
       start += int64_t(gridDim.y) * kBlock) {
    if (!order.together(start + kBlock - 1, begin - 1)) continue;
    if (!__syncthreads_or(undecided)) return;
    int slot = 0, count = 0;
    for (int w = 0; w < kBlock / kTile; ++w) {
      const uint64_t bits = kept.boxes[start / kTile + w];
      const uint64_t before = w < word ? bits : w > word ? 0 : bits & ((uint64_t(1) << bit) - 1);
      slot += __popcll(before), count += __popcll(bits);
    }
    if (kept.boxes[start / kTile + word] >> bit & 1) strong->load(slot, all, start + threadIdx.x);
    __syncthreads();
    for (int k = 0; undecided && k < count; ++k) {
      if (!strong->may_suppress(k, box, area, T(threshold))) continue;
      if (!strong->suppress(k, box, area, group, threshold)) continue;
      all.dead[i] = 1;  // several slices may write it, all the same value
      undecided = false;
    }
  }
}

// The kept boxes of all runs in the order of their scores, at most `limit`, then -1 to the end of the `slots`. One
// block; a step takes 4096 ranks, 128 a warp.
static __global__ void __launch_bounds__(kCollectThreads)
    nms_collect_kernel(Order order, const int32_t* places, int64_t n, Kept kept, int64_t slots, int64_t* indices,
                       int64_t* number) {
  constexpr int kWarps = kCollectThreads / 32, kTurns = 4, kStep = kCollectThreads * kTurns;
  SIMT_SHARED(int, counts, [2 * kWarps]);  // by the parity of the step
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
  int64_t total = 0;
  int parity = 0;
  for (int64_t start = 0; start < n && total < kept.limit; start += kStep, parity ^= 1) {
    const int64_t mine = start + warp * (32 * kTurns) + lane;
    // Loads in two rounds, all of a round on their way before the first is needed.
    int64_t box[kTurns], at[kTurns];
    uint64_t word[kTurns];
#pragma unroll
    for (int q = 0; q < kTurns; ++q) {
      at[q] = smaller<int64_t>(mine + 32 * q, n - 1);
      box[q] = order.best[at[q]];
      if (places) at[q] = places[at[q]];
    }
#pragma unroll
    for (int q = 0; q < kTurns; ++q) word[q] = kept.boxes[at[q] / kTile];
    unsigned votes[kTurns];
    int count = 0;
#pragma unroll
    for (int q = 0; q < kTurns; ++q) {
      votes[q] = __ballot_sync(~0u, mine + 32 * q < n && (word[q] >> at[q] % kTile & 1));
      count += __popc(votes[q]);
    }
    if (lane == 0) counts[parity * kWarps + warp] = count;
    __syncthreads();
    // Two sums in one: of all warps, and of those before this one. Neither exceeds kStep.
    const int other = counts[parity * kWarps + lane];
    int sums = other << 16 | (lane < warp ? other : 0);
    for (int step = 16; step; step /= 2) sums += __shfl_xor_sync(~0u, sums, step);
    int64_t to = total + (sums & 0xffff);
#pragma unroll
    for (int q = 0; q < kTurns; ++q) {
      const int64_t slot = to + __popc(votes[q] & ((1u << lane) - 1));
      if (votes[q] >> lane & 1 && slot < kept.limit) indices[slot] = box[q];
      to += __popc(votes[q]);
    }
    total += sums >> 16;
  }
  total = smaller(total, kept.limit);
  for (int64_t i = total + threadIdx.x; i < slots; i += kCollectThreads) indices[i] = -1;
  if (threadIdx.x == 0) *number = total;
}

template <typename S>
void launch_nms_keys(const S* scores, int64_t stride, int64_t n, nms_key_t<S>* keys, Stream stream) {
  SIMT_LAUNCH((nms_keys_kernel<S>), blocks_for(n), kBlock, 0, stream, scores, stride, n, keys);
}

inline void launch_nms_buckets(const int64_t* idxs, int64_t stride, const int64_t* best, int64_t n, int16_t* buckets,
                               Stream stream) {
  SIMT_LAUNCH(nms_buckets_kernel, blocks_for(n), kBlock, 0, stream, idxs, stride, best, n, buckets);
}

inline int64_t nms_tiles(int64_t n) {
  return (n + kTile - 1) / kTile;
}
// Words of the mask of one band.
inline int64_t nms_mask_words(int64_t n, int64_t band = kBand) {
  const int64_t tiles = nms_tiles(smaller<int64_t>(n, band));
  return tiles * tiles * kTile;
}

// all's arrays hold n, or the tiles of n; carried holds 2, indices max(slots, limit). band: a multiple of kBlock, at
// most kBand.
template <typename B, typename T>
void launch_nms(const B* boxes, int64_t row_stride, int64_t corner_stride, const int64_t* idxs, int64_t idx_stride,
                Order order, double threshold, int64_t band, Candidates<T> all, uint64_t* mask, uint64_t* kept_boxes,
                int64_t* carried, int64_t limit, int64_t slots, int64_t* indices, int64_t* number, Stream stream) {
  Kept kept{kept_boxes, carried, carried + 1, limit};
  SIMT_LAUNCH((nms_gather_kernel<B, T>), blocks_for(all.n), kBlock, 0, stream, boxes, row_stride, corner_stride, idxs,
              idx_stride, order, all, kept.boxes);
  for (int64_t begin = 0; begin < all.n; begin += band) {
    const int size = static_cast<int>(smaller<int64_t>(band, all.n - begin));
    const int tiles = static_cast<int>(nms_tiles(size));
    SIMT_LAUNCH((nms_mask_kernel<T>), dim3(tiles + 1, (tiles + 1) / 2), kTile, 0, stream, all, order, begin, tiles,
                threshold, kept, mask);
    SIMT_LAUNCH(nms_sweep_kernel, tiles, kSweepThreads, 0, stream, mask, all.dead, all.starts, begin, size, kept);
    const int64_t rest = all.n - begin - size;
    if (rest > 0)
      SIMT_LAUNCH((nms_suppress_kernel<T>), dim3(static_cast<unsigned>((rest + kBlock - 1) / kBlock), kSlices), kBlock,
                  0, stream, all, order, begin + size, band, threshold, kept);
    kept = {kept.boxes, kept.carry, kept.carry == carried ? carried + 1 : carried, limit};
  }
  SIMT_LAUNCH(nms_collect_kernel, 1, kCollectThreads, 0, stream, order, all.places, all.n, kept, slots, indices,
              number);
}

}  // namespace rpcnn
