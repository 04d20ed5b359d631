// draw_samples: keys    a 32-bit sort key of each box: its kind, then its random number
//               (torch's stable sort by them)
//               take    finds where positives and negatives end by bisection, and copies the drawn
//
// Fewest bytes, 243,000 anchors: 2.9 MB of matches and random numbers in, 4 KB out. Sort keys are written once, and
// with their indices read and written in each of four passes: 27 MB, 8 µs at the speed of an H100's DRAM, less from its
// L2 cache. Three launches, the sort counted as one as torch's are. PyTorch's composition takes 19, two of them topk
// over all anchors, and 20 MB if each topk read them once; it reads them once for each digit. Counted, nothing was
// timed.
//
// Tried on paper: a radix select in one block, four passes over the keys on one multiprocessor, 60 µs; by all blocks
// with a histogram between passes, five launches and not shorter code than a sort.
#pragma once

#include "../geometry/samples.h"
#include "device.cuh"

namespace rpcnn {

static __global__ void sample_keys_kernel(const int64_t* matched, const float* random, int64_t n, bool negatives,
                                          int32_t* keys) {
  const int64_t step = int64_t(gridDim.x) * kBlock;
  for (int64_t i = int64_t(blockIdx.x) * kBlock + threadIdx.x; i < n; i += step)
    keys[i] = sample_key(matched[i], random[i], negatives);
}

// How many of the sorted keys are less than a limit.
RPCNN_HOST_DEVICE int64_t keys_below(const int32_t* sorted, int64_t n, int32_t limit) {
  int64_t low = 0, high = n;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (sorted[middle] < limit)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

// indices: of the boxes, in the order of the sorted keys.
static __global__ void take_samples_kernel(const int32_t* sorted, const int64_t* indices, const int64_t* matched,
                                           int64_t n, int64_t size, int64_t max_positive, int64_t* samples,
                                           int64_t* people) {
  const int64_t step = int64_t(gridDim.x) * kBlock;
  for (int64_t i = int64_t(blockIdx.x) * kBlock + threadIdx.x; i < size; i += step) {
    const int64_t positives = keys_below(sorted, n, kNegatives), drawable = keys_below(sorted, n, kNotDrawn);
    const int64_t place = sample_place(i, positives, drawable - positives, max_positive);
    samples[i] = place < 0 ? 0 : indices[place];
    people[i] = place < 0 ? kIgnored : matched[indices[place]];
  }
}

inline void launch_sample_keys(const int64_t* matched, const float* random, int64_t n, bool negatives, int32_t* keys,
                               Stream stream) {
  if (n) SIMT_LAUNCH(sample_keys_kernel, blocks_for(n), kBlock, 0, stream, matched, random, n, negatives, keys);
}
inline void launch_take_samples(const int32_t* sorted, const int64_t* indices, const int64_t* matched, int64_t n,
                                int64_t size, int64_t max_positive, int64_t* samples, int64_t* people, Stream stream) {
  if (size)
    SIMT_LAUNCH(take_samples_kernel, blocks_for(size), kBlock, 0, stream, sorted, indices, matched, n, size,
                max_positive, samples, people);
}

}  // namespace rpcnn
