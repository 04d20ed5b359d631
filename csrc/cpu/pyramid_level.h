// One level of a pyramid as the kernels of pyramid_sum.h see it: its affine, its axes, its activation.
#pragma once

#include "common.h"
#include "interpolation_axis.h"

namespace rpcnn {

// The center is subtracted from the pixels. Folded into the shift, a large one would lose digits by cancellation.
template <typename A>
struct Affine {
  const A* center = nullptr;  // [N, C]
  const A* scale = nullptr;
  const A* shift = nullptr;
  Affine at(int64_t i) const { return scale ? Affine{center + i, scale + i, shift + i} : *this; }
};

template <typename A>
struct NoAffine {
  Affine<A> operator()(size_t, int64_t) const { return {}; }
};

// Both pass NaN through, as PyTorch's ReLU and its gradient do.
template <typename A, bool kRelu>
inline A activate(A value) {
  return kRelu && value < A(0) ? A(0) : value;
}
template <typename A>
inline bool passes_gradient(A value) {
  return !(value <= A(0));
}

template <typename A>
struct LevelAxes {
  InterpolationAxis<A> y, x;
};

// The axes that bring every level to H × W.
template <typename A>
std::vector<LevelAxes<A>> level_axes(const std::vector<Tensor>& levels, int64_t H, int64_t W, bool align_corners) {
  std::vector<LevelAxes<A>> axes;
  for (const Tensor& q : levels)
    axes.push_back(
        {InterpolationAxis<A>(q.size(2), H, align_corners), InterpolationAxis<A>(q.size(3), W, align_corners)});
  return axes;
}

template <typename O, typename A>
RPCNN_CLONES void store_row(const A* row, O* __restrict out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = O(row[i]);
}

// Adds an output row's gradient to the two rows that the output was interpolated from, where the activation passes it
// (u is interpolated between the rows u_lo and u_hi).
template <typename T, typename A, bool kRelu>
RPCNN_CLONES void add_to_rows(const T* grad, const A* u_lo, const A* u_hi, Tap<A> y, A* __restrict lo, A* __restrict hi,
                              int64_t W) {
  if (y.hi == y.lo) {
    for (int64_t x = 0; x < W; ++x) lo[x] += !kRelu || passes_gradient(u_lo[x]) ? A(grad[x]) : A(0);
    return;
  }
  for (int64_t x = 0; x < W; ++x) {
    const A g = !kRelu || passes_gradient(y.w_lo * u_lo[x] + y.w_hi * u_hi[x]) ? A(grad[x]) : A(0);
    lo[x] += y.w_lo * g;
    hi[x] += y.w_hi * g;
  }
}

}  // namespace rpcnn
