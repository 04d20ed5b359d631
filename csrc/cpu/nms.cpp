// nms: greedy suppression within groups, best score first, ties in input order.
//
// Boxes are sorted once by score and laid out as one array per coordinate and group. A block of 512 boxes is resolved
// one after another; then every kept box of the block is held against the rest in vectors, in chunks that threads
// share. Operations: one IoU test per (kept box, later box of its group), about 20 vector instructions per 16 tests and
// no division: inter > threshold · union. The tests run in float with a margin for rounding; the few that fall inside
// the margin are decided in double by the rule itself (geometry/boxes.h). Groups whose corners float cannot hold are
// tested in double throughout. The result does not depend on the number of threads.
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>

#include "../geometry/boxes.h"
#include "common.h"

namespace rpcnn {
namespace {

constexpr int64_t kBlock = 512;               // boxes resolved one after another
constexpr int64_t kChunk = 2048;              // boxes a thread tests at a time
constexpr int64_t kGrain = int64_t(1) << 21;  // tests worth a thread: half a millisecond

using Box = Corners<double>;

// The boxes of one group, best first.
template <typename T>
struct Group {
  std::vector<T> x1, y1, x2, y2, area;
  std::vector<Box> exact;
  std::vector<uint8_t> dead, unsure;

  explicit Group(std::vector<Box> boxes) : exact(std::move(boxes)), dead(exact.size(), 0), unsure(exact.size()) {
    for (const Box& box : exact) {
      const Corners<T> rounded{T(box.x1), T(box.y1), T(box.x2), T(box.y2)};
      x1.push_back(rounded.x1), y1.push_back(rounded.y1), x2.push_back(rounded.x2), y2.push_back(rounded.y2);
      area.push_back(area_of(rounded));
    }
  }
};

bool fits_float(const std::vector<Box>& boxes) {
  const auto fits = [](double value) { return value == double(float(value)); };
  return std::all_of(boxes.begin(), boxes.end(),
                     [&](const Box& b) { return fits(b.x1) && fits(b.y1) && fits(b.x2) && fits(b.y2); });
}

// Tests one box against [begin, end): marks the dead and the unsure; returns whether there are any of the latter.
// Bytes may alias anything: without __restrict the loop stays scalar.
template <typename T>
RPCNN_CLONES bool test_range(const T* x1, const T* y1, const T* x2, const T* y2, const T* area,
                             uint8_t* __restrict dead, uint8_t* __restrict unsure, int64_t i, int64_t begin,
                             int64_t end, T threshold) {
  const Corners<T> box{x1[i], y1[i], x2[i], y2[i]};
  const T own = area[i];
  uint8_t any = 0;
  for (int64_t j = begin; j < end; ++j) {
    const Overlap found = overlap(box, own, Corners<T>{x1[j], y1[j], x2[j], y2[j]}, area[j], threshold);
    dead[j] |= uint8_t(found.more);
    unsure[j] = uint8_t(found.unsure);
    any |= uint8_t(found.unsure);
  }
  return any != 0;
}

template <typename T>
void suppress(Group<T>& g, int64_t i, int64_t begin, int64_t end, double threshold) {
  if (!test_range<T>(g.x1.data(), g.y1.data(), g.x2.data(), g.y2.data(), g.area.data(), g.dead.data(), g.unsure.data(),
                     i, begin, end, T(threshold)))
    return;
  for (int64_t j = begin; j < end; ++j)
    if (g.unsure[j] && !g.dead[j]) g.dead[j] = overlaps_more(g.exact[i], g.exact[j], threshold);
}

// Positions of the kept boxes, at most `limit`.
template <typename T>
std::vector<int64_t> greedy(Group<T> g, double threshold, int64_t limit) {
  const int64_t n = int64_t(g.exact.size());
  std::vector<int64_t> kept;
  for (int64_t start = 0; start < n && int64_t(kept.size()) < limit; start += kBlock) {
    const int64_t end = std::min(n, start + kBlock);
    const size_t first = kept.size();
    for (int64_t i = start; i < end && int64_t(kept.size()) < limit; ++i) {
      if (g.dead[i]) continue;
      kept.push_back(i);
      suppress(g, i, i + 1, end, threshold);
    }
    if (int64_t(kept.size()) >= limit) break;
    const int64_t tests = int64_t(kept.size() - first) * kChunk;
    parallel((n - end + kChunk - 1) / kChunk, kGrain / (tests + 1) + 1, [&](int64_t begin, int64_t stop) {
      for (int64_t c = begin; c < stop; ++c)
        for (size_t k = first; k < kept.size(); ++k)
          suppress(g, kept[k], end + c * kChunk, std::min(n, end + (c + 1) * kChunk), threshold);
    });
  }
  return kept;
}

std::vector<double> as_doubles(const Tensor& t) {
  const Tensor source = t.is_contiguous() ? t : torch::stable::contiguous(t);
  std::vector<double> values(source.numel());
  dispatch_floating("nms", source.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const T* data = source.const_data_ptr<T>();
    for (size_t i = 0; i < values.size(); ++i) values[i] = double(accumulate_t<T>(data[i]));
  });
  return values;
}

// Indices of the kept boxes, best score first, at most `limit`.
std::vector<int64_t> keep_best(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& idxs,
                               double iou_threshold, int64_t limit) {
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 4 && boxes.is_cpu(), "nms: boxes must be [R, 4] on the CPU");
  const int64_t n = boxes.size(0);
  STD_TORCH_CHECK(scores.dim() == 1 && scores.size(0) == n && scores.is_cpu(), "nms: scores must be [R] on the CPU");
  STD_TORCH_CHECK(
      !idxs || (idxs->dim() == 1 && idxs->size(0) == n && idxs->is_cpu() && idxs->scalar_type() == ScalarType::Long),
      "nms: idxs must be int64 [R] on the CPU");
  STD_TORCH_CHECK(iou_threshold >= 0 && iou_threshold <= 1, "nms: iou_threshold must lie in 0..1, got ", iou_threshold);
  const std::vector<double> corners = as_doubles(boxes), score = as_doubles(scores);

  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return std::isnan(score[b]) ? !std::isnan(score[a]) : score[a] > score[b];
  });
  // Ranks by group, each group's in score order.
  std::vector<int64_t> ranks(n), starts = {0};
  std::iota(ranks.begin(), ranks.end(), 0);
  if (idxs && n) {
    const Tensor dense_idxs = idxs->is_contiguous() ? *idxs : torch::stable::contiguous(*idxs);
    const int64_t* group = dense_idxs.const_data_ptr<int64_t>();
    std::stable_sort(ranks.begin(), ranks.end(),
                     [&](int64_t a, int64_t b) { return group[order[a]] < group[order[b]]; });
    for (int64_t i = 1; i < n; ++i)
      if (group[order[ranks[i]]] != group[order[ranks[i - 1]]]) starts.push_back(i);
  }
  if (n) starts.push_back(n);
  std::vector<uint8_t> keep(n, 0);  // by rank
  parallel(int64_t(starts.size()) - 1, 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t count = starts[k + 1] - starts[k];
      const int64_t* members = ranks.data() + starts[k];
      std::vector<Box> group(count);
      for (int64_t i = 0; i < count; ++i) {
        const double* c = &corners[4 * order[members[i]]];
        group[i] = finite_or_empty(c[0], c[1], c[2], c[3]);
      }
      for (const int64_t i : fits_float(group) ? greedy(Group<float>(std::move(group)), iou_threshold, limit)
                                               : greedy(Group<double>(std::move(group)), iou_threshold, limit))
        keep[members[i]] = 1;
    }
  });
  std::vector<int64_t> kept;
  for (int64_t r = 0; r < n && int64_t(kept.size()) < limit; ++r)
    if (keep[r]) kept.push_back(order[r]);
  return kept;
}

Tensor nms(Tensor boxes, Tensor scores, std::optional<Tensor> idxs, double iou_threshold, int64_t max_keep) {
  const int64_t limit = max_keep < 0 ? std::numeric_limits<int64_t>::max() : max_keep;
  const std::vector<int64_t> kept = keep_best(boxes, scores, idxs, iou_threshold, limit);
  Tensor out = empty_cpu({int64_t(kept.size())}, ScalarType::Long);
  std::copy(kept.begin(), kept.end(), out.mutable_data_ptr<int64_t>());
  return out;
}

std::tuple<Tensor, Tensor> nms_padded(Tensor boxes, Tensor scores, std::optional<Tensor> idxs, double iou_threshold,
                                      int64_t max_keep) {
  STD_TORCH_CHECK(max_keep >= 0, "nms_padded: max_keep must be >= 0, got ", max_keep);
  const std::vector<int64_t> kept = keep_best(boxes, scores, idxs, iou_threshold, max_keep);
  Tensor indices = empty_cpu({max_keep}, ScalarType::Long), count = empty_cpu({}, ScalarType::Long);
  int64_t* end = std::copy(kept.begin(), kept.end(), indices.mutable_data_ptr<int64_t>());
  std::fill(end, indices.mutable_data_ptr<int64_t>() + max_keep, -1);
  *count.mutable_data_ptr<int64_t>() = int64_t(kept.size());
  return {indices, count};
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CPU, m) {
  m.impl("nms", TORCH_BOX(&nms));
  m.impl("nms_padded", TORCH_BOX(&nms_padded));
}

}  // namespace
}  // namespace rpcnn
