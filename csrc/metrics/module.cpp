// rpcnn._metrics: the evaluator's core. numpy in, numpy out, no torch; the GIL is released while it counts.
//
// Work is split over the layers of predictions; every counter belongs to one thread, so that any number of threads
// counts the same.
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
#include "greedy.h"
#include "numbered_counts.h"
#include "person_counts.h"

using namespace rpcnn::metrics;
using namespace rpcnn::labelmaps;

namespace {

using Counts = py::array_t<int64_t>;

// Below this many pixels per thread, starting it (tens of microseconds) costs more than it saves.
constexpr int64_t kPixelsPerThread = 1 << 22;

void check_classes(const std::string& op, int64_t classes) {
  if (classes < 1 || classes > 256) fail(op, "num_classes must lie in 1..256, got " + std::to_string(classes));
}

void check_prediction(const std::string& op, const std::string& name, int64_t classes, int64_t largest) {
  if (largest >= classes)
    fail(op, name + " must lie in 0.." + std::to_string(classes - 1) + ", got " + std::to_string(largest));
}

// f(0), …, f(count − 1), shared out over at most `threads` threads.
template <class F>
void share_out(int64_t count, int64_t threads, const F& f) {
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t i = next++; i < count; i = next++) f(i);
  };
  std::vector<std::thread> others;
  try {
    for (int64_t k = 1; k < std::min(threads, count); ++k) others.emplace_back(work);
  } catch (const std::system_error&) {  // no more threads to be had: those that started and this one do it all
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
  std::vector<int64_t> table((num_classes + 1) * 256, 0);  // the last row holds what is ignored
  int64_t largest = 0;
  {
    py::gil_scoped_release release;
    int64_t* sums = table.data();
    const auto blank = [=](int64_t i) { return all_background(t + i) && all_background(p + i); };
    const auto add = [=](int64_t i, int n) { sums[std::min<int64_t>(t[i], num_classes) * 256 + p[i]] += n; };
    for_runs(pixels, blank, add, t, p);
    for (size_t k = 0; k < table.size(); ++k)
      if (table[k]) largest = std::max<int64_t>(largest, k & 255);
  }
  check_prediction(op, "prediction", num_classes, largest);
  Counts out({num_classes, num_classes});
  for (int64_t row = 0; row < num_classes; ++row) std::copy_n(&table[row * 256], num_classes, out.mutable_data(row, 0));
  return out;
}

// People as they come from Python: maps [N, H, W], or numbered people.
struct People {
  LabelArray labels;
  std::optional<NumberedPeople> numbered;
  int64_t count;
  Size size;

  // Returns the largest number, which must not exceed `count`.
  int64_t layers(std::vector<Layer>& out, int64_t* counts) const {
    if (numbered)
      return numbered->with_numbers(
          [&](const auto* values) { return layers_of_numbers(labels.data(), values, count, size, out, counts); });
    out = layers_of_maps(labels.data(), count, size, counts);
    return 0;
  }
};

void check_numbers(const std::string& op, const std::string& name, const People& people, int64_t largest) {
  if (largest > people.count)
    fail(op, name + ": numbers must lie in 0.." + std::to_string(people.count) + ", got " + std::to_string(largest));
}

People people_of(const std::string& op, const std::string& name, const std::string& letter, const py::object& given) {
  People people{};
  if (py::isinstance<py::tuple>(given)) {
    const auto [map, numbers, count] = given.cast<std::tuple<py::array, py::array, int64_t>>();
    people.numbered = numbered_people(op, name, map, numbers, count);
    people.labels = people.numbered->label_map;
    people.count = count, people.size = {people.numbered->height, people.numbered->width};
    return people;
  }
  const py::array maps = py::reinterpret_borrow<py::array>(given);
  if (maps.ndim() != 3) fail(op, name + " must have shape [" + letter + ", H, W], got " + shape_text(maps));
  people.labels = label_array(op, name, maps);
  people.count = maps.shape(0), people.size = {maps.shape(1), maps.shape(2)};
  return people;
}

void check_one_size(const std::string& op, const People& found, const People& wanted) {
  if (found.size.height == wanted.size.height && found.size.width == wanted.size.width) return;
  const auto text = [](const People& one) {
    return "[" + std::to_string(one.count) + ", " + std::to_string(one.size.height) + ", " +
           std::to_string(one.size.width) + "]";
  };
  fail(op, "people and true_people must have one height and width, got " + text(found) + " and " + text(wanted));
}

py::tuple person_counts(const py::object& people, const py::object& true_people, int64_t num_classes, int64_t threads) {
  const std::string op = "person_counts";
  check_classes(op, num_classes);
  const People found = people_of(op, "people", "N", people), wanted = people_of(op, "true_people", "G", true_people);
  const Size size = found.size;
  check_one_size(op, found, wanted);
  Counts out_hits({found.count, wanted.count, num_classes}), out_predicted({found.count, wanted.count, num_classes}),
      out_truth({wanted.count, num_classes});
  const PairCounts out{num_classes, wanted.count, out_hits.mutable_data(), out_predicted.mutable_data()};
  int64_t *truth = out_truth.mutable_data(), most = 0, true_number = 0, number = 0;
  {
    py::gil_scoped_release release;
    std::fill_n(out.hits, out_hits.size(), 0);
    std::fill_n(out.predicted, out_predicted.size(), 0);
    std::vector<int64_t> true_histograms(wanted.count * 256), histograms(found.numbered ? found.count * 256 : 0);
    std::vector<Layer> truths, layers;
    true_number = wanted.layers(truths, true_histograms.data());
    if (found.numbered) number = found.layers(layers, histograms.data());
    for (int64_t g = 0; g < wanted.count; ++g)
      std::copy_n(&true_histograms[g * 256], num_classes, truth + g * num_classes);
    for (int64_t n = 0; n < found.count; ++n) count_nothing(n, true_histograms.data(), size, out);

    for (const Layer& layer : layers)
      for (const Code& code : layer.meaning) most = std::max<int64_t>(most, code.label);
    if (found.numbered && most < num_classes)
      for (const Layer& layer : layers) count_layer(layer.codes, layer.meaning, truths, size, out);
    if (!found.numbered) {
      std::atomic<bool> fits{true};
      const int64_t available = threads > 0 ? threads : std::max(std::thread::hardware_concurrency(), 1u);
      share_out(found.count, std::min(available, 1 + found.count * size.area() / kPixelsPerThread), [&](int64_t n) {
        std::vector<Code> labels{{-1, 0}};  // of a map of its own, which is its layer
        for (int64_t label = 1; label < num_classes; ++label)
          labels.push_back({static_cast<int32_t>(n), static_cast<uint8_t>(label)});
        if (!count_layer(found.labels.data() + n * size.area(), labels, truths, size, out)) fits = false;
      });
      if (!fits || truths.empty())  // which label that is
        most =
            found.labels.size() ? *std::max_element(found.labels.data(), found.labels.data() + found.labels.size()) : 0;
    }
  }
  check_numbers(op, "people", found, number);
  check_numbers(op, "true_people", wanted, true_number);
  check_prediction(op, "people", num_classes, most);
  return py::make_tuple(std::move(out_hits), std::move(out_predicted), std::move(out_truth));
}

// None where a side has too many labels of people, or the image too many pixels, for one table.
py::object image_counts(const py::object& people, const py::object& true_people, int64_t num_classes) {
  const std::string op = "image_counts";
  check_classes(op, num_classes);
  const People found = people_of(op, "people", "N", people), wanted = people_of(op, "true_people", "G", true_people);
  if (!found.numbered || !wanted.numbered) fail(op, "people and true_people must be numbered");
  const Size size = found.size;
  check_one_size(op, found, wanted);
  if (size.area() >= int64_t{1} << 32) return py::none();
  Counts out_confusion({num_classes, num_classes}), out_hits({found.count, wanted.count, num_classes}),
      out_predicted({found.count, wanted.count, num_classes}), out_truth({wanted.count, num_classes});
  const PairCounts out{num_classes, wanted.count, out_hits.mutable_data(), out_predicted.mutable_data()};
  int64_t *confusion = out_confusion.mutable_data(), *truth = out_truth.mutable_data(), most = 0;
  NumberedCodes ours(found.count), theirs(wanted.count);
  bool fits;
  {
    py::gil_scoped_release release;
    std::fill_n(confusion, out_confusion.size(), 0);
    std::fill_n(out.hits, out_hits.size(), 0);
    std::fill_n(out.predicted, out_predicted.size(), 0);
    std::vector<uint32_t> table(256 * 256);
    fits = found.numbered->with_numbers([&](const auto* numbers) {
      return wanted.numbered->with_numbers([&](const auto* true_numbers) {
        return add_joint_histogram(found.labels.data(), numbers, wanted.labels.data(), true_numbers, size.area(), ours,
                                   theirs, table.data());
      });
    });
    if (fits) {
      most = ours.largest_label();
      std::vector<int64_t> true_histograms(wanted.count * 256);
      for (size_t t = 0; t < theirs.meaning.size(); ++t) {
        const auto [g, meant] = theirs.meaning[t];
        for (size_t p = 0; p < ours.meaning.size(); ++p) {
          const int64_t pixels = table[p * 256 + t], said = ours.meaning[p].label;
          if (g >= 0) true_histograms[g * 256 + meant] += pixels;
          if (meant < num_classes && said < num_classes) confusion[meant * num_classes + said] += pixels;
        }
      }
      set_backgrounds(wanted.count, size, true_histograms.data());
      for (int64_t g = 0; g < wanted.count; ++g)
        std::copy_n(&true_histograms[g * 256], num_classes, truth + g * num_classes);
      for (int64_t n = 0; n < found.count; ++n) count_nothing(n, true_histograms.data(), size, out);
      if (most < num_classes) count_table(table.data(), 256, ours.meaning, theirs.meaning, true, out);
    }
  }
  check_numbers(op, "people", found, ours.largest_number);
  check_numbers(op, "true_people", wanted, theirs.largest_number);
  if (!fits) return py::none();
  check_prediction(op, "labels", num_classes, most);
  return py::make_tuple(std::move(out_confusion), std::move(out_hits), std::move(out_predicted), std::move(out_truth));
}

py::array_t<bool> take(const py::array_t<double, py::array::c_style | py::array::forcecast>& iou,
                       const py::array_t<bool, py::array::c_style | py::array::forcecast>& occurs,
                       const py::array_t<int64_t, py::array::c_style | py::array::forcecast>& order,
                       const py::array_t<double, py::array::c_style | py::array::forcecast>& limits) {
  if (iou.ndim() != 3 || occurs.ndim() != 2 || order.ndim() != 1 || limits.ndim() != 1 ||
      occurs.shape(0) != iou.shape(1) || occurs.shape(1) != iou.shape(2) || order.shape(0) != iou.shape(0))
    fail("take_greedily", "wants iou [N, G, K], occurs [G, K], order [N] and limits [T], got " + shape_text(iou) +
                              ", " + shape_text(occurs) + ", " + shape_text(order) + " and " + shape_text(limits));
  for (py::ssize_t i = 0; i < order.size(); ++i)
    if (order.at(i) < 0 || order.at(i) >= iou.shape(0)) fail("take_greedily", "order must hold indices of predictions");
  py::array_t<bool> right({limits.shape(0), iou.shape(0), iou.shape(2)});
  take_greedily(iou.data(), occurs.data(), order.data(), limits.data(), iou.shape(0), iou.shape(1), iou.shape(2),
                limits.shape(0), right.mutable_data());
  return right;
}

}  // namespace

PYBIND11_MODULE(_metrics, m) {
  m.doc() = "Counting for rpcnn.metrics; see rpcnn/metrics/counting.py.";
  m.def("confusion_matrix", &confusion_matrix, py::arg("truth"), py::arg("prediction"), py::arg("num_classes"),
        "int64 [K, K]: pixels by (truth, prediction); uint8 arrays of one shape.");
  m.def(
      "person_counts", &person_counts, py::arg("people"), py::arg("true_people"), py::arg("num_classes"),
      py::arg("threads") = 0,
      "(hits [N, G, K], predicted [N, G, K], truth [G, K]), int64; people are uint8 maps [N, H, W] or a tuple (labels "
      "uint8 [H, W], numbers uint8 or uint16 [H, W], N).");
  m.def("image_counts", &image_counts, py::arg("people"), py::arg("true_people"), py::arg("num_classes"),
        "(confusion_matrix of the labels, *person_counts) of numbered people in one look at each pixel; None where a "
        "side has more than 255 labels of people.");
  m.def("take_greedily", &take, py::arg("iou"), py::arg("occurs"), py::arg("order"), py::arg("limits"),
        "bool [T, N, K]: which predictions take a true instance; see rpcnn/metrics/counting.py.");
}
