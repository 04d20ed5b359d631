// pyramid_sum.h over planes [H, W]: a row is a vector, and a thread owns a plane.
//
// A low-resolution row is enlarged to the full width once, by a gather from the L1 cache, and then serves every output
// row between it and its neighbors: each level has only two full-width rows at a time. An output row then is one
// vector pass per level. The adjoint runs the same way backwards: output rows are added into the two open full-width
// rows of each level, and a row that no later output reads is gathered along x into the level's gradient.
#pragma once

#include "pyramid_level.h"
#include "vectors.h"
#include "weighted_sum.h"

namespace rpcnn {

// Taps of one axis, each of their parts an array. Where eight neighboring outputs read no further than eight pixels
// (every enlargement by 2 or more), their taps are positions in one vector of pixels.
template <typename A>
struct SplitTaps {
  typedef typename Lanes<A>::Index Index;
  std::vector<Index> lo, hi;   // pixels, or where `compact`, positions from `start` on
  std::vector<int32_t> start;  // per vector of outputs
  std::vector<A> w_lo, w_hi;
  bool compact = true;

  explicit SplitTaps(const InterpolationAxis<A>& axis) {
    const int64_t outputs = int64_t(axis.taps.size());
    for (const Tap<A>& t : axis.taps) {
      lo.push_back(Index(t.lo)), hi.push_back(Index(t.hi));
      w_lo.push_back(t.hi == t.lo ? A(1) : t.w_lo), w_hi.push_back(t.hi == t.lo ? A(0) : t.w_hi);
    }
    for (int64_t x = 0; x < outputs; x += kLanes) {
      start.push_back(int32_t(lo[x]));
      for (int64_t k = x; k < std::min(outputs, x + kLanes); ++k) compact = compact && hi[k] - lo[x] < kLanes;
    }
    if (!compact) return;
    for (int64_t x = 0; x < outputs; ++x) lo[x] -= start[x / kLanes], hi[x] -= start[x / kLanes];
    for (auto* positions : {&lo, &hi}) positions->resize(start.size() * kLanes, 0);
    for (auto* weights : {&w_lo, &w_hi}) weights->resize(start.size() * kLanes, A(0));
  }
};

// A row of pixels to a row of outputs. `from` is readable for a vector beyond its last pixel, `to` is whole vectors. A
// pixel of weight 0 is not read: a NaN there must not spread.
template <typename A>
RPCNN_CLONES void spread_row(const A* from, const SplitTaps<A>& taps, A* __restrict to, int64_t W) {
  typedef typename Lanes<A>::Index Index;
  const Index *lo = taps.lo.data(), *hi = taps.hi.data();
  const A *w_lo = taps.w_lo.data(), *w_hi = taps.w_hi.data();
  if (!taps.compact) {
    for (int64_t x = 0; x < W; ++x) {
      const A a = from[lo[x]], b = hi[x] == lo[x] ? A(0) : from[hi[x]];
      to[x] = w_lo[x] * a + w_hi[x] * b;
    }
    return;
  }
  typedef typename Lanes<A>::Values Values;
  const int64_t vectors = int64_t(taps.start.size());
  const int32_t* start = taps.start.data();
  for (int64_t v = 0; v < vectors; ++v) {  // whole vectors: compilers turn a loop over elements into scalar code
    Values pixels, lo_pixels, hi_pixels, lo_weights, hi_weights;
    typename Lanes<A>::Indices at_lo, at_hi;
    load(from + start[v], pixels);
    load(lo + v * kLanes, at_lo), load(hi + v * kLanes, at_hi);
    load(w_lo + v * kLanes, lo_weights), load(w_hi + v * kLanes, hi_weights);
    pick<A>(pixels, at_lo, lo_pixels), pick<A>(pixels, at_hi, hi_pixels);
    store(lo_weights * lo_pixels + (at_hi == at_lo ? Values{} : hi_weights * hi_pixels), to + v * kLanes);
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

// The two full-width rows of one plane of a level that an output row reads: neighbors, one of even and one of odd
// index.
template <typename T, typename A>
class WideRows {
 public:
  WideRows(int64_t w, int64_t W, const SplitTaps<A>& taps) : w_(w), W_(W), taps_(taps), narrow_(w + kLanes) {
    for (auto& row : rows_) row.resize(W + kLanes);
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

// The gradient of one plane of a level. Output rows are added to full-width rows, of which two are open at a time;
// eight finished ones are transposed and gathered along x together, so that each read is a vector.
template <typename O, typename A>
class OpenRows {
 public:
  OpenRows(int64_t h, int64_t w, int64_t W, const InterpolationAxis<A>& x_axis)
      : h_(h), w_(w), W_(W), stride_((W + kLanes - 1) / kLanes * kLanes), x_axis_(x_axis) {
    rows_.resize(2 * kLanes * stride_), columns_.resize(stride_ * kLanes);
    sums_.resize((w + kLanes) * kLanes), narrow_.resize(kLanes * (w + kLanes));
  }
  void start(O* plane) {
    plane_ = plane, done_ = 0;
    std::fill(rows_.begin(), rows_.end(), A(0));
  }
  template <typename T, bool kRelu>
  void add(const T* grad, const A* u_lo, const A* u_hi, Tap<A> y) {
    while (done_ + kLanes <= y.lo) close(kLanes);
    add_to_rows<T, A, kRelu>(grad, u_lo, u_hi, y, row(y.lo), row(y.hi), W_);
  }
  void finish() {
    while (done_ < h_) close(std::min(kLanes, h_ - done_));
  }

 private:
  A* row(int64_t y) { return rows_.data() + y % (2 * kLanes) * stride_; }
  void close(int64_t count) {
    gather(row(done_), stride_, x_axis_, w_, columns_.data(), sums_.data(), narrow_.data());
    for (int64_t k = 0; k < count; ++k)
      store_row<O, A>(narrow_.data() + k * (w_ + kLanes), plane_ + (done_ + k) * w_, w_);
    std::fill_n(row(done_), kLanes * stride_, A(0));
    done_ += count;
  }
  // Eight rows [W] to narrow [8][w + 8].
  RPCNN_CLONES static void gather(const A* wide, int64_t stride, const InterpolationAxis<A>& x_axis, int64_t w,
                                  A* columns, A* sums, A* narrow) {
    for (int64_t x = 0; x < stride; x += kLanes) transpose<A>(wide + x, stride, columns + x * kLanes, kLanes);
    const auto* readers = x_axis.readers.data();
    for (int64_t i = 0; i < w; ++i) {
      typename Lanes<A>::Values even = {}, odd = {}, column;  // two independent chains of additions
      int64_t r = x_axis.reader_begin[i];
      const int64_t last = x_axis.reader_begin[i + 1];
      for (; r + 1 < last; r += 2) {
        load(columns + readers[r].index * kLanes, column), even += readers[r].weight * column;
        load(columns + readers[r + 1].index * kLanes, column), odd += readers[r + 1].weight * column;
      }
      if (r < last) load(columns + readers[r].index * kLanes, column), even += readers[r].weight * column;
      store(even + odd, sums + i * kLanes);
    }
    for (int64_t i = 0; i < w; i += kLanes) transpose<A>(sums + i * kLanes, kLanes, narrow + i, w + kLanes);
  }

  int64_t h_, w_, W_, stride_, done_ = 0;
  const InterpolationAxis<A>& x_axis_;
  O* plane_ = nullptr;
  std::vector<A> rows_, columns_, sums_, narrow_;
};

// Planes outermost: a plane's gradient (243 KB at 200 × 304) stays in the L2 cache for all levels. done(l, i · h +
// y) follows for each row of plane i, once the plane is written.
template <typename T, typename O, bool kRelu, typename A, typename AffineOf, typename Done>
void adjoint_planar(const std::vector<Tensor>& levels, const Tensor& grad, const std::vector<LevelAxes<A>>& axes,
                    const AffineOf& affine_of, const std::vector<O*>& outs, const Done& done) {
  const int64_t C = grad.size(1), H = grad.size(2), W = grad.size(3), L = int64_t(levels.size());
  std::vector<SplitTaps<A>> taps;
  for (const auto& axis : axes) taps.emplace_back(axis.x);
  const T* source = grad.const_data_ptr<T>();
  parallel(grad.size(0) * C, std::max<int64_t>(1, 4096 / (H * W)), [&](int64_t begin, int64_t end) {
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
          const A *lo = nullptr, *hi = nullptr;
          if constexpr (kRelu) lo = rows[l].row(tap.lo), hi = rows[l].row(tap.hi);
          open[l].template add<T, kRelu>(g, lo, hi, tap);
        }
        open[l].finish();
        for (int64_t y = 0; y < levels[l].size(2); ++y) done(l, i * levels[l].size(2) + y);
      }
  });
}

}  // namespace rpcnn
