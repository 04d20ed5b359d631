#include "roi_align_backward_kernel.cuh"

#include <vector>

#include "exports.h"

namespace {
template <typename T>
rpcnn::RoiMaps<T> table(int64_t N, int64_t C, int levels, const int64_t* hs, const int64_t* ws, bool channels_last,
                        void** maps) {
  rpcnn::RoiMaps<T> t{};
  t.levels = levels, t.N = N, t.C = C, t.channels_last = channels_last;
  for (int l = 0; l < levels; ++l) {
    t.map[l] = as<T>(maps)[l], t.H[l] = hs[l], t.W[l] = ws[l], t.scale[l] = 0.25 / double(1 << l);
  }
  return t;
}
// canonical: size, level and area offset of the rule by which boxes get levels; null: 32, 3, 0.
rpcnn::RoiRule rule(int64_t height, int64_t width, int64_t ratio, bool aligned, const float* canonical) {
  if (!canonical) return {height, width, ratio, aligned, 32.0f, 3.0f, 2.0f, 0.0f};
  return {height, width, ratio, aligned, canonical[0], canonical[1], 2.0f, canonical[2]};
}
}  // namespace

// Boxes are float, double with double maps.
SIMT_EXPORT roi_align(int64_t dtype, int64_t N, int64_t C, int64_t levels, const int64_t* hs, const int64_t* ws,
                      bool channels_last, void** maps, const void* boxes, int64_t R, int64_t height, int64_t width,
                      int64_t ratio, bool aligned, const float* canonical, void* out) {
  return simt_run_as(dtype, [&](auto type) {
    using T = decltype(type);
    using G = rpcnn::device_accumulate_t<T>;
    rpcnn::launch_roi_align<T, G>(table<T>(N, C, int(levels), hs, ws, channels_last, maps), as<G>(boxes), R,
                                  rule(height, width, ratio, aligned, canonical), as<T>(out), nullptr);
  });
}

SIMT_EXPORT roi_align_backward(int64_t dtype, int64_t N, int64_t C, int64_t levels, const int64_t* hs,
                               const int64_t* ws, bool channels_last, void** maps, const void* boxes, int64_t R,
                               int64_t height, int64_t width, int64_t ratio, bool aligned, const float* canonical,
                               const void* grad) {
  return simt_run_as(dtype, [&](auto type) {
    using T = decltype(type);
    using G = rpcnn::device_accumulate_t<T>;
    std::vector<double> scratch(
        (rpcnn::RoiReaches<T, G>::bytes(R, rule(height, width, ratio, aligned, canonical)) + 7) / 8);
    rpcnn::launch_roi_align_backward<T, G>(table<T>(N, C, int(levels), hs, ws, channels_last, maps), as<G>(boxes), R,
                                           rule(height, width, ratio, aligned, canonical), as<T>(grad), scratch.data(),
                                           nullptr);
  });
}
