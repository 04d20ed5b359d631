// pyramid_sum.h over planes [H, W]: a row is a vector, and a thread owns a plane.
//
// A low-resolution row is brought to the full width once, by a gather from the first cache, and serves every output row
// between it and its neighbours: of each level only two full-width rows exist at a time. An output row then is one
// vector pass per level. The adjoint runs the same way backwards: output rows are added into the two open full-width
// rows of each level, and a row that no later output reads is gathered along x into the level's gradient.
#pragma once

#include <cstring>

#include "pyramid_level.h"
#include "weighted_sum.h"

namespace rpcnn {

// Taps of one axis, each of their parts an array. Where eight neighbouring outputs read no further than eight pixels
// (every enlargement by 2 or more), their taps are positions in one vector of pixels.
template <typename A>
struct SplitTaps {
  static constexpr int64_t kVector = 8;
  std::vector<int32_t> lo, hi;  // pixels, or where `compact`, positions from `start` on
  std::vector<int32_t> start;   // per vector of outputs
  std::vector<A> w_lo, w_hi;
  bool compact = true;

  explicit SplitTaps(const InterpolationAxis<A>& axis) {
    const int64_t outputs = int64_t(axis.taps.size());
    for (const Tap<A>& t : axis.taps) {
      lo.push_back(int32_t(t.lo)), hi.push_back(int32_t(t.hi));
      w_lo.push_back(t.hi == t.lo ? A(1) : t.w_lo), w_hi.push_back(t.hi == t.lo ? A(0) : t.w_hi);
    }
    for (int64_t x = 0; x < outputs; x += kVector) {
      start.push_back(lo[x]);
      for (int64_t k = x; k < std::min(outputs, x + kVector); ++k) compact = compact && hi[k] - lo[x] < kVector;
    }
    if (!compact) return;
    for (int64_t x = 0; x < outputs; ++x) lo[x] -= start[x / kVector], hi[x] -= start[x / kVector];
    for (auto* positions : {&lo, &hi}) positions->resize(start.size() * kVector, 0);
    for (auto* weights : {&w_lo, &w_hi}) weights->resize(start.size() * kVector, A(0));
  }
};

// A row of pixels to a row of outputs. `from` is readable for a vector beyond its last pixel, `to` is whole vectors. A
// pixel of weight 0 is not read: a NaN there stays where it is.
template <typename A>
RPCNN_CLONES void spread_row(const A* from, const SplitTaps<A>& taps, A* __restrict to, int64_t W) {
  constexpr int64_t n = SplitTaps<A>::kVector;
  const int32_t *lo = taps.lo.data(), *hi = taps.hi.data();
  const A *w_lo = taps.w_lo.data(), *w_hi = taps.w_hi.data();
  if (!taps.compact) {
    for (int64_t x = 0; x < W; ++x) {
      const A a = from[lo[x]], b = hi[x] == lo[x] ? A(0) : from[hi[x]];
      to[x] = w_lo[x] * a + w_hi[x] * b;
    }
    return;
  }
  typedef A Values __attribute__((vector_size(n * sizeof(A))));
  typedef std::conditional_t<sizeof(A) == 4, int32_t, int64_t> Index;
  typedef Index Indices __attribute__((vector_size(n * sizeof(A))));
  for (size_t v = 0; v < taps.start.size(); ++v) {
    Values pixels, a, b;
    Indices at_lo, at_hi;
    std::memcpy(&pixels, from + taps.start[v], sizeof(pixels));
    for (int64_t k = 0; k < n; ++k) at_lo[k] = lo[v * n + k], at_hi[k] = hi[v * n + k];
    a = __builtin_shuffle(pixels, at_lo), b = __builtin_shuffle(pixels, at_hi);
    for (int64_t k = 0; k < n; ++k)
      to[v * n + k] = w_lo[v * n + k] * a[k] + (at_hi[k] == at_lo[k] ? A(0) : w_hi[v * n + k] * b[k]);
  }
}

template <typename T, typename A>
RPCNN_CLONES void affine_row(const T* from, Affine<A> affine, A* __restrict to, int64_t w) {
  if (!affine.scale) {
    for (int64_t x = 0; x < w; ++x) to[x] = A(from[x]);
    return;
  }
  const A center = affine.center[0], scale = affine.scale[0], shift = affine.shift[0];
  for (int64_t x = 0; x < w; ++x) to[x] = scale * (A(from[x]) - center) + shift;
}

// Full-width rows of one plane of a level, two at a time: an output row reads neighbours, of different parity.
template <typename T, typename A>
class WideRows {
 public:
  WideRows(int64_t w, int64_t W, const SplitTaps<A>& taps)
      : w_(w), W_(W), taps_(taps), narrow_(w + SplitTaps<A>::kVector) {
    for (auto& row : rows_) row.resize(W + SplitTaps<A>::kVector);
  }
  void start(const T* plane, Affine<A> affine) {
    plane_ = plane, affine_ = affine;
    held_[0] = held_[1] = -1;
  }
  const A* row(int64_t y) {
    if constexpr (std::is_same_v<T, A>)
      if (w_ == W_ && !affine_.scale) return plane_ + y * w_;
    const int slot = int(y & 1);
    if (held_[slot] == y) return rows_[slot].data();
    held_[slot] = y;
    A* wide = rows_[slot].data();
    affine_row<T, A>(plane_ + y * w_, affine_, w_ == W_ ? wide : narrow_.data(), w_);
    if (w_ != W_) spread_row<A>(narrow_.data(), taps_, wide, W_);
    return wide;
  }

 private:
  int64_t w_, W_, held_[2] = {-1, -1};
  const SplitTaps<A>& taps_;
  const T* plane_ = nullptr;
  Affine<A> affine_;
  std::vector<A> narrow_, rows_[2];
};

// sum = relu(u), or sum += relu(u), with u between two wide rows.
template <typename A, bool kFirst>
RPCNN_CLONES void add_between(const A* lo, const A* hi, Tap<A> y, A* __restrict sum, int64_t W) {
  if (y.hi == y.lo) {
    for (int64_t x = 0; x < W; ++x) sum[x] = (kFirst ? A(0) : sum[x]) + activate<A, true>(lo[x]);
  } else {
    for (int64_t x = 0; x < W; ++x)
      sum[x] = (kFirst ? A(0) : sum[x]) + activate<A, true>(y.w_lo * lo[x] + y.w_hi * hi[x]);
  }
}

template <typename T, bool kRelu, typename A, typename AffineOf>
void sum_planar(const std::vector<Tensor>& levels, Tensor& out, const std::vector<LevelAxes<A>>& axes,
                const AffineOf& affine_of) {
  const int64_t N = out.size(0), C = out.size(1), H = out.size(2), W = out.size(3), L = int64_t(levels.size());
  std::vector<SplitTaps<A>> taps;
  for (const auto& axis : axes) taps.emplace_back(axis.x);
  T* target = out.mutable_data_ptr<T>();
  parallel(N * C, std::max<int64_t>(1, 4096 / (H * W)), [&](int64_t begin, int64_t end) {
    std::vector<WideRows<T, A>> rows;
    for (int64_t l = 0; l < L; ++l) rows.emplace_back(levels[l].size(3), W, taps[l]);
    std::vector<A> wide(W);
    Terms<A, A> terms;
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t l = 0; l < L; ++l)
        rows[l].start(levels[l].template const_data_ptr<T>() + i * levels[l].size(2) * levels[l].size(3),
                      affine_of(l, i / C).at(i % C));
      for (int64_t y = 0; y < H; ++y) {
        T* place = target + (i * H + y) * W;
        A* sum = wide.data();
        if constexpr (std::is_same_v<A, T>) sum = place;
        terms.clear();
        for (int64_t l = 0; l < L; ++l) {
          const Tap<A> tap = axes[l].y.taps[y];
          const A *lo = rows[l].row(tap.lo), *hi = rows[l].row(tap.hi);
          if constexpr (!kRelu) {  // one pass over all levels
            terms.add(lo, tap.hi == tap.lo ? A(1) : tap.w_lo);
            if (tap.hi != tap.lo) terms.add(hi, tap.w_hi);
          } else if (l == 0) {
            add_between<A, true>(lo, hi, tap, sum, W);
          } else {
            add_between<A, false>(lo, hi, tap, sum, W);
          }
        }
        if constexpr (!kRelu) add_up(sum, terms, W, true);
        if constexpr (!std::is_same_v<A, T>) store_row<T, A>(sum, place, W);
      }
    }
  });
}

// masked = grad where the activation passes it: u lies between the rows `lo` and `hi`.
template <typename T, typename A>
RPCNN_CLONES void mask_between(const T* grad, const A* lo, const A* hi, Tap<A> y, A* __restrict masked, int64_t W) {
  if (y.hi == y.lo) {
    for (int64_t x = 0; x < W; ++x) masked[x] = passes_gradient(lo[x]) ? A(grad[x]) : A(0);
  } else {
    for (int64_t x = 0; x < W; ++x) masked[x] = passes_gradient(y.w_lo * lo[x] + y.w_hi * hi[x]) ? A(grad[x]) : A(0);
  }
}

template <typename T, typename A>
RPCNN_CLONES void add_scaled(const T* row, A weight, A* __restrict into, int64_t W) {
  for (int64_t x = 0; x < W; ++x) into[x] += weight * A(row[x]);
}

template <typename O, typename A>
RPCNN_CLONES void gather_along_x(const A* wide, const InterpolationAxis<A>& x_axis, O* __restrict narrow, int64_t w) {
  const auto* readers = x_axis.readers.data();
  for (int64_t i = 0; i < w; ++i) {
    A even = 0, odd = 0;  // two chains of additions, so that one need not wait for the other
    int64_t r = x_axis.reader_begin[i];
    const int64_t last = x_axis.reader_begin[i + 1];
    for (; r + 1 < last; r += 2) {
      even += readers[r].weight * wide[readers[r].index];
      odd += readers[r + 1].weight * wide[readers[r + 1].index];
    }
    if (r < last) even += readers[r].weight * wide[readers[r].index];
    narrow[i] = O(even + odd);
  }
}

// Gradients of one plane of a level, two full-width rows at a time.
template <typename O, typename A>
class OpenRows {
 public:
  OpenRows(int64_t h, int64_t w, int64_t W, const InterpolationAxis<A>& x_axis) : h_(h), w_(w), W_(W), x_axis_(x_axis) {
    for (auto& row : rows_) row.resize(W);
  }
  void start(O* plane) {
    plane_ = plane, done_ = 0;
    for (auto& row : rows_) std::fill(row.begin(), row.end(), A(0));
  }
  // Rows before y get no more: they are written and make room.
  void close_before(int64_t y) {
    for (; done_ < y; ++done_) {
      auto& row = rows_[done_ & 1];
      if (w_ == W_) {
        store_row<O, A>(row.data(), plane_ + done_ * w_, w_);
      } else {
        gather_along_x<O, A>(row.data(), x_axis_, plane_ + done_ * w_, w_);
      }
      std::fill(row.begin(), row.end(), A(0));
    }
  }
  template <typename T>
  void add(const T* grad, Tap<A> y) {
    close_before(y.lo);
    add_scaled<T, A>(grad, y.hi == y.lo ? A(1) : y.w_lo, rows_[y.lo & 1].data(), W_);
    if (y.hi != y.lo) add_scaled<T, A>(grad, y.w_hi, rows_[y.hi & 1].data(), W_);
  }
  void finish() { close_before(h_); }

 private:
  int64_t h_, w_, W_, done_ = 0;
  const InterpolationAxis<A>& x_axis_;
  O* plane_ = nullptr;
  std::vector<A> rows_[2];
};

// Planes outermost: a plane's gradient (243 KB at 200 × 304) stays in the second cache for all levels.
template <typename T, typename O, bool kRelu, typename A, typename AffineOf>
void adjoint_planar(const std::vector<Tensor>& levels, const Tensor& grad, const std::vector<LevelAxes<A>>& axes,
                    const AffineOf& affine_of, const std::vector<O*>& outs) {
  const int64_t C = grad.size(1), H = grad.size(2), W = grad.size(3), L = int64_t(levels.size());
  std::vector<SplitTaps<A>> taps;
  for (const auto& axis : axes) taps.emplace_back(axis.x);
  const T* source = grad.const_data_ptr<T>();
  parallel(grad.size(0) * C, std::max<int64_t>(1, 4096 / (H * W)), [&](int64_t begin, int64_t end) {
    std::vector<A> masked(W);
    std::vector<WideRows<T, A>> rows;
    std::vector<OpenRows<O, A>> open;
    for (int64_t l = 0; l < L; ++l) {
      rows.emplace_back(levels[l].size(3), W, taps[l]);
      open.emplace_back(levels[l].size(2), levels[l].size(3), W, axes[l].x);
    }
    for (int64_t i = begin; i < end; ++i)
      for (int64_t l = 0; l < L; ++l) {
        const int64_t pixels = levels[l].size(2) * levels[l].size(3);
        rows[l].start(levels[l].template const_data_ptr<T>() + i * pixels, affine_of(l, i / C).at(i % C));
        open[l].start(outs[l] + i * pixels);
        for (int64_t y = 0; y < H; ++y) {
          const T* g = source + (i * H + y) * W;
          const Tap<A> tap = axes[l].y.taps[y];
          if constexpr (kRelu) {
            const A *lo = rows[l].row(tap.lo), *hi = rows[l].row(tap.hi);
            mask_between<T, A>(g, lo, hi, tap, masked.data(), W);
            open[l].template add<A>(masked.data(), tap);
          } else {
            open[l].template add<T>(g, tap);
          }
        }
        open[l].finish();
      }
  });
}

}  // namespace rpcnn
