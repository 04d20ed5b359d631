// gse_fuse: Σ_l relu(GroupNorm_l(bilinear(Q_l → size of Q_0))) without any up-sampled map.
//
// Statistics. up(Q) = A Q Bᵀ, so over a group of channels, with m = channels · H · W values,
//   mean  = Σ_c (1ᵀA) Q_c (Bᵀ1) / m                     column sums of A and B
//   E[u²] = Σ_c ⟨Q_c, (AᵀA) Q_c (BᵀB)⟩ / m              Gram matrices, tridiagonal because a tap reads neighbors
// summed in double about a shift (the mean of the group's first row), so that a large offset does not cancel.
// Forward. relu((γ · rstd)(u − mean) + β): pyramid_sum.h adds all levels in one pass.
// Backward. E = Aᵀ(grad ∘ mask)B (pyramid_sum.h) is all that is needed of the full-size gradient. A's and B's rows sum
// to 1, so ΣE = Σ grad ∘ mask, and
//   dβ_c = Σ E_c,  dγ_c = rstd ⟨Q_c − mean, E_c⟩,  and with s1 = Σ_c γ_c dβ_c, s2 = Σ_c γ_c dγ_c of the group
//   dQ = γ rstd E − (rstd/m) [s1 (Aᵀ1)(1ᵀB) + rstd s2 (AᵀA)(Q − mean)(BᵀB)].
// Fewest bytes: read the levels twice (statistics, sum), write the output once; the level-0 passes dominate.
//
// Ladder, P2..P6 of an 800×1216 image, 256 channels, fp32, two cores, memory retained; milliseconds forward + backward,
// contiguous and channels last:
//   100, 87  E, then its dots with Q, then the gradient: three passes over memory; channels last, every output pixel is
//            read by four
//    63, 77  dots while E's rows are in cache, in vectors of doubles; channels last by two open rows, as planes
//    58, 71  axes that are not enlarged have the identity as Gram matrix; rows in pieces that stay in the L1 cache
// A level of the output's size has group_norm's statistics; alone, it is group_norm with ReLU.
#include "group_norm.h"
#include "group_statistics.h"
#include "pyramid_sum.h"

namespace rpcnn {
namespace {

// Column sums and tridiagonal Gram matrix of one axis' interpolation matrix.
template <typename A>
struct Gram {
  std::vector<A> sum, before, diagonal, after;  // [in]; before[i] couples i and i − 1, after[i] couples i and i + 1
  bool identity = true;                         // an axis that is not enlarged

  Gram(const InterpolationAxis<A>& axis, int64_t in) : sum(in, 0), before(in, 0), diagonal(in, 0), after(in, 0) {
    std::vector<double> once(in, 0), square(in, 0), next(in, 0);
    for (const auto& t : axis.taps) {
      const double lo = t.hi == t.lo ? 1.0 : double(t.w_lo), hi = double(t.w_hi);
      once[t.lo] += lo;
      square[t.lo] += lo * lo;
      if (t.hi != t.lo) {
        once[t.hi] += hi;
        square[t.hi] += hi * hi;
        next[t.lo] += lo * hi;
      }
    }
    for (int64_t i = 0; i < in; ++i) {
      sum[i] = A(once[i]), diagonal[i] = A(square[i]);
      if (i + 1 < in) after[i] = before[i + 1] = A(next[i]);
      identity = identity && sum[i] == A(1) && diagonal[i] == A(1) && after[i] == A(0);
    }
  }
};

// The rows below hold `channels` values per pixel. Planar rows hold one, a constant to the compiler, which then
// vectorizes along x. Sums along a planar row run in several lanes of doubles: in one, each addition would wait for the
// one before.
template <typename A>
struct LaneSums {
  typedef double Doubles __attribute__((vector_size(kLanes * sizeof(double))));
  Doubles lanes = {};

  RPCNN_INLINE void add(const typename Lanes<A>::Values& values) { lanes += __builtin_convertvector(values, Doubles); }
  double total() const {
    double sum = 0;
    for (int64_t k = 0; k < kLanes; ++k) sum += lanes[k];
    return sum;
  }
};

template <typename T, typename A>
RPCNN_INLINE void load_eight(const T* from, typename Lanes<A>::Values& to) {
  if constexpr (std::is_same_v<T, A>) {
    load(from, to);
  } else {
    A values[kLanes];
    for (int64_t k = 0; k < kLanes; ++k) values[k] = A(from[k]);
    load(values, to);
  }
}

// Rows are walked in pieces of whole pixels that stay in the L1 cache.
inline int64_t piece_of(int64_t inner) {
  return std::max<int64_t>(1, 4096 / inner);
}

// out[x, c] = Σ_neighbors (AᵀA) (Q − shift) (BᵀB) of the pixels [begin, end) of one row of w, out starting at `begin`.
// `blend` is a buffer of (end − begin + 2) · inner values; shift has one value per inner index.
template <typename T, typename A, bool kPlanar>
RPCNN_CLONES void gram_row(const T* above, const T* here, const T* below, A up, A mid, A down, const A* shift,
                           const Gram<A>& x, A* __restrict blend, A* __restrict out, int64_t begin, int64_t end,
                           int64_t w, int64_t channels) {
  const int64_t inner = kPlanar ? 1 : channels;
  if (x.identity && up == A(0) && down == A(0) && mid == A(1)) {
    for (int64_t j = begin; j < end; ++j)
      for (int64_t k = 0; k < inner; ++k) out[(j - begin) * inner + k] = A(here[j * inner + k]) - shift[k];
    return;
  }
  A* middle = blend + inner;  // with a pixel before and behind, zeros outside the row
  for (int64_t k = 0; k < inner; ++k) blend[k] = middle[(end - begin) * inner + k] = A(0);
  for (int64_t j = std::max<int64_t>(begin - 1, 0); j < std::min(end + 1, w); ++j)
    for (int64_t k = 0; k < inner; ++k) {
      const int64_t i = j * inner + k;
      middle[i - begin * inner] =
          up * (A(above[i]) - shift[k]) + mid * (A(here[i]) - shift[k]) + down * (A(below[i]) - shift[k]);
    }
  const A *before = x.before.data() + begin, *diagonal = x.diagonal.data() + begin, *after = x.after.data() + begin;
  for (int64_t j = 0; j < end - begin; ++j)
    for (int64_t k = 0; k < inner; ++k) {
      const int64_t i = j * inner + k;
      out[i] = before[j] * middle[i - inner] + diagonal[j] * middle[i] + after[j] * middle[i + inner];
    }
}

// first[k] += Σ_x weight · x_sum · (q − shift), second[k] += Σ_x (q − shift) · gram, over one row.
template <typename T, typename A, bool kPlanar>
RPCNN_CLONES void moments_row(const T* here, const A* gram, const A* shift, A weight, const A* x_sum,
                              double* __restrict first, double* __restrict second, int64_t w, int64_t channels) {
  if constexpr (kPlanar) {
    LaneSums<A> one, two;
    const A about = shift[0];
    const int64_t whole = w / kLanes * kLanes;
    for (int64_t j = 0; j < whole; j += kLanes) {
      typename Lanes<A>::Values q, g, sums;
      load_eight<T, A>(here + j, q), load(gram + j, g), load(x_sum + j, sums);
      q -= about;
      one.add(sums * q), two.add(q * g);
    }
    double one_more = 0, two_more = 0;
    for (int64_t j = whole; j < w; ++j) {
      const A q = A(here[j]) - about;
      one_more += double(x_sum[j] * q), two_more += double(q * gram[j]);
    }
    first[0] += double(weight) * (one.total() + one_more);
    second[0] += two.total() + two_more;
  } else {
    for (int64_t j = 0; j < w; ++j) {
      const A share = weight * x_sum[j];
      for (int64_t k = 0; k < channels; ++k) {
        const A q = A(here[j * channels + k]) - shift[k];
        first[k] += double(share * q);
        second[k] += double(q * gram[j * channels + k]);
      }
    }
  }
}

struct Shape {
  int64_t N, C, G, h, w, H, W;
  bool channels_last;
  int64_t inner() const { return channels_last ? C : 1; }
  int64_t planes() const { return channels_last ? N : N * C; }
  double count() const { return double(C / G) * double(H) * double(W); }
};

template <typename T, typename A>
struct Rows {  // the three rows that the Gram stencil of row y reads
  const T *above, *here, *below;
  A up, mid, down;
  Rows(const T* plane, const Gram<A>& gram, int64_t y, int64_t h, int64_t stride) {
    here = plane + y * stride;
    above = y > 0 ? here - stride : here;
    below = y + 1 < h ? here + stride : here;
    up = gram.before[y], mid = gram.diagonal[y], down = gram.after[y];
  }
};

// mean and rstd of image n, group g of one level, written to [N, L, G] at level l.
template <typename T, typename A, bool kPlanar>
void level_statistics(const Tensor& level, const Shape& s, const Gram<A>& gy, const Gram<A>& gx, double eps, int64_t l,
                      int64_t L, A* mean_out, A* rstd_out) {
  const T* data = level.const_data_ptr<T>();
  if (s.h == s.H && s.w == s.W)
    return group_statistics(data, GroupedMap{s.N, s.C, s.G, s.h * s.w, s.channels_last}, eps, L * s.G,
                            mean_out + l * s.G, rstd_out + l * s.G);
  const int64_t inner = s.inner(), stride = s.w * inner, group = s.C / s.G;
  // Shift: mean of the first row of each group.
  std::vector<A> shift(s.N * s.C);
  parallel(s.N, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * s.G; i < end * s.G; ++i) {
      const int64_t n = i / s.G, first_channel = i % s.G * group;
      double total = 0;
      for (int64_t c = first_channel; c < first_channel + group; ++c)
        for (int64_t x = 0; x < s.w; ++x)
          total +=
              double(A(s.channels_last ? data[n * s.h * stride + x * s.C + c] : data[(n * s.C + c) * s.h * s.w + x]));
      for (int64_t c = first_channel; c < first_channel + group; ++c)
        shift[n * s.C + c] = A(total / double(group * s.w));
    }
  });
  // Partial moments per row, summed in row order afterwards: the same for any number of threads.
  const int64_t rows = s.planes() * s.h;
  std::vector<double> first(rows * inner, 0), second(rows * inner, 0);
  parallel(rows, std::max<int64_t>(1, 4096 / stride), [&](int64_t begin, int64_t end) {
    const int64_t piece = std::min(s.w, piece_of(inner));
    std::vector<A> blend((piece + 2) * inner), gram(piece * inner);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t plane = i / s.h, y = i % s.h;
      const Rows<T, A> r(data + plane * s.h * stride, gy, y, s.h, stride);
      const A* about = shift.data() + plane * inner;
      for (int64_t j = 0; j < s.w; j += piece) {
        const int64_t last = std::min(s.w, j + piece);
        gram_row<T, A, kPlanar>(r.above, r.here, r.below, r.up, r.mid, r.down, about, gx, blend.data(), gram.data(), j,
                                last, s.w, inner);
        moments_row<T, A, kPlanar>(r.here + j * inner, gram.data(), about, gy.sum[y], gx.sum.data() + j,
                                   first.data() + i * inner, second.data() + i * inner, last - j, inner);
      }
    }
  });
  parallel(s.N, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * s.G; i < end * s.G; ++i) {
      const int64_t n = i / s.G, g = i % s.G;
      double one = 0, two = 0;
      for (int64_t c = g * group; c < (g + 1) * group; ++c)
        for (int64_t y = 0; y < s.h; ++y) {
          const int64_t row = s.channels_last ? (n * s.h + y) * s.C + c : (n * s.C + c) * s.h + y;
          one += first[row];
          two += second[row];
        }
      const double offset = one / s.count(), variance = std::max(two / s.count() - offset * offset, 0.0);
      mean_out[(n * L + l) * s.G + g] = A(double(shift[n * s.C + g * group]) + offset);
      rstd_out[(n * L + l) * s.G + g] = A(1.0 / std::sqrt(variance + eps));
    }
  });
}

// GroupNorm as one center, scale and shift [L][N · C] per level, image and channel.
template <typename A>
struct Folded {
  std::vector<std::vector<A>> center, scale, shift;
  int64_t C;

  Folded(const A* mean, const A* rstd, const std::vector<Tensor>& weights, const std::vector<Tensor>& biases, int64_t N,
         int64_t C_, int64_t G)
      : C(C_) {
    const int64_t L = int64_t(weights.size());
    for (int64_t l = 0; l < L; ++l) {
      center.emplace_back(N * C);
      scale.emplace_back(N * C);
      shift.emplace_back(N * C);
      const A *gamma = weights[l].const_data_ptr<A>(), *beta = biases[l].const_data_ptr<A>();
      for (int64_t n = 0; n < N; ++n)
        for (int64_t c = 0; c < C; ++c) {
          const int64_t s = (n * L + l) * G + c / (C / G);
          center[l][n * C + c] = mean[s];
          scale[l][n * C + c] = gamma[c] * rstd[s];
          shift[l][n * C + c] = beta[c];
        }
    }
  }
  Affine<A> operator()(size_t l, int64_t n) const {
    return {center[l].data() + n * C, scale[l].data() + n * C, shift[l].data() + n * C};
  }
};

// A level larger than the output has pixels that no output reads. They are no part of the up-sampled map, but a NaN
// there would reach its statistics as 0 · NaN: such a level is copied, with zeros in their place.
template <typename T, typename A>
void clear_unread(std::vector<Tensor>& levels, const std::vector<LevelAxes<A>>& axes, bool channels_last) {
  const auto unread = [](const InterpolationAxis<A>& axis, int64_t i) {
    return axis.reader_begin[i] == axis.reader_begin[i + 1];
  };
  for (size_t l = 0; l < levels.size(); ++l) {
    const int64_t N = levels[l].size(0), C = levels[l].size(1), h = levels[l].size(2), w = levels[l].size(3);
    const int64_t planes = channels_last ? N : N * C, inner = channels_last ? C : 1;
    if (h <= int64_t(axes[l].y.taps.size()) && w <= int64_t(axes[l].x.taps.size())) continue;
    const Tensor whole = levels[l];
    levels[l] = empty_cpu(sizes_of(whole), whole.scalar_type(), channels_last);
    const T* from = whole.const_data_ptr<T>();
    T* to = levels[l].mutable_data_ptr<T>();
    for (int64_t i = 0; i < planes * h * w; ++i)
      for (int64_t k = 0; k < inner; ++k)
        to[i * inner + k] = unread(axes[l].y, i / w % h) || unread(axes[l].x, i % w) ? T(0.0f) : from[i * inner + k];
  }
}

Shape shape_of(const Tensor& level, const Tensor& finest, int64_t G, bool channels_last) {
  return {level.size(0), level.size(1), G, level.size(2), level.size(3), finest.size(2), finest.size(3), channels_last};
}

void check_inputs(const char* op, const std::vector<Tensor>& features, const std::vector<Tensor>& weights,
                  const std::vector<Tensor>& biases, int64_t num_groups) {
  check_cpu_levels(op, features);
  const int64_t C = features[0].size(1);
  STD_TORCH_CHECK(num_groups > 0 && C % num_groups == 0, op, ": num_groups must divide ", C, ", got ", num_groups);
  STD_TORCH_CHECK(weights.size() == features.size() && biases.size() == features.size(), op,
                  ": one gn_weights and one gn_biases vector per level is wanted");
  const auto dtype = features[0].scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  for (const auto* vectors : {&weights, &biases})
    for (const Tensor& v : *vectors)
      STD_TORCH_CHECK(
          v.dim() == 1 && v.size(0) == C && v.scalar_type() == dtype && v.is_cpu(), op,
          ": gn_weights and gn_biases must be [C] vectors on the CPU, float64 with float64 maps, else float32");
}

std::vector<Tensor> contiguous_all(const std::vector<Tensor>& tensors) {
  std::vector<Tensor> out;
  for (const Tensor& t : tensors) out.push_back(t.is_contiguous() ? t : torch::stable::contiguous(t));
  return out;
}

std::tuple<Tensor, Tensor, Tensor> gse_fuse(std::vector<Tensor> features, std::vector<Tensor> gn_weights,
                                            std::vector<Tensor> gn_biases, int64_t num_groups, double eps,
                                            bool align_corners) {
  check_inputs("gse_fuse", features, gn_weights, gn_biases, num_groups);
  if (features.size() == 1 && features[0].numel() > 0) {
    const auto [out, mean, rstd] =
        group_norm(features[0], gn_weights[0], gn_biases[0], num_groups, eps, true, std::nullopt);
    return {out, torch::stable::unsqueeze(mean, 1), torch::stable::unsqueeze(rstd, 1)};
  }
  const bool channels_last = is_channels_last(features[0]);
  auto levels = dense_levels(features, channels_last);
  const auto weights = contiguous_all(gn_weights), biases = contiguous_all(gn_biases);
  const int64_t N = levels[0].size(0), C = levels[0].size(1), L = int64_t(levels.size());
  const auto wide = weights[0].scalar_type();
  Tensor out = empty_cpu(sizes_of(levels[0]), levels[0].scalar_type(), channels_last);
  Tensor mean = empty_cpu({N, L, num_groups}, wide), rstd = empty_cpu({N, L, num_groups}, wide);
  if (out.numel() == 0) return {out, torch::stable::fill_(mean, 0), torch::stable::fill_(rstd, 0)};
  dispatch_floating("gse_fuse", out.scalar_type(), [&](auto type) {
    using T = decltype(type);
    using A = accumulate_t<T>;
    const auto axes = level_axes<A>(levels, levels[0].size(2), levels[0].size(3), align_corners);
    clear_unread<T, A>(levels, axes, channels_last);
    A *m = mean.mutable_data_ptr<A>(), *r = rstd.mutable_data_ptr<A>();
    for (int64_t l = 0; l < L; ++l) {
      const Shape s = shape_of(levels[l], levels[0], num_groups, channels_last);
      const auto statistics = channels_last ? level_statistics<T, A, false> : level_statistics<T, A, true>;
      statistics(levels[l], s, Gram<A>(axes[l].y, s.h), Gram<A>(axes[l].x, s.w), eps, l, L, m, r);
    }
    pyramid_sum<T, true>(levels, out, align_corners, channels_last, Folded<A>(m, r, weights, biases, N, C, num_groups));
  });
  return {out, mean, rstd};
}

// first[c] = Σ E_c and second[c] = ⟨Q_c − mean, E_c⟩ of one row.
template <typename T, typename A, bool kPlanar>
RPCNN_CLONES void dot_row(const T* q, const A* e, const A* mean, double* __restrict first, double* __restrict second,
                          int64_t w, int64_t channels) {
  if constexpr (kPlanar) {
    LaneSums<A> one, two;
    const A about = mean[0];
    const int64_t whole = w / kLanes * kLanes;
    for (int64_t j = 0; j < whole; j += kLanes) {
      typename Lanes<A>::Values values, gradient;
      load_eight<T, A>(q + j, values), load(e + j, gradient);
      one.add(gradient), two.add(gradient * (values - about));
    }
    double one_more = 0, two_more = 0;
    for (int64_t j = whole; j < w; ++j) one_more += double(e[j]), two_more += double(e[j] * (A(q[j]) - about));
    first[0] += one.total() + one_more;
    second[0] += two.total() + two_more;
  } else {
    for (int64_t j = 0; j < w; ++j)
      for (int64_t k = 0; k < channels; ++k) {
        const int64_t i = j * channels + k;
        first[k] += double(e[i]);
        second[k] += double(e[i] * (A(q[i]) - mean[k]));
      }
  }
}

// `out` may be `e` itself: element i is read, then written.
template <typename T, typename A, bool kPlanar>
RPCNN_CLONES void gradient_row(const A* e, const A* gram, const A* factor, const A* constant, const A* slope, A y_sum,
                               const A* x_sum, T* out, int64_t w, int64_t channels) {
  const int64_t inner = kPlanar ? 1 : channels;
#pragma GCC ivdep
  for (int64_t j = 0; j < w; ++j) {
    const A both = y_sum * x_sum[j];
#pragma GCC ivdep
    for (int64_t k = 0; k < inner; ++k) {
      const int64_t i = j * inner + k;
      out[i] = T(factor[k] * e[i] - constant[k] * both - slope[k] * gram[i]);
    }
  }
}

// ΣE and ⟨Q − mean, E⟩ of each row of a level, taken while the row of E is in cache.
template <typename T, typename A, bool kPlanar>
class RowDots {
 public:
  std::vector<double> first, second;  // [planes · h][inner]
  std::vector<A> about;               // the mean, [N · C]

  RowDots(const Tensor& level, const A* e, const Shape& s, const A* mean, int64_t l, int64_t L)
      : first(s.planes() * s.h * s.inner(), 0),
        second(first.size(), 0),
        data_(level.const_data_ptr<T>()),
        e_(e),
        shape_(s) {
    for (int64_t n = 0; n < s.N; ++n)
      for (int64_t c = 0; c < s.C; ++c) about.push_back(mean[(n * L + l) * s.G + c / (s.C / s.G)]);
  }
  void add(int64_t row) {
    const int64_t inner = shape_.inner(), stride = shape_.w * inner;
    dot_row<T, A, kPlanar>(data_ + row * stride, e_ + row * stride, about.data() + row / shape_.h * inner,
                           first.data() + row * inner, second.data() + row * inner, shape_.w, inner);
  }

 private:
  const T* data_;
  const A* e_;
  Shape shape_;
};

// From E and its dots: the gradients of a level's maps (which may take E's place), γ and β.
template <typename T, typename A, bool kPlanar>
void level_backward(const Tensor& level, const A* e, const RowDots<T, A, kPlanar>& dots, const Shape& s,
                    const Gram<A>& gy, const Gram<A>& gx, const A* rstd, int64_t l, int64_t L, const A* gamma,
                    T* grad_level, A* grad_gamma, A* grad_beta) {
  const T* data = level.const_data_ptr<T>();
  const int64_t inner = s.inner(), stride = s.w * inner, rows = s.planes() * s.h, group = s.C / s.G;
  std::vector<A> factor(s.N * s.C), constant(s.N * s.C), slope(s.N * s.C);
  std::vector<double> d_gamma(s.C, 0), d_beta(s.C, 0);
  for (int64_t n = 0; n < s.N; ++n)
    for (int64_t g = 0; g < s.G; ++g) {
      const double r = double(rstd[(n * L + l) * s.G + g]);
      double s1 = 0, s2 = 0;
      for (int64_t c = g * group; c < (g + 1) * group; ++c) {
        double one = 0, two = 0;
        for (int64_t y = 0; y < s.h; ++y) {
          const int64_t i = s.channels_last ? (n * s.h + y) * s.C + c : (n * s.C + c) * s.h + y;
          one += dots.first[i];
          two += dots.second[i];
        }
        const double dg = r * two;
        d_beta[c] += one;
        d_gamma[c] += dg;
        s1 += double(gamma[c]) * one;
        s2 += double(gamma[c]) * dg;
      }
      for (int64_t c = g * group; c < (g + 1) * group; ++c) {
        const int64_t i = n * s.C + c;
        factor[i] = A(double(gamma[c]) * r);
        constant[i] = A(r / s.count() * s1);
        slope[i] = A(r / s.count() * r * s2);
      }
    }
  for (int64_t c = 0; c < s.C; ++c) grad_gamma[c] = A(d_gamma[c]), grad_beta[c] = A(d_beta[c]);
  parallel(rows, std::max<int64_t>(1, 4096 / stride), [&](int64_t begin, int64_t end) {
    const int64_t piece = std::min(s.w, piece_of(inner));
    std::vector<A> blend((piece + 2) * inner), gram(piece * inner);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t plane = i / s.h, y = i % s.h, c = plane * inner;
      const Rows<T, A> r(data + plane * s.h * stride, gy, y, s.h, stride);
      for (int64_t j = 0; j < s.w; j += piece) {
        const int64_t last = std::min(s.w, j + piece);
        gram_row<T, A, kPlanar>(r.above, r.here, r.below, r.up, r.mid, r.down, dots.about.data() + c, gx, blend.data(),
                                gram.data(), j, last, s.w, inner);
        gradient_row<T, A, kPlanar>(e + i * stride + j * inner, gram.data(), factor.data() + c, constant.data() + c,
                                    slope.data() + c, gy.sum[y], gx.sum.data() + j, grad_level + i * stride + j * inner,
                                    last - j, inner);
      }
    }
  });
}

std::tuple<std::vector<Tensor>, std::vector<Tensor>, std::vector<Tensor>> gse_fuse_backward(
    Tensor grad, std::vector<Tensor> features, std::vector<Tensor> gn_weights, std::vector<Tensor> gn_biases,
    Tensor mean, Tensor rstd, int64_t num_groups, bool align_corners) {
  check_inputs("gse_fuse_backward", features, gn_weights, gn_biases, num_groups);
  const int64_t N = features[0].size(0), C = features[0].size(1), L = int64_t(features.size());
  STD_TORCH_CHECK(grad.dim() == 4 && sizes_of(grad) == sizes_of(features[0]) && grad.is_cpu() &&
                      grad.scalar_type() == features[0].scalar_type(),
                  "gse_fuse_backward: grad must have the shape, dtype and device of features[0]");
  for (const Tensor* t : {&mean, &rstd})
    STD_TORCH_CHECK(t->numel() == N * L * num_groups && t->scalar_type() == gn_weights[0].scalar_type() &&
                        t->is_contiguous() && t->is_cpu(),
                    "gse_fuse_backward: mean and rstd must be [N, L, groups] as gse_fuse returned them");
  if (L == 1) {
    const auto [on_map, on_weight, on_bias, none] =
        group_norm_backward(grad, features[0], gn_weights[0], gn_biases[0], torch::stable::squeeze(mean, 1),
                            torch::stable::squeeze(rstd, 1), num_groups, true, std::nullopt);
    return {{on_map}, {on_weight}, {on_bias}};
  }
  const bool channels_last = is_channels_last(features[0]);
  auto levels = dense_levels(features, channels_last);
  const auto weights = contiguous_all(gn_weights), biases = contiguous_all(gn_biases);
  const Tensor g = dense(grad, channels_last);
  std::vector<Tensor> grad_features, grad_weights, grad_biases;
  dispatch_floating("gse_fuse_backward", grad.scalar_type(), [&](auto type) {
    using T = decltype(type);
    using A = accumulate_t<T>;
    const auto axes = level_axes<A>(levels, levels[0].size(2), levels[0].size(3), align_corners);
    clear_unread<T, A>(levels, axes, channels_last);
    const A *m = mean.const_data_ptr<A>(), *r = rstd.const_data_ptr<A>();
    const Folded<A> folded(m, r, weights, biases, N, C, num_groups);
    // E is kept in the accumulation type; where that is the maps' own, the gradient is made in its place.
    std::vector<Tensor> sums;
    std::vector<A*> e;
    for (int64_t l = 0; l < L; ++l) {
      grad_features.push_back(empty_cpu(sizes_of(levels[l]), grad.scalar_type(), channels_last));
      sums.push_back(std::is_same_v<A, T> ? grad_features[l]
                                          : empty_cpu(sizes_of(levels[l]), weights[l].scalar_type(), channels_last));
      e.push_back(sums[l].mutable_data_ptr<A>());
    }
    const auto run = [&](auto planar) {
      constexpr bool kPlanar = decltype(planar)::value;
      std::vector<Shape> shapes;
      std::vector<RowDots<T, A, kPlanar>> dots;
      for (int64_t l = 0; l < L; ++l) {
        shapes.push_back(shape_of(levels[l], levels[0], num_groups, channels_last));
        dots.emplace_back(levels[l], e[l], shapes[l], m, l, L);
      }
      if (grad.numel())
        pyramid_adjoint<T, A, true>(levels, g, axes, channels_last, folded, e,
                                    [&](int64_t l, int64_t row) { dots[l].add(row); });
      for (int64_t l = 0; l < L; ++l) {
        grad_weights.push_back(empty_cpu({C}, weights[l].scalar_type()));
        grad_biases.push_back(empty_cpu({C}, weights[l].scalar_type()));
        level_backward<T, A, kPlanar>(levels[l], e[l], dots[l], shapes[l], Gram<A>(axes[l].y, shapes[l].h),
                                      Gram<A>(axes[l].x, shapes[l].w), r, l, L, weights[l].const_data_ptr<A>(),
                                      grad_features[l].mutable_data_ptr<T>(), grad_weights[l].mutable_data_ptr<A>(),
                                      grad_biases[l].mutable_data_ptr<A>());
      }
    };
    if (channels_last) {
      run(std::false_type{});
    } else {
      run(std::true_type{});
    }
  });
  return {grad_features, grad_weights, grad_biases};
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CPU, m) {
  m.impl("gse_fuse", TORCH_BOX(&gse_fuse));
  m.impl("gse_fuse_backward", TORCH_BOX(&gse_fuse_backward));
}

}  // namespace
}  // namespace rpcnn
