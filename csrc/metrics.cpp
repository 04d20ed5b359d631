// rpcnn._metrics: the evaluator's counting core. numpy in, numpy out, no torch; the GIL is released while it counts.
//
//   confusion_matrix   M[i][j]       = pixels with truth i and prediction j
//   person_counts      hits[n][g][c] = pixels where prediction n and true person g both say c
//                      predicted[n][g][c], truth[g][c] = pixels where the one, the other says c
//   Pixels whose truth is K or more are ignored; a prediction of K or more is an error.
//
// Fewest bytes: each map is read once for its rows' spans and its histogram, each pair once more where spans of both
// meet; outside of that at least one of the two is background, and the counts of background follow from the histograms:
//   hits[0] = pixels with p = 0 − pixels with t ≠ 0 + pixels with t ≠ 0 and p ≠ 0.
// Label maps come in runs: eight pixels of one label are one comparison and one addition (read as a 64-bit word), and
// eight pixels of background in either map cost the comparison alone.
//
// Tried: four histograms in turn, so that equal neighbours do not wait for each other: 14 % slower, clearing them costs
// more.
//
// Work is split over the maps, then over the predictions; every counter belongs to one thread, so that any number of
// threads counts the same.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace py = pybind11;

namespace {

using Labels = py::array_t<uint8_t, py::array::c_style | py::array::forcecast>;
using Counts = py::array_t<int64_t>;

constexpr uint64_t kOnes = 0x0101010101010101ull;
// Below this many pixels per thread, starting it (tens of microseconds) costs more than it saves.
constexpr int64_t kPixelsPerThread = 1 << 22;

[[noreturn]] void fail(const std::string& op, const std::string& what) {
  const std::string message = op + ": " + what;
  throw py::value_error(message.c_str());
}

std::string shape_text(const py::array& array) {
  std::string text = "[";
  for (py::ssize_t i = 0; i < array.ndim(); ++i) text += (i ? ", " : "") + std::to_string(array.shape(i));
  return text + "]";
}

Labels labels(const std::string& op, const std::string& name, const py::array& array) {
  if (!py::isinstance<py::array_t<uint8_t>>(array))
    fail(op, name + " must be uint8, got " + py::str(array.dtype()).cast<std::string>());
  return Labels::ensure(array);
}

void check_classes(const std::string& op, int64_t classes) {
  if (classes < 1 || classes > 256) fail(op, "num_classes must lie in 1..256, got " + std::to_string(classes));
}

void check_prediction(const std::string& op, const std::string& name, int64_t classes, int64_t largest) {
  if (largest >= classes)
    fail(op, name + " must lie in 0.." + std::to_string(classes - 1) + ", got " + std::to_string(largest));
}

uint64_t word_at(const uint8_t* pixels) {
  uint64_t word;
  std::memcpy(&word, pixels, 8);
  return word;
}

bool uniform(uint64_t word) {
  return word == kOnes * (word & 255);
}

// counts[label] += pixels with that label
void histogram(const uint8_t* pixels, int64_t size, int64_t* counts) {
  int64_t i = 0;
  for (; i + 8 <= size; i += 8) {
    const uint64_t word = word_at(pixels + i);
    if (uniform(word))
      counts[word & 255] += 8;
    else
      for (int k = 0; k < 8; ++k) ++counts[pixels[i + k]];
  }
  for (; i < size; ++i) ++counts[pixels[i]];
}

// The first pixel of a row from `first` on that is not background, or `end`; 64 pixels a step where all are.
int64_t skip_background(const uint8_t* row, int64_t first, int64_t end) {
  for (; first + 64 <= end; first += 64) {
    uint64_t any = 0;
    for (int k = 0; k < 64; k += 8) any |= word_at(row + first + k);
    if (any) break;
  }
  while (first + 8 <= end && word_at(row + first) == 0) first += 8;
  while (first < end && row[first] == 0) ++first;
  return first;
}

// Pixels [left, right) of a row; empty where there is no label.
struct Span {
  int32_t left, right;
};

// Where a map is not background, and how often it says what: everything that is asked of it on its own.
struct Person {
  const uint8_t* map = nullptr;
  int64_t top = 0, bottom = 0;
  std::vector<Span> rows;  // from `top` on
  int64_t counts[256] = {};

  void measure(const uint8_t* pixels, int64_t height, int64_t width) {
    map = pixels;
    const int64_t start = skip_background(pixels, 0, height * width);
    top = bottom = width > 0 ? start / width : 0;
    for (int64_t y = top; y < height; ++y) {
      const uint8_t* row = pixels + y * width;
      const int64_t first = skip_background(row, 0, width);
      int64_t last = width;
      if (first < width) {
        while (last >= 8 && word_at(row + last - 8) == 0) last -= 8;
        while (row[last - 1] == 0) --last;
        bottom = y + 1;
        histogram(row + first, last - first, counts);
      }
      rows.push_back({static_cast<int32_t>(first), static_cast<int32_t>(last)});
    }
    counts[0] = height * width;
    for (int label = 1; label < 256; ++label) counts[0] -= counts[label];
  }

  int64_t above(int64_t classes) const {  // pixels with a label of K or more
    int64_t sum = 0;
    for (int64_t label = classes; label < 256; ++label) sum += counts[label];
    return sum;
  }
};

void count_pair(const Person& truth, const Person& prediction, int64_t width, int64_t classes, int64_t* hits,
                int64_t* predicted) {
  int64_t same[256] = {}, both = 0;
  const int64_t top = std::max(truth.top, prediction.top), bottom = std::min(truth.bottom, prediction.bottom);
  std::copy_n(prediction.counts, classes, predicted);
  for (int64_t y = top; y < bottom; ++y) {
    const uint8_t *t = truth.map + y * width, *p = prediction.map + y * width;
    const Span a = truth.rows[y - truth.top], b = prediction.rows[y - prediction.top];
    int64_t x = std::max(a.left, b.left);
    const int64_t right = std::min(a.right, b.right);
    for (; x + 8 <= right; x += 8) {
      const uint64_t t8 = word_at(t + x), p8 = word_at(p + x);
      if (t8 == 0 || p8 == 0) continue;
      if (t8 == p8 && uniform(t8)) {
        same[t8 & 255] += 8, both += 8;
      } else {
        for (int64_t i = x; i < x + 8; ++i) same[t[i] == p[i] ? t[i] : 0]++, both += (t[i] != 0) & (p[i] != 0);
      }
    }
    for (; x < right; ++x) same[t[x] == p[x] ? t[x] : 0]++, both += (t[x] != 0) & (p[x] != 0);
  }
  if (truth.above(classes))  // rare enough for a second look; here background predictions count too
    for (int64_t y = truth.top; y < truth.bottom; ++y) {
      const Span span = truth.rows[y - truth.top];
      for (int64_t i = y * width + span.left; i < y * width + span.right; ++i)
        predicted[prediction.map[i]] -= truth.map[i] >= classes;
    }
  std::copy_n(same, classes, hits);
  int64_t pixels_of_truth = 0;
  for (int label = 1; label < 256; ++label) pixels_of_truth += truth.counts[label];
  hits[0] = prediction.counts[0] - pixels_of_truth + both;
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
  const Labels true_labels = labels(op, "truth", truth), predicted_labels = labels(op, "prediction", prediction);
  if (truth.ndim() != prediction.ndim() || !std::equal(truth.shape(), truth.shape() + truth.ndim(), prediction.shape()))
    fail(op, "prediction must have the shape of truth, " + shape_text(truth) + ", got " + shape_text(prediction));
  const uint8_t *t = true_labels.data(), *p = predicted_labels.data();
  const int64_t pixels = true_labels.size();
  std::vector<int64_t> table((num_classes + 1) * 256, 0);  // the last row holds what is ignored
  int64_t largest = 0;
  {
    py::gil_scoped_release release;
    const auto add = [&](int64_t label, uint64_t predicted, int64_t n) {
      table[std::min(label, num_classes) * 256 + predicted] += n;
    };
    int64_t i = 0;
    for (; i + 8 <= pixels; i += 8) {
      const uint64_t t8 = word_at(t + i), p8 = word_at(p + i);
      if (uniform(t8) && uniform(p8))
        add(t8 & 255, p8 & 255, 8);
      else
        for (int k = 0; k < 8; ++k) add(t[i + k], p[i + k], 1);
    }
    for (; i < pixels; ++i) add(t[i], p[i], 1);
    for (size_t k = 0; k < table.size(); ++k)
      if (table[k]) largest = std::max<int64_t>(largest, k & 255);
  }
  check_prediction(op, "prediction", num_classes, largest);
  Counts out({num_classes, num_classes});
  for (int64_t row = 0; row < num_classes; ++row) std::copy_n(&table[row * 256], num_classes, out.mutable_data(row, 0));
  return out;
}

py::tuple person_counts(const py::array& people, const py::array& true_people, int64_t num_classes, int64_t threads) {
  const std::string op = "person_counts";
  check_classes(op, num_classes);
  if (people.ndim() != 3) fail(op, "people must have shape [N, H, W], got " + shape_text(people));
  if (true_people.ndim() != 3) fail(op, "true_people must have shape [G, H, W], got " + shape_text(true_people));
  const Labels found = labels(op, "people", people), wanted = labels(op, "true_people", true_people);
  const int64_t height = people.shape(1), width = people.shape(2), area = height * width;
  if (height != true_people.shape(1) || width != true_people.shape(2))
    fail(op, "people and true_people must have one height and width, got " + shape_text(people) + " and " +
                 shape_text(true_people));
  const int64_t n_found = people.shape(0), n_true = true_people.shape(0), classes = num_classes;
  Counts hits({n_found, n_true, classes}), predicted({n_found, n_true, classes}), truth({n_true, classes});
  const uint8_t *found_pixels = found.data(), *true_pixels = wanted.data();
  int64_t *hits_out = hits.mutable_data(), *predicted_out = predicted.mutable_data(), *truth_out = truth.mutable_data();
  int64_t largest = 0;
  {
    py::gil_scoped_release release;
    const int64_t available = threads > 0 ? threads : std::max(std::thread::hardware_concurrency(), 1u);
    const int64_t useful = std::min(available, 1 + (n_found + n_true) * area / kPixelsPerThread);
    std::vector<Person> maps(n_found + n_true);
    share_out(n_found + n_true, useful, [&](int64_t i) {
      maps[i].measure(i < n_found ? found_pixels + i * area : true_pixels + (i - n_found) * area, height, width);
    });
    for (int64_t n = 0; n < n_found; ++n)
      for (int label = 0; label < 256; ++label)
        if (maps[n].counts[label]) largest = std::max<int64_t>(largest, label);
    for (int64_t g = 0; g < n_true; ++g) std::copy_n(maps[n_found + g].counts, classes, truth_out + g * classes);
    if (largest < classes)
      share_out(n_found, useful, [&](int64_t n) {
        for (int64_t g = 0; g < n_true; ++g) {
          const int64_t pair = (n * n_true + g) * classes;
          count_pair(maps[n_found + g], maps[n], width, classes, hits_out + pair, predicted_out + pair);
        }
      });
  }
  check_prediction(op, "people", classes, largest);
  return py::make_tuple(std::move(hits), std::move(predicted), std::move(truth));
}

}  // namespace

PYBIND11_MODULE(_metrics, m) {
  m.doc() = "Counting for rpcnn.metrics; see rpcnn/metrics/counting.py.";
  m.def("confusion_matrix", &confusion_matrix, py::arg("truth"), py::arg("prediction"), py::arg("num_classes"),
        "int64 [K, K]: pixels by (truth, prediction); uint8 arrays of one shape.");
  m.def("person_counts", &person_counts, py::arg("people"), py::arg("true_people"), py::arg("num_classes"),
        py::arg("threads") = 0,
        "(hits [N, G, K], predicted [N, G, K], truth [G, K]), int64, of uint8 maps [N, H, W] and [G, H, W].");
}
