// Anchors from their index, and boxes from anchors and predicted deltas. Written once for CPU and CUDA.
#pragma once

#include <cmath>

#include "boxes.h"

namespace rpcnn {

#if !defined(__CUDACC__)
using std::exp;  // of the type of its argument, as on a GPU
#endif

constexpr int kAnchorLevels = 8;

// The anchors of all levels, one level after another, each ordered by row, column, ratio.
struct AnchorGrid {
  int levels, ratios;
  int64_t first[kAnchorLevels + 1];  // of each level, and their number
  int64_t widths[kAnchorLevels], strides[kAnchorLevels];

  RPCNN_HOST_DEVICE int level_of(int64_t anchor) const {
    int level = 0;
    while (level + 1 < levels && anchor >= first[level + 1]) ++level;
    return level;
  }
  // cells: [levels, ratios].
  template <typename T>
  RPCNN_HOST_DEVICE Corners<T> at(int64_t anchor, const T* cells) const {
    const int level = level_of(anchor);
    const int64_t own = anchor - first[level], place = own / ratios, ratio = own - place * ratios;
    const int64_t row = place / widths[level], column = place - row * widths[level];
    return shifted(cells + 4 * (int64_t(level) * ratios + ratio), T(column * strides[level]), T(row * strides[level]));
  }
  template <typename T>
  RPCNN_HOST_DEVICE static Corners<T> shifted(const T* cell, T x, T y) {
    return {x + cell[0], y + cell[1], x + cell[2], y + cell[3]};
  }
};

// The anchor moved by (dx, dy) of its size and scaled by exp(dw), exp(dh), at most 1000 / 16. NaN stays NaN.
template <typename T>
RPCNN_HOST_DEVICE Corners<T> decoded(const Corners<T>& anchor, T dx, T dy, T dw, T dh) {
  const T limit = T(4.135166556742356);  // log(1000 / 16)
  const T width = anchor.x2 - anchor.x1, height = anchor.y2 - anchor.y1;
  const T x = anchor.x1 + T(0.5) * width + dx * width, y = anchor.y1 + T(0.5) * height + dy * height;
  const T half_width = T(0.5) * width * exp(dw > limit ? limit : dw);
  const T half_height = T(0.5) * height * exp(dh > limit ? limit : dh);
  return {x - half_width, y - half_height, x + half_width, y + half_height};
}

template <typename T>
RPCNN_HOST_DEVICE T clamped(T value, T low, T high) {
  return value < low ? low : value > high ? high : value;
}

// Clipped to an image, with at least `least` pixels per side.
template <typename T>
RPCNN_HOST_DEVICE Corners<T> clipped(const Corners<T>& box, T height, T width, T least) {
  return {clamped(box.x1, T(0), width - least), clamped(box.y1, T(0), height - least), clamped(box.x2, least, width),
          clamped(box.y2, least, height)};
}

}  // namespace rpcnn
