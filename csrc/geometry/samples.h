// The order in which boxes are drawn. Written once for CPU and CUDA.
#pragma once

#include <cstring>

#include "match.h"

namespace rpcnn {

// Sort keys of 32 bits: positives from 0, negatives from kNegatives, both by their random key; then what is not drawn.
constexpr int32_t kNegatives = 1 << 30, kNotDrawn = INT32_MAX;

RPCNN_HOST_DEVICE int32_t sample_key(int64_t matched, float key, bool negatives) {
  if (matched < kBackground || (matched == kBackground && !negatives)) return kNotDrawn;
  key = key < 1.0f ? (key > 0.0f ? key : 0.0f) : 1.0f;  // NaN becomes 1, whose bits are below 2^30
  int32_t bits;
  memcpy(&bits, &key, sizeof bits);
  return matched < 0 ? kNegatives + bits : bits;
}

// Of `positives` and then `negatives` in ascending order of sort key: the place of sample i, or -1 if there is none.
RPCNN_HOST_DEVICE int64_t sample_place(int64_t i, int64_t positives, int64_t negatives, int64_t max_positive) {
  const int64_t drawn = positives < max_positive ? positives : max_positive;
  if (i < drawn) return i;
  return i - drawn < negatives ? positives + i - drawn : -1;
}

}  // namespace rpcnn
