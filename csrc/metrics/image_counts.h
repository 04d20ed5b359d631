// People who share no pixel on both sides: one joint histogram of codes gives the confusion matrix of the label maps
// and the counts of every pair of people. Here a code is an 8-bit id of one label of one person, or of one label
// without a person (person number 0).
//
// Fewest bytes: the two label maps and the two maps of person numbers are read once, and nothing else. In separate
// calls, person_counts writes and reads two layers, and confusion_matrix reads the label maps again.
#pragma once

#include <vector>

#include "layers.h"

namespace rpcnn::metrics {

// The codes of one side, assigned as labels appear; 0 is the background.
struct CodeTable {
  static constexpr int16_t kNoCode = -1;
  static constexpr uint8_t kFull = 255;  // returned for every new label once all codes are used

  explicit CodeTable(int64_t num_people) : num_people(num_people), codes((num_people + 1) * 256, kNoCode) {
    for (int64_t number = 0; number <= num_people; ++number) codes[number * 256] = 0;  // label 0 is background
  }

  uint8_t code(int64_t number, uint8_t label) {
    if (number > num_people) return largest_number = std::max(largest_number, number), uint8_t{0};
    const int16_t known = codes[number * 256 + label];
    return known != kNoCode ? static_cast<uint8_t>(known) : new_code(number, label);
  }

  uint8_t new_code(int64_t number, uint8_t label) {
    full = legend.size() == kFull;
    if (full) return kFull;
    legend.push_back({static_cast<int32_t>(number - 1), label});
    codes[number * 256 + label] = static_cast<int16_t>(legend.size() - 1);
    return static_cast<uint8_t>(legend.size() - 1);
  }

  int64_t largest_label() const {
    uint8_t largest = 0;
    for (const PersonLabel& one : legend) largest = std::max(largest, one.label);
    return largest;
  }

  int64_t num_people, largest_number = 0;
  bool full = false;
  std::vector<int16_t> codes;                    // by (person number, label)
  std::vector<PersonLabel> legend{kBackground};  // by code
};

// table[256 · p + t] += pixels with predicted code p and true code t. Returns false if a side has too many labels for
// its codes. The area must be below 2³².
template <class Number, class TrueNumber>
bool add_joint_histogram(const uint8_t* label_map, const Number* person_numbers, const uint8_t* true_label_map,
                         const TrueNumber* true_person_numbers, int64_t area, CodeTable& predicted_codes,
                         CodeTable& true_codes, uint32_t* table) {
  const auto blank = [=](int64_t i) {
    return labelmaps::all_background(label_map + i) && labelmaps::all_background(true_label_map + i);
  };
  const auto add = [=, &predicted_codes, &true_codes](int64_t i, int run) {
    table[256 * predicted_codes.code(person_numbers[i], label_map[i]) +
          true_codes.code(true_person_numbers[i], true_label_map[i])] += run;
  };
  labelmaps::for_runs(area, blank, add, label_map, person_numbers, true_label_map, true_person_numbers);
  return !predicted_codes.full && !true_codes.full;
}

}  // namespace rpcnn::metrics
