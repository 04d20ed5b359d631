// Greedy one-to-one matching at several thresholds, as AP^r, AP^h and AP^bbox do it.
#pragma once

#include <cstdint>
#include <vector>

namespace rpcnn::metrics {

// In the given order each prediction takes, in each class and at each threshold, the free true instance that it
// overlaps most (of equal ones the first), if the IoU exceeds the threshold.
//   iou [N][G][K], NaN where undefined; occurs [G][K]; limits [T]; right [T][N][K] receives 1 where one was taken.
inline void take_greedily(const double* iou, const bool* occurs, const int64_t* order, const double* limits,
                          int64_t count, int64_t people, int64_t classes, int64_t thresholds, bool* right) {
  std::vector<bool> taken(thresholds * people * classes);
  for (int64_t rank = 0; rank < count; ++rank) {
    const int64_t n = order[rank];
    const double* mine = iou + n * people * classes;
    for (int64_t k = 0; k < classes; ++k) {
      for (int64_t t = 0; t < thresholds; ++t) {
        int64_t best = -1;
        for (int64_t g = 0; g < people; ++g)
          if (occurs[g * classes + k] && mine[g * classes + k] > limits[t] && !taken[(t * people + g) * classes + k] &&
              (best < 0 || mine[g * classes + k] > mine[best * classes + k]))
            best = g;
        right[(t * count + n) * classes + k] = best >= 0;
        if (best >= 0) taken[(t * people + best) * classes + k] = true;
      }
    }
  }
}

}  // namespace rpcnn::metrics
