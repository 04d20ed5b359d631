// Regression targets of a box. Written once for CPU and CUDA.
#pragma once

#include <cmath>

#include "boxes.h"

namespace rpcnn {

#if !defined(__CUDACC__)
using std::log;  // of the type of its argument, as on a GPU
#endif

// From a reference box to a ground-truth box: shift of the center in units of the reference's size, log of the ratio.
template <typename T>
struct Targets {
  T dx, dy, dw, dh;
};
template <typename T>
RPCNN_HOST_DEVICE Targets<T> encoded(const T* box, const T* reference, T center_weight, T size_weight) {
  const T width = box[2] - box[0], height = box[3] - box[1];
  const T own_width = reference[2] - reference[0], own_height = reference[3] - reference[1];
  const T x = (box[0] + T(0.5) * width) - (reference[0] + T(0.5) * own_width);
  const T y = (box[1] + T(0.5) * height) - (reference[1] + T(0.5) * own_height);
  return {x / own_width * center_weight, y / own_height * center_weight, log(width / own_width) * size_weight,
          log(height / own_height) * size_weight};
}

}  // namespace rpcnn
