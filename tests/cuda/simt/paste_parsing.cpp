#include "paste_parsing_kernel.cuh"

#include "exports.h"

SIMT_EXPORT paste_parsing(const float* maps, int64_t R, int64_t K, int64_t h, int64_t w, const float* boxes,
                          const uint8_t* painted, const float* semantic, int64_t hs, int64_t ws, const double* covered,
                          const float* weight_and_gate, int64_t H, int64_t W, uint8_t* labels, int32_t* instances,
                          uint8_t* people, bool paint_labels) {
  return simt_run([&] {
    rpcnn::launch_paste_parsing(
        {maps, R, int(K), int(h), int(w)}, boxes, painted,
        {semantic, int(hs), int(ws), covered[0], covered[1], weight_and_gate[0], weight_and_gate[1]}, H, W,
        {labels, instances, people, paint_labels}, nullptr);
  });
}
