// paste_parsing: each person's class probabilities, spread bilinearly over its box, to label maps of the whole image.
//
// Fewest operations: 2 multiply-adds and a comparison per class for every pixel of a box, and for every pixel of the
// image where there is a global map; fewest bytes: the maps read, and one byte per image pixel and person written. A
// row of the image is made at a time: the two source rows of a map are blended once (classes × map width values), then
// gathered along x, pixels innermost, with the running maximum in cache. Nothing of classes × image size is stored.
// Threads share rows, so results do not depend on their number.
//
// Measured for 20 people and 20 classes on 800×1066, two cores (benchmarks/RESULTS.md): 34 ms with the global map and
// 16 without, 21 and 17 times PyTorch's composition; the running maximum over classes is the limit, not bytes (1.5
// GB/s). Not tried: skipping classes that a map's row never reaches.
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <tuple>

#include "common.h"

namespace rpcnn {
namespace {

// Pixels [first, last) of an image axis and, of each, the map cells that it lies between: lower[i] and the next.
struct Sampling {
  int64_t first = 0, last = 0;
  std::vector<int32_t> lower;
  std::vector<float> fraction;

  int64_t count() const { return last - first; }

  // Pixels whose centers lie in [low, high), on a map of `cells` cells over that range.
  Sampling(double low, double high, int64_t cells, int64_t size) {
    if (!std::isfinite(low) || !std::isfinite(high)) return;
    first = int64_t(std::clamp(std::ceil(low - 0.5), 0.0, double(size)));
    last = int64_t(std::clamp(std::ceil(high - 0.5), double(first), double(size)));
    for (int64_t i = first; i < last; ++i) {
      const double at = (double(i) + 0.5 - low) * (double(cells) / (high - low)) - 0.5;
      const double inside = std::clamp(at, 0.0, double(cells - 1));
      lower.push_back(int32_t(inside));
      fraction.push_back(float(inside - std::floor(inside)));
    }
  }
};

// row[k, x] between two rows of maps [K, h, w]; each class's row ends with its last value twice, for the gather.
RPCNN_CLONES void blend_rows(const float* maps, int64_t K, int64_t h, int64_t w, int64_t lower, float fraction,
                             float* __restrict row) {
  const int64_t step = lower + 1 < h ? w : 0;
  for (int64_t k = 0; k < K; ++k) {
    const float* a = maps + (k * h + lower) * w;
    float* to = row + k * (w + 1);
    for (int64_t x = 0; x < w; ++x) to[x] = a[x] + fraction * (a[x + step] - a[x]);
    to[w] = to[w - 1];
  }
}

// values[x] of one class at every pixel.
RPCNN_CLONES void spread(const float* row, const int32_t* lower, const float* fraction, int64_t count,
                         float* __restrict values) {
  for (int64_t x = 0; x < count; ++x) {
    const float a = row[lower[x]], b = row[lower[x] + 1];
    values[x] = a + fraction[x] * (b - a);
  }
}

// Keeps the larger value and its class; of equal ones the first.
RPCNN_CLONES void keep_larger(const float* values, int32_t label, int64_t count, float* __restrict best,
                              int32_t* __restrict which) {
  for (int64_t x = 0; x < count; ++x) {
    which[x] = values[x] > best[x] ? label : which[x];
    best[x] = values[x] > best[x] ? values[x] : best[x];
  }
}

RPCNN_CLONES void add_scaled(const float* more, float weight, int64_t count, float* __restrict values) {
  for (int64_t x = 0; x < count; ++x) values[x] += weight * more[x];
}

// Writes the person's label and number to labels and instances where the person has a label.
RPCNN_CLONES void paint(const uint8_t* person, int64_t count, int32_t number, int32_t* __restrict instances,
                        uint8_t* __restrict labels) {
  for (int64_t x = 0; x < count; ++x) instances[x] = person[x] ? number : instances[x];
  if (!labels) return;
  for (int64_t x = 0; x < count; ++x) labels[x] = person[x] ? person[x] : labels[x];
}

// The running maximum of a row of pixels.
struct Best {
  std::vector<float> value;
  std::vector<int32_t> label;

  explicit Best(int64_t size) : value(size), label(size) {}
  void clear(int64_t count) {
    std::fill_n(value.begin(), count, -std::numeric_limits<float>::infinity());
    std::fill_n(label.begin(), count, 0);
  }
  void offer(const float* values, int64_t k, int64_t count) {
    keep_larger(values, int32_t(k), count, value.data(), label.data());
  }
};

struct Person {
  const float* maps;
  Sampling y, x;
};

struct Global {
  const float* maps = nullptr;  // [K, h, w]
  int64_t h = 0, w = 0;
  Sampling y, x;
  float weight, gate;
};

struct Targets {
  uint8_t* labels;
  int32_t* instances;
  uint8_t* people;  // [R, H, W], or null
  bool paint_labels;
};

void paste_rows(const std::vector<Person>& people, const uint8_t* painted, int64_t K, int64_t h, int64_t w,
                const Global& global, int64_t H, int64_t W, int64_t begin, int64_t end, const Targets& to) {
  const bool wanted = global.maps && (global.weight != 0 || global.gate < std::numeric_limits<float>::infinity());
  std::vector<float> row(K * (std::max(w, global.w) + 1)), everywhere(wanted ? K * W : 0), values(W);
  std::vector<uint8_t> alone(W);
  Best own(W), joined(W);
  for (int64_t y = begin; y < end; ++y) {
    uint8_t* labels = to.labels + y * W;
    int32_t* instances = to.instances + y * W;
    std::memset(labels, 0, W);
    std::fill(instances, instances + W, 0);
    if (wanted) {
      blend_rows(global.maps, K, global.h, global.w, global.y.lower[y], global.y.fraction[y], row.data());
      own.clear(W);
      for (int64_t k = 0; k < K; ++k) {
        float* mine = everywhere.data() + k * W;
        spread(row.data() + k * (global.w + 1), global.x.lower.data(), global.x.fraction.data(), W, mine);
        own.offer(mine, k, W);
      }
      for (int64_t x = 0; x < W; ++x) labels[x] = own.value[x] > global.gate ? uint8_t(own.label[x]) : 0;
    }
    for (int64_t i = int64_t(people.size()) - 1; i >= 0; --i) {  // the best comes last and wins
      const Person& person = people[i];
      uint8_t* map = to.people ? to.people + (i * H + y) * W : nullptr;
      if (map) std::memset(map, 0, W);
      const int64_t count = person.x.count();
      if (count == 0 || y < person.y.first || y >= person.y.last) continue;
      const int64_t at = y - person.y.first, left = person.x.first;
      blend_rows(person.maps, K, h, w, person.y.lower[at], person.y.fraction[at], row.data());
      const bool helped = wanted && global.weight != 0;
      own.clear(count);
      joined.clear(count);
      for (int64_t k = 0; k < K; ++k) {
        spread(row.data() + k * (w + 1), person.x.lower.data(), person.x.fraction.data(), count, values.data());
        own.offer(values.data(), k, count);
        if (!helped) continue;
        add_scaled(everywhere.data() + k * W + left, global.weight, count, values.data());
        joined.offer(values.data(), k, count);
      }
      uint8_t* mine = map ? map + left : alone.data();
      const int32_t* label = (helped ? joined : own).label.data();
      for (int64_t x = 0; x < count; ++x) mine[x] = own.label[x] > 0 ? uint8_t(label[x]) : 0;
      if (painted[i]) paint(mine, count, int32_t(i + 1), instances + left, to.paint_labels ? labels + left : nullptr);
    }
  }
}

std::tuple<Tensor, Tensor, Tensor> paste_parsing(Tensor probabilities, Tensor boxes, Tensor painted,
                                                 std::optional<Tensor> semantic, double semantic_height,
                                                 double semantic_width, int64_t height, int64_t width,
                                                 double semantic_weight, double semantic_gate, bool paint_labels,
                                                 bool with_people) {
  const int64_t R = probabilities.dim() == 4 ? probabilities.size(0) : -1;
  STD_TORCH_CHECK(R >= 0 && probabilities.is_cpu() && probabilities.scalar_type() == ScalarType::Float,
                  "paste_parsing: probabilities must be float32 [R, K, h, w] on the CPU");
  const int64_t K = probabilities.size(1), h = probabilities.size(2), w = probabilities.size(3);
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(0) == R && boxes.size(1) == 4 && boxes.is_cpu() &&
                      boxes.scalar_type() == ScalarType::Float,
                  "paste_parsing: boxes must be float32 [R, 4] on the CPU");
  STD_TORCH_CHECK(
      painted.dim() == 1 && painted.size(0) == R && painted.is_cpu() && painted.scalar_type() == ScalarType::Byte,
      "paste_parsing: painted must be uint8 [R] on the CPU");
  STD_TORCH_CHECK(K > 0 && K <= 256 && h > 0 && w > 0,
                  "paste_parsing: probabilities must have 1 to 256 classes and at least one cell");
  check_extent("paste_parsing", "height", height, 1);
  check_extent("paste_parsing", "width", width, 1);
  STD_TORCH_CHECK(
      !semantic || (semantic->dim() == 3 && semantic->is_cpu() && semantic->size(0) == K && semantic->size(1) > 0 &&
                    semantic->size(2) > 0 && semantic->scalar_type() == ScalarType::Float),
      "paste_parsing: semantic must be float32 [K, hs, ws] on the CPU");
  STD_TORCH_CHECK(!semantic || (semantic_height >= double(height) && semantic_width >= double(width) &&
                                std::isfinite(semantic_height) && std::isfinite(semantic_width)),
                  "paste_parsing: semantic_height and semantic_width must be finite and cover the image, got ",
                  semantic_height, " and ", semantic_width);
  const Tensor maps = dense(probabilities, false), corners = dense(boxes, false), flags = dense(painted, false);
  std::vector<Person> people;
  for (int64_t r = 0; r < R; ++r) {
    const float* box = corners.const_data_ptr<float>() + 4 * r;
    people.push_back({maps.const_data_ptr<float>() + r * K * h * w, Sampling(box[1], box[3], h, height),
                      Sampling(box[0], box[2], w, width)});
  }
  std::optional<Tensor> covering;
  if (semantic) covering = dense(*semantic, false);
  const int64_t hs = semantic ? semantic->size(1) : 1, ws = semantic ? semantic->size(2) : 1;
  const Global global{covering ? covering->const_data_ptr<float>() : nullptr,
                      hs,
                      ws,
                      Sampling(0, semantic_height, hs, height),
                      Sampling(0, semantic_width, ws, width),
                      float(semantic_weight),
                      float(semantic_gate)};
  Tensor labels = empty_cpu({height, width}, ScalarType::Byte), instances = empty_cpu({height, width}, ScalarType::Int);
  Tensor each = empty_cpu({with_people ? R : 0, height, width}, ScalarType::Byte);
  const Targets targets{labels.mutable_data_ptr<uint8_t>(), instances.mutable_data_ptr<int32_t>(),
                        with_people ? each.mutable_data_ptr<uint8_t>() : nullptr, paint_labels};
  parallel(height, 8, [&](int64_t begin, int64_t end) {
    paste_rows(people, flags.const_data_ptr<uint8_t>(), K, h, w, global, height, width, begin, end, targets);
  });
  return {labels, instances, each};
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CPU, m) {
  m.impl("paste_parsing", TORCH_BOX(&paste_parsing));
}

}  // namespace
}  // namespace rpcnn
