#include "gse_fuse_kernel.cuh"
#include "pyramid_sum.h"

namespace rpcnn {
namespace {

void check_inputs(const char* op, const std::vector<Tensor>& features, const std::vector<Tensor>& weights,
                  const std::vector<Tensor>& biases, int64_t num_groups) {
  check_cuda_levels(op, features);
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

// The levels with their GroupNorm; mean and rstd are [N, L, G].
template <typename T>
Pyramid<T> normalized_pyramid(const std::vector<Tensor>& levels, const Tensor& target,
                              const std::vector<Tensor>& weights, const std::vector<Tensor>& biases, const Tensor& mean,
                              const Tensor& rstd, int64_t num_groups, bool channels_last, bool align_corners) {
  using A = device_accumulate_t<T>;
  auto pyramid = pyramid_of<T>(levels, target, channels_last, align_corners);
  for (int l = 0; l < pyramid.levels.count; ++l)
    pyramid.affine[l] = {
        data<A>(mean) + l * num_groups,    data<A>(rstd) + l * num_groups, data<A>(weights[l]), data<A>(biases[l]),
        pyramid.levels.count * num_groups, pyramid.levels.C / num_groups};
  return pyramid;
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
  const Tensor scratch = empty_like_device(out, {GseFuse<float>::singles(levels_of(levels, channels_last))}, wide);
  OnDeviceOf device(out);
  dispatch_floating("gse_fuse", out.scalar_type(), [&](auto type) {
    using T = decltype(type);
    using A = device_accumulate_t<T>;
    const auto pyramid =
        normalized_pyramid<T>(levels, out, weights, biases, mean, rstd, num_groups, channels_last, align_corners);
    launch_gse_statistics(GseFuse<T>(pyramid, num_groups, mutable_data<A>(scratch)), eps, device.stream);
    launch_pyramid_sum<true, true>(pyramid, mutable_data<T>(out), device.stream);
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
  const Levels sizes = levels_of(levels, channels_last);
  const Tensor scratch = empty_like_device(g, {GseFuse<float>::singles(sizes)}, wide);
  const Tensor half = empty_like_device(g, {adjoint_scratch(sizes, g.size(2))}, wide);
  const auto grad_features = empty_levels(levels, g.scalar_type(), channels_last);
  // E is kept in the accumulation type; where that is the maps' own, the gradient is made in its place.
  std::vector<Tensor> gathered;
  std::vector<Tensor> grad_weights, grad_biases;
  for (int64_t l = 0; l < L; ++l) {
    grad_weights.push_back(empty_like_device(g, {C}, wide));
    grad_biases.push_back(empty_like_device(g, {C}, wide));
  }
  OnDeviceOf device(g);
  dispatch_floating("gse_fuse_backward", g.scalar_type(), [&](auto type) {
    using T = decltype(type);
    using A = device_accumulate_t<T>;
    const auto pyramid =
        normalized_pyramid<T>(levels, g, weights, biases, mean, rstd, num_groups, channels_last, align_corners);
    GseFuse<T> gse(pyramid, num_groups, mutable_data<A>(scratch));
    for (int64_t l = 0; l < L; ++l) {
      if (!pyramid.same_size(static_cast<int>(l))) {
        gathered.push_back(wide == g.scalar_type() ? grad_features[l]
                                                   : empty_like_device(g, sizes_of(levels[l]), wide, channels_last));
        gse.e[l] = mutable_data<A>(gathered.back());
      }
      gse.level[l].grad = data<T>(g);
      gse.level[l].grad_x = mutable_data<T>(grad_features[l]);
      gse.level[l].grad_gamma = mutable_data<A>(grad_weights[l]);
      gse.level[l].grad_beta = mutable_data<A>(grad_biases[l]);
    }
    launch_pyramid_adjoint<true, true>(pyramid, data<T>(g), mutable_data<A>(half), gse.e, device.stream);
    launch_gse_gradient(gse, device.stream);
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
