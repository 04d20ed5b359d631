// The boxes of one image as COCO matches them, for AP^bbox.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <vector>

#include "greedy.h"

namespace rpcnn::metrics {

// Corners [4] as COCO's x, y, width and height.
struct CocoBox {
  double x, y, width, height;
  explicit CocoBox(const double* corners)
      : x(corners[0]), y(corners[1]), width(corners[2] - corners[0]), height(corners[3] - corners[1]) {}
  double area() const { return width * height; }
};

// As pycocotools computes it, to the bit.
inline double coco_iou(const CocoBox& a, const CocoBox& b) {
  const double width = std::min(a.width + a.x, b.width + b.x) - std::max(a.x, b.x);
  const double height = std::min(a.height + a.y, b.height + b.y) - std::max(a.y, b.y);
  if (width <= 0 || height <= 0) return 0;
  return width * height / (a.area() + b.area() - width * height);
}

struct CocoImage {
  std::vector<int64_t> order;       // the best predictions, best score first, equal ones in input order
  std::unique_ptr<bool[]> matched;  // [thresholds][order]
  int64_t num_true = 0;             // of no negative area
};

// boxes [N][4] and true_boxes [G][4] as corners, scores [N], thresholds [T]; at most `most` predictions count. Of equal
// IoUs the last true box is taken.
inline CocoImage match_coco_boxes(const double* boxes, const double* scores, int64_t count, const double* true_boxes,
                                  int64_t true_count, const double* thresholds, int64_t num_thresholds, int64_t most) {
  CocoImage image;
  image.order.resize(count);
  std::iota(image.order.begin(), image.order.end(), int64_t(0));
  std::stable_sort(image.order.begin(), image.order.end(), [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  image.order.resize(std::min(count, most));

  std::vector<CocoBox> truth;
  for (int64_t g = true_count - 1; g >= 0; --g)
    if (const CocoBox box(true_boxes + 4 * g); box.area() >= 0) truth.push_back(box);
  image.num_true = int64_t(truth.size());

  std::vector<double> iou;
  for (const int64_t n : image.order)
    for (const CocoBox& box : truth) iou.push_back(coco_iou(CocoBox(boxes + 4 * n), box));
  const auto occurs = std::make_unique<bool[]>(truth.size());
  std::fill_n(occurs.get(), truth.size(), true);
  std::vector<int64_t> ranks(image.order.size());
  std::iota(ranks.begin(), ranks.end(), int64_t(0));
  image.matched = std::make_unique<bool[]>(num_thresholds * ranks.size());
  take_greedily(iou.data(), occurs.get(), ranks.data(), thresholds, int64_t(ranks.size()), image.num_true, 1,
                num_thresholds, image.matched.get());
  return image;
}

}  // namespace rpcnn::metrics
