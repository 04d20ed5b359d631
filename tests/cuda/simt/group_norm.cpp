#include "group_norm_kernel.cuh"

#include "exports.h"

namespace {
template <typename T>
rpcnn::GroupNorm<T> described(int64_t N, int64_t C, int64_t pixels, int64_t groups, bool channels_last, const void* x,
                              const void* residual, const void* gamma, const void* beta, void* mean, void* rstd,
                              void* partial) {
  using A = rpcnn::device_accumulate_t<T>;
  rpcnn::GroupNorm<T> norm{};
  norm.N = N, norm.C = C, norm.pixels = norm.values = pixels, norm.groups = norm.stride = groups,
  norm.channels_last = channels_last;
  norm.stretches = rpcnn::GroupNorm<T>::stretches_of(pixels);
  norm.x = as<T>(x), norm.residual = as<T>(residual), norm.gamma = as<A>(gamma), norm.beta = as<A>(beta);
  norm.mean = as<A>(mean), norm.rstd = as<A>(rstd), norm.partial = as<A>(partial);
  return norm;
}
}  // namespace

// Everything but maps, out and the gradients of maps has the accumulation type.
SIMT_EXPORT group_norm(int64_t dtype, int64_t N, int64_t C, int64_t pixels, int64_t groups, bool channels_last,
                       const void* x, const void* residual, const void* gamma, const void* beta, void* mean, void* rstd,
                       void* partial, bool relu, void* out) {
  return simt_run_as(dtype, [&](auto type) {
    using T = decltype(type);
    auto norm = described<T>(N, C, pixels, groups, channels_last, x, residual, gamma, beta, mean, rstd, partial);
    norm.out = as<T>(out);
    rpcnn::launch_group_norm<false>(norm, relu, 1e-5, nullptr);
  });
}

SIMT_EXPORT group_norm_backward(int64_t dtype, int64_t N, int64_t C, int64_t pixels, int64_t groups, bool channels_last,
                                const void* x, const void* residual, const void* gamma, const void* beta, void* mean,
                                void* rstd, void* partial, bool relu, const void* grad, void* grad_x,
                                void* grad_residual, void* grad_gamma, void* grad_beta) {
  return simt_run_as(dtype, [&](auto type) {
    using T = decltype(type);
    using A = rpcnn::device_accumulate_t<T>;
    auto norm = described<T>(N, C, pixels, groups, channels_last, x, residual, gamma, beta, mean, rstd, partial);
    norm.grad = as<T>(grad), norm.grad_x = as<T>(grad_x), norm.grad_residual = as<T>(grad_residual);
    norm.grad_gamma = as<A>(grad_gamma), norm.grad_beta = as<A>(grad_beta);
    rpcnn::launch_group_norm<true>(norm, relu, 0.0, nullptr);
  });
}
