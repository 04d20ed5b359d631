#include "common.h"
#include "match_boxes_kernel.cuh"

namespace rpcnn {
namespace {

Tensor match_boxes(Tensor boxes, Tensor gt_boxes, double positive, double negative, bool promote_best, int64_t height,
                   int64_t width) {
  const auto is_boxes = [&](const Tensor& t) {
    return t.dim() == 2 && t.size(1) == 4 && t.is_cuda() && t.get_device_index() == boxes.get_device_index() &&
           t.scalar_type() == boxes.scalar_type();
  };
  STD_TORCH_CHECK(is_boxes(boxes), "match_boxes: boxes must be [n, 4] on a GPU");
  STD_TORCH_CHECK(is_boxes(gt_boxes), "match_boxes: gt_boxes must be [G, 4] on the boxes' GPU, of their dtype");
  const ScalarType dtype = boxes.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double,
                  "match_boxes: boxes must be float32 or float64");
  const int64_t n = boxes.size(0), G = gt_boxes.size(0);
  STD_TORCH_CHECK(G <= 65535 * kHeldTruths, "match_boxes: at most ", 65535 * kHeldTruths, " ground-truth boxes, got ",
                  G);
  OnDeviceOf device(boxes);
  const Tensor all = whole_corners(boxes), truth = whole_corners(gt_boxes);
  Tensor matched = empty_like_device(boxes, {n}, ScalarType::Long);
  const Tensor best = empty_like_device(boxes, {promote_best ? G * match_pieces(n) : 0}, dtype);
  const auto run = [&](auto type) {
    using T = decltype(type);
    const MatchRule<T> rule{T(positive), T(negative), promote_best, height >= 0, T(height), T(width)};
    launch_match_boxes<T>(data<Corners<T>>(all), n, data<Corners<T>>(truth), G, mutable_data<T>(best), rule,
                          mutable_data<int64_t>(matched), device.stream);
  };
  dtype == ScalarType::Double ? run(double{}) : run(float{});
  check_launch("match_boxes");
  return matched;
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CUDA, m) {
  m.impl("match_boxes", TORCH_BOX(&match_boxes));
}

}  // namespace
}  // namespace rpcnn
