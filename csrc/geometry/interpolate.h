// Bilinear interpolation along one axis, as PyTorch's upsample_bilinear2d defines it: written once for CPU
// and CUDA, forward and backward. A 2-D interpolation is the product of two such axes. Sources are rounded step by step
// (rounding.h), so that taps and weights agree to the bit on all devices.
#pragma once

#include <cstdint>

#include "rounding.h"

namespace rpcnn {

// An output pixel reads input pixel `lo` with weight 1 − w_hi and `hi` with weight w_hi.
template <typename T>
struct Tap {
  int64_t lo, hi;
  T w_lo, w_hi;
};

// Input pixels per output pixel.
template <typename T>
RPCNN_HOST_DEVICE T interpolation_step(int64_t in, int64_t out, bool align_corners) {
  if (align_corners) return out > 1 ? T(in - 1) / T(out - 1) : T(0);
  return T(in) / T(out);
}

template <typename T>
RPCNN_HOST_DEVICE Tap<T> interpolation_tap(int64_t index, int64_t in, T step, bool align_corners) {
  T source =
      align_corners ? rounded_product(T(index), step) : rounded_sum(rounded_product(T(index) + T(0.5), step), T(-0.5));
  if (source < T(0)) source = T(0);
  int64_t lo = static_cast<int64_t>(source);
  if (lo > in - 1) lo = in - 1;
  T w_hi = source - T(lo);
  w_hi = w_hi < T(0) ? T(0) : (w_hi > T(1) ? T(1) : w_hi);
  // A neighbor of weight 0 is read as in PyTorch, where 0 · NaN is NaN: no NaN that PyTorch shows turns into a number.
  // An axis that keeps its size (step 1) is copied.
  const int64_t hi = lo < in - 1 && (w_hi > T(0) || step != T(1)) ? lo + 1 : lo;
  return {lo, hi, T(1) - w_hi, w_hi};
}

// The output pixels [first, last) that can read input pixel `index`: those whose source lies within one pixel
// of it. One more on each side covers rounding; interpolation_weight gives the exact weight, 0 for the extra
// ones.
template <typename T>
RPCNN_HOST_DEVICE void interpolation_readers(int64_t index, int64_t in, int64_t out, T step, bool align_corners,
                                             int64_t* first, int64_t* last) {
  if (in == out) {  // the identity
    *first = index;
    *last = index + 1;
    return;
  }
  if (step <= T(0) || in == 1) {
    *first = 0;
    *last = out;
    return;
  }
  const T shift = align_corners ? T(0) : T(0.5);
  int64_t a = static_cast<int64_t>((T(index) - T(1) + shift) / step - shift) - 1;
  int64_t b = static_cast<int64_t>((T(index) + T(1) + shift) / step - shift) + 3;
  if (index == 0) a = 0;         // clamped sources below 0 read pixel 0
  if (index == in - 1) b = out;  // and those beyond the end the last one
  *first = a < 0 ? 0 : a;
  *last = b > out ? out : b;
}

// Weight with which output pixel `reader` reads input pixel `index`.
template <typename T>
RPCNN_HOST_DEVICE T interpolation_weight(int64_t reader, int64_t index, int64_t in, T step, bool align_corners) {
  const Tap<T> tap = interpolation_tap<T>(reader, in, step, align_corners);
  return (tap.lo == index ? tap.w_lo : T(0)) + (tap.hi == index ? tap.w_hi : T(0));
}

}  // namespace rpcnn
