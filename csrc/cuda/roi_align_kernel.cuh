// roi_align and multilevel_roi_align: the mean of bilinear samples in each cell of a grid over each box, and its
// adjoint.
//
// Fewest bytes: the touched part of the maps read once and the output written once; backward: the gradient read once,
// every map gradient written once. All levels are one launch; each box finds its level by itself.
// Forward: one thread an output element, neighbours in memory neighbours in the warp: with channels innermost a warp
// shares its cell, its taps are uniform and each of the four loads is coalesced. A sample row's tap is computed once
// and reused along the row. Backward: one thread a map gradient element, which walks the boxes in order and gathers the
// samples that read its pixel: no atomics, no zero fill, every element written once, the same sum in the same order at
// every run. A box that does not cover the pixel costs one comparison against its extent, which a first small kernel
// tabulates.
#pragma once

#include "../geometry/roi.h"
#include "device.cuh"

namespace rpcnn {

template <typename T>
struct RoiMaps {
  T* map[kMaxLevels];                                           // read only in the forward, written in the backward
  int64_t H[kMaxLevels], W[kMaxLevels], begin[kMaxLevels + 1];  // begin: first element of each level, backward only
  double scale[kMaxLevels];
  int64_t N, C;
  int levels;
  bool channels_last;
};

struct RoiRule {
  int64_t height, width, sampling_ratio;
  bool aligned;
  float canonical_size, canonical_level, finest, area_offset;
};

template <typename G>
struct PlacedRoi {
  int64_t image, level;
  RoiAxis<G> y, x;
};

// A box [image, x1, y1, x2, y2] on its level; one with a bad index or a non-finite corner has no samples.
template <typename T, typename G>
RPCNN_HOST_DEVICE PlacedRoi<G> place_roi(const G* box, const RoiMaps<T>& maps, const RoiRule& rule) {
  PlacedRoi<G> roi{0, 0, {0, 0, 0}, {0, 0, 0}};
  const G index = box[0];
  bool good = index >= G(0) && index < G(maps.N) && index == std::floor(index);
  for (int k = 1; k < 5; ++k) good = good && std::isfinite(box[k]);
  if (!good) return roi;
  roi.image = static_cast<int64_t>(index);
  if (maps.levels > 1)
    roi.level = roi_level(float(box[1]), float(box[2]), float(box[3]), float(box[4]), rule.canonical_size,
                          rule.canonical_level, rule.finest, rule.area_offset, maps.levels);
  if (maps.H[roi.level] == 0 || maps.W[roi.level] == 0) return roi;
  const G scale = G(maps.scale[roi.level]);
  roi.y = roi_axis(box[2], box[4], scale, rule.height, rule.sampling_ratio, rule.aligned);
  roi.x = roi_axis(box[1], box[3], scale, rule.width, rule.sampling_ratio, rule.aligned);
  return roi;
}

template <typename T, typename G>
__global__ void roi_align_kernel(RoiMaps<T> maps, const G* boxes, int64_t count, RoiRule rule, T* out) {
  using A = device_accumulate_t<T>;
  const MapShape shape{maps.C, rule.height, rule.width, maps.channels_last};
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    int64_t r, c, p, q;
    shape.split(i, &r, &c, &p, &q);
    const PlacedRoi<G> roi = place_roi(boxes + r * 5, maps, rule);
    const MapShape map{maps.C, maps.H[roi.level], maps.W[roi.level], maps.channels_last};
    const T* data = maps.map[roi.level];
    int64_t y_first, y_last, x_first, x_last;
    roi_samples_inside(roi.y, p, map.H, &y_first, &y_last);
    roi_samples_inside(roi.x, q, map.W, &x_first, &x_last);
    A sum = 0;
    for (int64_t a = y_first; a < y_last; ++a) {
      const Tap<G> y = roi_tap(roi.y.position(p, a), map.H);
      if (y.w_lo == G(0) && y.w_hi == G(0)) continue;
      for (int64_t b = x_first; b < x_last; ++b) {
        const Tap<G> x = roi_tap(roi.x.position(q, b), map.W);
        if (x.w_lo == G(0) && x.w_hi == G(0)) continue;
        const A upper = A(x.w_lo) * A(data[map.offset(roi.image, c, y.lo, x.lo)]) +
                        A(x.w_hi) * A(data[map.offset(roi.image, c, y.lo, x.hi)]);
        const A lower = A(x.w_lo) * A(data[map.offset(roi.image, c, y.hi, x.lo)]) +
                        A(x.w_hi) * A(data[map.offset(roi.image, c, y.hi, x.hi)]);
        sum += A(y.w_lo) * upper + A(y.w_hi) * lower;
      }
    }
    const A samples = A(roi.y.samples) * A(roi.x.samples);
    out[i] = T(samples > A(0) ? sum / samples : A(0));
  }
}

// Pixels [top, bottom) × [left, right) that a box reads on its level, so that the gather can pass over the others.
struct RoiExtent {
  int image, level;
  int top, bottom, left, right;
};

template <typename G>
RPCNN_HOST_DEVICE void axis_extent(const RoiAxis<G>& axis, int64_t cells, int64_t size, int* low, int* high) {
  *low = *high = 0;
  if (axis.samples == 0) return;
  double a = double(axis.start), b = double(axis.start) + double(axis.bin) * double(cells);
  if (a > b) {
    const double c = a;
    a = b, b = c;
  }
  a = std::floor(a) - 1.0, b = std::ceil(b) + 2.0;  // a sample reads two pixels; rounding may move it by a hair
  const double limit = double(size);
  *low = static_cast<int>(a < 0 ? 0.0 : (a > limit ? limit : a));
  *high = static_cast<int>(b < 0 ? 0.0 : (b > limit ? limit : b));
}

template <typename T, typename G>
__global__ void roi_extent_kernel(RoiMaps<T> maps, const G* boxes, int64_t R, RoiRule rule, RoiExtent* extents) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t r = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; r < R; r += stride) {
    const PlacedRoi<G> roi = place_roi(boxes + r * 5, maps, rule);
    RoiExtent e{static_cast<int>(roi.image), static_cast<int>(roi.level), 0, 0, 0, 0};
    axis_extent(roi.y, rule.height, maps.H[roi.level], &e.top, &e.bottom);
    axis_extent(roi.x, rule.width, maps.W[roi.level], &e.left, &e.right);
    extents[r] = e;
  }
}

// The weight of sample `k` of an axis (counted over all cells) on a pixel.
template <typename G>
RPCNN_HOST_DEVICE G sample_weight(const RoiAxis<G>& axis, int64_t k, int64_t pixel, int64_t size) {
  const Tap<G> t = roi_tap(axis.position(k / axis.samples, k % axis.samples), size);
  return (t.lo == pixel ? t.w_lo : G(0)) + (t.hi == pixel ? t.w_hi : G(0));
}

template <typename T, typename G>
__global__ void roi_align_backward_kernel(RoiMaps<T> maps, const G* boxes, const RoiExtent* extents, int64_t R,
                                          RoiRule rule, const T* grad) {
  using A = device_accumulate_t<T>;
  const MapShape cells{maps.C, rule.height, rule.width, maps.channels_last};
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < maps.begin[maps.levels]; i += stride) {
    int l = 0;
    while (i >= maps.begin[l + 1]) ++l;
    const MapShape map{maps.C, maps.H[l], maps.W[l], maps.channels_last};
    int64_t n, c, y, x;
    map.split(i - maps.begin[l], &n, &c, &y, &x);
    A sum = 0;
    for (int64_t r = 0; r < R; ++r) {
      const RoiExtent e = extents[r];
      if (e.image != n || e.level != l || y < e.top || y >= e.bottom || x < e.left || x >= e.right) continue;
      const PlacedRoi<G> roi = place_roi(boxes + r * 5, maps, rule);
      int64_t y_first, y_last, x_first, x_last;
      roi_samples_at(roi.y, rule.height, y, map.H, &y_first, &y_last);
      roi_samples_at(roi.x, rule.width, x, map.W, &x_first, &x_last);
      A box_sum = 0;
      for (int64_t a = y_first; a < y_last; ++a) {
        const A wy = A(sample_weight(roi.y, a, y, map.H));
        if (wy == A(0)) continue;
        for (int64_t b = x_first; b < x_last; ++b) {
          const A wx = A(sample_weight(roi.x, b, x, map.W));
          if (wx != A(0)) box_sum += wy * wx * A(grad[cells.offset(r, c, a / roi.y.samples, b / roi.x.samples)]);
        }
      }
      sum += box_sum / (A(roi.y.samples) * A(roi.x.samples));
    }
    maps.map[l][i - maps.begin[l]] = T(sum);
  }
}

template <typename T, typename G>
void launch_roi_align(const RoiMaps<T>& maps, const G* boxes, int64_t R, const RoiRule& rule, T* out, Stream stream) {
  const int64_t items = R * maps.C * rule.height * rule.width;
  if (items) SIMT_LAUNCH((roi_align_kernel<T, G>), blocks_for(items), kBlock, 0, stream, maps, boxes, items, rule, out);
}

// extents: R entries of scratch.
template <typename T, typename G>
void launch_roi_align_backward(const RoiMaps<T>& maps, const G* boxes, int64_t R, const RoiRule& rule, const T* grad,
                               RoiExtent* extents, Stream stream) {
  const int64_t items = maps.begin[maps.levels];
  if (!items) return;
  if (R) SIMT_LAUNCH((roi_extent_kernel<T, G>), blocks_for(R), kBlock, 0, stream, maps, boxes, R, rule, extents);
  SIMT_LAUNCH((roi_align_backward_kernel<T, G>), blocks_for(items), kBlock, 0, stream, maps, boxes, extents, R, rule,
              grad);
}

}  // namespace rpcnn
