// The device language of the kernel headers. nvcc compiles them for the GPU; the emulator in tests/cuda/simt
// supplies the same names on the CPU and executes them thread by thread.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define SIMT_LAUNCH(kernel, grid, block, shmem, stream, ...) \
  (kernel)<<<(grid), (block), (shmem), (stream)>>>(__VA_ARGS__)
#define SIMT_SHARED(T, name, dims) __shared__ T name dims
#define SIMT_DYN_SHARED(T, name)                                  \
  extern __shared__ __align__(16) unsigned char simt_dyn_bytes[]; \
  T* name = reinterpret_cast<T*>(simt_dyn_bytes)
#else
#include "simt.h"

#endif

#include "../geometry/interpolate.h"

namespace rpcnn {

#if defined(__CUDACC__)
using Stream = cudaStream_t;
constexpr int64_t kMaxGrid = 65535;  // in y and z; kernels loop over the rest
#else
using Stream = void*;
using simt::kMaxGrid;  // a small one, so that small cases have a rest
#endif

constexpr int kMaxLevels = 8;  // pyramid levels that fit one launch's argument table
constexpr int kBlock = 256;

// Half types accumulate in float, float and double in themselves.
template <typename T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};
template <typename T>
using device_accumulate_t = typename Accumulate<T>::type;

// Blocks for one thread per item, capped: kernels loop with the grid as stride, in 64 bits.
inline unsigned blocks_for(int64_t items) {
  const int64_t blocks = (items + kBlock - 1) / kBlock;
  return static_cast<unsigned>(blocks < kMaxGrid * 16 ? blocks : kMaxGrid * 16);
}

}  // namespace rpcnn
