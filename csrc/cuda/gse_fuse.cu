#include <type_traits>

#include "gse_fuse_kernel.cuh"
#include "pyramid_sum.h"

namespace rpcnn {
namespace {

void check_inputs(const char* op, const std::vector<Tensor>& features, const std::vector<Tensor>& weights,
                  const std::vector<Tensor>& biases, int64_t num_groups) {
  check_levels(op, features);
  const int64_t C = features[0].size(1);
  STD_TORCH_CHECK(num_groups > 0 && C % num_groups == 0, op, ": num_groups must divide ", C, ", got ", num_groups);
  STD_TORCH_CHECK(weights.size() == features.size() && biases.size() == features.size(), op,
                  ": one gn_weights and one gn_biases vector per level is wanted");
  for (const auto* vectors : {&weights, &biases})
    for (const Tensor& v : *vectors)
      STD_TORCH_CHECK(v.dim() == 1 && v.size(0) == C && v.scalar_type() == accumulation_type(features[0]) &&
                          v.is_cuda() && v.get_device_index() == features[0].get_device_index(),
                      op,
                      ": gn_weights and gn_biases must be [C] vectors on the maps' device, float64 with float64 maps, "
                      "else float32");
}

std::vector<Tensor> contiguous_all(const std::vector<Tensor>& tensors) {
  std::vector<Tensor> out;
  for (const Tensor& t : tensors) out.push_back(t.is_contiguous() ? t : torch::stable::contiguous(t));
  return out;
}

template <typename T>
GseLevel<T> gse_level(const Tensor& level, const Tensor& finest, int64_t num_groups, bool align_corners,
                      bool channels_last) {
  return {data<T>(level), level.size(0), shape_of(level, channels_last), finest.size(2), finest.size(3),
          num_groups,     align_corners};
}

// The levels with their GroupNorm; mean and rstd are [N, L, G].
template <typename T>
PyramidLevels<T> normalised_table(const std::vector<Tensor>& levels, const std::vector<Tensor>& weights,
                                  const std::vector<Tensor>& biases, const Tensor& mean, const Tensor& rstd,
                                  int64_t num_groups, bool align_corners) {
  using A = device_accumulate_t<T>;
  auto table = level_table<T>(levels, align_corners);
  for (int l = 0; l < table.count; ++l)
    table.level[l].affine = {
        data<A>(mean) + l * num_groups, data<A>(rstd) + l * num_groups, data<A>(weights[l]), data<A>(biases[l]),
        table.count * num_groups,       levels[0].size(1) / num_groups};
  return table;
}

std::tuple<Tensor, Tensor, Tensor> gse_fuse(std::vector<Tensor> features, std::vector<Tensor> gn_weights,
                                            std::vector<Tensor> gn_biases, int64_t num_groups, double eps,
                                            bool align_corners) {
  check_inputs("gse_fuse", features, gn_weights, gn_biases, num_groups);
  const bool channels_last = is_channels_last(features[0]);
  const auto levels = dense_levels(features, channels_last);
  const auto weights = contiguous_all(gn_weights), biases = contiguous_all(gn_biases);
  const int64_t N = levels[0].size(0), L = static_cast<int64_t>(levels.size());
  const auto wide = accumulation_type(levels[0]);
  Tensor out = empty_like_device(levels[0], sizes_of(levels[0]), levels[0].scalar_type(), channels_last);
  Tensor mean = empty_like_device(out, {N, L, num_groups}, wide),
         rstd = empty_like_device(out, {N, L, num_groups}, wide);
  if (out.numel() == 0) return {out, torch::stable::fill_(mean, 0), torch::stable::fill_(rstd, 0)};
  Tensor shift = empty_like_device(out, {N, num_groups}, wide);
  OnDeviceOf device(out);
  dispatch_floating("gse_fuse", out.scalar_type(), [&](auto type) {
    using T = decltype(type);
    using A = device_accumulate_t<T>;
    for (int64_t l = 0; l < L; ++l) {
      const auto level = gse_level<T>(levels[l], out, num_groups, align_corners, channels_last);
      Tensor table = empty_like_device(out, {level.table_size()}, ScalarType::Double);
      Tensor partial = empty_like_device(out, {level.partial_size()}, ScalarType::Double);
      launch_gse_statistics<T>(level, eps, L * num_groups, mutable_data<double>(table), mutable_data<A>(shift),
                               mutable_data<double>(partial), mutable_data<A>(mean) + l * num_groups,
                               mutable_data<A>(rstd) + l * num_groups, device.stream);
    }
    launch_pyramid_sum<T, true, true>(
        normalised_table<T>(levels, weights, biases, mean, rstd, num_groups, align_corners), mutable_data<T>(out), N,
        shape_of(out, channels_last), device.stream);
  });
  check_launch("gse_fuse");
  return {out, mean, rstd};
}

std::tuple<std::vector<Tensor>, std::vector<Tensor>, std::vector<Tensor>> gse_fuse_backward(
    Tensor grad, std::vector<Tensor> features, std::vector<Tensor> gn_weights, std::vector<Tensor> gn_biases,
    Tensor mean, Tensor rstd, int64_t num_groups, bool align_corners) {
  check_inputs("gse_fuse_backward", features, gn_weights, gn_biases, num_groups);
  check_gradient("gse_fuse_backward", grad, features[0]);
  const int64_t N = features[0].size(0), C = features[0].size(1), L = static_cast<int64_t>(features.size());
  const auto wide = accumulation_type(features[0]);
  for (const Tensor* t : {&mean, &rstd})
    STD_TORCH_CHECK(t->numel() == N * L * num_groups && t->scalar_type() == wide && t->is_contiguous() &&
                        t->is_cuda() && t->get_device_index() == grad.get_device_index(),
                    "gse_fuse_backward: mean and rstd must be [N, L, groups] as gse_fuse returned them");
  const bool channels_last = is_channels_last(features[0]);
  const auto levels = dense_levels(features, channels_last);
  const auto weights = contiguous_all(gn_weights), biases = contiguous_all(gn_biases);
  const Tensor g = dense(grad, channels_last);
  Tensor half = adjoint_buffer(levels, shape_of(g, false), wide);
  Tensor channel = empty_like_device(g, {N, C, 2}, ScalarType::Double);
  Tensor terms = empty_like_device(g, {N, num_groups, 2}, wide);
  std::vector<Tensor> grad_features, grad_weights, grad_biases;
  OnDeviceOf device(g);
  dispatch_floating("gse_fuse_backward", g.scalar_type(), [&](auto type) {
    using T = decltype(type);
    using A = device_accumulate_t<T>;
    const auto pyramid = normalised_table<T>(levels, weights, biases, mean, rstd, num_groups, align_corners);
    for (int64_t l = 0; l < L; ++l) {
      const auto level = gse_level<T>(levels[l], g, num_groups, align_corners, channels_last);
      Tensor out = empty_like_device(g, sizes_of(levels[l]), g.scalar_type(), channels_last);
      // E is kept in the accumulation type; where that is the maps' own, the gradient is made in its place.
      Tensor e = std::is_same_v<A, T> ? out : empty_like_device(g, sizes_of(levels[l]), wide, channels_last);
      Tensor table = empty_like_device(g, {level.table_size()}, ScalarType::Double);
      Tensor partial = empty_like_device(g, {level.partial_size()}, ScalarType::Double);
      Tensor d_gamma = empty_like_device(g, {C}, wide), d_beta = empty_like_device(g, {C}, wide);
      launch_pyramid_adjoint<true, true>(pyramid.level[l], data<T>(g), N, shape_of(g, channels_last), align_corners,
                                         mutable_data<A>(half), mutable_data<A>(e), device.stream);
      launch_gse_gradient<T>(level, pyramid.level[l].affine, data<A>(e), mutable_data<double>(table),
                             mutable_data<double>(partial), mutable_data<double>(channel), mutable_data<A>(terms),
                             mutable_data<A>(d_gamma), mutable_data<A>(d_beta), mutable_data<T>(out), device.stream);
      grad_features.push_back(out);
      grad_weights.push_back(d_gamma);
      grad_biases.push_back(d_beta);
    }
  });
  check_launch("gse_fuse_backward");
  return {grad_features, grad_weights, grad_biases};
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CUDA, m) {
  m.impl("gse_fuse", TORCH_BOX(&gse_fuse));
  m.impl("gse_fuse_backward", TORCH_BOX(&gse_fuse_backward));
}

}  // namespace
}  // namespace rpcnn
