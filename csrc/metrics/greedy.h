// Greedy one-to-one matching at several thresholds, as AP^r, AP^h and AP^bbox do it.
#pragma once

#include <cstdint>
#include <vector>

namespace rpcnn::metrics {

// In the given order each prediction takes, for each class and threshold, the unmatched true instance with the largest
// IoU (of equal ones the first), if that exceeds the threshold.
//   iou [N][G][K], NaN where undefined; occurs [G][K], the true instances; order [N]; thresholds [T];
//   matched [T][N][K] receives whether the prediction took one.
inline void take_greedily(const double* iou, const bool* occurs, const int64_t* order, const double* thresholds,
                          int64_t num_predictions, int64_t num_true, int64_t classes, int64_t num_thresholds,
                          bool* matched) {
  std::vector<bool> taken(num_thresholds * num_true * classes);
  for (int64_t rank = 0; rank < num_predictions; ++rank) {
    const int64_t n = order[rank];
    const double* own = iou + n * num_true * classes;
    for (int64_t k = 0; k < classes; ++k) {
      double largest = -1;
      for (int64_t g = 0; g < num_true; ++g)
        if (own[g * classes + k] > largest) largest = own[g * classes + k];
      for (int64_t t = 0; t < num_thresholds; ++t) {
        int64_t best = -1;
        for (int64_t g = 0; g < num_true && largest > thresholds[t]; ++g)
          if (occurs[g * classes + k] && own[g * classes + k] > thresholds[t] &&
              !taken[(t * num_true + g) * classes + k] && (best < 0 || own[g * classes + k] > own[best * classes + k]))
            best = g;
        matched[(t * num_predictions + n) * classes + k] = best >= 0;
        if (best >= 0) taken[(t * num_true + best) * classes + k] = true;
      }
    }
  }
}

}  // namespace rpcnn::metrics
