// The rule by which one box suppresses another. Written once for CPU and CUDA.
#pragma once

#include "interpolate.h"

namespace rpcnn {

// Whether IoU(a, b) exceeds the threshold, for corners (x1, y1, x2, y2) in double, where float corners are exact.
// A decimal threshold such as 0.7 has no binary equal, so "exceeds" asks for 1e-12 more: an IoU equal to the threshold
// is kept whatever the dtype of the boxes. A box without area overlaps nothing.
RPCNN_HOST_DEVICE bool overlaps_more(const double* a, const double* b, double threshold) {
  const double width = (a[2] < b[2] ? a[2] : b[2]) - (a[0] > b[0] ? a[0] : b[0]);
  const double height = (a[3] < b[3] ? a[3] : b[3]) - (a[1] > b[1] ? a[1] : b[1]);
  if (!(width > 0 && height > 0)) return false;
  const double inter = width * height;
  const double joined = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter;
  return inter > threshold * joined + 1e-12 * joined;
}

}  // namespace rpcnn
