#include "pyramid_sum_kernel.cuh"

#include "exports.h"

namespace {
template <typename T>
rpcnn::PyramidLevels<T> table(bool align_corners, int count, const int64_t* H, const int64_t* W, void** maps) {
  rpcnn::PyramidLevels<T> levels{};
  levels.count = count;
  levels.align_corners = align_corners;
  for (int l = 0; l < count; ++l) levels.level[l] = {as<T>(maps)[l], H[l], W[l], {}};
  return levels;
}
}  // namespace

SIMT_EXPORT upsample_sum(int64_t dtype, void* out, int64_t N, int64_t C, bool channels_last, bool align_corners,
                         bool relu, int count, const int64_t* H, const int64_t* W, void** maps) {
  return simt_run_as(dtype, [&](auto type) {
    using T = decltype(type);
    const auto launch = relu ? rpcnn::launch_pyramid_sum<T, true, false> : rpcnn::launch_pyramid_sum<T, false, false>;
    launch(table<T>(align_corners, count, H, W, maps), as<T>(out), N, {C, H[0], W[0], channels_last}, nullptr);
  });
}

// `half` holds the accumulation type.
SIMT_EXPORT upsample_sum_backward(int64_t dtype, const void* grad, void* half, int64_t N, int64_t C, bool channels_last,
                                  bool align_corners, bool relu, int count, const int64_t* H, const int64_t* W,
                                  void** maps, void** grads) {
  return simt_run_as(dtype, [&](auto type) {
    using T = decltype(type);
    using A = rpcnn::device_accumulate_t<T>;
    const auto levels = table<T>(align_corners, count, H, W, maps);
    const auto launch =
        relu ? rpcnn::launch_pyramid_adjoint<true, false, T, T> : rpcnn::launch_pyramid_adjoint<false, false, T, T>;
    for (int l = 0; l < count; ++l)
      launch(levels.level[l], as<T>(grad), N, {C, H[0], W[0], channels_last}, align_corners, as<A>(half),
             as<T>(grads)[l], nullptr);
  });
}
