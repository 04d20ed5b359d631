#include "pyramid_sum.h"

namespace rpcnn {
namespace {

Tensor upsample_sum(std::vector<Tensor> features, bool align_corners, bool relu) {
  check_cuda_levels("upsample_sum", features);
  const bool channels_last = is_channels_last(features[0]);
  const auto levels = dense_levels(features, channels_last);
  Tensor out = empty_like_device(levels[0], sizes_of(levels[0]), levels[0].scalar_type(), channels_last);
  OnDeviceOf device(out);
  dispatch_floating("upsample_sum", out.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const auto launch = relu ? launch_pyramid_sum<true, false, T> : launch_pyramid_sum<false, false, T>;
    launch(pyramid_of<T>(levels, out, channels_last, align_corners), mutable_data<T>(out), device.stream);
  });
  check_launch("upsample_sum");
  return out;
}

// The gradients of any of the levels; all were brought to the gradient's size.
std::vector<Tensor> upsample_sum_backward(Tensor grad, std::vector<Tensor> features, bool align_corners, bool relu) {
  check_cuda_levels("upsample_sum_backward", features);
  STD_TORCH_CHECK(grad.dim() == 4 && grad.size(0) == features[0].size(0) && grad.size(1) == features[0].size(1) &&
                      grad.is_cuda() && grad.get_device_index() == features[0].get_device_index() &&
                      grad.scalar_type() == features[0].scalar_type(),
                  "upsample_sum_backward: grad must agree with features in N, C, dtype and device");
  const bool channels_last = is_channels_last(grad);
  const auto levels = dense_levels(features, channels_last);
  const Tensor g = dense(grad, channels_last);
  const std::vector<Tensor> outputs = empty_levels(levels, g.scalar_type(), channels_last);
  Tensor scratch =
      empty_like_device(g, {adjoint_scratch(levels_of(levels, channels_last), g.size(2))}, accumulation_type(g));
  OnDeviceOf device(g);
  dispatch_floating("upsample_sum_backward", g.scalar_type(), [&](auto type) {
    using T = decltype(type);
    using A = device_accumulate_t<T>;
    T* e[kMaxLevels];
    for (size_t l = 0; l < outputs.size(); ++l) e[l] = mutable_data<T>(outputs[l]);
    const auto launch = relu ? launch_pyramid_adjoint<true, false, T, T> : launch_pyramid_adjoint<false, false, T, T>;
    launch(pyramid_of<T>(levels, g, channels_last, align_corners), data<T>(g), mutable_data<A>(scratch), e,
           device.stream);
  });
  check_launch("upsample_sum_backward");
  return outputs;
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CUDA, m) {
  m.impl("upsample_sum", TORCH_BOX(&upsample_sum));
  m.impl("upsample_sum_backward", TORCH_BOX(&upsample_sum_backward));
}

}  // namespace
}  // namespace rpcnn
