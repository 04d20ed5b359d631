// Pixel counts for the IoU of every class between every predicted and every true person:
//
//   intersection[n][g][c]              = pixels where predicted person n and true person g both have label c
//   predicted[n][g][c], truth[g][c]    = pixels where predicted person n, where true person g has label c
//   Pixels whose true label is K or more are ignored. Union = predicted + truth − intersection.
//
// Fewest bytes: a predicted person map is read once and, where it is not background, the true layers with it (one, if
// true people share no pixel), for the joint histogram of their codes. All counts follow from that and from the
// histograms of the true person maps, those of background too:
//   intersection[0] = pixels with p = 0 − pixels with t ≠ 0 + pixels with t ≠ 0 and p ≠ 0.
// Eight pixels of one code in both maps are one addition.
//
// Ladder, 10 predictions and 3.5 true people of 350×500, one thread, ms:
//   every pair of maps on its own, over the common span of their rows                0.73
//   one true layer for all people, the spans of a prediction's rows first            0.55
//   no spans: blank pixels are skipped 64 at a time on the way, 16-byte words        0.55 (waits for memory)
//   the same with a prefetch 2 KB ahead                                              0.46 (reading alone: 0.1)
// Tried: finding runs inside a word by counting zeros, 20 % slower than eight additions; four histograms in turn, no
// gain.
#pragma once

#include <numeric>
#include <vector>

#include "layers.h"

namespace rpcnn::metrics {

struct PairCounts {
  int64_t classes, num_true_people;
  int64_t *intersection, *predicted;  // [N][G][K]
};

// table[row[p] + t] += pixels with predicted code p ≠ 0 and true code t.
inline void add_joint_histogram(const uint8_t* predicted_codes, const uint8_t* true_codes, Size size,
                                const int32_t* row, int64_t* table) {
  labelmaps::for_labeled_runs(
      size.area(), [=](int64_t i, int run) { table[row[predicted_codes[i]] + true_codes[i]] += run; }, predicted_codes,
      true_codes);
}

// Sets the counts of predicted person n to those of a map without labels. true_histograms: [G][256].
inline void count_as_background(int64_t n, const int64_t* true_histograms, Size size, const PairCounts& out) {
  for (int64_t g = 0; g < out.num_true_people; ++g) {
    const int64_t* truth = true_histograms + g * 256;
    const int64_t pair = (n * out.num_true_people + g) * out.classes;
    out.intersection[pair] = truth[0];
    out.predicted[pair] = size.area() - std::accumulate(truth + out.classes, truth + 256, int64_t{0});
  }
}

// Moves labeled pixels from background to their labels: table[p · stride + t] holds the pixels with predicted code p
// and true code t. Codes without a person are skipped. With several true layers a prediction has a table for each, and
// all have the same pixels of the prediction; `first` is true for one table only, which counts them.
template <class Pixels>
void count_labels(const Pixels* table, int64_t stride, const std::vector<PersonLabel>& predicted_legend,
                  const std::vector<PersonLabel>& true_legend, bool first, const PairCounts& out) {
  const int64_t classes = out.classes, num_true_people = out.num_true_people, true_codes = true_legend.size();
  for (size_t p = 0; p < predicted_legend.size(); ++p) {
    const auto [n, predicted_label] = predicted_legend[p];
    if (n < 0) continue;
    int64_t* intersection = out.intersection + n * num_true_people * classes;
    int64_t* predicted = out.predicted + n * num_true_people * classes;
    const Pixels* pixels = table + p * stride;
    if (first) {
      const int64_t all = std::accumulate(pixels, pixels + true_codes, int64_t{0});
      for (int64_t g = 0; g < num_true_people; ++g) {
        predicted[g * classes] -= all, predicted[g * classes + predicted_label] += all;
        intersection[g * classes] -= all;
      }
    }
    for (int64_t t = 0; t < true_codes; ++t) {
      const auto [g, true_label] = true_legend[t];
      if (g < 0) continue;
      const int64_t both = pixels[t];
      intersection[g * classes] += both;
      if (true_label == predicted_label) intersection[g * classes + predicted_label] += both;
      if (true_label >= classes) predicted[g * classes] += both, predicted[g * classes + predicted_label] -= both;
    }
  }
}

// Counts the people of one predicted layer. Each count belongs to one person, so threads may count different layers at
// the same time. Returns false, without counting, if the layer has a code that is not in its legend.
inline bool count_layer(const uint8_t* predicted_codes, const std::vector<PersonLabel>& legend,
                        const std::vector<Layer>& true_layers, Size size, const PairCounts& out) {
  const int64_t known_codes = legend.size();
  std::vector<int64_t> table;
  for (size_t l = 0; l < true_layers.size(); ++l) {
    const int64_t true_codes = true_layers[l].legend.size();
    int32_t row[256];
    for (int p = 0; p < 256; ++p) row[p] = static_cast<int32_t>(std::min<int64_t>(p, known_codes) * true_codes);
    table.assign((known_codes + 1) * true_codes, 0);
    add_joint_histogram(predicted_codes, true_layers[l].codes.data(), size, row, table.data());
    if (std::any_of(table.end() - true_codes, table.end(), [](int64_t pixels) { return pixels > 0; })) return false;
    count_labels(table.data(), true_codes, legend, true_layers[l].legend, l == 0, out);
  }
  return true;
}

}  // namespace rpcnn::metrics
