// The rule by which one box suppresses another. Written once for CPU and CUDA.
#pragma once

#include "interpolate.h"

namespace rpcnn {

template <typename T>
struct alignas(4 * sizeof(T)) Corners {
  T x1, y1, x2, y2;
};

// Of numbers, never NaN: a GPU has one instruction for its own min and max, the comparison would take two.
template <typename T>
RPCNN_HOST_DEVICE T smaller(T a, T b) {
#if defined(__CUDA_ARCH__)
  return min(a, b);
#else
  return b < a ? b : a;
#endif
}
template <typename T>
RPCNN_HOST_DEVICE T larger(T a, T b) {
#if defined(__CUDA_ARCH__)
  return max(a, b);
#else
  return a < b ? b : a;
#endif
}
template <typename T>
RPCNN_HOST_DEVICE T area_of(const Corners<T>& box) {
  return larger(box.x2 - box.x1, T(0)) * larger(box.y2 - box.y1, T(0));
}

// A box with a corner that is not finite counts as empty: it overlaps nothing.
template <typename T>
RPCNN_HOST_DEVICE Corners<T> finite_or_empty(T x1, T y1, T x2, T y2) {
  const T zero = (x1 - x1) + (y1 - y1) + (x2 - x2) + (y2 - y2);  // NaN where one is infinite or NaN
  return zero == T(0) ? Corners<T>{x1, y1, x2, y2} : Corners<T>{0, 0, 0, 0};
}

// The rule: a and b (finite; float corners are exact in double) touch, and IoU > threshold · (1 + 1e-12). A decimal
// threshold such as 0.7 has no exact binary value; the 1e-12 makes an IoU that equals it count as equal, whatever the
// dtype of the boxes. Lengths are divided by those of the larger box, so that no area overflows or underflows. A box
// without area overlaps nothing.
RPCNN_HOST_DEVICE bool overlaps_more(const Corners<double>& a, const Corners<double>& b, double threshold) {
  const double width = smaller(a.x2, b.x2) - larger(a.x1, b.x1), height = smaller(a.y2, b.y2) - larger(a.y1, b.y1);
  if (!(width > 0 && height > 0)) return false;
  const double a_width = a.x2 - a.x1, a_height = a.y2 - a.y1, b_width = b.x2 - b.x1, b_height = b.y2 - b.y1;
  const double wide = larger(a_width, b_width), tall = larger(a_height, b_height);
  const double inter = (width / wide) * (height / tall);
  const double joined = (a_width / wide) * (a_height / tall) + (b_width / wide) * (b_height / tall) - inter;
  return inter > threshold * (1 + 1e-12) * joined;
}

// Bounds on the error of inter − threshold · union: `margin`, for rounding, as a fraction of the union; `least`, for
// underflow. In float the intersection is exact to 2e-7 of the union, the union to 8e-7 and the threshold to 1e-7; the
// margin is more than three times their sum. In double it mostly covers the rule's own 1e-12.
template <typename T>
struct Rounding;
template <>
struct Rounding<float> {
  static constexpr float margin = 4e-6f, least = 1e-30f;
};
template <>
struct Rounding<double> {
  static constexpr double margin = 1e-11, least = 1e-290;
};

struct Overlap {
  bool more, unsure;
};

// The same test in the arithmetic of T, without a division: `more` if the rule certainly holds; `unsure` if rounding,
// overflow or underflow could change the result (use overlaps_more); neither if it certainly does not hold.
template <typename T>
RPCNN_HOST_DEVICE Overlap overlap(const Corners<T>& a, T a_area, const Corners<T>& b, T b_area, T threshold) {
  const T width = smaller(a.x2, b.x2) - larger(a.x1, b.x1), height = smaller(a.y2, b.y2) - larger(a.y1, b.y1);
  const T inter = larger(width, T(0)) * larger(height, T(0)), joined = a_area + b_area - inter;
  const T excess = inter - threshold * joined, margin = Rounding<T>::margin * joined + Rounding<T>::least;
  const bool touching = (width > T(0)) & (height > T(0));
  // After an overflow neither comparison holds: one side is NaN, or both are infinite.
  return {bool(touching & (excess > margin)), bool(touching & !(excess > margin) & !(excess < -margin))};
}

// The cheapest necessary condition: false only if the rule certainly does not hold. Of two boxes apart in both
// directions the product of the lengths is positive, of boxes apart in y alone it is negative: one test of the width is
// enough.
template <typename T>
RPCNN_HOST_DEVICE bool may_overlap(const Corners<T>& a, T a_area, const Corners<T>& b, T b_area, T threshold) {
  const T width = smaller(a.x2, b.x2) - larger(a.x1, b.x1), height = smaller(a.y2, b.y2) - larger(a.y1, b.y1);
  const T inter = width * height, joined = a_area + b_area - inter;
  const T excess = inter - threshold * joined, margin = Rounding<T>::margin * joined + Rounding<T>::least;
  return (width > T(0)) & !(excess < -margin);
}

}  // namespace rpcnn
