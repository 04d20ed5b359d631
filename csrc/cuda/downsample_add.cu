#include "common.h"
#include "downsample_add_kernel.cuh"

namespace rpcnn {
namespace {

void check_level(const Tensor& feature, const Tensor& level, size_t l) {
  STD_TORCH_CHECK(level.dim() == 4 && level.size(0) == feature.size(0) && level.size(1) == feature.size(1) &&
                      level.scalar_type() == feature.scalar_type() && level.is_cuda() &&
                      level.get_device_index() == feature.get_device_index(),
                  "downsample_add: pyramid[", l, "] must match feature in images, channels, dtype and device");
}

template <typename T>
DownsampleLevels<T> level_table(const std::vector<Tensor>& pyramid, const std::vector<Tensor>& outputs,
                                bool channels_last) {
  DownsampleLevels<T> table{};
  table.levels = levels_of(outputs, channels_last);
  for (size_t l = 0; l < outputs.size(); ++l) {
    table.pyramid[l] = pyramid.empty() ? nullptr : data<T>(pyramid[l]);
    table.out[l] = static_cast<T*>(outputs[l].data_ptr());
  }
  return table;
}

std::vector<Tensor> downsample_add(Tensor feature, std::vector<Tensor> pyramid) {
  STD_TORCH_CHECK(feature.dim() == 4 && feature.size(2) > 0 && feature.size(3) > 0,
                  "downsample_add: feature must be [N, C, H, W] with H, W > 0");
  STD_TORCH_CHECK(pyramid.size() <= kMaxLevels, "downsample_add: at most ", kMaxLevels, " levels, got ",
                  pyramid.size());
  const bool channels_last = is_channels_last(feature);
  const Tensor source = dense(feature, channels_last);
  std::vector<Tensor> levels, outputs;
  for (size_t l = 0; l < pyramid.size(); ++l) {
    check_level(feature, pyramid[l], l);
    levels.push_back(dense(pyramid[l], channels_last));
    outputs.push_back(
        empty_like_device(feature, {pyramid[l].size(0), pyramid[l].size(1), pyramid[l].size(2), pyramid[l].size(3)},
                          feature.scalar_type(), channels_last));
  }
  OnDeviceOf device(feature);
  dispatch_floating("downsample_add", feature.scalar_type(), [&](auto type) {
    using T = decltype(type);
    launch_downsample_add<T>(data<T>(source), source.size(2), source.size(3),
                             level_table<T>(levels, outputs, channels_last), device.stream);
  });
  check_launch("downsample_add");
  return outputs;
}

Tensor downsample_add_backward(std::vector<Tensor> grads, int64_t height, int64_t width) {
  STD_TORCH_CHECK(!grads.empty() && grads.size() <= kMaxLevels && height > 0 && width > 0,
                  "downsample_add_backward: needs 1 to ", kMaxLevels, " gradients and a feature of at least one pixel");
  const Tensor& first = grads[0];
  STD_TORCH_CHECK(first.dim() == 4, "downsample_add_backward: grads must be [N, C, H, W]");
  const bool channels_last = is_channels_last(first);
  std::vector<Tensor> sources;
  for (size_t l = 0; l < grads.size(); ++l) {
    check_level(first, grads[l], l);
    sources.push_back(dense(grads[l], channels_last));
  }
  Tensor out =
      empty_like_device(first, {first.size(0), first.size(1), height, width}, first.scalar_type(), channels_last);
  OnDeviceOf device(first);
  dispatch_floating("downsample_add_backward", first.scalar_type(), [&](auto type) {
    using T = decltype(type);
    launch_downsample_add_backward<T>(mutable_data<T>(out), height, width, level_table<T>({}, sources, channels_last),
                                      device.stream);
  });
  check_launch("downsample_add_backward");
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CUDA, m) {
  m.impl("downsample_add", TORCH_BOX(&downsample_add));
  m.impl("downsample_add_backward", TORCH_BOX(&downsample_add_backward));
}

}  // namespace
}  // namespace rpcnn
