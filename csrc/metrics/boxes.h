// The boxes around people who share no pixel.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "layers.h"

namespace rpcnn::metrics {

struct Box {
  int64_t left = std::numeric_limits<int64_t>::max(), top = left, right = 0, bottom = 0;

  void add(int64_t x, int64_t y) {
    left = std::min(left, x), right = std::max(right, x + 1);
    top = std::min(top, y), bottom = y + 1;
  }

  void write(double* corners) const {  // x1 y1 x2 y2; zeros around nothing
    const int64_t values[4] = {left, top, right, bottom};
    for (int k = 0; k < 4; ++k) corners[k] = right ? static_cast<double>(values[k]) : 0;
  }
};

// boxes[n] encloses the pixels with a label and the number n + 1 ≤ people. Of a person's runs in a row, the first and
// the last are looked at.
template <class Number>
void enclose(const uint8_t* labels, const Number* numbers, int64_t people, Size size, Box* boxes) {
  for (int64_t y = 0; y < size.height; ++y) {
    const uint8_t* label = labels + y * size.width;
    const Number* number = numbers + y * size.width;
    int64_t current = 0, last = 0;  // whose runs these are, and the last pixel of them
    const auto add = [&](int64_t x, int pixels) {
      if (label[x] == 0 || number[x] == 0 || number[x] > people) return;
      if (number[x] != current) {
        if (current) boxes[current - 1].add(last, y);
        current = number[x];
        boxes[current - 1].add(x, y);
      }
      last = x + pixels - 1;
    };
    for_labelled_runs(size.width, add, label, number);
    if (current) boxes[current - 1].add(last, y);
  }
}

}  // namespace rpcnn::metrics
