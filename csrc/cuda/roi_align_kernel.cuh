// roi_align and multilevel_roi_align: the mean of bilinear samples in each cell of a grid over each box, and its
// adjoint.
//
// Fewest bytes: the touched part of the maps read once and the output written once; backward: the gradient read once,
// every map gradient written once. All levels are one launch; each box finds its level by itself.
//
// A thread works on several channels of one place (channels.cuh), so that a sample's tap is computed once for all of
// them.
// Forward: a place is a cell; a block takes up to 8 × 8 cells of one box. Half a warp lists the pixels that the tile's
// rows and columns of cells read, with their weights: samples are separable, and those that hit one pixel are merged.
// Backward: a place is a pixel; a block takes a tile of pixels, goes through the boxes kBlock at a time, lists those
// that reach the tile (in order: a ballot per warp), tabulates their cells' weights on the tile's rows and columns, and
// gathers: no atomics, no zero fill, every element written once, the same sum in the same order at every run. A first
// small kernel places the boxes.
#pragma once

#include "../geometry/roi.h"
#include "channels.cuh"

namespace rpcnn {

constexpr int kTileRows = 8;     // pixel rows of a backward tile, one per warp
constexpr int kTileColumns = 4;  // pixels of a thread there, where channels are innermost

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
struct PixelWeight {
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
    for (int side = 0; side < 2; ++side) {
      const A weight = A(side ? tap.w_hi : tap.w_lo) * share;
      if (weight == A(0)) continue;
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
    for (int64_t b = x_first; b < x_last; ++b) {
      const Tap<G> x = roi_tap(roi.x.position(q, b), W);
#pragma unroll 1
      for (int tap = 0; tap < 4; ++tap) {
        const A weight = A(tap & 2 ? y.w_hi : y.w_lo) * A(tap & 1 ? x.w_hi : x.w_lo) * mean;
        if (weight == A(0)) continue;
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

// For every box its placement on its level, its map (level × N + image) and the pixels [top, bottom) × [left, right)
// that it reads. Every block of the backward tests every box; with separate arrays a test reads 4 to 20 bytes.
template <typename G>
struct RoiReaches {
  PlacedRoi<G>* placed;
  int *map, *top, *bottom, *left, *right;

  static int64_t bytes(int64_t R) { return R * int64_t(sizeof(PlacedRoi<G>) + 5 * sizeof(int)); }
  RoiReaches(void* scratch, int64_t R)
      : placed(static_cast<PlacedRoi<G>*>(scratch)),
        map(reinterpret_cast<int*>(placed + R)),
        top(map + R),
        bottom(top + R),
        left(bottom + R),
        right(left + R) {}
};

template <typename G>
RPCNN_HOST_DEVICE void axis_reach(const RoiAxis<G>& axis, int64_t cells, int64_t size, int* low, int* high) {
  *low = *high = 0;
  if (axis.samples == 0) return;
  double a = double(axis.start), b = double(axis.start) + double(axis.bin) * double(cells);
  if (a > b) {
    const double c = a;
    a = b, b = c;
  }
  a = std::floor(a) - 1.0, b = std::ceil(b) + 2.0;  // a sample reads two pixels; 1 more for rounding
  const double limit = double(size);
  *low = static_cast<int>(a < 0 ? 0.0 : (a > limit ? limit : a));
  *high = static_cast<int>(b < 0 ? 0.0 : (b > limit ? limit : b));
}

template <typename T, typename G>
__global__ void roi_reach_kernel(RoiMaps<T> maps, const G* boxes, int64_t R, RoiRule rule, RoiReaches<G> reaches) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t r = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; r < R; r += stride) {
    const PlacedRoi<G> roi = place_roi(boxes + r * 5, maps, rule);
    axis_reach(roi.y, rule.height, maps.H[roi.level], &reaches.top[r], &reaches.bottom[r]);
    axis_reach(roi.x, rule.width, maps.W[roi.level], &reaches.left[r], &reaches.right[r]);
    reaches.map[r] = static_cast<int>(roi.level * maps.N + roi.image);
    reaches.placed[r] = roi;
  }
}

constexpr int kFewSamples = 8;  // up to this number, test each sample: the search needs divisions in double

// The sum of the weights that a cell's samples give a pixel; 0 beyond the last cell.
template <typename G>
RPCNN_HOST_DEVICE G cell_weight(const RoiAxis<G>& axis, int64_t cell, int64_t cells, int64_t pixel, int64_t size) {
  if (cell >= cells) return G(0);
  int64_t first = 0, last = axis.samples;
  if (axis.samples > kFewSamples) {
    roi_samples_at(axis, cells, pixel, size, &first, &last);
    const int64_t begin = cell * axis.samples;
    first = first > begin ? first - begin : 0;
    last = last - begin < axis.samples ? last - begin : axis.samples;
  }
  G sum = 0;
  for (int64_t k = first; k < last; ++k) {
    const Tap<G> t = roi_tap(axis.position(cell, k), size);
    sum += (t.lo == pixel ? t.w_lo : G(0)) + (t.hi == pixel ? t.w_hi : G(0));
  }
  return sum;
}

constexpr int kGroup = 4;   // boxes whose weights a block tabulates at once
constexpr int kCells = 32;  // of their cells along an axis at a time

// The weights of a box's cells on the rows and columns of a tile: samples are separable.
template <typename A, int kColumns>
struct RoiWeights {
  A rows[kTileRows][kCells + 1], columns[kColumns][kCells + 1];  // padded by one: no two lanes use one bank
};

// Tiles of all images of all levels, level by level.
struct RoiTiles {
  int64_t begin[kMaxLevels + 1], columns[kMaxLevels], rows[kMaxLevels];
};

// One of them.
struct RoiTile {
  int64_t image;
  int level, map, top, left;
};

RPCNN_HOST_DEVICE RoiTile tile_of(const RoiTiles& tiles, int64_t images, int64_t index, int width) {
  RoiTile tile{};
  while (index >= tiles.begin[tile.level + 1]) ++tile.level;
  index -= tiles.begin[tile.level];
  const int64_t row = index / tiles.columns[tile.level];
  tile.left = static_cast<int>(index - row * tiles.columns[tile.level]) * width;
  tile.image = row / tiles.rows[tile.level];
  tile.map = static_cast<int>(tile.level * images + tile.image);
  tile.top = static_cast<int>(row - tile.image * tiles.rows[tile.level]) * kTileRows;
  return tile;
}

// Resident blocks of the backward with 16-byte packs; compiled for three on Blackwell, nvcc spills registers.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kResidentPacks = 2;
#else
constexpr int kResidentPacks = 3;
#endif

// Grid: tiles × pieces of the channels.
template <typename T, typename G, int V, bool kInnermost>
__global__ void __launch_bounds__(kBlock, resident_blocks<G>((kInnermost && (V == 2 || V == 4)) ? kResidentPacks : 2))
    roi_align_backward_kernel(RoiMaps<T> maps, RoiTiles tiles, RoiReaches<G> reaches, int R, RoiRule rule,
                              const T* grad) {
  using A = device_accumulate_t<T>;
  using Own = Channels<T, V, kInnermost>;
  using L = WarpMapping<V, kInnermost>;
  constexpr int kPixels = kInnermost ? kTileColumns : 1, kColumns = kInnermost ? kTileColumns : 32;
  using Weights = RoiWeights<A, kColumns>;
  SIMT_SHARED(Weights, weights, [kGroup]);
  SIMT_SHARED(int, listed, [kBlock]);
  SIMT_SHARED(int, counts, [kBlock / 32]);
  SIMT_SHARED(RoiTile, own_tile, [1]);  // in shared memory to save registers
  const int lane = threadIdx.x, warp = threadIdx.y;
  const int height = int(rule.height), width = int(rule.width), cells = height * width;
  const int C = static_cast<int>(maps.C);
  if (threadIdx.x == 0 && threadIdx.y == 0) own_tile[0] = tile_of(tiles, maps.N, blockIdx.x / L::pieces(C), kColumns);
  __syncthreads();
  const RoiTile& tile = own_tile[0];
  // With channels innermost each warp takes one row of the tile; with planes every thread takes all rows in turn.
  const int c = static_cast<int>(blockIdx.x % L::pieces(C)) * L::kChannels + L::channel(threadIdx);
  constexpr int kTurns = kInnermost ? 1 : kTileRows;
  A sum[kTurns][kPixels][V] = {};
  for (int base = 0; base < R; base += kBlock) {
    const int mine = base + warp * 32 + lane;
    const bool hit = mine < R && reaches.map[mine] == tile.map && reaches.top[mine] < tile.top + kTileRows &&
                     reaches.bottom[mine] > tile.top && reaches.left[mine] < tile.left + kColumns &&
                     reaches.right[mine] > tile.left;
    const unsigned hits = __ballot_sync(~0u, hit);
    if (lane == 0) counts[warp] = __popc(hits);
    __syncthreads();
    int offset = 0, total = 0;
    for (int w = 0; w < kBlock / 32; ++w) {
      if (w < warp) offset += counts[w];
      total += counts[w];
    }
    if (hit) listed[offset + __popc(hits & ((1u << lane) - 1))] = mine;
    __syncthreads();
    for (int first = 0; first < total; first += kGroup)
      for (int p0 = 0; p0 < height; p0 += kCells)
        for (int q0 = 0; q0 < width; q0 += kCells) {
          const int members = total - first < kGroup ? total - first : kGroup;
          const int share = kBlock / kGroup, thread = warp * 32 + lane, own = thread / share;
          if (own < members) {
            const PlacedRoi<G>& roi = reaches.placed[listed[first + own]];
            const G mean = G(1) / (G(roi.y.samples) * G(roi.x.samples));
            for (int i = thread % share; i < (kTileRows + kColumns) * kCells; i += share) {
              const int line = i / kCells, k = i % kCells;
              if (line < kTileRows) {
                weights[own].rows[line][k] =
                    A(cell_weight(roi.y, p0 + k, height, tile.top + line, maps.H[tile.level]) * mean);
              } else {
                const int x = line - kTileRows;
                weights[own].columns[x][k] = A(cell_weight(roi.x, q0 + k, width, tile.left + x, maps.W[tile.level]));
              }
            }
          }
          __syncthreads();
          for (int m = 0; c < C && m < members; ++m) {
            const T* source = grad + int64_t(listed[first + m]) * C * cells;
            const int p_end = height - p0 < kCells ? height - p0 : kCells;
            const int q_end = width - q0 < kCells ? width - q0 : kCells;
            for (int p = 0; p < p_end; ++p) {
              A wy[kTurns];
              bool any = false;
#pragma unroll
              for (int turn = 0; turn < kTurns; ++turn) {
                wy[turn] = weights[m].rows[kInnermost ? warp : turn][p];
                any = any || wy[turn] != A(0);
              }
              if (!any) continue;
              for (int q = 0; q < q_end; ++q) {
                A wx[kPixels];
                bool some = false;
#pragma unroll
                for (int j = 0; j < kPixels; ++j) {
                  wx[j] = weights[m].columns[kInnermost ? j : lane][q];
                  some = some || wx[j] != A(0);
                }
                if (!some) continue;
                A value[V];
                Own::load(source, (p0 + p) * width + q0 + q, cells, c, C, value);
#pragma unroll
                for (int turn = 0; turn < kTurns; ++turn)
#pragma unroll
                  for (int j = 0; j < kPixels; ++j) {
                    const A w = wy[turn] * wx[j];
                    if (w == A(0)) continue;  // 0 · NaN and 0 · ∞ are NaN
#pragma unroll
                    for (int k = 0; k < V; ++k) sum[turn][j][k] += w * value[k];
                  }
              }
            }
          }
          __syncthreads();
        }
  }
  if (c >= C) return;
  const int64_t H = maps.H[tile.level], W = maps.W[tile.level];
  T* image = maps.map[tile.level] + tile.image * C * H * W;
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    const int64_t y = tile.top + (kInnermost ? warp : turn);
#pragma unroll
    for (int j = 0; j < kPixels; ++j) {
      const int64_t x = tile.left + (kInnermost ? j : lane);
      if (y < H && x < W) Own::store(image, y * W + x, H * W, c, C, sum[turn][j]);
    }
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

// scratch: RoiReaches<G>::bytes(R), aligned as PlacedRoi is. R below 2³¹ − kBlock: threads step past it.
template <typename T, typename G>
void launch_roi_align_backward(const RoiMaps<T>& maps, const G* boxes, int64_t R, const RoiRule& rule, const T* grad,
                               void* scratch, Stream stream) {
  const RoiReaches<G> reaches(scratch, R);
  if (R) SIMT_LAUNCH((roi_reach_kernel<T, G>), blocks_for(R), kBlock, 0, stream, maps, boxes, R, rule, reaches);
  choose_channels<T>(maps.channels_last, packs_whole(maps, grad), [&](auto v, auto innermost) {
    constexpr int V = decltype(v)::value;
    constexpr bool kInnermost = decltype(innermost)::value;
    constexpr int64_t kColumns = kInnermost ? kTileColumns : 32;
    RoiTiles tiles{};
    for (int l = 0; l < maps.levels; ++l) {
      tiles.columns[l] = (maps.W[l] + kColumns - 1) / kColumns;
      tiles.rows[l] = (maps.H[l] + kTileRows - 1) / kTileRows;
      tiles.begin[l + 1] = tiles.begin[l] + maps.N * tiles.rows[l] * tiles.columns[l];
    }
    const int64_t blocks = tiles.begin[maps.levels] * WarpMapping<V, kInnermost>::pieces(maps.C);
    if (blocks)
      SIMT_LAUNCH((roi_align_backward_kernel<T, G, V, kInnermost>), static_cast<unsigned>(blocks), dim3(32, 8), 0,
                  stream, maps, tiles, reaches, static_cast<int>(R), rule, grad);
  });
}

}  // namespace rpcnn
