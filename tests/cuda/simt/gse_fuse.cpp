#include "gse_fuse_kernel.cuh"

#include <vector>

#include "exports.h"

namespace {
template <typename T>
rpcnn::Pyramid<T> table(const rpcnn::Levels& levels, int64_t groups, bool align_corners, void** maps, void** gamma,
                        void** beta, const void* mean, const void* rstd) {
  using A = rpcnn::device_accumulate_t<T>;
  rpcnn::Pyramid<T> pyramid(levels, levels.H[0], levels.W[0], align_corners);
  for (int l = 0; l < levels.count; ++l) {
    pyramid.map[l] = as<T>(maps)[l];
    pyramid.affine[l] = {as<A>(mean) + l * groups, as<A>(rstd) + l * groups, as<A>(gamma)[l],
                         as<A>(beta)[l],           levels.count * groups,    levels.C / groups};
  }
  return pyramid;
}

// A GseFuse and the memory that it works in.
template <typename T>
struct Work {
  using A = rpcnn::device_accumulate_t<T>;
  std::vector<A> scratch;
  rpcnn::GseFuse<T> gse;
  Work(const rpcnn::Pyramid<T>& pyramid, int64_t groups)
      : scratch(rpcnn::GseFuse<T>::singles(pyramid.levels)), gse(pyramid, groups, scratch.data()) {}
};
}  // namespace

// Everything but maps, out and the gradients of maps has the accumulation type.
SIMT_EXPORT gse_fuse(int64_t dtype, void* out, void* mean, void* rstd, int64_t N, int64_t C, int64_t groups,
                     bool channels_last, bool align_corners, int count, const int64_t* H, const int64_t* W, void** maps,
                     void** gamma, void** beta) {
  return simt_run_as(dtype, [&](auto type) {
    using T = decltype(type);
    const rpcnn::Levels levels = simt_levels(count, N, C, H, W, channels_last);
    const auto pyramid = table<T>(levels, groups, align_corners, maps, gamma, beta, mean, rstd);
    const Work<T> work(pyramid, groups);
    rpcnn::launch_gse_statistics(work.gse, 1e-5, nullptr);
    rpcnn::launch_pyramid_sum<true, true>(pyramid, as<T>(out), nullptr);
  });
}

// `half` is the adjoint's scratch.
SIMT_EXPORT gse_fuse_backward(int64_t dtype, const void* grad, const void* mean, const void* rstd, void* half,
                              int64_t N, int64_t C, int64_t groups, bool channels_last, bool align_corners, int count,
                              const int64_t* H, const int64_t* W, void** maps, void** gamma, void** beta, void** grads,
                              void** grad_gamma, void** grad_beta) {
  return simt_run_as(dtype, [&](auto type) {
    using T = decltype(type);
    using A = rpcnn::device_accumulate_t<T>;
    const rpcnn::Levels levels = simt_levels(count, N, C, H, W, channels_last);
    const auto pyramid = table<T>(levels, groups, align_corners, maps, gamma, beta, mean, rstd);
    Work<T> work(pyramid, groups);
    std::vector<std::vector<A>> own(count);
    for (int l = 0; l < count; ++l) {
      work.gse.level[l].grad = as<T>(grad);
      work.gse.level[l].grad_x = as<T>(grads)[l];
      work.gse.level[l].grad_gamma = as<A>(grad_gamma)[l];
      work.gse.level[l].grad_beta = as<A>(grad_beta)[l];
      if (pyramid.same_size(l)) continue;
      if constexpr (std::is_same_v<A, T>) {
        work.gse.e[l] = work.gse.level[l].grad_x;  // as gse_fuse.cu has it
      } else {
        own[l].resize(N * levels.image(l));
        work.gse.e[l] = own[l].data();
      }
    }
    rpcnn::launch_pyramid_adjoint<true, true>(pyramid, as<T>(grad), as<A>(half), work.gse.e, nullptr);
    rpcnn::launch_gse_gradient(work.gse, nullptr);
  });
}
