// Where a box's samples fall: RoIAlign's rule for one axis, and the pyramid level of a box. Written once for CPU and
// CUDA.
#pragma once

#include <cmath>
#include <cstdint>

#include "interpolate.h"

namespace rpcnn {

// One axis of one box: `cells` cells of `samples` samples each, `bin` map pixels per cell, from `start` on.
// Positions are computed in one type and in this order of operations, so that CPU and GPU agree to the bit: rounding
// decides which side of a pixel or of the map's border a sample falls on, and how many samples an adaptive cell takes.
template <typename T>
struct RoiAxis {
  T start, bin;
  int64_t samples;

  RPCNN_HOST_DEVICE T position(int64_t cell, int64_t sample) const {
    const T begin = rounded_sum(start, rounded_product(T(cell), bin));
    return rounded_sum(begin, rounded_product(T(sample) + T(0.5), bin) / T(samples));
  }
};

// The most samples per cell and axis that can be asked for. All of them may lie in the map, so that they bound the
// work; the networks take 2.
constexpr int64_t kMostSamplingRatio = 1024;

// Beyond this many samples per cell (a box of 10^12 pixels) a cell's mean is 0 to rounding: the axis is left empty.
constexpr double kMostSamples = 1099511627776.0;

template <typename T>
RPCNN_HOST_DEVICE RoiAxis<T> roi_axis(T from, T to, T scale, int64_t cells, int64_t sampling_ratio, bool aligned) {
  const T shift = aligned ? T(0.5) : T(0);
  const T start = rounded_sum(rounded_product(from, scale), -shift);
  T length = rounded_sum(rounded_product(to, scale), -shift) - start;
  if (!aligned && length < T(1)) length = T(1);
  const T bin = length / T(cells);
  if (sampling_ratio > 0) return {start, bin, sampling_ratio};
  const double count = std::ceil(double(bin));
  return {start, bin, count > 0 && count < kMostSamples ? static_cast<int64_t>(count) : 0};
}

// The two pixels that a sample reads. A sample more than one pixel outside the map, or at NaN, has weight 0.
template <typename T>
RPCNN_HOST_DEVICE Tap<T> roi_tap(T position, int64_t size) {
  if (!(position >= T(-1) && position <= T(size))) return {0, 0, T(0), T(0)};
  if (position < T(0)) position = T(0);
  const int64_t lo = static_cast<int64_t>(position);
  if (lo >= size - 1) return {size - 1, size - 1, T(1), T(0)};
  const T fraction = position - T(lo);
  return {lo, lo + 1, T(1) - fraction, fraction};
}

// Whether a tap is that of a sample outside the map. Inside, both pixels are read, even one of weight 0: as in
// torchvision, where 0 · NaN is NaN.
template <typename T>
RPCNN_HOST_DEVICE bool is_outside(const Tap<T>& tap) {
  return tap.w_lo == T(0) && tap.w_hi == T(0);
}

// The samples [first, last) of a cell that can lie in the map. A box much larger than the map has billions outside it.
template <typename T>
RPCNN_HOST_DEVICE void roi_samples_inside(const RoiAxis<T>& axis, int64_t cell, int64_t size, int64_t* first,
                                          int64_t* last) {
  *first = 0;
  *last = axis.samples;
  if (axis.samples <= 2 * (size + 4) || !(axis.bin > T(0))) return;
  const double pitch = double(axis.bin) / double(axis.samples);
  const double origin = double(axis.start) + double(cell) * double(axis.bin);
  const double a = std::floor((-1.0 - origin) / pitch) - 2.0, b = std::ceil((double(size) - origin) / pitch) + 2.0;
  if (a > 0) *first = a < double(axis.samples) ? static_cast<int64_t>(a) : axis.samples;
  if (b < double(axis.samples)) *last = b > 0 ? static_cast<int64_t>(b) : 0;
  if (*last < *first) *last = *first;
}

// The samples [first, last) of the whole axis, counted over all its cells, that can read the pixels [begin, end): those
// within one pixel of them, or clamped to them from outside the map. A few more at both ends; roi_tap gives their
// weights, perhaps 0.
template <typename T>
RPCNN_HOST_DEVICE void roi_samples_at(const RoiAxis<T>& axis, int64_t cells, int64_t begin, int64_t end, int64_t size,
                                      int64_t* first, int64_t* last) {
  const double count = double(cells) * double(axis.samples);
  *first = *last = 0;
  if (!(count > 0)) return;
  const double low = double(begin) - 1.0, high = double(end < size ? end : size);
  const double pitch = double(axis.bin) / double(axis.samples);
  if (pitch == 0) {  // every sample lies at the start
    if (double(axis.start) >= low && double(axis.start) <= high) *last = static_cast<int64_t>(count);
    return;
  }
  double a = (low - double(axis.start)) / pitch, b = (high - double(axis.start)) / pitch;
  if (a > b) {
    const double c = a;
    a = b, b = c;
  }
  a = std::floor(a) - 2.0, b = std::ceil(b) + 2.0;  // half a sample and rounding
  if (b <= 0 || a >= count) return;
  *first = a > 0 ? static_cast<int64_t>(a) : 0;
  *last = b < count ? static_cast<int64_t>(b) : static_cast<int64_t>(count);
}

// 0 is the finest level. floor(canonical_level + log2(sqrt(area) / canonical_size + 1e-6)) − finest, clamped; a box
// without positive, finite area pools from the finest. In float, whatever the boxes' type, so that devices agree.
RPCNN_HOST_DEVICE int64_t roi_level(float x1, float y1, float x2, float y2, float canonical_size, float canonical_level,
                                    float finest, float area_offset, int64_t levels) {
  const float area = (x2 - x1 + area_offset) * (y2 - y1 + area_offset);
  if (!(area > 0.0f) || !std::isfinite(area)) return 0;
  const float level = std::floor(canonical_level + std::log2(std::sqrt(area) / canonical_size + 1e-6f)) - finest;
  if (!(level > 0.0f)) return 0;
  return level < float(levels - 1) ? static_cast<int64_t>(level) : levels - 1;
}

}  // namespace rpcnn
