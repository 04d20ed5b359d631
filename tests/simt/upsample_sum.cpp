#include "exports.h"
#include "pyramid_sum_kernel.cuh"

namespace {
rpcnn::PyramidLevels<float> table(bool align_corners, int count, const int64_t* H, const int64_t* W, float** maps) {
  rpcnn::PyramidLevels<float> levels{};
  levels.count = count;
  levels.align_corners = align_corners;
  for (int l = 0; l < count; ++l) levels.level[l] = {maps[l], H[l], W[l], {}};
  return levels;
}
}  // namespace

SIMT_EXPORT upsample_sum(float* out, int64_t N, int64_t C, bool channels_last, bool align_corners, bool relu, int count,
                         const int64_t* H, const int64_t* W, float** maps) {
  return simt_run([&] {
    const auto launch =
        relu ? rpcnn::launch_pyramid_sum<float, true, false> : rpcnn::launch_pyramid_sum<float, false, false>;
    launch(table(align_corners, count, H, W, maps), out, N, {C, H[0], W[0], channels_last}, nullptr);
  });
}

SIMT_EXPORT upsample_sum_backward(const float* grad, float* half, int64_t N, int64_t C, bool channels_last,
                                  bool align_corners, bool relu, int count, const int64_t* H, const int64_t* W,
                                  float** maps, float** grads) {
  return simt_run([&] {
    const auto levels = table(align_corners, count, H, W, maps);
    const auto launch = relu ? rpcnn::launch_pyramid_adjoint<true, false, float, float>
                             : rpcnn::launch_pyramid_adjoint<false, false, float, float>;
    for (int l = 0; l < count; ++l)
      launch(levels.level[l], grad, N, {C, H[0], W[0], channels_last}, align_corners, half, grads[l], nullptr);
  });
}
