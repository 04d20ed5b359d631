#include "gse_fuse_kernel.cuh"

#include <vector>

#include "exports.h"

namespace {
template <typename T>
struct Pyramid {
  using A = rpcnn::device_accumulate_t<T>;
  rpcnn::PyramidLevels<T> levels{};
  std::vector<rpcnn::GseLevel<T>> gse;

  Pyramid(int64_t N, int64_t C, int64_t groups, bool channels_last, bool align_corners, int count, const int64_t* H,
          const int64_t* W, T** maps, A** gamma, A** beta, const A* mean, const A* rstd) {
    levels.count = count;
    levels.align_corners = align_corners;
    for (int l = 0; l < count; ++l) {
      const rpcnn::GroupAffine<A> affine{mean + l * groups, rstd + l * groups, gamma[l],
                                         beta[l],           count * groups,    C / groups};
      levels.level[l] = {maps[l], H[l], W[l], affine};
      gse.push_back({maps[l], N, {C, H[l], W[l], channels_last}, H[0], W[0], groups, align_corners});
    }
  }
};
}  // namespace

// Everything but maps, out and the gradients of maps has the accumulation type.
SIMT_EXPORT gse_fuse(int64_t dtype, void* out, void* mean, void* rstd, int64_t N, int64_t C, int64_t groups,
                     bool channels_last, bool align_corners, int count, const int64_t* H, const int64_t* W, void** maps,
                     void** gamma, void** beta) {
  return simt_run_as(dtype, [&](auto type) {
    using T = decltype(type);
    using A = rpcnn::device_accumulate_t<T>;
    const Pyramid<T> p(N, C, groups, channels_last, align_corners, count, H, W, as<T>(maps), as<A>(gamma), as<A>(beta),
                       as<A>(mean), as<A>(rstd));
    for (int l = 0; l < count; ++l) {
      std::vector<double> table(p.gse[l].table_size()), partial(p.gse[l].partial_size());
      std::vector<A> shift(N * groups);
      rpcnn::launch_gse_statistics<T>(p.gse[l], 1e-5, count * groups, table.data(), shift.data(), partial.data(),
                                      as<A>(mean) + l * groups, as<A>(rstd) + l * groups, nullptr);
    }
    rpcnn::launch_pyramid_sum<T, true, true>(p.levels, as<T>(out), N, {C, H[0], W[0], channels_last}, nullptr);
  });
}

SIMT_EXPORT gse_fuse_backward(int64_t dtype, const void* grad, const void* mean, const void* rstd, void* half,
                              int64_t N, int64_t C, int64_t groups, bool channels_last, bool align_corners, int count,
                              const int64_t* H, const int64_t* W, void** maps, void** gamma, void** beta, void** grads,
                              void** grad_gamma, void** grad_beta) {
  return simt_run_as(dtype, [&](auto type) {
    using T = decltype(type);
    using A = rpcnn::device_accumulate_t<T>;
    const Pyramid<T> p(N, C, groups, channels_last, align_corners, count, H, W, as<T>(maps), as<A>(gamma), as<A>(beta),
                       as<A>(mean), as<A>(rstd));
    for (int l = 0; l < count; ++l) {
      std::vector<double> table(p.gse[l].table_size()), partial(p.gse[l].partial_size()), channel(N * C * 2);
      std::vector<A> terms(N * groups * 2), own(std::is_same_v<A, T> ? 0 : N * C * H[l] * W[l]);
      T* out = as<T>(grads)[l];
      A* e = own.empty() ? reinterpret_cast<A*>(out) : own.data();  // as gse_fuse.cu has it
      const auto& level = p.levels.level[l];
      rpcnn::launch_pyramid_adjoint<true, true>(level, as<T>(grad), N, {C, H[0], W[0], channels_last}, align_corners,
                                                as<A>(half), e, nullptr);
      rpcnn::launch_gse_gradient<T>(p.gse[l], level.affine, e, table.data(), partial.data(), channel.data(),
                                    terms.data(), as<A>(grad_gamma)[l], as<A>(grad_beta)[l], out, nullptr);
    }
  });
}
