// People as layers: maps of 8-bit codes, where a code is one label of one person and 0 is nobody or background. People
// who share no pixel share a layer, so that one look at a pixel serves all of them; a layer has at most 255 codes.
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

struct Code {
  int32_t person;
  uint8_t label;
};

struct Layer {
  std::vector<uint8_t> own;  // the codes, where they are not the caller's map itself
  const uint8_t* codes = nullptr;
  std::vector<Code> meaning{{-1, 0}};  // of code 0, 1, …

  bool holds(int64_t more) const { return meaning.size() + more <= 256; }

  uint8_t add(int32_t person, uint8_t label) {
    meaning.push_back({person, label});
    return static_cast<uint8_t>(meaning.size() - 1);
  }
};

inline Layer empty_layer(Size size) {
  Layer layer;
  layer.own.resize(size.area());
  return layer;
}

// What is left of an image for each person's background.
inline void set_backgrounds(int64_t people, Size size, int64_t* counts) {
  for (int64_t* mine = counts; mine < counts + people * 256; mine += 256)
    mine[0] = size.area() - std::accumulate(mine + 1, mine + 256, int64_t{0});
}

// Puts a map on a layer and adds up in counts[256] how often it says what, background left out. Where a pixel is taken,
// or the codes run out, the layer is left as it was, counts are not touched, and the answer is false.
inline bool put_on(Layer& layer, const uint8_t* map, int32_t person, Size size, int64_t* counts) {
  const size_t first = layer.meaning.size();
  uint8_t* codes = layer.own.data();
  uint8_t code_of[256] = {};
  int64_t pixels[256] = {};  // of each code; of 0, those there is no room for
  uint8_t* code = code_of;
  int64_t* sums = pixels;
  const auto new_code = [&](uint8_t label) { return layer.holds(1) ? layer.add(person, label) : uint8_t{0}; };
  labelmaps::for_labeled_runs(
      size.area(),
      [=](int64_t i, int same) {
        if (map[i] == 0) return;
        if (code[map[i]] == 0) code[map[i]] = new_code(map[i]);
        const uint8_t mine = codes[i] ? uint8_t{0} : code[map[i]];
        sums[mine] += same;
        if (mine) std::memset(codes + i, mine, same);
      },
      map, codes);
  if (pixels[0]) {
    labelmaps::for_labeled_runs(
        size.area(),
        [=](int64_t i, int same) {
          if (map[i] && codes[i] >= first) std::memset(codes + i, 0, same);
        },
        map, codes);
    layer.meaning.resize(first);
    return false;
  }
  for (size_t c = first; c < layer.meaning.size(); ++c) counts[layer.meaning[c].label] += pixels[c];
  return true;
}

// Maps [N, H, W] that may overlap, each on the first layer that has room for it. counts[n][256] receives how often each
// map says what.
inline std::vector<Layer> layers_of_maps(const uint8_t* maps, int64_t people, Size size, int64_t* counts) {
  std::vector<Layer> layers;
  for (int64_t n = 0; n < people; ++n) {
    const auto put = [&](Layer& layer) {
      return put_on(layer, maps + n * size.area(), static_cast<int32_t>(n), size, counts + n * 256);
    };
    if (std::any_of(layers.begin(), layers.end(), put)) continue;
    layers.push_back(empty_layer(size));
    put(layers.back());
  }
  set_backgrounds(people, size, counts);
  for (Layer& layer : layers) layer.codes = layer.own.data();
  return layers;
}

// The codes of people who share no pixel, `labels` where `numbers` is n + 1, for one layer after the other.
template <class Number>
class CodedLayers {
 public:
  CodedLayers(const uint8_t* labels, const Number* numbers, int64_t people, Size size)
      : labels_(labels), numbers_(numbers), people_(people), size_(size), codes_((people + 1) * 256, kUnseen) {
    std::fill_n(codes_.begin(), 256, kElsewhere);
    for (int64_t n = 1; n <= people; ++n) codes_[n * 256] = kElsewhere;
  }

  // Fills a layer with what earlier ones had no room for, and adds up how often each person's map says what; false
  // where something is left for the next.
  bool fill(Layer& layer, int64_t* counts) {
    layer_ = &layer;
    full_ = false;
    int64_t pixels[256] = {}, *sums = pixels;
    uint8_t* out = layer.own.data();
    labelmaps::for_labeled_runs(
        size_.area(),
        [=, this](int64_t i, int same) {
          const uint8_t one = code(i);
          std::memset(out + i, one, same);
          sums[one] += same;
        },
        labels_, numbers_);
    for (size_t c = 1; c < layer.meaning.size(); ++c)
      counts[layer.meaning[c].person * 256 + layer.meaning[c].label] += pixels[c];
    for (int16_t& one : codes_) one = std::min(one, kElsewhere);
    return !full_;
  }

  int64_t largest_number() const { return largest_; }

 private:
  static constexpr int16_t kUnseen = -1, kElsewhere = 0;

  uint8_t code(int64_t i) {
    const int64_t number = numbers_[i];
    if (number <= people_) {
      const int16_t known = codes_[number * 256 + labels_[i]];
      return static_cast<uint8_t>(known != kUnseen ? known : new_code(i));
    }
    largest_ = std::max(largest_, number);
    return 0;
  }

  int16_t new_code(int64_t i) {
    largest_ = std::max<int64_t>(largest_, numbers_[i]);
    full_ |= !layer_->holds(1);
    if (!layer_->holds(1)) return 0;
    return codes_[numbers_[i] * 256 + labels_[i]] = layer_->add(static_cast<int32_t>(numbers_[i] - 1), labels_[i]);
  }

  const uint8_t* labels_;
  const Number* numbers_;
  const int64_t people_;
  const Size size_;
  std::vector<int16_t> codes_;  // of (number, label) in the layer that is being filled
  Layer* layer_ = nullptr;
  bool full_ = false;
  int64_t largest_ = 0;
};

// People who share no pixel, as layers. counts[n][256] receives how often person n's map says what. Returns the largest
// number that has a label; where that is above `people` the layers are of no use.
template <class Number>
int64_t layers_of_numbers(const uint8_t* labels, const Number* numbers, int64_t people, Size size,
                          std::vector<Layer>& layers, int64_t* counts) {
  CodedLayers<Number> codes(labels, numbers, people, size);
  do layers.push_back(empty_layer(size));
  while (!codes.fill(layers.back(), counts));
  set_backgrounds(people, size, counts);
  for (Layer& layer : layers) layer.codes = layer.own.data();
  return codes.largest_number();
}

}  // namespace rpcnn::metrics
