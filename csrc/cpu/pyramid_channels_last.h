// pyramid_sum.h where channels are innermost: a pixel is a vector, and threads share rows of the image.
//
// Each output row is made in one go: per level the two low-resolution rows are blended into a row buffer (w_l pixels,
// in cache), which is then interpolated along x.
#pragma once

#include "pyramid_level.h"

namespace rpcnn {

// row[i] = scale · (w_lo · (lo[i] − center) + w_hi · (hi[i] − center)) + shift; the affine repeats every C values of
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

// out[i] += act(scale · (source[i] − center) + shift): a level of the output's size needs no interpolation.
template <typename T, typename A, bool kRelu>
RPCNN_CLONES void add_pixels(const T* source, Affine<A> affine, A* __restrict out, int64_t pixels, int64_t C) {
  if (!affine.scale) {
    for (int64_t i = 0; i < pixels * C; ++i) out[i] += activate<A, kRelu>(A(source[i]));
  } else {
    for (int64_t x = 0; x < pixels; ++x)
      for (int64_t c = 0; c < C; ++c)
        out[x * C + c] +=
            activate<A, kRelu>(affine.scale[c] * (A(source[x * C + c]) - affine.center[c]) + affine.shift[c]);
  }
}

template <typename T, bool kRelu, typename A, typename AffineOf>
void sum_channels_last(const std::vector<Tensor>& levels, Tensor& out, const std::vector<LevelAxes<A>>& axes,
                       const AffineOf& affine_of) {
  const int64_t N = out.size(0), C = out.size(1), H = out.size(2), W = out.size(3), L = int64_t(levels.size());
  const int64_t piece = std::max<int64_t>(1, 4096 / C);  // pixels whose sums stay in the L1 cache: 16 KB
  T* target = out.mutable_data_ptr<T>();
  parallel(N * H, std::max<int64_t>(1, 4096 / (W * C)), [&](int64_t begin, int64_t end) {
    std::vector<std::vector<A>> rows(L);
    const auto as_large = [&](int64_t l) { return levels[l].size(2) == H && levels[l].size(3) == W; };
    for (int64_t l = 0; l < L; ++l) rows[l].resize(as_large(l) ? 0 : levels[l].size(3) * C);
    std::vector<A> sum(piece * C);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / H, y = i % H;
      for (int64_t l = 0; l < L; ++l) {
        if (as_large(l)) continue;
        const int64_t h = levels[l].size(2), w = levels[l].size(3);
        const T* source = levels[l].template const_data_ptr<T>() + n * h * w * C;
        const Tap<A> tap = axes[l].y.taps[y];
        blend_rows<T, A>(source + tap.lo * w * C, source + tap.hi * w * C, tap, affine_of(l, n), rows[l].data(), w, C);
      }
      for (int64_t x = 0; x < W; x += piece) {
        const int64_t last = std::min(W, x + piece);
        std::fill(sum.begin(), sum.end(), A(0));
        for (int64_t l = 0; l < L; ++l)
          if (as_large(l)) {
            const T* source = levels[l].template const_data_ptr<T>() + (i * W + x) * C;
            add_pixels<T, A, kRelu>(source, affine_of(l, n), sum.data(), last - x, C);
          } else {
            add_along_x<A, kRelu>(rows[l].data(), axes[l].x.taps.data(), sum.data(), x, last, C);
          }
        store_row<T, A>(sum.data(), target + (i * W + x) * C, (last - x) * C);
      }
    }
  });
}

// wide[x] = scale · (the row between its pixels − center) + shift.
template <typename T, typename A>
RPCNN_CLONES void spread_pixels(const T* row, const Tap<A>* taps, Affine<A> affine, A* __restrict wide, int64_t W,
                                int64_t C) {
  for (int64_t x = 0; x < W; ++x) {
    const Tap<A> t = taps[x];
    const A w_lo = t.hi == t.lo ? A(1) : t.w_lo, w_hi = t.hi == t.lo ? A(0) : t.w_hi;
    const T *a = row + t.lo * C, *b = row + t.hi * C;
    A* u = wide + x * C;
    if (!affine.scale) {
      for (int64_t c = 0; c < C; ++c) u[c] = w_lo * A(a[c]) + w_hi * A(b[c]);
    } else {
      for (int64_t c = 0; c < C; ++c)
        u[c] = affine.scale[c] * (w_lo * (A(a[c]) - affine.center[c]) + w_hi * (A(b[c]) - affine.center[c])) +
               affine.shift[c];
    }
  }
}

// narrow[i] = Σ of the wide row's pixels that read i.
template <typename A>
RPCNN_CLONES void gather_pixels(const A* wide, const InterpolationAxis<A>& x_axis, A* __restrict narrow, int64_t w,
                                int64_t C) {
  for (int64_t i = 0; i < w; ++i) {
    A* e = narrow + i * C;
    for (int64_t c = 0; c < C; ++c) e[c] = A(0);
    for (int64_t r = x_axis.reader_begin[i]; r < x_axis.reader_begin[i + 1]; ++r) {
      const A weight = x_axis.readers[r].weight;
      const A* g = wide + x_axis.readers[r].index * C;
      for (int64_t c = 0; c < C; ++c) e[c] += weight * g[c];
    }
  }
}

// The gradient of rows [top, bottom) of one image of a level. Output rows are added to full-width rows, of which two
// are open at a time; a full-width row that no later output row reads is gathered along x. done(y) follows each written
// row.
template <typename T, typename O, bool kRelu, typename A, typename Done>
void adjoint_strip(const T* source, const T* grad, const LevelAxes<A>& axes, Affine<A> affine, int64_t h, int64_t w,
                   int64_t W, int64_t C, int64_t top, int64_t bottom, O* out, const Done& done) {
  std::vector<A> open[2], u[2], narrow(std::is_same_v<O, A> ? 0 : w * C);
  for (auto& row : open) row.assign(W * C, A(0));
  for (auto& row : u) row.resize(kRelu ? W * C : 0);
  int64_t held[2] = {-1, -1}, next = std::max<int64_t>(top - 1, 0);  // the row before `top` is summed, but not kept
  const auto close = [&](int64_t y) {
    if (y >= top && y < bottom) {
      if constexpr (std::is_same_v<O, A>) {
        gather_pixels<A>(open[y & 1].data(), axes.x, out + y * w * C, w, C);
      } else {
        gather_pixels<A>(open[y & 1].data(), axes.x, narrow.data(), w, C);
        store_row<O, A>(narrow.data(), out + y * w * C, w * C);
      }
      done(y);
    }
    std::fill(open[y & 1].begin(), open[y & 1].end(), A(0));
  };
  const auto wide = [&](int64_t y) {
    if (held[y & 1] != y) spread_pixels<T, A>(source + y * w * C, axes.x.taps.data(), affine, u[y & 1].data(), W, C);
    held[y & 1] = y;
    return u[y & 1].data();
  };
  int64_t first = 0, last = 0;  // the output rows that read [top, bottom): one stretch
  for (int64_t y = top; y < bottom; ++y)
    for (int64_t r = axes.y.reader_begin[y]; r < axes.y.reader_begin[y + 1]; ++r) {
      const int64_t index = axes.y.readers[r].index;
      if (last == 0) first = index;
      last = std::max(last, index + 1);
    }
  for (int64_t row = first; row < last; ++row) {
    const Tap<A> tap = axes.y.taps[row];
    for (; next < tap.lo; ++next) close(next);
    const A *lo = nullptr, *hi = nullptr;
    if constexpr (kRelu) lo = wide(tap.lo), hi = wide(tap.hi);
    add_to_rows<T, A, kRelu>(grad + row * W * C, lo, hi, tap, open[tap.lo & 1].data(), open[tap.hi & 1].data(), W * C);
  }
  for (; next < bottom; ++next) close(next);
}

// A level of the output's size: nothing to gather.
template <typename T, typename O, bool kRelu, typename A>
RPCNN_CLONES void mask_pixels(const T* source, const T* grad, Affine<A> affine, O* out, int64_t pixels, int64_t C) {
  for (int64_t x = 0; x < pixels; ++x)
    for (int64_t c = 0; c < C; ++c) {
      const int64_t i = x * C + c;
      A u = A(source[i]);
      if (affine.scale) u = affine.scale[c] * (u - affine.center[c]) + affine.shift[c];
      out[i] = O(!kRelu || passes_gradient(u) ? A(grad[i]) : A(0));
    }
}

// Threads share strips of the levels' rows; done(l, n · h + y) follows each row.
template <typename T, typename O, bool kRelu, typename A, typename AffineOf, typename Done>
void adjoint_channels_last(const std::vector<Tensor>& levels, const Tensor& grad, const std::vector<LevelAxes<A>>& axes,
                           const AffineOf& affine_of, const std::vector<O*>& outs, const Done& done) {
  constexpr int64_t kStrips = 8;  // of each level; a row between two strips is computed in both
  const int64_t N = grad.size(0), C = grad.size(1), H = grad.size(2), W = grad.size(3);
  parallel(int64_t(levels.size()) * N * kStrips, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t l = i / kStrips / N, n = i / kStrips % N, strip = i % kStrips;
      const int64_t h = levels[l].size(2), w = levels[l].size(3);
      const int64_t top = strip * h / kStrips, bottom = (strip + 1) * h / kStrips;
      const T* source = levels[l].template const_data_ptr<T>() + n * h * w * C;
      const T* g = grad.const_data_ptr<T>() + n * H * W * C;
      O* out = outs[l] + n * h * w * C;
      const auto written = [&](int64_t y) { done(l, n * h + y); };
      if (h == H && w == W) {
        for (int64_t y = top; y < bottom; ++y) {
          mask_pixels<T, O, kRelu, A>(source + y * w * C, g + y * w * C, affine_of(l, n), out + y * w * C, w, C);
          written(y);
        }
      } else if (top < bottom) {
        adjoint_strip<T, O, kRelu, A>(source, g, axes[l], affine_of(l, n), h, w, W, C, top, bottom, out, written);
      }
    }
  });
}

}  // namespace rpcnn
