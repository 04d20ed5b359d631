// GroupNorm's statistics of a map, for group_norm and for the levels of gse_fuse that are not enlarged: Σ(x − k) and
// Σ(x − k)² of every channel, k being its first pixel, so that a large mean does not cancel. Four pixels are summed in
// the accumulation type before they are added to doubles. Channels innermost, threads share strips of pixels; planes,
// threads share planes, and a plane is read as pixels of eight channels with one affine. No result depends on the
// number of threads.
#pragma once

#include <cmath>
#include <type_traits>

#include "common.h"

namespace rpcnn {

constexpr int64_t kWide = 8;     // pixels of a plane side by side
constexpr int64_t kStrips = 64;  // most strips of an image with channels innermost

// A map that groups of channels are normalized in.
struct GroupedMap {
  int64_t N, C, G, pixels;
  bool channels_last;

  int64_t group() const { return C / G; }
  double count() const { return double(group()) * double(pixels); }
  int64_t strip() const { return std::max<int64_t>(16, (pixels + kStrips - 1) / kStrips); }
  int64_t strips() const { return channels_last ? (pixels + strip() - 1) / strip() : 1; }
  int64_t units() const { return channels_last ? N * strips() : N * C; }
};

// A unit of work: a strip of one image, or a plane.
struct Unit {
  int64_t n, c, offset, pixels;  // c: the first channel

  Unit(const GroupedMap& s, int64_t i) {
    if (s.channels_last) {
      n = i / s.strips(), c = 0;
      const int64_t begin = i % s.strips() * s.strip();
      offset = (n * s.pixels + begin) * s.C, pixels = std::min(s.strip(), s.pixels - begin);
    } else {
      n = i / s.C, c = i % s.C, offset = i * s.pixels, pixels = s.pixels;
    }
  }
};

// f(inner, offset, pixels, channels) over a unit; a plane's pixels are groups of kWide channels and a rest. `inner` is
// a constant: kWide, or 0 where the number of channels is known at run time only.
template <typename F>
void as_rows(const GroupedMap& s, const Unit& unit, const F& f) {
  using AtRunTime = std::integral_constant<int64_t, 0>;
  if (s.channels_last) return f(AtRunTime{}, unit.offset, unit.pixels, s.C);
  const int64_t whole = unit.pixels / kWide, rest = unit.pixels % kWide;
  if (whole) f(std::integral_constant<int64_t, kWide>{}, unit.offset, whole, kWide);
  if (rest) f(AtRunTime{}, unit.offset + whole * kWide, int64_t(1), rest);
}

// Values of a unit's channels: a view of [N · C], or one value kWide times.
template <typename A>
class UnitValues {
 public:
  UnitValues(const GroupedMap& s, const Unit& unit, const std::vector<A>& values) {
    if (values.empty()) return;
    data_ = values.data() + unit.n * s.C + unit.c;
    if (s.channels_last) return;
    std::fill_n(wide_, kWide, *data_);
    data_ = wide_;
  }
  UnitValues(const UnitValues&) = delete;
  operator const A*() const { return data_; }

 private:
  const A* data_ = nullptr;
  A wide_[kWide];
};

// first[k] += Σ(x − shift[k]), second[k] += Σ(x − shift[k])².
template <typename T, typename A, int64_t kInner>
RPCNN_CLONES void add_moments(const T* x, const A* shift, double* __restrict first, double* __restrict second,
                              int64_t pixels, int64_t channels) {
  const int64_t inner = kInner ? kInner : channels;
  int64_t p = 0;
  for (; p + 4 <= pixels; p += 4)
    for (int64_t k = 0; k < inner; ++k) {
      A one = 0, two = 0;
#pragma GCC unroll 4
      for (int64_t i = 0; i < 4; ++i) {
        const A q = A(x[(p + i) * inner + k]) - shift[k];
        one += q, two += q * q;
      }
      first[k] += double(one), second[k] += double(two);
    }
  for (; p < pixels; ++p)
    for (int64_t k = 0; k < inner; ++k) {
      const A q = A(x[p * inner + k]) - shift[k];
      first[k] += double(q), second[k] += double(q * q);
    }
}

// Two sums for every unit and channel, [units][2][inner]; f(unit, first, second) adds to them.
template <typename F>
std::vector<double> sums_of_units(const GroupedMap& s, const F& f) {
  const int64_t inner = s.channels_last ? s.C : kWide;
  std::vector<double> sums(s.units() * 2 * inner, 0);
  parallel(s.units(), std::max<int64_t>(1, 4096 * s.units() / (s.N * s.C * s.pixels)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(Unit(s, i), sums.data() + 2 * i * inner, sums.data() + (2 * i + 1) * inner);
  });
  return sums;
}

// Both sums of channel c of image n, its units added in order.
inline void channel_sums(const GroupedMap& s, const std::vector<double>& sums, int64_t n, int64_t c, double* first,
                         double* second) {
  *first = *second = 0;
  if (s.channels_last) {
    for (int64_t i = n * s.strips(); i < (n + 1) * s.strips(); ++i)
      *first += sums[2 * i * s.C + c], *second += sums[(2 * i + 1) * s.C + c];
  } else {
    const double* from = sums.data() + 2 * (n * s.C + c) * kWide;
    for (int64_t k = 0; k < kWide; ++k) *first += from[k], *second += from[kWide + k];
  }
}

// mean and rstd [N, G] of x, `stride` apart from image to image.
template <typename T, typename A>
void group_statistics(const T* x, const GroupedMap& s, double eps, int64_t stride, A* mean, A* rstd) {
  std::vector<A> shift(s.N * s.C);
  for (int64_t i = 0; i < s.N * s.C; ++i)
    shift[i] = A(x[s.channels_last ? i / s.C * s.pixels * s.C + i % s.C : i * s.pixels]);
  const auto sums = sums_of_units(s, [&](const Unit& unit, double* first, double* second) {
    const UnitValues<A> about(s, unit, shift);
    as_rows(s, unit, [&](auto inner, int64_t offset, int64_t pixels, int64_t channels) {
      add_moments<T, A, decltype(inner)::value>(x + offset, about, first, second, pixels, channels);
    });
  });
  const double pixels = double(s.pixels);
  for (int64_t n = 0; n < s.N; ++n)
    for (int64_t g = 0; g < s.G; ++g) {
      const double about = double(shift[n * s.C + g * s.group()]);  // the group's shift, its first channel's
      double one = 0, two = 0;
      for (int64_t c = g * s.group(); c < (g + 1) * s.group(); ++c) {
        double first, second;
        channel_sums(s, sums, n, c, &first, &second);
        const double apart = double(shift[n * s.C + c]) - about;
        one += first + pixels * apart;
        two += second + apart * (2 * first + pixels * apart);
      }
      const double offset = one / s.count();
      mean[n * stride + g] = A(about + offset);
      rstd[n * stride + g] = A(1.0 / std::sqrt(std::max(two / s.count() - offset * offset, 0.0) + eps));
    }
}

}  // namespace rpcnn
