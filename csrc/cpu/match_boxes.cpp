// match_boxes: the best ground-truth box of each box, and the best boxes of each ground-truth box, without the matrix.
//
// In pieces of 1024 boxes, whose corners and areas lie in rows that vector instructions load: for each ground-truth box
// a row of IoUs that never leaves the L1 cache. First (only with promote_best) the largest IoU of each ground-truth box
// with each piece, and of these over all pieces; then each box. 182,400 anchors and six people: 2.9 MB of boxes read
// twice, 1.5 MB written; PyTorch's ops move 134 MB. Not timed yet.
//
// The clone has AVX2 but no fused multiply-add, which would round otherwise than PyTorch's ops (geometry/match.h).
#include "../geometry/match.h"

#include "common.h"

#if defined(__x86_64__) && defined(__GNUC__) && defined(__linux__)
#define RPCNN_UNFUSED_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define RPCNN_UNFUSED_CLONES
#endif

namespace rpcnn {
namespace {

constexpr int64_t kPiece = 1024, kStep = 16;

// iou = IoU of each box with a ground-truth box, for whole steps. Returns the largest.
template <typename T>
RPCNN_UNFUSED_CLONES T overlaps(const T* __restrict x1, const T* __restrict y1, const T* __restrict x2,
                                const T* __restrict y2, const T* __restrict area, int64_t count, Truth<T> truth,
                                T* __restrict iou) {
  for (int64_t i = 0; i < count; ++i) iou[i] = match_iou(x1[i], y1[i], x2[i], y2[i], area[i], truth);
  T best[kStep] = {};
  for (int64_t i = 0; i < count; i += kStep)
    for (int64_t k = 0; k < kStep; ++k) best[k] = larger(best[k], iou[i + k]);
  return *std::max_element(best, best + kStep);
}

template <typename T>
struct Piece {
  const T* boxes;
  int64_t count, padded;  // padded to a multiple of kStep with empty boxes
  T x1[kPiece], y1[kPiece], x2[kPiece], y2[kPiece], area[kPiece], iou[kPiece];

  Piece(const T* all, int64_t n, int64_t index) : boxes(all + 4 * index * kPiece) {
    count = std::min(kPiece, n - index * kPiece);
    padded = (count + kStep - 1) / kStep * kStep;
    for (int64_t i = 0; i < padded; ++i) {
      const Truth<T> own = truth_of(i < count ? corners(i) : Corners<T>{});
      x1[i] = own.box.x1, y1[i] = own.box.y1, x2[i] = own.box.x2, y2[i] = own.box.y2, area[i] = own.area;
    }
  }
  T overlaps_with(const Truth<T>& truth) { return overlaps(x1, y1, x2, y2, area, padded, truth, iou); }
  Corners<T> corners(int64_t i) const { return {boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]}; }
};

template <typename T>
RPCNN_UNFUSED_CLONES void take_better(const T* __restrict iou, int64_t count, int32_t index, T best,
                                      T* __restrict overlap, int32_t* __restrict person, int32_t* __restrict promoted) {
  for (int64_t i = 0; i < count; ++i) {
    const bool more = iou[i] > overlap[i];
    person[i] = more ? index : person[i];
    overlap[i] = more ? iou[i] : overlap[i];
    promoted[i] |= int32_t(iou[i] == best);
  }
}

template <typename T>
void match(const T* boxes, int64_t n, const std::vector<Truth<T>>& truths, const MatchRule<T>& rule, int64_t* matched) {
  const int64_t pieces = (n + kPiece - 1) / kPiece, G = int64_t(truths.size());
  std::vector<T> best(G, T(2));  // no IoU equals it
  if (rule.promote_best && n > 0) {
    std::vector<T> best_of_pieces(pieces * G);
    parallel(pieces, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        Piece<T> piece(boxes, n, p);
        for (int64_t g = 0; g < G; ++g) best_of_pieces[p * G + g] = piece.overlaps_with(truths[g]);
      }
    });
    for (int64_t g = 0; g < G; ++g) {
      T most = T(0);
      for (int64_t p = 0; p < pieces; ++p) most = std::max(most, best_of_pieces[p * G + g]);
      if (most > T(0)) best[g] = most;
    }
  }
  parallel(pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      Piece<T> piece(boxes, n, p);
      T overlap[kPiece] = {};
      int32_t person[kPiece], promoted[kPiece] = {};
      std::fill(person, person + kPiece, G > 0 ? 0 : -1);
      for (int64_t g = 0; g < G; ++g) {
        piece.overlaps_with(truths[g]);
        take_better(piece.iou, piece.count, int32_t(g), best[g], overlap, person, promoted);
      }
      for (int64_t i = 0; i < piece.count; ++i)
        matched[p * kPiece + i] = rule.decide(piece.corners(i), overlap[i], person[i], promoted[i] != 0);
    }
  });
}

Tensor match_boxes(Tensor boxes, Tensor gt_boxes, double positive, double negative, bool promote_best, int64_t height,
                   int64_t width) {
  const auto is_boxes = [](const Tensor& t) { return t.dim() == 2 && t.size(1) == 4 && t.is_cpu(); };
  STD_TORCH_CHECK(is_boxes(boxes), "match_boxes: boxes must be [n, 4] on the CPU");
  STD_TORCH_CHECK(is_boxes(gt_boxes) && gt_boxes.scalar_type() == boxes.scalar_type(),
                  "match_boxes: gt_boxes must be [G, 4] on the CPU, of the boxes' dtype");
  const ScalarType dtype = boxes.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double,
                  "match_boxes: boxes must be float32 or float64");
  STD_TORCH_CHECK(gt_boxes.size(0) <= INT32_MAX, "match_boxes: at most 2^31 - 1 ground-truth boxes");
  const Tensor all = dense(boxes, false), truth = dense(gt_boxes, false);
  Tensor matched = empty_cpu({boxes.size(0)}, ScalarType::Long);
  const auto run = [&](auto type) {
    using T = decltype(type);
    const T* corners = truth.const_data_ptr<T>();
    std::vector<Truth<T>> truths;
    for (int64_t g = 0; g < truth.size(0); ++g, corners += 4)
      truths.push_back(truth_of(Corners<T>{corners[0], corners[1], corners[2], corners[3]}));
    const MatchRule<T> rule{T(positive), T(negative), promote_best, height >= 0, T(height), T(width)};
    match(all.const_data_ptr<T>(), all.size(0), truths, rule, matched.mutable_data_ptr<int64_t>());
  };
  dtype == ScalarType::Double ? run(double{}) : run(float{});
  return matched;
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CPU, m) {
  m.impl("match_boxes", TORCH_BOX(&match_boxes));
}

}  // namespace
}  // namespace rpcnn
