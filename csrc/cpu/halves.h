// The half types in integer arithmetic that compilers turn into vectors; torch's own conversions stay scalar.
// Exact to float, rounded to nearest even from it, infinities and NaN kept: as torch's.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <cstring>

namespace rpcnn {

namespace bits {
inline float to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline uint32_t of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
}  // namespace bits

struct alignas(2) Half {  // 1 sign, 5 exponent, 10 mantissa bits
  uint16_t bits;

  Half() = default;
  explicit Half(float value) {
    constexpr uint32_t kInfinity = 0x7f800000, kTooLarge = uint32_t(127 + 16) << 23, kNormal = uint32_t(113) << 23;
    const uint32_t all = bits::of(value), sign = all & 0x80000000, magnitude = all ^ sign;
    // Too small for a normal number: an addition aligns the mantissa and rounds.
    constexpr uint32_t kAlign = uint32_t(127 - 15 + 23 - 10 + 1) << 23;
    const uint32_t small = bits::of(bits::to_float(magnitude) + bits::to_float(kAlign)) - kAlign;
    const uint32_t odd = (magnitude >> 13) & 1;
    const uint32_t normal = (magnitude - (uint32_t(112) << 23) + 0xfff + odd) >> 13;
    const uint32_t large = magnitude > kInfinity ? 0x7e00 : 0x7c00;
    bits = uint16_t((magnitude >= kTooLarge ? large : magnitude < kNormal ? small : normal) | sign >> 16);
  }
  operator float() const {
    const uint32_t shifted = uint32_t(int32_t(int16_t(bits))) << 13 & 0x8fffffff;  // in a float's places
    const float value = bits::to_float(shifted) * 0x1p112f;                        // subnormal numbers, too
    return (shifted & 0x0f800000) == 0x0f800000 ? bits::to_float(bits::of(value) | 0x7f800000) : value;
  }
};

struct alignas(2) BFloat16 {  // the upper half of a float
  uint16_t bits;

  BFloat16() = default;
  explicit BFloat16(float value) {
    const uint32_t all = bits::of(value), rounded = all + 0x7fff + ((all >> 16) & 1);
    bits = uint16_t(value != value ? 0x7fc0 : rounded >> 16);
  }
  operator float() const { return bits::to_float(uint32_t(bits) << 16); }
};

}  // namespace rpcnn

// A tensor's typed pointer is defined for torch's types only; dispatch_floating has checked the dtype.
#define RPCNN_DATA_PTR(T)                                         \
  template <>                                                     \
  inline T* torch::stable::Tensor::mutable_data_ptr() const {     \
    return static_cast<T*>(mutable_data_ptr());                   \
  }                                                               \
  template <>                                                     \
  inline const T* torch::stable::Tensor::const_data_ptr() const { \
    return static_cast<const T*>(const_data_ptr());               \
  }
RPCNN_DATA_PTR(rpcnn::Half)
RPCNN_DATA_PTR(rpcnn::BFloat16)
#undef RPCNN_DATA_PTR
