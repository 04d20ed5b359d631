// The boxes around people who share no pixel.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "pixel_runs.h"

namespace rpcnn::labelmaps {

struct Box {
  int64_t left = std::numeric_limits<int64_t>::max(), top = left, right = 0, bottom = 0;

  void add(int64_t x, int64_t y) {
    left = std::min(left, x), right = std::max(right, x + 1);
    top = std::min(top, y), bottom = y + 1;
  }

  void write(double* corners) const {  // x1 y1 x2 y2; zeros for an empty box
    const int64_t values[4] = {left, top, right, bottom};
    for (int k = 0; k < 4; ++k) corners[k] = right ? static_cast<double>(values[k]) : 0;
  }
};

// boxes[n] encloses the pixels that have a label and the person number n + 1 ≤ num_people. Of consecutive runs of one
// person in a row only the first and the last pixel are added.
template <class Number>
void enclose_people(const uint8_t* label_map, const Number* person_numbers, int64_t num_people, int64_t height,
                    int64_t width, Box* boxes) {
  for (int64_t y = 0; y < height; ++y) {
    const uint8_t* labels = label_map + y * width;
    const Number* numbers = person_numbers + y * width;
    int64_t current = 0, last = 0;  // the person number of these runs, and their last pixel
    const auto add = [&](int64_t x, int pixels) {
      if (labels[x] == 0 || numbers[x] == 0 || numbers[x] > num_people) return;
      if (numbers[x] != current) {
        if (current) boxes[current - 1].add(last, y);
        current = numbers[x];
        boxes[current - 1].add(x, y);
      }
      last = x + pixels - 1;
    };
    for_labeled_runs(width, add, labels, numbers);
    if (current) boxes[current - 1].add(last, y);
  }
}

}  // namespace rpcnn::labelmaps
