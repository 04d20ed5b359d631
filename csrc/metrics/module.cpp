// rpcnn._metrics: the evaluator's core. numpy in, numpy out, no torch; the GIL is released while it counts.
//
// Threads share the predicted person maps. Every count belongs to one of them, so that the result does not depend on
// the number of threads.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <vector>

#include "../labelmaps/arrays.h"
#include "coco_boxes.h"
#include "greedy.h"
#include "image_counts.h"
#include "person_counts.h"

namespace {

using namespace rpcnn::metrics;
using namespace rpcnn::labelmaps;

using Counts = py::array_t<int64_t>;

// Below this many pixels per thread, starting it (tens of microseconds) costs more than it saves.
constexpr int64_t kPixelsPerThread = 1 << 22;

void check_classes(const std::string& op, int64_t classes) {
  if (classes < 1 || classes > 256) fail(op, "num_classes must lie in 1..256, got " + std::to_string(classes));
}

void check_labels(const std::string& op, const std::string& name, int64_t classes, int64_t largest) {
  if (largest >= classes)
    fail(op, name + " must lie in 0.." + std::to_string(classes - 1) + ", got " + std::to_string(largest));
}

// f(0), …, f(count − 1) on at most `threads` threads.
template <class F>
void in_parallel(int64_t count, int64_t threads, const F& f) {
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t i = next++; i < count; i = next++) f(i);
  };
  std::vector<std::thread> others;
  try {
    for (int64_t k = 1; k < std::min(threads, count); ++k) others.emplace_back(work);
  } catch (const std::system_error&) {  // no more threads: this one and those that have started do all
  }
  work();
  for (auto& other : others) other.join();
}

Counts confusion_matrix(const py::array& truth, const py::array& prediction, int64_t num_classes) {
  const std::string op = "confusion_matrix";
  check_classes(op, num_classes);
  const LabelArray true_labels = label_array(op, "truth", truth);
  const LabelArray predicted_labels = label_array(op, "prediction", prediction);
  if (truth.ndim() != prediction.ndim() || !std::equal(truth.shape(), truth.shape() + truth.ndim(), prediction.shape()))
    fail(op, "prediction must have the shape of truth, " + shape_text(truth) + ", got " + shape_text(prediction));
  const uint8_t *t = true_labels.data(), *p = predicted_labels.data();
  const int64_t pixels = true_labels.size();
  std::vector<int64_t> table((num_classes + 1) * 256, 0);  // the last row counts ignored pixels
  int64_t largest = 0;
  {
    py::gil_scoped_release release;
    int64_t* sums = table.data();
    const auto blank = [=](int64_t i) { return all_background(t + i) && all_background(p + i); };
    const auto add = [=](int64_t i, int run) { sums[std::min<int64_t>(t[i], num_classes) * 256 + p[i]] += run; };
    for_runs(pixels, blank, add, t, p);
    for (size_t k = 0; k < table.size(); ++k)
      if (table[k]) largest = std::max<int64_t>(largest, k & 255);
  }
  check_labels(op, "prediction", num_classes, largest);
  Counts out({num_classes, num_classes});
  for (int64_t row = 0; row < num_classes; ++row) std::copy_n(&table[row * 256], num_classes, out.mutable_data(row, 0));
  return out;
}

// People as Python gives them: person maps, which may overlap, or numbered ones, which do not.
struct People {
  LabelArray person_maps;  // [count, H, W], unless numbered
  std::optional<NumberedPersonMaps> numbered;
  int64_t count;
  Size size;

  // Returns the largest person number, which is too large if it exceeds `count`.
  int64_t layers(std::vector<Layer>& out, int64_t* histograms) const {
    if (numbered)
      return numbered->with_numbers([&](const auto* numbers) {
        return layers_of_numbers(numbered->label_map.data(), numbers, count, size, out, histograms);
      });
    out = layers_of_maps(person_maps.data(), count, size, histograms);
    return 0;
  }
};

// given: uint8 [N, H, W], or a tuple (label map uint8 [H, W], person numbers uint8 or uint16 [H, W], N).
People people_of(const std::string& op, const std::string& name, const std::string& letter, const py::object& given) {
  People people{};
  if (py::isinstance<py::tuple>(given)) {
    const py::tuple parts = py::reinterpret_borrow<py::tuple>(given);
    if (parts.size() != 3 || !py::isinstance<py::array>(parts[0]) || !py::isinstance<py::array>(parts[1]) ||
        !py::isinstance<py::int_>(parts[2]))
      fail(op, name + " must be an array, or a tuple (label map, person numbers, count) of two arrays and an integer");
    const auto label_map = parts[0].cast<py::array>(), person_numbers = parts[1].cast<py::array>();
    const int64_t count = PyLong_AsLongLong(parts[2].ptr());
    if (PyErr_Occurred()) throw py::error_already_set();  // OverflowError
    people.numbered = numbered_person_maps(op, name, label_map, person_numbers, count);
    people.count = count, people.size = {people.numbered->height, people.numbered->width};
    return people;
  }
  if (!py::isinstance<py::array>(given))
    fail(op, name + " must be an array or a tuple, got " + py::str(py::type::of(given)).cast<std::string>());
  const py::array maps = py::reinterpret_borrow<py::array>(given);
  if (maps.ndim() != 3) fail(op, name + " must have shape [" + letter + ", H, W], got " + shape_text(maps));
  people.person_maps = label_array(op, name, maps);
  people.count = maps.shape(0), people.size = {maps.shape(1), maps.shape(2)};
  return people;
}

void check_numbers(const std::string& op, const std::string& name, const People& people, int64_t largest) {
  if (largest > people.count)
    fail(op,
         name + ": person numbers must lie in 0.." + std::to_string(people.count) + ", got " + std::to_string(largest));
}

void check_one_size(const std::string& op, const People& predicted, const People& truth) {
  if (predicted.size.height == truth.size.height && predicted.size.width == truth.size.width) return;
  const auto text = [](const People& people) {
    return "[" + std::to_string(people.count) + ", " + std::to_string(people.size.height) + ", " +
           std::to_string(people.size.width) + "]";
  };
  fail(op, "person_maps and true_person_maps must have one height and width, got " + text(predicted) + " and " +
               text(truth));
}

// What person_counts and image_counts return: new arrays, uninitialized, and pointers to them.
struct PersonCountArrays {
  Counts intersection, predicted, truth;
  PairCounts pairs;
  int64_t* truth_data;

  PersonCountArrays(int64_t num_people, int64_t num_true_people, int64_t classes)
      : intersection({num_people, num_true_people, classes}),
        predicted({num_people, num_true_people, classes}),
        truth({num_true_people, classes}),
        pairs{classes, num_true_people, intersection.mutable_data(), predicted.mutable_data()},
        truth_data(truth.mutable_data()) {}

  // The counts of predictions without labels. true_histograms: [G][256].
  void start(int64_t num_people, const std::vector<int64_t>& true_histograms, Size size) const {
    std::fill_n(pairs.intersection, intersection.size(), 0);
    std::fill_n(pairs.predicted, predicted.size(), 0);
    for (int64_t g = 0; g < pairs.num_true_people; ++g)
      std::copy_n(&true_histograms[g * 256], pairs.classes, truth_data + g * pairs.classes);
    for (int64_t n = 0; n < num_people; ++n) count_as_background(n, true_histograms.data(), size, pairs);
  }
};

py::tuple person_counts(const py::object& person_maps, const py::object& true_person_maps, int64_t num_classes,
                        int64_t threads) {
  const std::string op = "person_counts";
  check_classes(op, num_classes);
  const People predicted = people_of(op, "person_maps", "N", person_maps);
  const People truth = people_of(op, "true_person_maps", "G", true_person_maps);
  const Size size = predicted.size;
  check_one_size(op, predicted, truth);
  PersonCountArrays out(predicted.count, truth.count, num_classes);
  int64_t largest_label = 0, largest_number = 0, largest_true_number = 0;
  {
    py::gil_scoped_release release;
    std::vector<int64_t> true_histograms(truth.count * 256), histograms(predicted.numbered ? predicted.count * 256 : 0);
    std::vector<Layer> true_layers, layers;
    largest_true_number = truth.layers(true_layers, true_histograms.data());
    if (predicted.numbered) largest_number = predicted.layers(layers, histograms.data());
    out.start(predicted.count, true_histograms, size);

    for (const Layer& layer : layers)
      for (const PersonLabel& one : layer.legend) largest_label = std::max<int64_t>(largest_label, one.label);
    if (predicted.numbered && largest_label < num_classes)
      for (const Layer& layer : layers) count_layer(layer.codes.data(), layer.legend, true_layers, size, out.pairs);
    if (!predicted.numbered) {
      std::atomic<bool> fits{true};
      const LabelArray& maps = predicted.person_maps;
      const int64_t available = threads > 0 ? threads : std::max(std::thread::hardware_concurrency(), 1u);
      in_parallel(predicted.count, std::min(available, 1 + predicted.count * size.area() / kPixelsPerThread),
                  [&](int64_t n) {
                    std::vector<PersonLabel> legend{kBackground};  // a person map is a layer whose codes are labels
                    for (int64_t label = 1; label < num_classes; ++label)
                      legend.push_back({static_cast<int32_t>(n), static_cast<uint8_t>(label)});
                    if (!count_layer(maps.data() + n * size.area(), legend, true_layers, size, out.pairs)) fits = false;
                  });
      if (!fits || true_layers.empty())  // search for the label of K or more
        largest_label = maps.size() ? *std::max_element(maps.data(), maps.data() + maps.size()) : 0;
    }
  }
  check_numbers(op, "person_maps", predicted, largest_number);
  check_numbers(op, "true_person_maps", truth, largest_true_number);
  check_labels(op, "person_maps", num_classes, largest_label);
  return py::make_tuple(std::move(out.intersection), std::move(out.predicted), std::move(out.truth));
}

// None where a side has too many labels of people, or the image too many pixels, for one table.
py::object image_counts(const py::object& person_maps, const py::object& true_person_maps, int64_t num_classes) {
  const std::string op = "image_counts";
  check_classes(op, num_classes);
  const People predicted = people_of(op, "person_maps", "N", person_maps);
  const People truth = people_of(op, "true_person_maps", "G", true_person_maps);
  if (!predicted.numbered || !truth.numbered) fail(op, "person_maps and true_person_maps must be numbered");
  const Size size = predicted.size;
  check_one_size(op, predicted, truth);
  if (size.area() >= int64_t{1} << 32) return py::none();
  Counts out_confusion({num_classes, num_classes});
  PersonCountArrays out(predicted.count, truth.count, num_classes);
  int64_t *confusion = out_confusion.mutable_data(), largest_label = 0;
  CodeTable predicted_codes(predicted.count), true_codes(truth.count);
  bool fits;
  {
    py::gil_scoped_release release;
    std::fill_n(confusion, out_confusion.size(), 0);
    std::vector<uint32_t> table(256 * 256);
    fits = predicted.numbered->with_numbers([&](const auto* person_numbers) {
      return truth.numbered->with_numbers([&](const auto* true_person_numbers) {
        return add_joint_histogram(predicted.numbered->label_map.data(), person_numbers,
                                   truth.numbered->label_map.data(), true_person_numbers, size.area(), predicted_codes,
                                   true_codes, table.data());
      });
    });
    if (fits) {
      largest_label = predicted_codes.largest_label();
      std::vector<int64_t> true_histograms(truth.count * 256);
      for (size_t t = 0; t < true_codes.legend.size(); ++t) {
        const auto [g, true_label] = true_codes.legend[t];
        for (size_t p = 0; p < predicted_codes.legend.size(); ++p) {
          const int64_t pixels = table[p * 256 + t], predicted_label = predicted_codes.legend[p].label;
          if (g >= 0) true_histograms[g * 256 + true_label] += pixels;
          if (true_label < num_classes && predicted_label < num_classes)
            confusion[true_label * num_classes + predicted_label] += pixels;
        }
      }
      set_background_counts(truth.count, size, true_histograms.data());
      out.start(predicted.count, true_histograms, size);
      if (largest_label < num_classes)
        count_labels(table.data(), 256, predicted_codes.legend, true_codes.legend, true, out.pairs);
    }
  }
  check_numbers(op, "person_maps", predicted, predicted_codes.largest_number);
  check_numbers(op, "true_person_maps", truth, true_codes.largest_number);
  if (!fits) return py::none();
  check_labels(op, "label_map", num_classes, largest_label);
  return py::make_tuple(std::move(out_confusion), std::move(out.intersection), std::move(out.predicted),
                        std::move(out.truth));
}

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;
using Bools = py::array_t<bool, py::array::c_style | py::array::forcecast>;
using Integers = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;

py::array_t<bool> take(const Doubles& iou, const Bools& occurs, const Integers& order, const Doubles& thresholds) {
  if (iou.ndim() != 3 || occurs.ndim() != 2 || order.ndim() != 1 || thresholds.ndim() != 1 ||
      occurs.shape(0) != iou.shape(1) || occurs.shape(1) != iou.shape(2) || order.shape(0) != iou.shape(0))
    fail("take_greedily", "iou, occurs, order and thresholds must have shapes [N, G, K], [G, K], [N] and [T], got " +
                              shape_text(iou) + ", " + shape_text(occurs) + ", " + shape_text(order) + " and " +
                              shape_text(thresholds));
  for (py::ssize_t i = 0; i < order.size(); ++i)
    if (order.at(i) < 0 || order.at(i) >= iou.shape(0))
      fail("take_greedily", "order must hold indices of predictions, 0.." + std::to_string(iou.shape(0) - 1) +
                                ", got " + std::to_string(order.at(i)));
  py::array_t<bool> matched({thresholds.shape(0), iou.shape(0), iou.shape(2)});
  take_greedily(iou.data(), occurs.data(), order.data(), thresholds.data(), iou.shape(0), iou.shape(1), iou.shape(2),
                thresholds.shape(0), matched.mutable_data());
  return matched;
}

py::tuple coco_boxes(const Doubles& boxes, const Doubles& scores, const Integers& starts, const Doubles& true_boxes,
                     const Integers& true_starts, const Doubles& thresholds, int64_t most) {
  const std::string op = "coco_boxes";
  if (boxes.ndim() != 2 || boxes.shape(1) != 4 || true_boxes.ndim() != 2 || true_boxes.shape(1) != 4 ||
      scores.ndim() != 1 || scores.shape(0) != boxes.shape(0) || thresholds.ndim() != 1 || starts.ndim() != 1 ||
      true_starts.ndim() != 1 || starts.shape(0) != true_starts.shape(0) || starts.shape(0) < 1 || most < 0)
    fail(op,
         "boxes, scores, starts, true_boxes, true_starts and thresholds must have shapes [N, 4], [N], [I + 1], "
         "[G, 4], [I + 1] and [T], got " +
             shape_text(boxes) + ", " + shape_text(scores) + ", " + shape_text(starts) + ", " + shape_text(true_boxes) +
             ", " + shape_text(true_starts) + " and " + shape_text(thresholds));
  const auto check_starts = [&](const char* name, const Integers& first, int64_t count) {
    if (first.at(0) != 0 || first.at(first.size() - 1) != count ||
        !std::is_sorted(first.data(), first.data() + first.size()))
      fail(op, std::string(name) + " must rise from 0 to " + std::to_string(count));
  };
  check_starts("starts", starts, boxes.shape(0));
  check_starts("true_starts", true_starts, true_boxes.shape(0));

  const int64_t images = starts.size() - 1, limits = thresholds.size();
  const int64_t *first = starts.data(), *true_first = true_starts.data();
  std::vector<CocoImage> found;
  int64_t kept = 0, num_true = 0;
  for (int64_t i = 0; i < images; ++i) {
    found.push_back(match_coco_boxes(boxes.data() + 4 * first[i], scores.data() + first[i], first[i + 1] - first[i],
                                     true_boxes.data() + 4 * true_first[i], true_first[i + 1] - true_first[i],
                                     thresholds.data(), limits, most));
    kept += int64_t(found.back().order.size()), num_true += found.back().num_true;
  }
  py::array_t<int64_t> order(kept);
  py::array_t<bool> matched({limits, kept});
  int64_t* rank = order.mutable_data();
  int64_t column = 0;
  for (int64_t i = 0; i < images; ++i) {
    const int64_t own = int64_t(found[i].order.size());
    for (const int64_t n : found[i].order) *rank++ = first[i] + n;
    for (int64_t t = 0; t < limits; ++t)
      std::copy_n(found[i].matched.get() + t * own, own, matched.mutable_data() + t * kept + column);
    column += own;
  }
  return py::make_tuple(std::move(order), std::move(matched), num_true);
}

}  // namespace

PYBIND11_MODULE(_metrics, m) {
  m.doc() = "Counting for rpcnn.metrics; see rpcnn/metrics/counting.py.";
  m.def("confusion_matrix", &confusion_matrix, py::arg("truth"), py::arg("prediction"), py::arg("num_classes"),
        "int64 [K, K]: pixels by (truth, prediction); uint8 arrays of one shape.");
  m.def(
      "person_counts", &person_counts, py::arg("person_maps"), py::arg("true_person_maps"), py::arg("num_classes"),
      py::arg("threads") = 0,
      "(intersection [N, G, K], predicted [N, G, K], truth [G, K]), int64; person maps are uint8 [N, H, W], or a tuple "
      "(label map uint8 [H, W], person numbers uint8 or uint16 [H, W], N).");
  m.def("image_counts", &image_counts, py::arg("person_maps"), py::arg("true_person_maps"), py::arg("num_classes"),
        "(confusion_matrix of the label maps, *person_counts) of numbered person maps, reading each pixel once; None "
        "where a side has more than 255 labels of people.");
  m.def("take_greedily", &take, py::arg("iou"), py::arg("occurs"), py::arg("order"), py::arg("thresholds"),
        "bool [T, N, K]: which predictions take a true instance; see rpcnn/metrics/counting.py.");
  m.def("coco_boxes", &coco_boxes, py::arg("boxes"), py::arg("scores"), py::arg("starts"), py::arg("true_boxes"),
        py::arg("true_starts"), py::arg("thresholds"), py::arg("most"),
        "(order int64 [M], matched bool [T, M], number of true boxes) of the images whose boxes begin at `starts`; see "
        "rpcnn/metrics/boxes.py.");
}
