// Numbered people on both sides: the confusion matrix of the label maps and the counts of every pair of people out of
// one joint histogram of codes, where a code is a label and whose it is, nobody's included.
//
// Fewest bytes: the four maps are read once, nothing else; person_counts on its own writes and reads two layers more,
// and confusion_matrix reads the labels again.
#pragma once

#include <vector>

#include "layers.h"

namespace rpcnn::metrics {

// The codes of one side, given out as labels are met; 0 is nobody's background.
struct NumberedCodes {
  static constexpr int16_t kUnseen = -1;
  static constexpr uint8_t kFull = 255;  // no code: what has none shares it

  explicit NumberedCodes(int64_t people) : people(people), codes((people + 1) * 256, kUnseen) {
    for (int64_t number = 0; number <= people; ++number) codes[number * 256] = 0;  // a person's background is nobody's
  }

  uint8_t code(int64_t number, uint8_t label) {
    if (number > people) return largest_number = std::max(largest_number, number), uint8_t{0};
    const int16_t known = codes[number * 256 + label];
    return known != kUnseen ? static_cast<uint8_t>(known) : new_code(number, label);
  }

  uint8_t new_code(int64_t number, uint8_t label) {
    full = meaning.size() == kFull;
    if (full) return kFull;
    meaning.push_back({static_cast<int32_t>(number - 1), label});
    codes[number * 256 + label] = static_cast<int16_t>(meaning.size() - 1);
    return static_cast<uint8_t>(meaning.size() - 1);
  }

  int64_t largest_label() const {
    uint8_t largest = 0;
    for (const Code& code : meaning) largest = std::max(largest, code.label);
    return largest;
  }

  int64_t people, largest_number = 0;
  bool full = false;
  std::vector<int16_t> codes;  // of (number, label)
  std::vector<Code> meaning{{-1, 0}};
};

// table[256 × p + t] += pixels of the prediction's code p and the truth's code t; false where codes ran out. An
// area below 2³² fits the table.
template <class Number, class TrueNumber>
bool add_joint_histogram(const uint8_t* labels, const Number* numbers, const uint8_t* true_labels,
                         const TrueNumber* true_numbers, int64_t area, NumberedCodes& ours, NumberedCodes& theirs,
                         uint32_t* table) {
  const auto blank = [=](int64_t i) {
    return labelmaps::all_background(labels + i) && labelmaps::all_background(true_labels + i);
  };
  const auto add = [=, &ours, &theirs](int64_t i, int pixels) {
    table[256 * ours.code(numbers[i], labels[i]) + theirs.code(true_numbers[i], true_labels[i])] += pixels;
  };
  labelmaps::for_runs(area, blank, add, labels, numbers, true_labels, true_numbers);
  return !ours.full && !theirs.full;
}

}  // namespace rpcnn::metrics
