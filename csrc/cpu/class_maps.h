// What the ops on class logits share: planes of few pixels that stay in the L1 cache, arg-max, counts per class.
#pragma once

#include <array>
#include <limits>

#include "common.h"
#include "vectors.h"

namespace rpcnn {

// Pixels whose planes of all classes stay in the L1 cache: 16 KB of floats.
inline int64_t pixels_in_cache(int64_t K) {
  return std::max<int64_t>(kLanes, 4096 / K / kLanes * kLanes);
}

// planes[k · plane + i] = class k of pixel i, pixels being `step` elements apart; by blocks of eight.
template <typename T, typename A>
RPCNN_CLONES void planes_of(const T* pixels, int64_t step, int64_t K, int64_t count, A* planes, int64_t plane) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    int64_t k = 0;
    if constexpr (std::is_same_v<T, A>)
      for (; k < K && K >= kLanes; k += kLanes) {
        const int64_t at = std::min(k, K - kLanes);  // the last block may overlap the one before
        transpose<A>(pixels + i * step + at, step, planes + at * plane + i, plane);
      }
    for (; k < K; ++k)
      for (int64_t lane = 0; lane < kLanes; ++lane) planes[k * plane + i + lane] = A(pixels[(i + lane) * step + k]);
  }
  for (; i < count; ++i)
    for (int64_t k = 0; k < K; ++k) planes[k * plane + i] = A(pixels[i * step + k]);
}

// The way back.
template <typename T, typename A>
RPCNN_CLONES void pixels_of(const A* planes, int64_t plane, int64_t K, int64_t count, T* pixels, int64_t step) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    int64_t k = 0;
    if constexpr (std::is_same_v<T, A>)
      for (; k < K && K >= kLanes; k += kLanes) {
        const int64_t at = std::min(k, K - kLanes);
        transpose<A>(planes + at * plane + i, plane, pixels + i * step + at, step);
      }
    for (; k < K; ++k)
      for (int64_t lane = 0; lane < kLanes; ++lane) pixels[(i + lane) * step + k] = T(planes[k * plane + i + lane]);
  }
  for (; i < count; ++i)
    for (int64_t k = 0; k < K; ++k) pixels[i * step + k] = T(planes[k * plane + i]);
}

// best[i] = the largest logit, label[i] = the first class that has it; NaN loses to every number.
template <typename T, typename A>
RPCNN_CLONES void argmax_planes(const T* logits, int64_t K, int64_t plane, int64_t count, A* __restrict best,
                                int32_t* __restrict label) {
  for (int64_t i = 0; i < count; ++i) best[i] = -std::numeric_limits<A>::infinity(), label[i] = 0;
  for (int64_t k = 0; k < K; ++k) {
    const T* from = logits + k * plane;
    for (int64_t i = 0; i < count; ++i) {
      const A value = A(from[i]);
      const bool more = value > best[i];
      label[i] = more ? int32_t(k) : label[i];
      best[i] = more ? value : best[i];
    }
  }
}

// Counts per class; four copies, so that equal neighbors do not wait for each other's increments.
class Counts {
 public:
  explicit Counts(int64_t K) : K_(K), stride_(K + 1), values_(4 * 3 * (K + 1), 0) {}

  // Pixels of negative target are not counted.
  void add(const int32_t* prediction, const int32_t* target, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      if (target[i] < 0) continue;
      int64_t* copy = values_.data() + (i & 3) * 3 * stride_;
      ++copy[target[i]];
      ++copy[stride_ + prediction[i]];
      copy[2 * stride_ + target[i]] += prediction[i] == target[i];
    }
  }

  // Of all classes, the pixels that were counted.
  int64_t pixels() const {
    int64_t sum = 0;
    for (int64_t k = 0; k < K_; ++k) sum += of(k)[0];
    return sum;
  }

  float mean_iou() const {
    double total = 0;
    int64_t present = 0;
    for (int64_t k = 0; k < K_; ++k) {
      const auto [truth, predicted, right] = of(k);
      const int64_t joined = truth + predicted - right;
      if (joined == 0) continue;
      total += double(right) / double(joined);
      ++present;
    }
    return present ? float(total / double(present)) : 0.0f;
  }

 private:
  // Pixels of class k in the target, in the prediction, in both.
  std::array<int64_t, 3> of(int64_t k) const {
    std::array<int64_t, 3> sums{};
    for (int64_t copy = 0; copy < 4; ++copy)
      for (int64_t which = 0; which < 3; ++which) sums[which] += values_[(copy * 3 + which) * stride_ + k];
    return sums;
  }

  int64_t K_, stride_;
  std::vector<int64_t> values_;
};

}  // namespace rpcnn
