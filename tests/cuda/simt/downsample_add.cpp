#include "downsample_add_kernel.cuh"

#include "exports.h"

namespace {
template <typename T>
rpcnn::DownsampleLevels<T> table(const rpcnn::Levels& levels, void** pyramid, void** out) {
  rpcnn::DownsampleLevels<T> all{};
  all.levels = levels;
  for (int l = 0; l < levels.count; ++l) {
    all.pyramid[l] = pyramid ? as<T>(pyramid)[l] : nullptr;
    all.out[l] = as<T>(out)[l];
  }
  return all;
}
}  // namespace

SIMT_EXPORT downsample_add(int64_t dtype, const void* feature, int64_t N, int64_t C, int64_t H, int64_t W,
                           bool channels_last, int count, const int64_t* hs, const int64_t* ws, void** pyramid,
                           void** out) {
  return simt_run_as(dtype, [&](auto type) {
    using T = decltype(type);
    rpcnn::launch_downsample_add<T>(as<T>(feature), H, W,
                                    table<T>(simt_levels(count, N, C, hs, ws, channels_last), pyramid, out), nullptr);
  });
}

SIMT_EXPORT downsample_add_backward(int64_t dtype, void* grad_feature, int64_t N, int64_t C, int64_t H, int64_t W,
                                    bool channels_last, int count, const int64_t* hs, const int64_t* ws, void** grads) {
  return simt_run_as(dtype, [&](auto type) {
    using T = decltype(type);
    rpcnn::launch_downsample_add_backward<T>(
        as<T>(grad_feature), H, W, table<T>(simt_levels(count, N, C, hs, ws, channels_last), nullptr, grads), nullptr);
  });
}
