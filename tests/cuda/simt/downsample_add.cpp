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

// Of a feature axis: whether the backward takes its readers from tables, and the most readers that a pixel has.
SIMT_EXPORT downsample_add_readers(int64_t in, int64_t out, int64_t* pairs, int64_t* most) {
  return simt_run([&] {
    const float step = rpcnn::interpolation_step<float>(in, out, false);
    *pairs = rpcnn::has_reader_pairs(in, out);
    *most = 0;
    for (int64_t i = 0; i < in; ++i) {
      int64_t first, last, readers = 0;
      rpcnn::interpolation_readers<float>(i, in, out, step, false, &first, &last);
      for (; first < last; ++first) readers += rpcnn::interpolation_weight<float>(first, i, in, step, false) != 0;
      *most = std::max(*most, readers);
    }
  });
}
