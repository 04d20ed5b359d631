// encode_boxes: a thread a box. Fewest bytes, 512 boxes: 20 KB; 1 launch, where PyTorch's ops take 18. It takes what a
// launch takes. Counted, nothing was timed.
#pragma once

#include "../geometry/encode.h"
#include "device.cuh"

namespace rpcnn {

template <typename T>
__global__ void encode_boxes_kernel(const T* gt_boxes, int64_t G, const T* references, const int64_t* matched,
                                    int64_t n, T center_weight, T size_weight, T* out) {
  const int64_t step = int64_t(gridDim.x) * kBlock;
  for (int64_t i = int64_t(blockIdx.x) * kBlock + threadIdx.x; i < n; i += step) {
    const int64_t g = matched[i];
    Targets<T> target{T(0), T(0), T(0), T(0)};
    if (g >= 0 && g < G) target = encoded(gt_boxes + 4 * g, references + 4 * i, center_weight, size_weight);
    out[4 * i] = target.dx, out[4 * i + 1] = target.dy, out[4 * i + 2] = target.dw, out[4 * i + 3] = target.dh;
  }
}

template <typename T>
void launch_encode_boxes(const T* gt_boxes, int64_t G, const T* references, const int64_t* matched, int64_t n,
                         T center_weight, T size_weight, T* out, Stream stream) {
  if (n)
    SIMT_LAUNCH((encode_boxes_kernel<T>), blocks_for(n), kBlock, 0, stream, gt_boxes, G, references, matched, n,
                center_weight, size_weight, out);
}

}  // namespace rpcnn
