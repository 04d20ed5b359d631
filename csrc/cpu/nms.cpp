// nms: greedy suppression within groups, best score first, ties in input order.
//
// Boxes are sorted once by score and laid out as one array per coordinate and group. A block of 512 boxes is resolved
// one after another; then every kept box of the block is held against the rest in vectors, in chunks that threads
// share. Operations: one IoU test per (kept box, later box still in its group), 9 vector instructions per 16 tests and
// no division: inter > threshold · union. The tests run in float with a margin for rounding; the few that fall inside
// the margin are decided in double by the exact rule (geometry/boxes.h), so that the result is that of exact
// arithmetic.
#include <cmath>
#include <numeric>

#include "../geometry/boxes.h"
#include "common.h"

namespace rpcnn {
namespace {

constexpr int64_t kBlock = 512;   // boxes resolved one after another
constexpr int64_t kChunk = 2048;  // boxes a thread tests at a time

struct Group {
  std::vector<float> x1, y1, x2, y2, area;
  std::vector<double> corners;  // [n, 4]
  std::vector<uint8_t> dead, unsure;
  bool exact_only = false;  // coordinates beyond float's comfort: every test in double

  explicit Group(int64_t n) : x1(n), y1(n), x2(n), y2(n), area(n), corners(4 * n), dead(n, 0), unsure(n, 0) {}

  void set(int64_t i, const double* box) {
    // A non-finite box becomes an empty one: it overlaps nothing.
    bool finite = true;
    for (int k = 0; k < 4; ++k) finite = finite && std::isfinite(box[k]);
    for (int k = 0; k < 4; ++k) corners[4 * i + k] = finite ? box[k] : 0;
    const double* c = &corners[4 * i];
    for (int k = 0; k < 4; ++k) exact_only = exact_only || std::fabs(c[k]) > 1e15 || c[k] != double(float(c[k]));
    x1[i] = float(c[0]), y1[i] = float(c[1]), x2[i] = float(c[2]), y2[i] = float(c[3]);
    area[i] = std::max(x2[i] - x1[i], 0.f) * std::max(y2[i] - y1[i], 0.f);
  }
};

// Tests box i against [begin, end): sets dead where the overlap is certain, unsure where rounding could decide. Returns
// whether anything is unsure. Each of inter, areas and union is right to 4e-7 of the union; the margin is ten times
// that, and 1e-30 covers products that underflow.
RPCNN_CLONES bool test_range(const float* x1, const float* y1, const float* x2, const float* y2, const float* area,
                             uint8_t* dead, uint8_t* unsure, int64_t i, int64_t begin, int64_t end, float threshold) {
  const float left = x1[i], top = y1[i], right = x2[i], bottom = y2[i], own = area[i];
  uint8_t any = 0;
  for (int64_t j = begin; j < end; ++j) {
    const float width = std::min(right, x2[j]) - std::max(left, x1[j]);
    const float height = std::min(bottom, y2[j]) - std::max(top, y1[j]);
    const float inter = std::max(width, 0.f) * std::max(height, 0.f);
    const float joined = own + area[j] - inter;
    const float excess = inter - threshold * joined, margin = 4e-6f * joined + 1e-30f;
    const bool touching = (width > 0.f) & (height > 0.f);
    const uint8_t more = touching & (excess > margin);
    const uint8_t close = touching & !(excess > margin) & (excess >= -margin);
    dead[j] |= more;
    unsure[j] = close;
    any |= close;
  }
  return any != 0;
}

void suppress(Group& g, int64_t i, int64_t begin, int64_t end, double threshold) {
  if (g.exact_only) {
    for (int64_t j = begin; j < end; ++j)
      if (!g.dead[j]) g.dead[j] = overlaps_more(&g.corners[4 * i], &g.corners[4 * j], threshold);
    return;
  }
  if (!test_range(g.x1.data(), g.y1.data(), g.x2.data(), g.y2.data(), g.area.data(), g.dead.data(), g.unsure.data(), i,
                  begin, end, float(threshold)))
    return;
  for (int64_t j = begin; j < end; ++j)
    if (g.unsure[j] && !g.dead[j]) g.dead[j] = overlaps_more(&g.corners[4 * i], &g.corners[4 * j], threshold);
}

// Positions of the kept boxes, at most `limit`.
std::vector<int64_t> greedy(Group& g, int64_t n, double threshold, int64_t limit) {
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
    parallel((n - end + kChunk - 1) / kChunk, 1, [&](int64_t begin, int64_t stop) {
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

Tensor nms(Tensor boxes, Tensor scores, std::optional<Tensor> idxs, double iou_threshold, int64_t max_keep) {
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 4 && boxes.is_cpu(), "nms: boxes must be [R, 4] on the CPU");
  const int64_t n = boxes.size(0);
  STD_TORCH_CHECK(scores.dim() == 1 && scores.size(0) == n && scores.is_cpu(), "nms: scores must be [R] on the CPU");
  STD_TORCH_CHECK(
      !idxs || (idxs->dim() == 1 && idxs->size(0) == n && idxs->is_cpu() && idxs->scalar_type() == ScalarType::Long),
      "nms: idxs must be int64 [R] on the CPU");
  STD_TORCH_CHECK(iou_threshold >= 0 && iou_threshold <= 1, "nms: iou_threshold must lie in 0..1, got ", iou_threshold);
  const std::vector<double> corners = as_doubles(boxes), score = as_doubles(scores);
  const int64_t limit = max_keep < 0 ? n : std::min(n, max_keep);

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
      Group g(count);
      for (int64_t i = 0; i < count; ++i) g.set(i, &corners[4 * order[members[i]]]);
      for (const int64_t i : greedy(g, count, iou_threshold, limit)) keep[members[i]] = 1;
    }
  });
  std::vector<int64_t> kept;
  for (int64_t r = 0; r < n && int64_t(kept.size()) < limit; ++r)
    if (keep[r]) kept.push_back(order[r]);
  Tensor out = empty_cpu({int64_t(kept.size())}, ScalarType::Long);
  std::copy(kept.begin(), kept.end(), out.mutable_data_ptr<int64_t>());
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CPU, m) {
  m.impl("nms", TORCH_BOX(&nms));
}

}  // namespace
}  // namespace rpcnn
