// The common core of upsample_sum and gse_fuse:
//   out = Σ_l act(scale_l · (bilinear(Q_l → size of Q_0) − center_l) + shift_l),   act = ReLU or nothing,
// with one center, scale and shift per image, level and channel (absent: 0, 1 and 0), and its adjoint
//   E_l = Aᵀ (grad ∘ [act's derivative]) B,   A and B the interpolation matrices of level l's two axes.
//
// Fewest bytes: every level read once, the output written once (2.33 output sizes for five levels). Each output row is
// made in one go: per level the two low-resolution rows are blended into a row buffer (w_l values, in cache), which is
// then interpolated along x. No up-sampled map is ever stored; the adjoint recomputes the ReLU's mask the same way.
// Work is split by output row, the adjoint by level row (channels innermost) or by plane: no two threads write one
// place, and results do not depend on the number of threads.
#pragma once

#include "common.h"
#include "interpolation_axis.h"

namespace rpcnn {

// The center is subtracted from the pixels themselves: folded into the shift, a large one would cancel there.
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

// Both let a NaN through, as PyTorch's do.
template <typename A, bool kRelu>
inline A activate(A value) {
  return kRelu && value < A(0) ? A(0) : value;
}
template <typename A>
inline bool passes_gradient(A value) {
  return !(value <= A(0));
}

// row[i] = scale · (w_lo · (lo[i] − center) + w_hi · (hi[i] − center)) + shift, the affine running with period C over a
// channels-last row, or constant over a contiguous one (C = 1).
template <typename T, typename A>
RPCNN_CLONES void blend_rows(const T* lo, const T* hi, Tap<A> y, Affine<A> affine, A* row, int64_t w, int64_t C) {
  if (!affine.scale) {
    for (int64_t i = 0; i < w * C; ++i) row[i] = y.w_lo * A(lo[i]) + y.w_hi * A(hi[i]);
  } else if (C == 1) {
    const A center = affine.center[0], scale = affine.scale[0], shift = affine.shift[0];
    for (int64_t i = 0; i < w; ++i)
      row[i] = scale * (y.w_lo * (A(lo[i]) - center) + y.w_hi * (A(hi[i]) - center)) + shift;
  } else {
    for (int64_t x = 0; x < w; ++x)
      for (int64_t c = 0; c < C; ++c) {
        const int64_t i = x * C + c;
        const A value = y.w_lo * (A(lo[i]) - affine.center[c]) + y.w_hi * (A(hi[i]) - affine.center[c]);
        row[i] = affine.scale[c] * value + affine.shift[c];
      }
  }
}

template <typename A, bool kRelu>
RPCNN_CLONES void add_along_x(const A* row, const Tap<A>* taps, A* out, int64_t w, int64_t W, int64_t C) {
  if (w == W) {  // the identity
    for (int64_t i = 0; i < W * C; ++i) out[i] += activate<A, kRelu>(row[i]);
  } else if (C == 1) {
    for (int64_t x = 0; x < W; ++x) {
      const Tap<A> t = taps[x];
      out[x] += activate<A, kRelu>(t.w_lo * row[t.lo] + t.w_hi * row[t.hi]);
    }
  } else {
    for (int64_t x = 0; x < W; ++x) {
      const Tap<A> t = taps[x];
      const A *a = row + t.lo * C, *b = row + t.hi * C;
      A* o = out + x * C;
      for (int64_t c = 0; c < C; ++c) o[c] += activate<A, kRelu>(t.w_lo * a[c] + t.w_hi * b[c]);
    }
  }
}

template <typename O, typename A>
RPCNN_CLONES void store_row(const A* row, O* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = O(row[i]);
}

template <typename A>
struct LevelAxes {
  InterpolationAxis<A> y, x;
};

template <typename A>
std::vector<LevelAxes<A>> level_axes(const std::vector<Tensor>& levels, bool align_corners) {
  std::vector<LevelAxes<A>> axes;
  const int64_t H = levels[0].size(2), W = levels[0].size(3);
  for (const Tensor& q : levels)
    axes.push_back(
        {InterpolationAxis<A>(q.size(2), H, align_corners), InterpolationAxis<A>(q.size(3), W, align_corners)});
  return axes;
}

// affine(l, n) is the Affine of level l and image n at channel 0.
template <typename T, bool kRelu, typename AffineOf>
void pyramid_sum(const std::vector<Tensor>& levels, Tensor& out, bool align_corners, bool channels_last,
                 const AffineOf& affine_of) {
  using A = accumulate_t<T>;
  const int64_t N = out.size(0), C = out.size(1), H = out.size(2), W = out.size(3);
  const auto axes = level_axes<A>(levels, align_corners);
  const int64_t inner = channels_last ? C : 1, planes = channels_last ? N : N * C;
  T* target = out.mutable_data_ptr<T>();
  parallel(planes * H, std::max<int64_t>(1, 4096 / (W * inner)), [&](int64_t begin, int64_t end) {
    std::vector<A> row(W * inner), sum(W * inner);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t plane = i / H, y = i % H;
      std::fill(sum.begin(), sum.end(), A(0));
      for (size_t l = 0; l < levels.size(); ++l) {
        const int64_t h = levels[l].size(2), w = levels[l].size(3);
        if (int64_t(row.size()) < w * inner) row.resize(w * inner);
        const T* source = levels[l].const_data_ptr<T>() + plane * h * w * inner;
        const Tap<A> tap = axes[l].y.taps[y];
        const Affine<A> affine = channels_last ? affine_of(l, plane) : affine_of(l, plane / C).at(plane % C);
        blend_rows<T, A>(source + tap.lo * w * inner, source + tap.hi * w * inner, tap, affine, row.data(), w, inner);
        add_along_x<A, kRelu>(row.data(), axes[l].x.taps.data(), sum.data(), w, W, inner);
      }
      store_row<T, A>(sum.data(), target + i * W * inner, W * inner);
    }
  });
}

// One channels-last output row's masked gradient, gathered along x: into[i] += weight · Σ readers.
template <typename T, typename A, bool kRelu>
RPCNN_CLONES void gather_row(const T* grad, const A* row, const InterpolationAxis<A>& x_axis, A weight, A* into,
                             int64_t w, int64_t C) {
  for (int64_t i = 0; i < w; ++i)
    for (int64_t r = x_axis.reader_begin[i]; r < x_axis.reader_begin[i + 1]; ++r) {
      const int64_t x = x_axis.readers[r].index;
      const A share = weight * x_axis.readers[r].weight;
      const T* g = grad + x * C;
      A* e = into + i * C;
      if constexpr (kRelu) {
        const Tap<A> t = x_axis.taps[x];
        const A *a = row + t.lo * C, *b = row + t.hi * C;
        for (int64_t c = 0; c < C; ++c) e[c] += passes_gradient(t.w_lo * a[c] + t.w_hi * b[c]) ? share * A(g[c]) : A(0);
      } else {
        for (int64_t c = 0; c < C; ++c) e[c] += share * A(g[c]);
      }
    }
}

// One planar output row's masked gradient.
template <typename T, typename A, bool kRelu>
RPCNN_CLONES void mask_row(const T* grad, const A* row, const Tap<A>* taps, A* masked, int64_t w, int64_t W) {
  if (!kRelu) {
    for (int64_t x = 0; x < W; ++x) masked[x] = A(grad[x]);
  } else if (w == W) {
    for (int64_t x = 0; x < W; ++x) masked[x] = passes_gradient(row[x]) ? A(grad[x]) : A(0);
  } else {
    for (int64_t x = 0; x < W; ++x) {
      const Tap<A> t = taps[x];
      masked[x] = passes_gradient(t.w_lo * row[t.lo] + t.w_hi * row[t.hi]) ? A(grad[x]) : A(0);
    }
  }
}

template <typename A>
RPCNN_CLONES void gather_along_x(const A* masked, const InterpolationAxis<A>& x_axis, A* narrow, int64_t w) {
  for (int64_t i = 0; i < w; ++i) {
    A sum = 0;
    for (int64_t r = x_axis.reader_begin[i]; r < x_axis.reader_begin[i + 1]; ++r)
      sum += x_axis.readers[r].weight * masked[x_axis.readers[r].index];
    narrow[i] = sum;
  }
}

template <typename A>
RPCNN_CLONES void add_scaled(const A* row, A weight, A* into, int64_t count) {
  for (int64_t i = 0; i < count; ++i) into[i] += weight * row[i];
}

// Planar: a thread owns a plane and walks the output rows once, in order, adding each to the two rows that it read.
template <typename T, typename O, bool kRelu, typename A, typename AffineOf>
void adjoint_planar(const Tensor& level, size_t l, const Tensor& grad, const LevelAxes<A>& axes,
                    const AffineOf& affine_of, O* out) {
  const int64_t N = level.size(0), C = level.size(1), h = level.size(2), w = level.size(3);
  const int64_t H = grad.size(2), W = grad.size(3);
  parallel(N * C, 1, [&](int64_t begin, int64_t end) {
    std::vector<A> row(w), masked(W), narrow(w), sum(h * w);
    for (int64_t i = begin; i < end; ++i) {
      const T* source = level.const_data_ptr<T>() + i * h * w;
      const T* g = grad.const_data_ptr<T>() + i * H * W;
      const Affine<A> affine = affine_of(l, i / C).at(i % C);
      std::fill(sum.begin(), sum.end(), A(0));
      for (int64_t y = 0; y < H; ++y) {
        const Tap<A> tap = axes.y.taps[y];
        if constexpr (kRelu) blend_rows<T, A>(source + tap.lo * w, source + tap.hi * w, tap, affine, row.data(), w, 1);
        mask_row<T, A, kRelu>(g + y * W, row.data(), axes.x.taps.data(), masked.data(), w, W);
        if (w != W) gather_along_x<A>(masked.data(), axes.x, narrow.data(), w);
        const A* gathered = w == W ? masked.data() : narrow.data();
        add_scaled<A>(gathered, tap.hi == tap.lo ? A(1) : tap.w_lo, sum.data() + tap.lo * w, w);
        if (tap.hi != tap.lo) add_scaled<A>(gathered, tap.w_hi, sum.data() + tap.hi * w, w);
      }
      store_row<O, A>(sum.data(), out + i * h * w, h * w);
    }
  });
}

// Channels innermost: few planes, so the threads share rows of the level, and each row gathers its readers.
template <typename T, typename O, bool kRelu, typename A, typename AffineOf>
void adjoint_channels_last(const Tensor& level, size_t l, const Tensor& grad, const LevelAxes<A>& axes,
                           const AffineOf& affine_of, O* out) {
  const int64_t N = level.size(0), C = level.size(1), h = level.size(2), w = level.size(3);
  const int64_t H = grad.size(2), W = grad.size(3);
  parallel(N * h, 1, [&](int64_t begin, int64_t end) {
    std::vector<A> row(w * C), sum(w * C);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / h, y = i % h;
      const T* source = level.const_data_ptr<T>() + n * h * w * C;
      const T* g = grad.const_data_ptr<T>() + n * H * W * C;
      const Affine<A> affine = affine_of(l, n);
      std::fill(sum.begin(), sum.end(), A(0));
      for (int64_t r = axes.y.reader_begin[y]; r < axes.y.reader_begin[y + 1]; ++r) {
        const auto reader = axes.y.readers[r];
        const Tap<A> tap = axes.y.taps[reader.index];
        if constexpr (kRelu)
          blend_rows<T, A>(source + tap.lo * w * C, source + tap.hi * w * C, tap, affine, row.data(), w, C);
        gather_row<T, A, kRelu>(g + reader.index * W * C, row.data(), axes.x, reader.weight, sum.data(), w, C);
      }
      store_row<O, A>(sum.data(), out + i * w * C, w * C);
    }
  });
}

// E_l of one level, into `out` with the level's layout; summed in A, then stored as O.
template <typename T, typename O, bool kRelu, typename A, typename AffineOf>
void pyramid_adjoint(const Tensor& level, size_t l, const Tensor& grad, const LevelAxes<A>& axes, bool channels_last,
                     const AffineOf& affine_of, O* out) {
  if (channels_last) {
    adjoint_channels_last<T, O, kRelu>(level, l, grad, axes, affine_of, out);
  } else {
    adjoint_planar<T, O, kRelu>(level, l, grad, axes, affine_of, out);
  }
}

inline void check_levels(const char* op, const std::vector<Tensor>& levels) {
  STD_TORCH_CHECK(!levels.empty(), op, ": features must hold at least one map");
  for (const Tensor& q : levels)
    STD_TORCH_CHECK(q.dim() == 4 && q.is_cpu() && q.scalar_type() == levels[0].scalar_type() &&
                        q.size(0) == levels[0].size(0) && q.size(1) == levels[0].size(1) && q.size(2) > 0 &&
                        q.size(3) > 0,
                    op, ": features must be non-empty [N, C, H, W] maps that agree in N, C, dtype and device");
}

inline std::vector<Tensor> dense_levels(const std::vector<Tensor>& levels, bool channels_last) {
  std::vector<Tensor> out;
  for (const Tensor& q : levels) out.push_back(dense(q, channels_last));
  return out;
}

inline std::vector<int64_t> sizes_of(const Tensor& t) {
  return {t.size(0), t.size(1), t.size(2), t.size(3)};
}

}  // namespace rpcnn
