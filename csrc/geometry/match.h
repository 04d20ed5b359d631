// The overlap by which boxes are matched with ground truth. Written once for CPU and CUDA.
//
// Every product and sum is rounded by itself, as by PyTorch's ops: ties of the best anchors, and IoUs at a threshold,
// are the same on all devices.
#pragma once

#include "boxes.h"

namespace rpcnn {

constexpr int64_t kBackground = -1, kIgnored = -2;

// Finite, with an area.
template <typename T>
RPCNN_HOST_DEVICE bool has_area(const Corners<T>& box) {
  const T zero = (box.x1 - box.x1) + (box.y1 - box.y1) + (box.x2 - box.x2) + (box.y2 - box.y2);  // else NaN
  return (zero == T(0)) & (box.x2 > box.x1) & (box.y2 > box.y1);
}

// A box and its area; of a box that has none, zeros: it overlaps nothing.
template <typename T>
struct Truth {
  Corners<T> box;
  T area;
};
template <typename T>
RPCNN_HOST_DEVICE Truth<T> truth_of(const Corners<T>& box) {
  if (!has_area(box)) return {{T(0), T(0), T(0), T(0)}, T(0)};
  return {box, rounded_product(box.x2 - box.x1, box.y2 - box.y1)};
}

// IoU of a box, given by its corners and its area, and another. An area that overflows gives 0.
template <typename T>
RPCNN_HOST_DEVICE T match_iou(T x1, T y1, T x2, T y2, T area, const Truth<T>& other) {
  const T width = smaller(x2, other.box.x2) - larger(x1, other.box.x1);
  const T height = smaller(y2, other.box.y2) - larger(y1, other.box.y1);
  const T inter = rounded_product(larger(width, T(0)), larger(height, T(0)));
  const T joined = area + other.area - inter;
  return (inter > T(0)) & (joined > T(0)) ? inter / joined : T(0);
}

// What decides about a box: the thresholds, and the window that it must lie in.
template <typename T>
struct MatchRule {
  T positive, negative;
  bool promote_best, windowed;
  T height, width;

  // overlap: the box's largest IoU, with ground-truth box `index`, or -1 where there is none; promoted: it is the best
  // of some ground-truth box.
  RPCNN_HOST_DEVICE int64_t decide(const Corners<T>& box, T overlap, int64_t index, bool promoted) const {
    if (!has_area(box)) return kIgnored;
    if (windowed && !(box.x1 >= T(0) && box.y1 >= T(0) && box.x2 <= width && box.y2 <= height)) return kIgnored;
    if (promoted || index < 0) return index;
    return overlap < negative ? kBackground : overlap < positive ? kIgnored : index;
  }
};

}  // namespace rpcnn
