// roi_align and multilevel_roi_align: the mean of bilinear samples in each cell of a grid over each box.
//
// Fewest bytes: the touched part of the maps read once and the output written once. All levels are one launch; each box
// finds its level by itself.
//
// A block takes up to 8 × 8 cells of one box, so that a 7 × 7 box is one block for each piece of the channels. Samples
// are separable: half a warp lists for each row and column of cells the pixels that it reads and their weights, samples
// that hit one pixel merged. Then each thread sums several channels (channels.cuh) of a cell over its rows and columns
// of pixels, four columns at a time. A cell that reads more than 64 pixels along an axis (adaptive sampling of a large
// box) does not fit the tables: its samples are computed one by one.
//
// Ladder, instructions of a warp on sm_90 from SASS, for 16-byte packs with channels innermost. Estimates are for an
// H100 at four instructions a cycle, none is measured. 7 × 7 cells of 2 × 2 samples:
//   each thread computes its samples' taps     120 a sample, 194 in bfloat16; 770 and 1,090 a cell
//   tables, 64-bit offsets of elements          49 for the four pixels of one sample, 106
//   32-bit offsets of packs                     38, 106; the packs' address as an element's: the compiler added 3 more
//                                               64-bit sums to each load
//   as compiled now (two or four rows at once)  35, 90; a cell of 16 pixels 207 and 430, a cell of 9 about 170 and 340
// Four blocks a multiprocessor instead of three spilled registers. Issue, before and now, against the bytes from L2:
//   512 boxes, P2 of two 800 × 1216 images, 256 channels, float32    42, 13 us    60 to 75 us (DRAM 45)
//   the same in bfloat16                                             30, 13 us    38 us (DRAM 22)
//   1,024 boxes on five levels, float32                              84, 24 us    70 to 90 us (DRAM 65)
//   32 boxes of 32 × 32 cells on P2, float32                         55, 13 us    47 us (DRAM)
// Now the caches limit; before, float32 waited for both and bfloat16 for issue.
#pragma once

#include "../geometry/roi.h"
#include "channels.cuh"

namespace rpcnn {

template <typename T>
struct RoiMaps {
  T* map[kMaxLevels];  // read only in the forward, written in the backward
  int64_t H[kMaxLevels], W[kMaxLevels];
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

// A box [image, x1, y1, x2, y2] on its level. A box with a bad index or a non-finite corner has no samples.
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

constexpr int kCellTile = 8;     // rows and columns of cells of a forward block
constexpr int kCellPixels = 64;  // pixels along an axis that a table holds for one cell
constexpr int kStep = 4;         // of them along x that a thread reads before it adds them up

// A pixel that a cell reads along one axis.
template <typename A>
struct alignas(2 * sizeof(A)) PixelWeight {
  unsigned offset;  // from the image's first pixel, in packs of V channels
  A weight;
};

// Whether kCellPixels suffice for any cell: a sample reads two pixels, all of a cell's lie within one bin, and a pixel
// counts once.
template <typename G>
RPCNN_HOST_DEVICE bool pixels_fit(const RoiAxis<G>& axis) {
  return axis.samples <= kCellPixels / 2 || std::fabs(double(axis.bin)) + 4 <= kCellPixels;
}

// Lists the pixels that a cell's samples read along an axis, each once with its weight in the cell's mean, and returns
// their number. Up to a multiple of kStep the first pixel is repeated with weight 0: a pixel that the cell does not
// read may be NaN.
template <typename A, typename G>
RPCNN_HOST_DEVICE int list_pixels(const RoiAxis<G>& axis, int64_t cell, int64_t size, unsigned step,
                                  PixelWeight<A>* list) {
  int64_t first, last;
  roi_samples_inside(axis, cell, size, &first, &last);
  int count = 0;
  const A share = A(1) / A(axis.samples > 0 ? axis.samples : 1);
  for (int64_t k = first; k < last; ++k) {
    const Tap<G> tap = roi_tap(axis.position(cell, k), size);
    if (is_outside(tap)) continue;
    for (int side = 0; side < 2; ++side) {
      const A weight = A(side ? tap.w_hi : tap.w_lo) * share;
      const unsigned offset = static_cast<unsigned>(side ? tap.hi : tap.lo) * step;
      // Samples run along the axis, so that a pixel hit before is among the last three.
      int i = count - 1;
      while (i >= 0 && i > count - 4 && list[i].offset != offset) --i;
      if (i >= 0 && i > count - 4) {
        list[i].weight += weight;
      } else {
        list[count++] = {offset, weight};
      }
    }
  }
  for (int i = count; i % kStep != 0; ++i) list[i] = {list[0].offset, A(0)};
  return count;
}

// The mean of a cell's samples of V channels, without tables; image: the first of these channels.
template <typename Own, int V, typename T, typename G, typename A>
RPCNN_HOST_DEVICE void add_samples(const PlacedRoi<G>& roi, int p, int q, int64_t H, int64_t W, const T* image,
                                   int64_t step, int64_t C, A* sum) {
  int64_t y_first, y_last, x_first, x_last;
  roi_samples_inside(roi.y, p, H, &y_first, &y_last);
  roi_samples_inside(roi.x, q, W, &x_first, &x_last);
  const A mean = A(1) / (A(roi.y.samples) * A(roi.x.samples));
  for (int64_t a = y_first; a < y_last; ++a) {
    const Tap<G> y = roi_tap(roi.y.position(p, a), H);
    if (is_outside(y)) continue;
    for (int64_t b = x_first; b < x_last; ++b) {
      const Tap<G> x = roi_tap(roi.x.position(q, b), W);
      if (is_outside(x)) continue;
#pragma unroll 1
      for (int tap = 0; tap < 4; ++tap) {
        const A weight = A(tap & 2 ? y.w_hi : y.w_lo) * A(tap & 1 ? x.w_hi : x.w_lo) * mean;
        A value[V];
        Own::load(image + ((tap & 2 ? y.hi : y.lo) * W + (tap & 1 ? x.hi : x.lo)) * step, 0, H * W, 0, C, value);
#pragma unroll
        for (int k = 0; k < V; ++k) sum[k] += weight * value[k];
      }
    }
  }
}

// Grid: boxes, tiles of a box's cells, pieces of the channels.
template <typename T, typename G, int V, bool kInnermost>
__global__ void __launch_bounds__(kBlock, resident_blocks<G>(kInnermost ? 3 : 2))
    roi_align_kernel(RoiMaps<T> maps, const G* boxes, RoiRule rule, T* out) {
  using A = device_accumulate_t<T>;
  using Own = Channels<T, V, kInnermost>;
  using L = WarpMapping<V, kInnermost>;
  constexpr int kPack = kInnermost ? V : 1;
  struct Pack {
    T value[kPack];
  };
  SIMT_SHARED(PlacedRoi<G>, placed, [1]);
  SIMT_SHARED(PixelWeight<A>, pixels, [2 * kCellTile][kCellPixels + 2]);  // padded: lists start in different banks
  SIMT_SHARED(int, counts, [2 * kCellTile]);
  SIMT_SHARED(bool, listed, [1]);
  const int width = int(rule.width), height = int(rule.height), C = int(maps.C);
  const int across = (width + kCellTile - 1) / kCellTile, tiles = across * ((height + kCellTile - 1) / kCellTile);
  const int step = kInnermost ? C / kPack : 1;  // packs from a pixel to the next
  const int64_t r = blockIdx.x;
  for (int tile = blockIdx.y; tile < tiles; tile += int(gridDim.y)) {
    const int top = tile / across * kCellTile, left = tile % across * kCellTile;
    // Half a warp places the box, each lane by itself, and lists the pixels of the tile's rows and columns.
    if (threadIdx.y == 0 && threadIdx.x < 2 * kCellTile) {
      const int own = threadIdx.x % kCellTile, thread = threadIdx.x;
      const PlacedRoi<G> roi = place_roi(boxes + r * 5, maps, rule);
      if (thread == 0) placed[0] = roi;
      const bool rows = thread < kCellTile;
      const RoiAxis<G> axis{rows ? roi.y.start : roi.x.start, rows ? roi.y.bin : roi.x.bin,
                            rows ? roi.y.samples : roi.x.samples};
      const int cell = (rows ? top : left) + own;
      const int64_t size = rows ? maps.H[roi.level] : maps.W[roi.level];
      const int64_t W = maps.W[roi.level], packs = maps.H[roi.level] * W * step;
      const bool fit = pixels_fit(roi.y) && pixels_fit(roi.x) && packs <= UINT32_MAX;
      if (thread == 0) listed[0] = fit;
      counts[thread] = 0;
      if (fit && cell < (rows ? height : width))
        counts[thread] = list_pixels(axis, cell, size, unsigned((rows ? W : 1) * step), pixels[thread]);
    }
    __syncthreads();
    const PlacedRoi<G>& roi = placed[0];
    const int64_t H = maps.H[roi.level], W = maps.W[roi.level], plane = H * W;
    const bool in_tables = listed[0];
    // With channels innermost a warp takes a column of cells; with planes four rows of eight cells.
    const int q = kInnermost ? threadIdx.y : threadIdx.x % kCellTile;
    const int rows = height - top < kCellTile ? height - top : kCellTile, columns = counts[kCellTile + q];
    for (int piece = blockIdx.z; piece < L::pieces(C); piece += int(gridDim.z)) {
      const unsigned c = unsigned(piece) * L::kChannels + L::channel(threadIdx);
      if (c >= unsigned(C) || left + q >= width) break;
      const T* image = maps.map[roi.level] + roi.image * C * plane + (kInnermost ? 0 : c * plane);
      const Pack* packs = reinterpret_cast<const Pack*>(image);
      const unsigned own = kInnermost ? c / V : 0;
      for (int p = kInnermost ? 0 : threadIdx.x / kCellTile; p < rows; p += kInnermost ? 1 : 32 / kCellTile) {
        A sum[V] = {};
        if (in_tables) {
          for (int j = 0; j < columns; j += kStep) {
            const PixelWeight<A>* x = pixels[kCellTile + q] + j;
            for (int i = 0; i < counts[p]; ++i) {
              const PixelWeight<A> y = pixels[p][i];
              A value[kStep][V], line[V] = {};
#pragma unroll
              for (int t = 0; t < kStep; ++t)
                Own::load(packs[own + y.offset + x[t].offset].value, 0, plane, 0, C - c, value[t]);
#pragma unroll
              for (int t = 0; t < kStep; ++t)
#pragma unroll
                for (int k = 0; k < V; ++k) line[k] += x[t].weight * value[t][k];
#pragma unroll
              for (int k = 0; k < V; ++k) sum[k] += y.weight * line[k];
            }
          }
        } else {
          add_samples<Own, V>(roi, top + p, left + q, H, W, packs[own].value, int64_t(step) * kPack, C - c, sum);
        }
        Own::store(out + r * C * height * width, (top + p) * width + left + q, height * width, c, C, sum);
      }
    }
    __syncthreads();
  }
}

template <typename T>
bool packs_whole(const RoiMaps<T>& maps, const void* pooled) {
  bool whole = packs_divide<T>(maps.C) && starts_pack(pooled);
  for (int l = 0; l < maps.levels; ++l) whole = whole && starts_pack(maps.map[l]);
  return whole;
}

// R below 2³¹.
template <typename T, typename G>
void launch_roi_align(const RoiMaps<T>& maps, const G* boxes, int64_t R, const RoiRule& rule, T* out, Stream stream) {
  if (R * maps.C * rule.height * rule.width == 0) return;
  choose_channels<T>(maps.channels_last, packs_whole(maps, out), [&](auto v, auto innermost) {
    constexpr int V = decltype(v)::value;
    constexpr bool kInnermost = decltype(innermost)::value;
    using L = WarpMapping<V, kInnermost>;
    const int64_t tiles = ((rule.height + kCellTile - 1) / kCellTile) * ((rule.width + kCellTile - 1) / kCellTile);
    const dim3 grid(static_cast<unsigned>(R), grid_size(tiles), grid_size(maps.C, L::kChannels));
    SIMT_LAUNCH((roi_align_kernel<T, G, V, kInnermost>), grid, dim3(32, 8), 0, stream, maps, boxes, rule, out);
  });
}

}  // namespace rpcnn
