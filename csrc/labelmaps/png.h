// Undoes the row filters of a PNG with one byte per pixel (PNG specification, clause 9).
//
// Fewest bytes: the inflated rows are read and the pixels written once. Only the Average and Paeth filters need the
// left neighbor of each pixel first. In label maps, runs continue from row to row: where a Paeth row equals the row
// above and the residuals are 0, it continues to equal it, so that eight pixels take one comparison and one copy.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "pixel_runs.h"

namespace rpcnn::labelmaps {

enum class Filter : uint8_t { kNone, kSub, kUp, kAverage, kPaeth };

inline uint8_t paeth(int left, int above, int corner) {
  const int estimate = left + above - corner;
  const int a = std::abs(estimate - left), b = std::abs(estimate - above), c = std::abs(estimate - corner);
  return static_cast<uint8_t>(a <= b && a <= c ? left : b <= c ? above : corner);
}

// row[x] = residual[x] + predict(left, above, corner)
template <class Predict>
void unfilter_row(const uint8_t* residual, const uint8_t* above, int64_t width, uint8_t* row, const Predict& predict) {
  uint8_t left = 0, corner = 0;
  for (int64_t x = 0; x < width; ++x) {
    left = static_cast<uint8_t>(residual[x] + predict(left, above[x], corner));
    corner = above[x];
    row[x] = left;
  }
}

inline void unfilter_paeth(const uint8_t* residual, const uint8_t* above, int64_t width, uint8_t* row) {
  uint8_t left = 0, corner = 0;
  int64_t x = 0;
  const auto step = [&] {
    left = static_cast<uint8_t>(residual[x] + paeth(left, above[x], corner));
    corner = above[x];
    row[x] = left;
    ++x;
  };
  while (x + 8 <= width) {
    if (left == corner && word_at(residual + x) == 0) {  // paeth(c, b, c) = b, whatever b is
      std::memcpy(row + x, above + x, 8);
      x += 8;
      left = corner = above[x - 1];
    } else {
      for (int k = 0; k < 8; ++k) step();
    }
  }
  while (x < width) step();
}

// rows: [height][1 + width], each row preceded by its filter. Returns the first unknown filter, or −1.
inline int unfilter(const uint8_t* rows, int64_t height, int64_t width, uint8_t* pixels) {
  const std::vector<uint8_t> zeros(width);
  for (int64_t y = 0; y < height; ++y) {
    const uint8_t filter = rows[y * (width + 1)], *residual = rows + y * (width + 1) + 1;
    uint8_t* row = pixels + y * width;
    const uint8_t* above = y ? row - width : zeros.data();
    switch (static_cast<Filter>(filter)) {
      case Filter::kNone:
        std::copy_n(residual, width, row);
        break;
      case Filter::kSub:
        unfilter_row(residual, above, width, row, [](int left, int, int) { return left; });
        break;
      case Filter::kUp:
        for (int64_t x = 0; x < width; ++x) row[x] = static_cast<uint8_t>(residual[x] + above[x]);
        break;
      case Filter::kAverage:
        unfilter_row(residual, above, width, row, [](int left, int up, int) { return (left + up) / 2; });
        break;
      case Filter::kPaeth:
        unfilter_paeth(residual, above, width, row);
        break;
      default:
        return filter;
    }
  }
  return -1;
}

}  // namespace rpcnn::labelmaps
