// upsample_sum: Σ_l [relu](bilinear(features[l] → size of features[0])). See pyramid_sum.h for cost and work split.
#include "pyramid_sum.h"

namespace rpcnn {
namespace {

Tensor upsample_sum(std::vector<Tensor> features, bool align_corners, bool relu) {
  check_cpu_levels("upsample_sum", features);
  const bool channels_last = is_channels_last(features[0]);
  const auto levels = dense_levels(features, channels_last);
  Tensor out = empty_cpu(sizes_of(levels[0]), levels[0].scalar_type(), channels_last);
  if (out.numel() == 0) return out;
  dispatch_floating("upsample_sum", out.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const NoAffine<accumulate_t<T>> plain;
    if (relu) {
      pyramid_sum<T, true>(levels, out, align_corners, channels_last, plain);
    } else {
      pyramid_sum<T, false>(levels, out, align_corners, channels_last, plain);
    }
  });
  return out;
}

// The gradients of any of the levels; all were brought to the gradient's size.
std::vector<Tensor> upsample_sum_backward(Tensor grad, std::vector<Tensor> features, bool align_corners, bool relu) {
  check_cpu_levels("upsample_sum_backward", features);
  STD_TORCH_CHECK(grad.dim() == 4 && grad.size(0) == features[0].size(0) && grad.size(1) == features[0].size(1) &&
                      grad.scalar_type() == features[0].scalar_type() && grad.is_cpu(),
                  "upsample_sum_backward: grad must agree with features in N, C, dtype and device");
  const bool channels_last = is_channels_last(grad);
  const auto levels = dense_levels(features, channels_last);
  const Tensor g = dense(grad, channels_last);
  std::vector<Tensor> outputs;
  for (const Tensor& level : levels) outputs.push_back(empty_cpu(sizes_of(level), grad.scalar_type(), channels_last));
  if (grad.numel() == 0) return outputs;
  dispatch_floating("upsample_sum_backward", grad.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const auto axes = level_axes<accumulate_t<T>>(levels, g.size(2), g.size(3), align_corners);
    const NoAffine<accumulate_t<T>> plain;
    const auto nothing = [](int64_t, int64_t) {};
    std::vector<T*> targets;
    for (Tensor& out : outputs) targets.push_back(out.mutable_data_ptr<T>());
    if (relu) {
      pyramid_adjoint<T, T, true>(levels, g, axes, channels_last, plain, targets, nothing);
    } else {
      pyramid_adjoint<T, T, false>(levels, g, axes, channels_last, plain, targets, nothing);
    }
  });
  return outputs;
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CPU, m) {
  m.impl("upsample_sum", TORCH_BOX(&upsample_sum));
  m.impl("upsample_sum_backward", TORCH_BOX(&upsample_sum_backward));
}

}  // namespace
}  // namespace rpcnn
