// pyramid_sum.h over planes [H, W]: a row is a vector, and a thread owns a plane.
//
// A low-resolution row is brought to the full width once, by a gather from the first cache, and serves every output row
// between it and its neighbours: of each level only two full-width rows exist at a time. An output row then is one
// vector pass per level. The adjoint runs the same way backwards: output rows are added into the two open full-width
// rows of each level, and a row that no later output reads is gathered along x into the level's gradient.
#pragma once

#include "pyramid_level.h"

namespace rpcnn {

// Taps of one axis, each of their parts an array.
template <typename A>
struct SplitTaps {
  std::vector<int32_t> lo, hi;
  std::vector<A> w_lo, w_hi;

  explicit SplitTaps(const InterpolationAxis<A>& axis) {
    for (const Tap<A>& t : axis.taps) {
      lo.push_back(int32_t(t.lo)), hi.push_back(int32_t(t.hi));
      w_lo.push_back(t.hi == t.lo ? A(1) : t.w_lo), w_hi.push_back(t.hi == t.lo ? A(0) : t.w_hi);
    }
  }
};

// Both may be the same row; where one is not read (hi = lo), its weight 0 meets the other's value, finite or not.
template <typename A>
RPCNN_CLONES void spread_row(const A* from, const int32_t* lo, const int32_t* hi, const A* w_lo, const A* w_hi,
                             A* __restrict to, int64_t W) {
  for (int64_t x = 0; x < W; ++x) {
    const A a = from[lo[x]], b = hi[x] == lo[x] ? A(0) : from[hi[x]];
    to[x] = w_lo[x] * a + w_hi[x] * b;
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
  WideRows(int64_t w, int64_t W, const SplitTaps<A>& taps) : w_(w), W_(W), taps_(taps), narrow_(w) {
    for (auto& row : rows_) row.resize(W);
  }
  void start(const T* plane, Affine<A> affine) {
    plane_ = plane, affine_ = affine;
    held_[0] = held_[1] = -1;
  }
  const A* row(int64_t y) {
    const int slot = int(y & 1);
    if (held_[slot] == y) return rows_[slot].data();
    held_[slot] = y;
    if (w_ == W_) {
      affine_row<T, A>(plane_ + y * w_, affine_, rows_[slot].data(), W_);
    } else {
      affine_row<T, A>(plane_ + y * w_, affine_, narrow_.data(), w_);
      spread_row<A>(narrow_.data(), taps_.lo.data(), taps_.hi.data(), taps_.w_lo.data(), taps_.w_hi.data(),
                    rows_[slot].data(), W_);
    }
    return rows_[slot].data();
  }

 private:
  int64_t w_, W_, held_[2] = {-1, -1};
  const SplitTaps<A>& taps_;
  const T* plane_ = nullptr;
  Affine<A> affine_;
  std::vector<A> narrow_, rows_[2];
};

// sum = act(u), or sum += act(u), with u between two wide rows.
template <typename A, bool kRelu, bool kFirst>
RPCNN_CLONES void add_between(const A* lo, const A* hi, Tap<A> y, A* __restrict sum, int64_t W) {
  if (y.hi == y.lo) {
    for (int64_t x = 0; x < W; ++x) sum[x] = (kFirst ? A(0) : sum[x]) + activate<A, kRelu>(lo[x]);
  } else {
    for (int64_t x = 0; x < W; ++x)
      sum[x] = (kFirst ? A(0) : sum[x]) + activate<A, kRelu>(y.w_lo * lo[x] + y.w_hi * hi[x]);
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
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t l = 0; l < L; ++l)
        rows[l].start(levels[l].template const_data_ptr<T>() + i * levels[l].size(2) * levels[l].size(3),
                      affine_of(l, i / C).at(i % C));
      for (int64_t y = 0; y < H; ++y) {
        T* place = target + (i * H + y) * W;
        A* sum = wide.data();
        if constexpr (std::is_same_v<A, T>) sum = place;
        for (int64_t l = 0; l < L; ++l) {
          const Tap<A> tap = axes[l].y.taps[y];
          const A *lo = rows[l].row(tap.lo), *hi = rows[l].row(tap.hi);
          if (l == 0) {
            add_between<A, kRelu, true>(lo, hi, tap, sum, W);
          } else {
            add_between<A, kRelu, false>(lo, hi, tap, sum, W);
          }
        }
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
