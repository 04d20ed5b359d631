// Pixels of a RoI counted per class, right, missed and wrong (their sum is the union), and the mean IoU made of them.
//
// Several blocks share a RoI. Each counts its pixels in shared memory: neighboring pixels mostly share a class, so that
// a single histogram would serialize the warp; each lane has its own column (its own bank) of up to 32 copies. A block
// writes its sums as one row [3][K] of a table, and mean_iou_kernel adds the rows of each RoI. Counts are integers, so
// the order of additions does not matter. Rows instead of atomics: nothing has to be zeroed first, which would be the
// second launch that mean_iou_kernel is, and no block has to find out whether it is the last.
#pragma once

#include "device.cuh"

namespace rpcnn {

constexpr int kCountBytes = 48 << 10;                                    // shared memory that every GPU has
constexpr int kMostClasses = kCountBytes / (3 * int(sizeof(uint32_t)));  // 4096, with a single copy

enum Count { kRight, kMissed, kWrong };

// A block's counts in its shared memory. Between the three steps the block needs a barrier.
struct ClassCounts {
  int K, copies;

  // copies: the power of two up to 32 that takes half of the shared memory, or one; K <= kMostClasses.
  explicit ClassCounts(int K) : K(K), copies(32) {
    while (copies > 1 && copies * K > kMostClasses / 2) copies /= 2;
  }
  size_t bytes() const { return 3 * K * copies * sizeof(uint32_t); }

  __device__ void clear(uint32_t* counts) const {
    for (int i = threadIdx.x; i < 3 * K * copies; i += blockDim.x) counts[i] = 0;
  }
  __device__ void add(uint32_t* counts, int which, int label) const {
    atomicAdd(&counts[(which * K + label) * copies + (threadIdx.x & (copies - 1))], 1u);
  }
  // A pixel of class `truth`; a label outside 0..K-1 matches no class.
  __device__ void add_pixel(uint32_t* counts, int truth, int64_t label) const {
    if (label == truth) return add(counts, kRight, truth);
    add(counts, kMissed, truth);
    if (label >= 0 && label < K) add(counts, kWrong, static_cast<int>(label));
  }
  __device__ void store(const uint32_t* counts, uint32_t* row) const {
    for (int i = threadIdx.x; i < 3 * K; i += blockDim.x) {
      uint32_t sum = 0;
      for (int c = 0; c < copies; ++c) sum += counts[i * copies + ((c + threadIdx.x) & (copies - 1))];  // bank by bank
      row[i] = sum;
    }
  }
};

// What a RoI's counts say.
struct RoiScore {
  float miou;
  int64_t pixels;  // that were counted
};

// By a whole block, for its thread 0; counts: 3 K numbers of shared memory; rows [pieces][3][K] of the RoI.
template <int kThreads>
__device__ RoiScore score_of_rows(const uint32_t* rows, int K, int pieces, uint32_t* counts) {
  for (int i = threadIdx.x; i < 3 * K; i += kThreads) counts[i] = 0;
  __syncthreads();
  const uint32_t numbers = uint32_t(pieces) * 3 * K;
  for (uint32_t i = threadIdx.x; i < numbers; i += kThreads) atomicAdd(&counts[i % (3 * K)], rows[i]);
  __syncthreads();
  RoiScore score{};
  if (threadIdx.x >= 32) return score;
  // One lane per class; the sum then runs in the order of the classes, as on the CPU.
  double total = 0;
  int present = 0;
  for (int first = 0; first < K; first += 32) {
    const int k = first + threadIdx.x;
    const uint32_t right = k < K ? counts[kRight * K + k] : 0;
    const uint32_t truth = k < K ? right + counts[kMissed * K + k] : 0;
    const uint32_t joined = k < K ? truth + counts[kWrong * K + k] : 0;
    const double iou = joined ? double(right) / double(joined) : 0.0;
    present += __popc(__ballot_sync(~0u, joined > 0));
    for (int lane = 0; lane < 32; ++lane) {
      total += __shfl_sync(~0u, iou, lane);
      score.pixels += __shfl_sync(~0u, truth, lane);
    }
  }
  score.miou = present ? float(total / double(present)) : 0.0f;
  return score;
}

// One block a RoI; rows [RoI][pieces][3][K].
template <int kThreads>
__global__ void __launch_bounds__(kThreads) mean_iou_kernel(const uint32_t* rows, int K, int pieces, float* out) {
  SIMT_DYN_SHARED(uint32_t, counts);
  const int64_t roi = blockIdx.x;
  const RoiScore score = score_of_rows<kThreads>(rows + roi * pieces * 3 * K, K, pieces, counts);
  if (threadIdx.x == 0) out[roi] = score.miou;
}

}  // namespace rpcnn
