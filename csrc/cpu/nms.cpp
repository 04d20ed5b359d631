// nms: greedy suppression within groups, best score first, ties in input order.
//
// Minimum of work: one IoU test for each pair of a kept box and a later box of its group that it could suppress, about
// 20 vector instructions per 16 tests and no division: inter > threshold · union. The threshold limits these pairs:
// IoU > t bounds the distance between two left edges and between two upper edges (Window). So a group is divided from
// top to bottom into bands with equal numbers of boxes, each sorted from left to right, and a kept box tests one range
// in some of the bands: 1 to 3 % of the boxes at t = 0.7. The bands adapt to the distribution of the boxes.
// The tests run in float with a margin for rounding; tests inside the margin are decided in double by the exact rule
// (geometry/boxes.h). Groups whose corners are not exact in float are tested in double only. Threads share the groups;
// the result does not depend on their number.
//
// Ladder, times faster than torchvision at 2,000 / 12,000 / 50,000 boxes on two cores:
//   10.6 / 22.7 / 36.5  every kept box against all later ones, in vectors, blocks shared by threads; 0.35 ns a test
//   40 / 140 / 350      bands: a kept box tests only the range that the threshold allows; √(boxes / 64) bands
//                       (/ 8: 10 % to 100 % slower, / 128: the same); branch-free searches, which take a quarter of the
//                       time of std::lower_bound
// What is left at 50,000: half in the searches and tests, a fifth in sorting, the rest in laying out.
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <tuple>
#include <utility>

#include "../geometry/boxes.h"
#include "common.h"
#include "radix_sort.h"

namespace rpcnn {
namespace {

using Box = Corners<double>;

// Keys that ascend with the value; −0 counts as 0.
inline uint32_t ascending(float value) {
  uint32_t bits;
  std::memcpy(&bits, &(value += 0.0f), sizeof bits);
  return bits ^ (bits >> 31 ? ~uint32_t(0) : uint32_t(1) << 31);
}
inline uint64_t ascending(double value) {
  uint64_t bits;
  std::memcpy(&bits, &(value += 0.0), sizeof bits);
  return bits ^ (bits >> 63 ? ~uint64_t(0) : uint64_t(1) << 63);
}
inline uint64_t ascending(int64_t value) {
  return uint64_t(value) ^ (uint64_t(1) << 63);
}

// One axis of the range in which a box must begin if it overlaps `box` by more than the threshold t. IoU > t requires a
// common length of more than t times the longer length. So a box that begins later begins within (1 − t) of the length
// of `box`. A box that begins earlier begins within (1 − t) of its own length, which is below the length of `box` / t
// and at most the longest length.
struct Window {
  float low, high;
  Window(double begin, double end, double longest, double threshold) {
    const double length = end - begin, room = 1 - threshold, slack = 1e-6 * length + 1e-15 * std::abs(begin);
    low = float(begin - room * std::min(length / threshold, longest) * (1 + 1e-6) - slack);
    high = float(begin + room * length + slack);  // NaN after an overflow of lengths: no bound
  }
};

// The number of sorted values before a point. Without branches, which would be mispredicted.
template <typename Before>
int64_t count_before(const float* values, int64_t count, const Before& before) {
  if (count == 0) return 0;
  const float* base = values;
  for (int64_t half; count > 1; count -= half) {
    half = count / 2;
    base += int64_t(before(base[half - 1])) * half;
  }
  return base - values + int64_t(before(*base));
}

// The boxes of one group in bands.
template <typename T>
struct Group {
  static constexpr int64_t kTestedAtOnce = 16;  // boxes, some perhaps beyond the end of a range
  static constexpr int64_t kPerBand = 64;       // bands = √(boxes / kPerBand)
  static constexpr int64_t kUnsorted = 256;     // so few are kept in the order of their scores

  std::vector<Box> exact;                // best first
  std::vector<T> x1, y1, x2, y2, area;   // by place, padded with boxes that overlap nothing
  std::vector<int32_t> rank_at, place;   // place → rank and rank → place
  std::vector<int32_t> dead;             // by place
  std::vector<int64_t> bands;            // their first places, and the end
  std::vector<float> left, top, bottom;  // x1 by place; least and largest y1 by band
  double widest = 0, tallest = 0, threshold;

  Group(std::vector<Box> boxes, double t) : exact(std::move(boxes)), threshold(t) {
    const int64_t n = int64_t(exact.size());
    lay_out(n);
    const int64_t padded = n + kTestedAtOnce;
    for (auto* array : {&x1, &y1, &x2, &y2, &area}) array->assign(padded, T(0));
    dead.assign(padded, 0);
    place.resize(n);
    for (int64_t p = 0; p < n; ++p) {
      const Box& box = exact[rank_at[p]];
      const Corners<T> rounded{T(box.x1), T(box.y1), T(box.x2), T(box.y2)};
      x1[p] = rounded.x1, y1[p] = rounded.y1, x2[p] = rounded.x2, y2[p] = rounded.y2;
      area[p] = area_of(rounded);
      place[rank_at[p]] = int32_t(p);
      widest = std::max(widest, box.x2 - box.x1), tallest = std::max(tallest, box.y2 - box.y1);
    }
  }

  bool banded() const { return !left.empty(); }

  // Marks the boxes that the box of a rank suppresses. Better boxes may be marked as well, which has no effect: they
  // were decided before.
  void suppress(int64_t rank) {
    const Box& box = exact[rank];
    if (!(box.x2 > box.x1 && box.y2 > box.y1)) return;
    const int64_t n = int64_t(exact.size());
    if (!banded()) return suppress(rank, rank + 1, n);
    const Window x(box.x1, box.x2, widest, threshold), y(box.y1, box.y2, tallest, threshold);
    auto band = std::lower_bound(bottom.begin(), bottom.end(), y.low) - bottom.begin();
    for (; band + 1 < int64_t(bands.size()) && !(top[band] > y.high); ++band) {
      const int64_t first = bands[band], count = bands[band + 1] - first;
      const float* lefts = left.data() + first;
      const int64_t begin = count_before(lefts, count, [&](float value) { return value < x.low; });
      const int64_t end = count_before(lefts, count, [&](float value) { return !(value > x.high); });
      if (begin < end) suppress(rank, first + begin, first + end);
    }
  }

 private:
  void lay_out(int64_t n) {
    std::vector<Keyed<uint32_t>> order(n);
    const auto key_by = [&](auto corner) {
      for (auto& item : order) item.key = ascending(float(exact[item.index].*corner));
    };
    for (int64_t i = 0; i < n; ++i) order[i].index = int32_t(i);
    if (n > kUnsorted) {
      key_by(&Box::y1);
      radix_sort(order);
      const auto count = int64_t(std::sqrt(double(n) / double(kPerBand)));
      for (int64_t b = 0; b <= count; ++b) bands.push_back(b * n / count);
      for (int64_t b = 0; b < count; ++b) {
        top.push_back(float(exact[order[bands[b]].index].y1));
        bottom.push_back(float(exact[order[bands[b + 1] - 1].index].y1));
      }
      key_by(&Box::x1);
      std::vector<Keyed<uint32_t>> row;
      for (int64_t b = 0; b < count; ++b) {
        row.assign(order.begin() + bands[b], order.begin() + bands[b + 1]);
        radix_sort(row);
        std::copy(row.begin(), row.end(), order.begin() + bands[b]);
      }
      for (const auto& item : order) left.push_back(float(exact[item.index].x1));
    }
    rank_at.reserve(n);
    for (const auto& item : order) rank_at.push_back(item.index);
  }

  void suppress(int64_t rank, int64_t begin, int64_t end) {
    if (test(*this, place[rank], begin, end)) decide(rank, begin, end);
  }

  // Tests the boxes from `begin` to `end`, and some beyond, against the box at a place. Marks those that it certainly
  // suppresses, and returns whether a test was inside the margin for rounding.
  RPCNN_CLONES static bool test(Group& g, int64_t own, int64_t begin, int64_t end) {
    const Corners<T> box{g.x1[own], g.y1[own], g.x2[own], g.y2[own]};
    const T area = g.area[own], threshold = T(g.threshold);
    const T *x1 = g.x1.data(), *y1 = g.y1.data(), *x2 = g.x2.data(), *y2 = g.y2.data(), *areas = g.area.data();
    int32_t* __restrict dead = g.dead.data();
    int32_t any[kTestedAtOnce] = {};
    for (int64_t first = std::min(begin, int64_t(g.exact.size())); first < end; first += kTestedAtOnce)
      for (int64_t lane = 0; lane < kTestedAtOnce; ++lane) {
        const int64_t j = first + lane;
        const Overlap found = overlap(box, area, Corners<T>{x1[j], y1[j], x2[j], y2[j]}, areas[j], threshold);
        dead[j] |= int32_t(found.more);
        any[lane] |= int32_t(found.unsure);
      }
    return std::any_of(any, any + kTestedAtOnce, [](int32_t unsure) { return unsure != 0; });
  }

  void decide(int64_t rank, int64_t begin, int64_t end) {
    for (int64_t p = begin; p < std::min(end + kTestedAtOnce, int64_t(exact.size())); ++p)
      if (!dead[p]) dead[p] = overlaps_more(exact[rank], exact[rank_at[p]], threshold);
  }
};

// Ranks of the kept boxes, at most `limit`.
template <typename T>
std::vector<int64_t> greedy(Group<T> g, int64_t limit) {
  std::vector<int64_t> kept;
  for (int64_t rank = 0; rank < int64_t(g.exact.size()) && int64_t(kept.size()) < limit; ++rank) {
    if (g.dead[g.place[rank]]) continue;
    kept.push_back(rank);
    g.suppress(rank);
  }
  return kept;
}

bool fit_float(const std::vector<Box>& boxes) {
  const auto fits = [](double value) { return value == double(float(value)); };
  return std::all_of(boxes.begin(), boxes.end(),
                     [&](const Box& b) { return fits(b.x1) && fits(b.y1) && fits(b.x2) && fits(b.y2); });
}

// Indices by falling score, NaN last, equal ones in input order.
std::vector<int32_t> sorted_by_score(const Tensor& scores) {
  std::vector<int32_t> order;
  order.reserve(scores.numel());
  dispatch_floating("nms", scores.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const T* score = scores.const_data_ptr<T>();
    using Key = decltype(ascending(accumulate_t<T>()));
    std::vector<Keyed<Key>> items(scores.numel());
    for (size_t i = 0; i < items.size(); ++i) {
      const auto value = accumulate_t<T>(score[i]);
      items[i] = {std::isnan(value) ? ~Key(0) : ~ascending(value), int32_t(i)};
    }
    radix_sort(items);
    for (const auto& item : items) order.push_back(item.index);
  });
  return order;
}

// The boxes of some indices as doubles; those that are not finite become empty.
std::vector<Box> take(const Tensor& boxes, const int32_t* indices, int64_t count) {
  std::vector<Box> taken(count);
  dispatch_floating("nms", boxes.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const T* corners = boxes.const_data_ptr<T>();
    const auto corner = [&](int64_t i, int64_t k) {
      return double(accumulate_t<T>(corners[4 * int64_t(indices[i]) + k]));
    };
    for (int64_t i = 0; i < count; ++i)
      taken[i] = finite_or_empty(corner(i, 0), corner(i, 1), corner(i, 2), corner(i, 3));
  });
  return taken;
}

// Indices of the kept boxes, best score first, at most `limit`.
std::vector<int32_t> keep_best(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& idxs,
                               double iou_threshold, int64_t limit) {
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 4 && boxes.is_cpu(), "nms: boxes must be [R, 4] on the CPU");
  const int64_t n = boxes.size(0);
  STD_TORCH_CHECK(n <= std::numeric_limits<int32_t>::max(), "nms: at most 2^31 - 1 boxes, got ", n);
  STD_TORCH_CHECK(scores.dim() == 1 && scores.size(0) == n && scores.is_cpu(), "nms: scores must be [R] on the CPU");
  STD_TORCH_CHECK(
      !idxs || (idxs->dim() == 1 && idxs->size(0) == n && idxs->is_cpu() && idxs->scalar_type() == ScalarType::Long),
      "nms: idxs must be int64 [R] on the CPU");
  STD_TORCH_CHECK(iou_threshold >= 0 && iou_threshold <= 1, "nms: iou_threshold must lie in 0..1, got ", iou_threshold);
  const Tensor corners = dense(boxes, false);
  const std::vector<int32_t> order = sorted_by_score(dense(scores, false));

  // Ranks by group, each group's in score order.
  std::vector<Keyed<uint64_t>> ranks(n);
  for (int64_t r = 0; r < n; ++r) ranks[r] = {0, int32_t(r)};
  if (idxs) {
    const Tensor groups = dense(*idxs, false);
    for (auto& item : ranks) item.key = ascending(groups.const_data_ptr<int64_t>()[order[item.index]]);
    radix_sort(ranks);
  }
  std::vector<int32_t> indices;  // of the boxes, beside `ranks`
  std::vector<int64_t> starts;
  for (int64_t i = 0; i < n; ++i) {
    indices.push_back(order[ranks[i].index]);
    if (i == 0 || ranks[i].key != ranks[i - 1].key) starts.push_back(i);
  }
  const int64_t groups = int64_t(starts.size());
  starts.push_back(n);

  std::vector<uint8_t> keep(n, 0);  // by rank
  parallel(groups, 1 + 4096 * groups / (n + 1), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      std::vector<Box> group = take(corners, indices.data() + starts[k], starts[k + 1] - starts[k]);
      const bool narrow = corners.scalar_type() != ScalarType::Double || fit_float(group);
      for (const int64_t i : narrow ? greedy(Group<float>(std::move(group), iou_threshold), limit)
                                    : greedy(Group<double>(std::move(group), iou_threshold), limit))
        keep[ranks[starts[k] + i].index] = 1;
    }
  });
  std::vector<int32_t> kept;
  for (int64_t r = 0; r < n && int64_t(kept.size()) < limit; ++r)
    if (keep[r]) kept.push_back(order[r]);
  return kept;
}

Tensor nms(Tensor boxes, Tensor scores, std::optional<Tensor> idxs, double iou_threshold, int64_t max_keep) {
  const int64_t limit = max_keep < 0 ? std::numeric_limits<int64_t>::max() : max_keep;
  const std::vector<int32_t> kept = keep_best(boxes, scores, idxs, iou_threshold, limit);
  Tensor out = empty_cpu({int64_t(kept.size())}, ScalarType::Long);
  std::copy(kept.begin(), kept.end(), out.mutable_data_ptr<int64_t>());
  return out;
}

std::tuple<Tensor, Tensor> nms_padded(Tensor boxes, Tensor scores, std::optional<Tensor> idxs, double iou_threshold,
                                      int64_t max_keep) {
  check_extent("nms_padded", "max_keep", max_keep, 0);
  const std::vector<int32_t> kept = keep_best(boxes, scores, idxs, iou_threshold, max_keep);
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
