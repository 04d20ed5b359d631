// pyramid_sum.h where channels are innermost: a pixel is a vector, and threads share rows of the image.
//
// Each output row is made in one go: per level the two low-resolution rows are blended into a row buffer (w_l pixels,
// in cache), which is then interpolated along x.
#pragma once

#include "pyramid_level.h"

namespace rpcnn {

// row[i] = scale · (w_lo · (lo[i] − center) + w_hi · (hi[i] − center)) + shift, the affine running with period C over
// the row.
template <typename T, typename A>
RPCNN_CLONES void blend_rows(const T* lo, const T* hi, Tap<A> y, Affine<A> affine, A* row, int64_t w, int64_t C) {
  if (!affine.scale) {
    for (int64_t i = 0; i < w * C; ++i) row[i] = y.w_lo * A(lo[i]) + y.w_hi * A(hi[i]);
  } else {
    for (int64_t x = 0; x < w; ++x)
      for (int64_t c = 0; c < C; ++c) {
        const int64_t i = x * C + c;
        const A value = y.w_lo * (A(lo[i]) - affine.center[c]) + y.w_hi * (A(hi[i]) - affine.center[c]);
        row[i] = affine.scale[c] * value + affine.shift[c];
      }
  }
}

// out[x] += act(the row between its pixels), x in [begin, end).
template <typename A, bool kRelu>
RPCNN_CLONES void add_along_x(const A* row, const Tap<A>* taps, A* __restrict out, int64_t begin, int64_t end,
                              int64_t C) {
  for (int64_t x = begin; x < end; ++x) {
    const Tap<A> t = taps[x];
    const A *a = row + t.lo * C, *b = row + t.hi * C;
    A* o = out + (x - begin) * C;
    if (t.hi == t.lo) {
      for (int64_t c = 0; c < C; ++c) o[c] += activate<A, kRelu>(a[c]);
    } else {
      for (int64_t c = 0; c < C; ++c) o[c] += activate<A, kRelu>(t.w_lo * a[c] + t.w_hi * b[c]);
    }
  }
}

template <typename T, bool kRelu, typename A, typename AffineOf>
void sum_channels_last(const std::vector<Tensor>& levels, Tensor& out, const std::vector<LevelAxes<A>>& axes,
                       const AffineOf& affine_of) {
  const int64_t N = out.size(0), C = out.size(1), H = out.size(2), W = out.size(3), L = int64_t(levels.size());
  const int64_t piece = std::max<int64_t>(1, 4096 / C);  // pixels whose sums stay in the first cache: 16 KB
  T* target = out.mutable_data_ptr<T>();
  parallel(N * H, std::max<int64_t>(1, 4096 / (W * C)), [&](int64_t begin, int64_t end) {
    std::vector<std::vector<A>> rows(L);
    for (int64_t l = 0; l < L; ++l) rows[l].resize(levels[l].size(3) * C);
    std::vector<A> sum(piece * C);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / H, y = i % H;
      for (int64_t l = 0; l < L; ++l) {
        const int64_t h = levels[l].size(2), w = levels[l].size(3);
        const T* source = levels[l].template const_data_ptr<T>() + n * h * w * C;
        const Tap<A> tap = axes[l].y.taps[y];
        blend_rows<T, A>(source + tap.lo * w * C, source + tap.hi * w * C, tap, affine_of(l, n), rows[l].data(), w, C);
      }
      for (int64_t x = 0; x < W; x += piece) {
        const int64_t last = std::min(W, x + piece);
        std::fill(sum.begin(), sum.end(), A(0));
        for (int64_t l = 0; l < L; ++l)
          add_along_x<A, kRelu>(rows[l].data(), axes[l].x.taps.data(), sum.data(), x, last, C);
        store_row<T, A>(sum.data(), target + (i * W + x) * C, (last - x) * C);
      }
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

// Channels innermost: few planes, so the threads share rows of the level, and each row gathers its readers.
template <typename T, typename O, bool kRelu, typename A, typename AffineOf>
void adjoint_level(const Tensor& level, size_t l, const Tensor& grad, const LevelAxes<A>& axes,
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

template <typename T, typename O, bool kRelu, typename A, typename AffineOf>
void adjoint_channels_last(const std::vector<Tensor>& levels, const Tensor& grad, const std::vector<LevelAxes<A>>& axes,
                           const AffineOf& affine_of, const std::vector<O*>& outs) {
  for (size_t l = 0; l < levels.size(); ++l)
    adjoint_level<T, O, kRelu>(levels[l], l, grad, axes[l], affine_of, outs[l]);
}

}  // namespace rpcnn
