#include "roi_align_kernel.cuh"

#include "exports.h"

namespace {
rpcnn::RoiMaps<float> table(int64_t N, int64_t C, int levels, const int64_t* hs, const int64_t* ws, bool channels_last,
                            float** maps) {
  rpcnn::RoiMaps<float> t{};
  t.levels = levels, t.N = N, t.C = C, t.channels_last = channels_last;
  for (int l = 0; l < levels; ++l) {
    t.map[l] = maps[l], t.H[l] = hs[l], t.W[l] = ws[l], t.scale[l] = 0.25 / double(1 << l);
    t.begin[l + 1] = t.begin[l] + N * C * hs[l] * ws[l];
  }
  return t;
}
rpcnn::RoiRule rule(int64_t height, int64_t width, int64_t ratio, bool aligned) {
  return {height, width, ratio, aligned, 32.0f, 3.0f, 2.0f, 0.0f};
}
}  // namespace

SIMT_EXPORT roi_align(int64_t N, int64_t C, int64_t levels, const int64_t* hs, const int64_t* ws, bool channels_last,
                      float** maps, const float* boxes, int64_t R, int64_t height, int64_t width, int64_t ratio,
                      bool aligned, float* out) {
  return simt_run([&] {
    rpcnn::launch_roi_align<float, float>(table(N, C, int(levels), hs, ws, channels_last, maps), boxes, R,
                                          rule(height, width, ratio, aligned), out, nullptr);
  });
}

SIMT_EXPORT roi_align_backward(int64_t N, int64_t C, int64_t levels, const int64_t* hs, const int64_t* ws,
                               bool channels_last, float** maps, const float* boxes, int64_t R, int64_t height,
                               int64_t width, int64_t ratio, bool aligned, const float* grad, int* extents) {
  return simt_run([&] {
    rpcnn::launch_roi_align_backward<float, float>(table(N, C, int(levels), hs, ws, channels_last, maps), boxes, R,
                                                   rule(height, width, ratio, aligned), grad,
                                                   reinterpret_cast<rpcnn::RoiExtent*>(extents), nullptr);
  });
}
