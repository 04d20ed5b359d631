// exp and log in arithmetic that compilers turn into vectors; the library's own stay scalar. Errors of about one unit
// in the last place.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "vectors.h"

namespace rpcnn {

// What the two functions know of a float format: bits of the mantissa, bias of the exponent, terms of the series.
template <typename A>
struct Format;
template <>
struct Format<float> {
  using Bits = int32_t;
  static constexpr int kMantissa = 23, kBias = 127, kExpTerms = 8, kLogTerms = 5;
  static constexpr float kLowest = -87, kRound = 0x1.8p23f, kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;
};
template <>
struct Format<double> {
  using Bits = int64_t;
  static constexpr int kMantissa = 52, kBias = 1023, kExpTerms = 14, kLogTerms = 12;
  static constexpr double kLowest = -708, kRound = 0x1.8p52, kLn2High = 0x1.62e42fefa38p-1,
                          kLn2Low = 0x1.ef35793c7673p-45;
};

template <typename To, typename From>
RPCNN_INLINE To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// 1 / n!
template <typename A>
constexpr std::array<A, Format<A>::kExpTerms> kInverseFactorials = [] {
  std::array<A, Format<A>::kExpTerms> inverse{};
  double factorial = 1;
  for (int n = 0; n < Format<A>::kExpTerms; ++n) {
    factorial *= n ? n : 1;
    inverse[n] = A(1 / factorial);
  }
  return inverse;
}();

// exp(x) for x up to about 1; 0 where it would be less than the smallest normal number. NaN stays NaN.
// x = n ln 2 + r with |r| <= ln 2 / 2; a series of exp(r), and n added to the exponent.
template <typename A>
RPCNN_INLINE A exp_of(A x) {
  using F = Format<A>;
  using Bits = typename F::Bits;
  const A bounded = x < F::kLowest ? F::kLowest : x;
  const A shifted = bounded * A(1.4426950408889634) + F::kRound;  // n in the lowest bits
  const A n = shifted - F::kRound;
  const A r = (bounded - n * F::kLn2High) - n * F::kLn2Low;
  A sum = kInverseFactorials<A>[F::kExpTerms - 1];
#pragma GCC unroll 16
  for (int i = F::kExpTerms - 2; i >= 0; --i) sum = sum * r + kInverseFactorials<A>[i];
  const Bits exponent = same_bits<Bits>(shifted) - same_bits<Bits>(F::kRound) + F::kBias;
  const A result = sum * same_bits<A>(Bits(exponent << F::kMantissa));
  return x < F::kLowest ? A(0) : result;
}

// log(x) of a positive normal number. NaN stays NaN.
// x = 2^n · f with √½ <= f < √2; log f = 2 artanh z, z = (f − 1) / (f + 1), as an odd series.
template <typename A>
RPCNN_INLINE A log_of(A x) {
  using F = Format<A>;
  using Bits = typename F::Bits;
  const Bits exponent = (same_bits<Bits>(x) - same_bits<Bits>(A(0.70710678118654752))) >> F::kMantissa;
  const A f = same_bits<A>(Bits(same_bits<Bits>(x) - (exponent << F::kMantissa))), n = A(exponent);
  const A z = (f - A(1)) / (f + A(1)), square = z * z;
  A sum = A(1.0 / (2 * F::kLogTerms - 1));
#pragma GCC unroll 16
  for (int i = F::kLogTerms - 2; i >= 0; --i) sum = sum * square + A(1.0 / (2 * i + 1));
  const A result = n * F::kLn2High + (A(2) * z * sum + n * F::kLn2Low);
  return x != x ? x : result;
}

}  // namespace rpcnn
