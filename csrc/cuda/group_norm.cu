#include "common.h"
#include "group_norm_kernel.cuh"

namespace rpcnn {
namespace {

void check_inputs(const char* op, const Tensor& input, const Tensor& weight, const Tensor& bias, int64_t num_groups,
                  const std::optional<Tensor>& residual) {
  STD_TORCH_CHECK(input.dim() == 4 && input.is_cuda() && input.size(2) > 0 && input.size(3) > 0, op,
                  ": input must be a map [N, C, H, W] with at least one pixel, on a GPU");
  STD_TORCH_CHECK(num_groups > 0 && input.size(1) % num_groups == 0, op, ": num_groups must divide ", input.size(1),
                  ", got ", num_groups);
  for (const Tensor* v : {&weight, &bias})
    STD_TORCH_CHECK(v->dim() == 1 && v->size(0) == input.size(1) && v->scalar_type() == accumulation_type(input) &&
                        v->is_cuda() && v->get_device_index() == input.get_device_index(),
                    op, ": weight and bias must be [C] vectors on the input's device, float64 with a float64 input, ",
                    "else float32");
  if (residual)
    STD_TORCH_CHECK(residual->dim() == 4 && sizes_of(*residual) == sizes_of(input) && residual->is_cuda() &&
                        residual->get_device_index() == input.get_device_index() &&
                        residual->scalar_type() == input.scalar_type(),
                    op, ": residual must have the input's shape, dtype and device");
}

template <typename T>
GroupNorm<T> described(const Tensor& input, const Tensor& weight, const Tensor& bias, int64_t num_groups,
                       const std::optional<Tensor>& residual, bool channels_last) {
  using A = device_accumulate_t<T>;
  GroupNorm<T> norm{};
  norm.N = input.size(0);
  norm.C = input.size(1);
  norm.pixels = input.size(2) * input.size(3);
  norm.groups = norm.stride = num_groups;
  norm.values = norm.pixels;
  norm.channels_last = channels_last;
  norm.stretches = GroupNorm<T>::stretches_of(norm.pixels);
  norm.x = data<T>(input);
  norm.residual = residual ? data<T>(*residual) : nullptr;
  norm.gamma = data<A>(weight);
  norm.beta = data<A>(bias);
  return norm;
}

Tensor partial_sums(const Tensor& input) {
  const int64_t pixels = input.size(2) * input.size(3);
  return empty_like_device(input, {input.size(0), GroupNorm<float>::stretches_of(pixels), 2, input.size(1)},
                           accumulation_type(input));
}

std::optional<Tensor> dense_or_none(const std::optional<Tensor>& t, bool channels_last) {
  return t ? std::optional<Tensor>(dense(*t, channels_last)) : std::nullopt;
}

std::tuple<Tensor, Tensor, Tensor> group_norm(Tensor input, Tensor weight, Tensor bias, int64_t num_groups, double eps,
                                              bool relu, std::optional<Tensor> residual) {
  check_inputs("group_norm", input, weight, bias, num_groups, residual);
  const bool channels_last = is_channels_last(input);
  const Tensor x = dense(input, channels_last), gamma = torch::stable::contiguous(weight),
               beta = torch::stable::contiguous(bias);
  const auto onto = dense_or_none(residual, channels_last);
  const auto wide = accumulation_type(x);
  Tensor out = empty_like_device(x, sizes_of(x), x.scalar_type(), channels_last);
  Tensor mean = empty_like_device(x, {x.size(0), num_groups}, wide),
         rstd = empty_like_device(x, {x.size(0), num_groups}, wide);
  if (x.numel() == 0) return {out, mean, rstd};
  const Tensor partial = partial_sums(x);
  OnDeviceOf device(x);
  dispatch_floating("group_norm", x.scalar_type(), [&](auto type) {
    using T = decltype(type);
    using A = device_accumulate_t<T>;
    auto norm = described<T>(x, gamma, beta, num_groups, onto, channels_last);
    norm.mean = mutable_data<A>(mean);
    norm.rstd = mutable_data<A>(rstd);
    norm.partial = mutable_data<A>(partial);
    norm.out = mutable_data<T>(out);
    launch_group_norm<false>(norm, relu, eps, device.stream);
  });
  check_launch("group_norm");
  return {out, mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> group_norm_backward(Tensor grad, Tensor input, Tensor weight, Tensor bias,
                                                               Tensor mean, Tensor rstd, int64_t num_groups, bool relu,
                                                               std::optional<Tensor> residual) {
  check_inputs("group_norm_backward", input, weight, bias, num_groups, residual);
  check_gradient("group_norm_backward", grad, input);
  const auto wide = accumulation_type(input);
  for (const Tensor* t : {&mean, &rstd})
    STD_TORCH_CHECK(t->numel() == input.size(0) * num_groups && t->scalar_type() == wide && t->is_contiguous() &&
                        t->is_cuda() && t->get_device_index() == grad.get_device_index(),
                    "group_norm_backward: mean and rstd must be [N, groups] as group_norm returned them");
  const bool channels_last = is_channels_last(input);
  const Tensor x = dense(input, channels_last), g = dense(grad, channels_last),
               gamma = torch::stable::contiguous(weight), beta = torch::stable::contiguous(bias);
  const auto onto = dense_or_none(residual, channels_last);
  Tensor grad_input = empty_like_device(x, sizes_of(x), x.scalar_type(), channels_last);
  Tensor grad_residual = relu && residual ? empty_like_device(x, sizes_of(x), x.scalar_type(), channels_last)
                                          : empty_like_device(x, {0}, x.scalar_type());
  Tensor grad_weight = empty_like_device(x, {x.size(1)}, wide), grad_bias = empty_like_device(x, {x.size(1)}, wide);
  if (x.numel() == 0)
    return {grad_input, torch::stable::fill_(grad_weight, 0), torch::stable::fill_(grad_bias, 0), grad_residual};
  const Tensor partial = partial_sums(x);
  OnDeviceOf device(x);
  dispatch_floating("group_norm_backward", x.scalar_type(), [&](auto type) {
    using T = decltype(type);
    using A = device_accumulate_t<T>;
    auto norm = described<T>(x, gamma, beta, num_groups, onto, channels_last);
    norm.mean = static_cast<A*>(mean.data_ptr());
    norm.rstd = static_cast<A*>(rstd.data_ptr());
    norm.partial = mutable_data<A>(partial);
    norm.grad = data<T>(g);
    norm.grad_x = mutable_data<T>(grad_input);
    norm.grad_residual = relu && residual ? mutable_data<T>(grad_residual) : nullptr;
    norm.grad_gamma = mutable_data<A>(grad_weight);
    norm.grad_beta = mutable_data<A>(grad_bias);
    launch_group_norm<true>(norm, relu, 0.0, device.stream);
  });
  check_launch("group_norm_backward");
  return {grad_input, grad_weight, grad_bias, grad_residual};
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CUDA, m) {
  m.impl("group_norm", TORCH_BOX(&group_norm));
  m.impl("group_norm_backward", TORCH_BOX(&group_norm_backward));
}

}  // namespace
}  // namespace rpcnn
