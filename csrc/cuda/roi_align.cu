#include <cmath>
#include <cstdint>

#include "../roi_arguments.h"
#include "common.h"
#include "roi_align_backward_kernel.cuh"

namespace rpcnn {
namespace {

using Scales = std::vector<double>;  // one per level

RoiRule roi_rule(const Scales& scales, int64_t height, int64_t width, int64_t sampling_ratio, bool aligned,
                 double canonical_size = 224, int64_t canonical_level = 4, double area_offset = 0) {
  RoiRule rule{height, width, sampling_ratio, aligned};
  rule.canonical_size = float(canonical_size), rule.canonical_level = float(canonical_level);
  rule.finest = scales.empty() ? 0.0f : std::round(-std::log2(float(scales[0])));
  rule.area_offset = float(area_offset);
  return rule;
}

void check(const char* op, const Tensor& boxes, const Scales& scales, const RoiRule& rule, size_t levels) {
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 5 && boxes.is_cuda() &&
                      (boxes.scalar_type() == ScalarType::Float || boxes.scalar_type() == ScalarType::Double),
                  op, ": boxes must be float32 or float64 [R, 5] on the GPU");
  constexpr int64_t kMostBoxes = INT32_MAX - kSearch;
  STD_TORCH_CHECK(boxes.size(0) <= kMostBoxes, op, ": at most ", kMostBoxes, " boxes are wanted, got ", boxes.size(0));
  check_roi_numbers(op, scales, rule.height, rule.width, rule.sampling_ratio, rule.canonical_size, rule.area_offset);
  STD_TORCH_CHECK(rule.height <= 32767 && rule.width <= 32767, op, ": output height and width must lie in 1..32767");
  STD_TORCH_CHECK(levels > 0 && levels <= kMaxLevels && scales.size() == levels, op, ": 1 to ", kMaxLevels,
                  " levels with one spatial scale each are wanted, got ", levels, " and ", scales.size());
}

template <typename T>
RoiMaps<T> map_table(const std::vector<Tensor>& maps, const Scales& scales, bool channels_last) {
  RoiMaps<T> table{};
  table.levels = static_cast<int>(maps.size());
  table.N = maps[0].size(0);
  table.C = maps[0].size(1);
  table.channels_last = channels_last;
  for (int l = 0; l < table.levels; ++l) {
    table.map[l] = static_cast<T*>(maps[l].data_ptr());
    table.H[l] = maps[l].size(2);
    table.W[l] = maps[l].size(3);
    table.scale[l] = scales[l];
  }
  return table;
}

// Calls f(T{}, G{}): geometry in double where maps or boxes are.
template <typename F>
void dispatch(const char* op, ScalarType maps, ScalarType boxes, F&& f) {
  dispatch_floating(op, maps, [&](auto type) {
    if constexpr (std::is_same_v<decltype(type), double>) {
      f(type, double{});
    } else if (boxes == ScalarType::Double) {
      f(type, double{});
    } else {
      f(type, float{});
    }
  });
}

Tensor geometry_boxes(const Tensor& boxes, ScalarType maps) {
  const Tensor rows = dense(boxes, false);
  if (maps == ScalarType::Double && rows.scalar_type() == ScalarType::Float)
    return torch::stable::to(rows, ScalarType::Double);
  return rows;
}

Tensor pool(const char* op, const std::vector<Tensor>& features, const Tensor& boxes, const Scales& scales,
            const RoiRule& rule) {
  check(op, boxes, scales, rule, features.size());
  for (const Tensor& f : features)
    STD_TORCH_CHECK(f.dim() == 4 && f.is_cuda() && f.scalar_type() == features[0].scalar_type() &&
                        f.size(0) == features[0].size(0) && f.size(1) == features[0].size(1) &&
                        f.get_device_index() == boxes.get_device_index(),
                    op, ": maps must be [N, C, H, W], agree in N, C and dtype, and lie on the boxes' device");
  const bool channels_last = is_channels_last(features[0]);
  std::vector<Tensor> maps;
  for (const Tensor& f : features) maps.push_back(dense(f, channels_last));
  OnDeviceOf device(boxes);
  const Tensor rows = geometry_boxes(boxes, maps[0].scalar_type());
  Tensor out = empty_like_device(boxes, {boxes.size(0), maps[0].size(1), rule.height, rule.width},
                                 maps[0].scalar_type(), channels_last);
  dispatch(op, maps[0].scalar_type(), boxes.scalar_type(), [&](auto type, auto geometry) {
    using T = decltype(type);
    using G = decltype(geometry);
    launch_roi_align<T, G>(map_table<T>(maps, scales, channels_last), data<G>(rows), rows.size(0), rule,
                           mutable_data<T>(out), device.stream);
  });
  check_launch(op);
  return out;
}

std::vector<Tensor> unpool(const char* op, const Tensor& grad, const Tensor& boxes, const Scales& scales,
                           const RoiRule& rule, int64_t batch, const std::vector<int64_t>& heights,
                           const std::vector<int64_t>& widths, bool channels_last) {
  check(op, boxes, scales, rule, heights.size());
  STD_TORCH_CHECK(heights.size() == widths.size(), op, ": heights and widths must agree in length");
  check_extent(op, "batch", batch, 0);
  for (size_t l = 0; l < heights.size(); ++l) {
    check_extent(op, "height", heights[l], 0);
    check_extent(op, "width", widths[l], 0);
  }
  STD_TORCH_CHECK(grad.dim() == 4 && grad.is_cuda() && grad.size(0) == boxes.size(0) && grad.size(2) == rule.height &&
                      grad.size(3) == rule.width && grad.get_device_index() == boxes.get_device_index(),
                  op, ": grad must be [R, C, height, width] with one row per box, on the boxes' device");
  int64_t tiles = 0;
  for (size_t l = 0; l < heights.size(); ++l)
    tiles += batch * (heights[l] / kTileRows + 1) * (widths[l] / kTileColumns + 1);
  STD_TORCH_CHECK(tiles * (grad.size(1) / 32 + 1) <= INT32_MAX, op, ": maps are too large for one launch");
  const int64_t box = grad.size(1) * rule.height * rule.width;
  STD_TORCH_CHECK(box <= UINT32_MAX, op, ": a box's output must have fewer than 2^32 numbers, got ", box);
  OnDeviceOf device(grad);
  std::vector<Tensor> outputs;
  for (size_t l = 0; l < heights.size(); ++l)
    outputs.push_back(
        empty_like_device(grad, {batch, grad.size(1), heights[l], widths[l]}, grad.scalar_type(), channels_last));
  const Tensor source = dense(grad, channels_last), rows = geometry_boxes(boxes, grad.scalar_type());
  const int64_t R = rows.size(0);
  dispatch(op, grad.scalar_type(), boxes.scalar_type(), [&](auto type, auto geometry) {
    using T = decltype(type);
    using G = decltype(geometry);
    Tensor scratch = empty_like_device(grad, {RoiReaches<T, G>::bytes(R, rule)}, ScalarType::Byte);
    launch_roi_align_backward<T, G>(map_table<T>(outputs, scales, channels_last), data<G>(rows), R, rule,
                                    data<T>(source), scratch.mutable_data_ptr(), device.stream);
  });
  check_launch(op);
  return outputs;
}

Tensor roi_align(Tensor input, Tensor boxes, double spatial_scale, int64_t height, int64_t width,
                 int64_t sampling_ratio, bool aligned) {
  const Scales scales{spatial_scale};
  return pool("roi_align", {input}, boxes, scales, roi_rule(scales, height, width, sampling_ratio, aligned));
}

Tensor roi_align_backward(Tensor grad, Tensor boxes, double spatial_scale, int64_t batch, int64_t height, int64_t width,
                          int64_t sampling_ratio, bool aligned, bool channels_last) {
  const Scales scales{spatial_scale};
  const RoiRule rule = roi_rule(scales, grad.size(2), grad.size(3), sampling_ratio, aligned);
  return unpool("roi_align_backward", grad, boxes, scales, rule, batch, {height}, {width}, channels_last)[0];
}

Tensor multilevel_roi_align(std::vector<Tensor> features, Tensor boxes, std::vector<double> spatial_scales,
                            int64_t height, int64_t width, int64_t sampling_ratio, bool aligned, double canonical_size,
                            int64_t canonical_level, double area_offset) {
  return pool(
      "multilevel_roi_align", features, boxes, spatial_scales,
      roi_rule(spatial_scales, height, width, sampling_ratio, aligned, canonical_size, canonical_level, area_offset));
}

std::vector<Tensor> multilevel_roi_align_backward(Tensor grad, Tensor boxes, std::vector<double> spatial_scales,
                                                  int64_t batch, std::vector<int64_t> heights,
                                                  std::vector<int64_t> widths, int64_t sampling_ratio, bool aligned,
                                                  double canonical_size, int64_t canonical_level, double area_offset,
                                                  bool channels_last) {
  const RoiRule rule = roi_rule(spatial_scales, grad.size(2), grad.size(3), sampling_ratio, aligned, canonical_size,
                                canonical_level, area_offset);
  return unpool("multilevel_roi_align_backward", grad, boxes, spatial_scales, rule, batch, heights, widths,
                channels_last);
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CUDA, m) {
  m.impl("roi_align", TORCH_BOX(&roi_align));
  m.impl("roi_align_backward", TORCH_BOX(&roi_align_backward));
  m.impl("multilevel_roi_align", TORCH_BOX(&multilevel_roi_align));
  m.impl("multilevel_roi_align_backward", TORCH_BOX(&multilevel_roi_align_backward));
}

}  // namespace
}  // namespace rpcnn
