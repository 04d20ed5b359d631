#include "pyramid_adjoint_kernel.cuh"

#include "exports.h"

namespace {
template <typename T>
rpcnn::Pyramid<T> table(const rpcnn::Levels& levels, int64_t H, int64_t W, bool align_corners, void** maps) {
  rpcnn::Pyramid<T> pyramid(levels, H, W, align_corners);
  for (int l = 0; l < levels.count; ++l) pyramid.map[l] = as<T>(maps)[l];
  return pyramid;
}
}  // namespace

SIMT_EXPORT upsample_sum(int64_t dtype, void* out, int64_t N, int64_t C, bool channels_last, bool align_corners,
                         bool relu, int count, const int64_t* H, const int64_t* W, void** maps) {
  return simt_run_as(dtype, [&](auto type) {
    using T = decltype(type);
    const auto pyramid = table<T>(simt_levels(count, N, C, H, W, channels_last), H[0], W[0], align_corners, maps);
    const auto launch = relu ? rpcnn::launch_pyramid_sum<true, false, T> : rpcnn::launch_pyramid_sum<false, false, T>;
    launch(pyramid, as<T>(out), nullptr);
  });
}

// `scratch` holds the accumulation type.
SIMT_EXPORT upsample_sum_backward(int64_t dtype, const void* grad, void* scratch, int64_t N, int64_t C,
                                  bool channels_last, bool align_corners, bool relu, int count, const int64_t* H,
                                  const int64_t* W, void** maps, void** grads) {
  return simt_run_as(dtype, [&](auto type) {
    using T = decltype(type);
    using A = rpcnn::device_accumulate_t<T>;
    const auto pyramid = table<T>(simt_levels(count, N, C, H, W, channels_last), H[0], W[0], align_corners, maps);
    const auto launch =
        relu ? rpcnn::launch_pyramid_adjoint<true, false, T, T> : rpcnn::launch_pyramid_adjoint<false, false, T, T>;
    launch(pyramid, as<T>(grad), as<A>(scratch), as<T>(grads), nullptr);
  });
}
