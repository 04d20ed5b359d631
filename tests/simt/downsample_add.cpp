#include "downsample_add_kernel.cuh"

#include "exports.h"

namespace {
template <typename T>
rpcnn::DownsampleLevels<T> table(int64_t images, int64_t C, int count, const int64_t* H, const int64_t* W,
                                 void** pyramid, void** out) {
  rpcnn::DownsampleLevels<T> levels{};
  levels.count = count;
  for (int l = 0; l < count; ++l) {
    levels.pyramid[l] = pyramid ? as<T>(pyramid)[l] : nullptr;
    levels.out[l] = as<T>(out)[l];
    levels.H[l] = H[l];
    levels.W[l] = W[l];
    levels.begin[l + 1] = levels.begin[l] + images * C * H[l] * W[l];
  }
  return levels;
}
}  // namespace

SIMT_EXPORT downsample_add(int64_t dtype, const void* feature, int64_t N, int64_t C, int64_t H, int64_t W,
                           bool channels_last, int count, const int64_t* hs, const int64_t* ws, void** pyramid,
                           void** out) {
  return simt_run_as(dtype, [&](auto type) {
    using T = decltype(type);
    rpcnn::launch_downsample_add<T>(as<T>(feature), {C, H, W, channels_last},
                                    table<T>(N, C, count, hs, ws, pyramid, out), nullptr);
  });
}

SIMT_EXPORT downsample_add_backward(int64_t dtype, void* grad_feature, int64_t N, int64_t C, int64_t H, int64_t W,
                                    bool channels_last, int count, const int64_t* hs, const int64_t* ws, void** grads) {
  return simt_run_as(dtype, [&](auto type) {
    using T = decltype(type);
    rpcnn::launch_downsample_add_backward<T>(as<T>(grad_feature), N, {C, H, W, channels_last},
                                             table<T>(N, C, count, hs, ws, nullptr, grads), nullptr);
  });
}
