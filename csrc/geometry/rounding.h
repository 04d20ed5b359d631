// Operations that round alike on CPU and CUDA. Compilers otherwise fuse whichever product and sum they like into one
// operation that rounds once.
#pragma once

#if defined(__CUDACC__)
#define RPCNN_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define RPCNN_HOST_DEVICE inline
#endif

namespace rpcnn {

// The value, which the compiler may no longer fuse with what follows, if the build is for processors that can. (In a
// function with clones for such processors it still may.)
template <typename T>
RPCNN_HOST_DEVICE T rounded(T value) {
#if defined(__CUDA_ARCH__) || !defined(__GNUC__)
#elif defined(__x86_64__) && defined(__FMA__)
  asm("" : "+x"(value));
#elif defined(__aarch64__)
  asm("" : "+w"(value));
#endif
  return value;
}

// a · b and a + b, each rounded.
template <typename T>
RPCNN_HOST_DEVICE T rounded_product(T a, T b) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == 8) {
    return __dmul_rn(a, b);
  } else {
    return __fmul_rn(a, b);
  }
#else
  return rounded(a * b);
#endif
}
template <typename T>
RPCNN_HOST_DEVICE T rounded_sum(T a, T b) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == 8) {
    return __dadd_rn(a, b);
  } else {
    return __fadd_rn(a, b);
  }
#else
  return a + b;
#endif
}

// a · b + c, on CUDA always fused: two kernels that must make the same bits say which product is.
template <typename T>
RPCNN_HOST_DEVICE T fused_sum(T a, T b, T c) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == 8) {
    return __fma_rn(a, b, c);
  } else {
    return __fmaf_rn(a, b, c);
  }
#else
  return a * b + c;
#endif
}

}  // namespace rpcnn
