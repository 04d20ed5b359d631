// match_boxes: the best ground-truth box of each box, and the best boxes of each ground-truth box, without the matrix.
//
//   best   (only with promote_best) the largest IoU of each ground-truth box with the boxes of each of up to 128
//   pieces:
//          a thread holds eight ground-truth boxes in registers and walks over boxes; votes of warps, then of the block
//   match  a thread a box, the ground truth in shared memory, 32 at a time; each block first takes the maximum of the
//          pieces' for each ground-truth box, so that no atomic and no third launch is needed
// A maximum does not depend on the order, and IoUs round alike in both (geometry/match.h): a tie is a tie.
//
// Fewest bytes, 243,000 anchors and six people: 5.8 MB, boxes in and matches out. With the second reading of the boxes
// and the maxima of the pieces 12.6 MB in 2 launches; PyTorch's ops move 221 MB in 34.
//
// Ladder: instructions from the machine code for sm_90; nothing was timed. 36 a pair in `best`, where six ground-truth
// boxes cost as much as eight, and 45 in `match`, of which the division takes 10: 4.3 M warp instructions for the case
// above, 5 µs at the four a clock of an H100's multiprocessors; 4 µs for the bytes.
//   one thread a box, atomicMax of the bits for the best: a third launch that clears, 1.5 M atomics in the L2 cache
//   maxima of the pieces, reduced by every block of `match`: 128 x 6 reads a block, 3 a thread
#pragma once

#include "../geometry/match.h"
#include "device.cuh"

namespace rpcnn {

constexpr int kMatchPieces = 128;  // blocks of the first launch: about one an SM
constexpr int kHeldTruths = 8;     // ground-truth boxes in registers
constexpr int kSharedTruths = 32;

inline int64_t match_pieces(int64_t n) {
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  return blocks < kMatchPieces ? blocks : kMatchPieces;
}

// best [G, pieces].
template <typename T>
__global__ void match_best_kernel(const Corners<T>* boxes, int64_t n, const Corners<T>* gt_boxes, int64_t G, T* best) {
  SIMT_SHARED(T, of_warps, [kBlock / 32][kHeldTruths]);
  const int64_t first = int64_t(blockIdx.y) * kHeldTruths;
  Truth<T> truths[kHeldTruths];
  T most[kHeldTruths];
#pragma unroll
  for (int k = 0; k < kHeldTruths; ++k) {
    truths[k] = first + k < G ? truth_of(gt_boxes[first + k]) : Truth<T>{{T(0), T(0), T(0), T(0)}, T(0)};
    most[k] = T(0);
  }
  for (int64_t i = int64_t(blockIdx.x) * kBlock + threadIdx.x; i < n; i += int64_t(gridDim.x) * kBlock) {
    const Truth<T> box = truth_of(boxes[i]);
#pragma unroll
    for (int k = 0; k < kHeldTruths; ++k)
      most[k] = larger(most[k], match_iou(box.box.x1, box.box.y1, box.box.x2, box.box.y2, box.area, truths[k]));
  }
#pragma unroll
  for (int k = 0; k < kHeldTruths; ++k) {
    for (int half = 16; half > 0; half /= 2) most[k] = larger(most[k], __shfl_xor_sync(~0u, most[k], half));
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32][k] = most[k];
  }
  __syncthreads();
  if (threadIdx.x >= kHeldTruths || first + threadIdx.x >= G) return;
  T largest = T(0);
  for (int warp = 0; warp < kBlock / 32; ++warp) largest = larger(largest, of_warps[warp][threadIdx.x]);
  best[(first + threadIdx.x) * gridDim.x + blockIdx.x] = largest;
}

// best [G, pieces] is read with rule.promote_best only.
template <typename T>
__global__ void match_boxes_kernel(const Corners<T>* boxes, int64_t n, const Corners<T>* gt_boxes, int64_t G,
                                   const T* best, int pieces, MatchRule<T> rule, int64_t* matched) {
  SIMT_SHARED(Truth<T>, truths, [kSharedTruths]);
  SIMT_SHARED(T, best_of, [kSharedTruths]);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const Corners<T> none{T(0), T(0), T(0), T(0)};
  for (int64_t start = int64_t(blockIdx.x) * kBlock; start < n; start += int64_t(gridDim.x) * kBlock) {
    const int64_t i = start + threadIdx.x;
    const Corners<T> corners = i < n ? boxes[i] : none;
    const Truth<T> box = truth_of(corners);
    T overlap = T(0);
    int64_t index = G > 0 ? 0 : kBackground;
    bool promoted = false;
    for (int64_t first = 0; first < G; first += kSharedTruths) {
      const int count = static_cast<int>(G - first < kSharedTruths ? G - first : kSharedTruths);
      __syncthreads();
      for (int k = warp; k < count; k += kBlock / 32) {
        T most = T(0);
        if (rule.promote_best) {
          for (int p = lane; p < pieces; p += 32) most = larger(most, best[(first + k) * pieces + p]);
          for (int half = 16; half > 0; half /= 2) most = larger(most, __shfl_xor_sync(~0u, most, half));
        }
        if (lane > 0) continue;
        best_of[k] = most > T(0) ? most : T(2);  // 2: no IoU equals it
        truths[k] = truth_of(gt_boxes[first + k]);
      }
      __syncthreads();
      for (int k = 0; k < count; ++k) {
        const T iou = match_iou(box.box.x1, box.box.y1, box.box.x2, box.box.y2, box.area, truths[k]);
        if (iou > overlap) overlap = iou, index = first + k;
        promoted |= iou == best_of[k];
      }
    }
    if (i < n) matched[i] = rule.decide(corners, overlap, index, promoted);
  }
}

// best: scratch of G · match_pieces(n) numbers, or null without rule.promote_best.
template <typename T>
void launch_match_boxes(const Corners<T>* boxes, int64_t n, const Corners<T>* gt_boxes, int64_t G, T* best,
                        const MatchRule<T>& rule, int64_t* matched, Stream stream) {
  if (n == 0) return;
  const auto pieces = static_cast<unsigned>(match_pieces(n));
  if (rule.promote_best && G > 0) {
    const dim3 grid(pieces, static_cast<unsigned>((G + kHeldTruths - 1) / kHeldTruths));
    SIMT_LAUNCH((match_best_kernel<T>), grid, kBlock, 0, stream, boxes, n, gt_boxes, G, best);
  }
  SIMT_LAUNCH((match_boxes_kernel<T>), blocks_for(n), kBlock, 0, stream, boxes, n, gt_boxes, G, best, int(pieces), rule,
              matched);
}

}  // namespace rpcnn
