// The common core of upsample_sum and gse_fuse:
//   out = Σ_l act(scale_l · (bilinear(Q_l → size of Q_0) − center_l) + shift_l),   act = ReLU or nothing,
// with one center, scale and shift per image, level and channel (absent: 0, 1 and 0), and its adjoint
//   E_l = Aᵀ (grad ∘ [act's derivative]) B,   A and B the interpolation matrices of level l's two axes.
//
// Fewest bytes: every level read once, the output written once (2.33 output sizes for five levels). No up-sampled map
// is ever stored; the adjoint recomputes the ReLU's mask. Planes (pyramid_planar.h) and channels innermost
// (pyramid_channels_last.h) have loops of their own. No two threads write one place, and results do not depend on the
// number of threads.
//
// Ladder, five levels to [2, 256, 200, 304] in fp32, contiguous, two cores; milliseconds forward, forward + backward,
// with memory retained (291 MB must move: 12 ms at copying speed):
//   27, 54  full-width rows; the compiler turned the interpolation along x into scalar code
//   17, 48  whole vectors: pixels picked from one vector by a shuffle
//   17, 38  gradients of eight rows gathered along x at once, transposed; a row's gradient goes to both
//           its rows in one pass
// Stores past the caches gained nothing. Without retained memory the system clears 125 MB for every result, 10 ms.
#pragma once

#include "pyramid_channels_last.h"
#include "pyramid_planar.h"

namespace rpcnn {

// out [N, C, H, W] from levels of its layout; affine_of(l, n) is the Affine of level l and image n at channel 0.
template <typename T, bool kRelu, typename AffineOf>
void pyramid_sum(const std::vector<Tensor>& levels, Tensor& out, bool align_corners, bool channels_last,
                 const AffineOf& affine_of) {
  const auto axes = level_axes<accumulate_t<T>>(levels, out.size(2), out.size(3), align_corners);
  if (channels_last) {
    sum_channels_last<T, kRelu>(levels, out, axes, affine_of);
  } else {
    sum_planar<T, kRelu>(levels, out, axes, affine_of);
  }
}

// E_l of every level into outs[l], which has the level's layout; summed in the accumulation type, stored as O. Calls
// done(l, row) soon after a row of a level is written, row counting through all planes (or images) of the level.
template <typename T, typename O, bool kRelu, typename A, typename AffineOf, typename Done>
void pyramid_adjoint(const std::vector<Tensor>& levels, const Tensor& grad, const std::vector<LevelAxes<A>>& axes,
                     bool channels_last, const AffineOf& affine_of, const std::vector<O*>& outs, const Done& done) {
  if (channels_last) {
    adjoint_channels_last<T, O, kRelu>(levels, grad, axes, affine_of, outs, done);
  } else {
    adjoint_planar<T, O, kRelu>(levels, grad, axes, affine_of, outs, done);
  }
}

inline void check_cpu_levels(const char* op, const std::vector<Tensor>& levels) {
  STD_TORCH_CHECK(!levels.empty(), op, ": features must hold at least one map");
  for (const Tensor& q : levels)
    STD_TORCH_CHECK(q.dim() == 4 && q.is_cpu() && q.scalar_type() == levels[0].scalar_type() &&
                        q.size(0) == levels[0].size(0) && q.size(1) == levels[0].size(1) && q.size(2) > 0 &&
                        q.size(3) > 0,
                    op, ": features must be non-empty [N, C, H, W] maps that agree in N, C, dtype and device");
}

}  // namespace rpcnn
