#include <vector>

#include "exports.h"
#include "gse_fuse_kernel.cuh"

namespace {
struct Pyramid {
  rpcnn::PyramidLevels<float> levels{};
  std::vector<rpcnn::GseLevel<float>> gse;

  Pyramid(int64_t N, int64_t C, int64_t groups, bool channels_last, bool align_corners, int count, const int64_t* H,
          const int64_t* W, float** maps, float** gamma, float** beta, const float* mean, const float* rstd) {
    levels.count = count;
    levels.align_corners = align_corners;
    for (int l = 0; l < count; ++l) {
      const rpcnn::GroupAffine<float> affine{mean + l * groups, rstd + l * groups, gamma[l],
                                             beta[l],           count * groups,    C / groups};
      levels.level[l] = {maps[l], H[l], W[l], affine};
      gse.push_back({maps[l], N, {C, H[l], W[l], channels_last}, H[0], W[0], groups, align_corners});
    }
  }
};
}  // namespace

SIMT_EXPORT gse_fuse(float* out, float* mean, float* rstd, int64_t N, int64_t C, int64_t groups, bool channels_last,
                     bool align_corners, int count, const int64_t* H, const int64_t* W, float** maps, float** gamma,
                     float** beta) {
  return simt_run([&] {
    const Pyramid p(N, C, groups, channels_last, align_corners, count, H, W, maps, gamma, beta, mean, rstd);
    for (int l = 0; l < count; ++l) {
      std::vector<double> table(p.gse[l].table_size()), partial(p.gse[l].partial_size());
      std::vector<float> shift(N * groups);
      rpcnn::launch_gse_statistics<float>(p.gse[l], 1e-5, count * groups, table.data(), shift.data(), partial.data(),
                                          mean + l * groups, rstd + l * groups, nullptr);
    }
    rpcnn::launch_pyramid_sum<float, true, true>(p.levels, out, N, {C, H[0], W[0], channels_last}, nullptr);
  });
}

// `grads` hold E first and the gradient in its place.
SIMT_EXPORT gse_fuse_backward(const float* grad, const float* mean, const float* rstd, float* half, int64_t N,
                              int64_t C, int64_t groups, bool channels_last, bool align_corners, int count,
                              const int64_t* H, const int64_t* W, float** maps, float** gamma, float** beta,
                              float** grads, float** grad_gamma, float** grad_beta) {
  return simt_run([&] {
    const Pyramid p(N, C, groups, channels_last, align_corners, count, H, W, maps, gamma, beta, mean, rstd);
    for (int l = 0; l < count; ++l) {
      std::vector<double> table(p.gse[l].table_size()), partial(p.gse[l].partial_size()), channel(N * C * 2);
      std::vector<float> terms(N * groups * 2);
      const auto& level = p.levels.level[l];
      rpcnn::launch_pyramid_adjoint<true, true>(level, grad, N, {C, H[0], W[0], channels_last}, align_corners, half,
                                                grads[l], nullptr);
      rpcnn::launch_gse_gradient<float>(p.gse[l], level.affine, grads[l], table.data(), partial.data(), channel.data(),
                                        terms.data(), grad_gamma[l], grad_beta[l], grads[l], nullptr);
    }
  });
}
