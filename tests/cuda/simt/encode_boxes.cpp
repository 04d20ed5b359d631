#include "encode_boxes_kernel.cuh"

#include "exports.h"

SIMT_EXPORT encode_boxes(int64_t dtype, const void* gt_boxes, int64_t G, const void* references, const int64_t* matched,
                         int64_t n, float center_weight, float size_weight, void* out) {
  return simt_run([&] {
    const auto run = [&](auto type) {
      using T = decltype(type);
      rpcnn::launch_encode_boxes<T>(as<T>(gt_boxes), G, as<T>(references), matched, n, T(center_weight), T(size_weight),
                                    as<T>(out), nullptr);
    };
    dtype == 1 ? run(double{}) : run(float{});
  });
}
