// People as layers. A layer is a map of 8-bit codes: a code is the id of one label of one person, and 0 is background.
// People who do not overlap share a layer, so that each pixel is read once for all of them. A layer has at most 255
// codes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "../labelmaps/pixel_runs.h"

namespace rpcnn::metrics {

struct Size {
  int64_t height, width;
  int64_t area() const { return height * width; }
};

// The person and the label of a code.
struct PersonLabel {
  int32_t person;  // −1: no person
  uint8_t label;
};

constexpr PersonLabel kBackground{-1, 0};

struct Layer {
  std::vector<uint8_t> codes;                    // [H, W]
  std::vector<PersonLabel> legend{kBackground};  // by code

  explicit Layer(Size size) : codes(size.area()) {}

  bool has_free_code() const { return legend.size() < 256; }

  uint8_t add(int32_t person, uint8_t label) {
    legend.push_back({person, label});
    return static_cast<uint8_t>(legend.size() - 1);
  }
};

// histograms[n][0] = the pixels of the image that have no label of person n.
inline void set_background_counts(int64_t num_people, Size size, int64_t* histograms) {
  for (int64_t* one = histograms; one < histograms + num_people * 256; one += 256)
    one[0] = size.area() - std::accumulate(one + 1, one + 256, int64_t{0});
}

// Adds a person map to a layer, and its pixel counts, except background, to histogram[256]. If one of its pixels is
// occupied or the codes run out, returns false and leaves the layer and the histogram unchanged.
inline bool add_person_map(Layer& layer, const uint8_t* person_map, int32_t person, Size size, int64_t* histogram) {
  const size_t first = layer.legend.size();
  uint8_t* codes = layer.codes.data();
  uint8_t code_of[256] = {};  // by label
  int64_t pixels[256] = {};   // by code; pixels[0] counts those that did not fit
  uint8_t* code = code_of;
  int64_t* sums = pixels;
  const auto new_code = [&](uint8_t label) { return layer.has_free_code() ? layer.add(person, label) : uint8_t{0}; };
  labelmaps::for_labeled_runs(
      size.area(),
      [=](int64_t i, int run) {
        if (person_map[i] == 0) return;
        if (code[person_map[i]] == 0) code[person_map[i]] = new_code(person_map[i]);
        const uint8_t own = codes[i] ? uint8_t{0} : code[person_map[i]];
        sums[own] += run;
        if (own) std::memset(codes + i, own, run);
      },
      person_map, codes);
  if (pixels[0]) {
    labelmaps::for_labeled_runs(
        size.area(),
        [=](int64_t i, int run) {
          if (person_map[i] && codes[i] >= first) std::memset(codes + i, 0, run);
        },
        person_map, codes);
    layer.legend.resize(first);
    return false;
  }
  for (size_t c = first; c < layer.legend.size(); ++c) histogram[layer.legend[c].label] += pixels[c];
  return true;
}

// Person maps [N, H, W], which may overlap, each on the first layer that has room for it. histograms[n][256] receives
// the pixels of each label in person map n.
inline std::vector<Layer> layers_of_maps(const uint8_t* person_maps, int64_t num_people, Size size,
                                         int64_t* histograms) {
  std::vector<Layer> layers;
  for (int64_t n = 0; n < num_people; ++n) {
    const auto add = [&](Layer& layer) {
      return add_person_map(layer, person_maps + n * size.area(), static_cast<int32_t>(n), size, histograms + n * 256);
    };
    if (std::any_of(layers.begin(), layers.end(), add)) continue;
    layers.emplace_back(size);
    add(layers.back());
  }
  set_background_counts(num_people, size, histograms);
  return layers;
}

// Makes layers of people who do not overlap, from a label map and a map of person numbers n + 1.
template <class Number>
class LayerFiller {
 public:
  LayerFiller(const uint8_t* label_map, const Number* person_numbers, int64_t num_people, Size size)
      : label_map_(label_map),
        person_numbers_(person_numbers),
        num_people_(num_people),
        size_(size),
        codes_((num_people + 1) * 256, kNoCode) {
    std::fill_n(codes_.begin(), 256, kElsewhere);
    for (int64_t n = 1; n <= num_people; ++n) codes_[n * 256] = kElsewhere;
  }

  // Fills a layer with the labels of people that had no code in earlier layers, and adds their pixel counts to
  // histograms[n][256]. Returns whether all remaining labels got a code.
  bool fill(Layer& layer, int64_t* histograms) {
    layer_ = &layer;
    full_ = false;
    int64_t pixels[256] = {}, *sums = pixels;
    uint8_t* out = layer.codes.data();
    labelmaps::for_labeled_runs(
        size_.area(),
        [=, this](int64_t i, int run) {
          const uint8_t one = code(i);
          std::memset(out + i, one, run);
          sums[one] += run;
        },
        label_map_, person_numbers_);
    for (size_t c = 1; c < layer.legend.size(); ++c)
      histograms[layer.legend[c].person * 256 + layer.legend[c].label] += pixels[c];
    for (int16_t& one : codes_) one = std::min(one, kElsewhere);
    return !full_;
  }

  int64_t largest_number() const { return largest_; }

 private:
  static constexpr int16_t kNoCode = -1;    // not on any layer yet
  static constexpr int16_t kElsewhere = 0;  // background, or on an earlier layer

  uint8_t code(int64_t i) {
    const int64_t number = person_numbers_[i];
    if (number <= num_people_) {
      const int16_t known = codes_[number * 256 + label_map_[i]];
      return static_cast<uint8_t>(known != kNoCode ? known : new_code(i));
    }
    largest_ = std::max(largest_, number);
    return 0;
  }

  int16_t new_code(int64_t i) {
    largest_ = std::max<int64_t>(largest_, person_numbers_[i]);
    full_ |= !layer_->has_free_code();
    if (!layer_->has_free_code()) return 0;
    return codes_[person_numbers_[i] * 256 + label_map_[i]] =
               layer_->add(static_cast<int32_t>(person_numbers_[i] - 1), label_map_[i]);
  }

  const uint8_t* label_map_;
  const Number* person_numbers_;
  const int64_t num_people_;
  const Size size_;
  std::vector<int16_t> codes_;  // by (person number, label), in the layer that is being filled
  Layer* layer_ = nullptr;
  bool full_ = false;
  int64_t largest_ = 0;
};

// Makes the layers of people who do not overlap. histograms[n][256] receives the pixels of each label of person n.
// Returns the largest person number of a labeled pixel; the layers are valid only if it is at most num_people.
template <class Number>
int64_t layers_of_numbers(const uint8_t* label_map, const Number* person_numbers, int64_t num_people, Size size,
                          std::vector<Layer>& layers, int64_t* histograms) {
  LayerFiller<Number> filler(label_map, person_numbers, num_people, size);
  do layers.emplace_back(size);
  while (!filler.fill(layers.back(), histograms));
  set_background_counts(num_people, size, histograms);
  return filler.largest_number();
}

}  // namespace rpcnn::metrics
