// The adjoint of roi_align and multilevel_roi_align.
//
// Fewest bytes: the gradient read once, every map gradient written once. All levels are one launch.
//
// A block takes a tile of pixels: 8 rows of 4 with channels innermost, of 32 with planes. It searches all boxes (one
// load of 16 bytes each), lists those that reach the tile in their order, tabulates the weights of their cells on the
// tile's rows and columns, and gathers: no atomics, no zero fill, every element written once, the same sum in the same
// order at every run. A first small kernel places the boxes and lists the pixels of their cells.
//
// Ladder, millions of warp instructions (SASS of sm_90 × trip counts of the loops replayed for typical boxes), float32,
// 256 channels, two 800 × 1216 images, and their time on an H100 at four instructions a cycle. None is measured; 1.4
// times as long is usual. Each: search + tables + gather + writing.
//   1,024 boxes, 5 levels
//     34 + 111 + 102      267 us  tables of 32 cells, every cell tested
//     13 + 8 + 54                 cells of boxes densely on lanes, ranges by a ballot of each warp
//     13 + 6 + 32 + 7      62 us  pixels listed once a box, the cells of a line as bits, one term a cell
//     13 + 6 + 35 + 7      66 us  as now: sums along one axis first
//   512 boxes, P2
//     12 + 285 + 185, 9 + 26 + 51, 9 + 14 + 38 + 6, 9 + 14 + 40 + 6;  521 us before, 75 us now
//   32 boxes of 32 × 32 cells
//     6 + 14 + 69, 9 + 3 + 11 + 6, 9 + 3 + 12 + 6;  96 us before, 31 us now
// The last costs 14 instead of 31 instructions a cell that a row reads and 15 more a column of cells: less where cells
// are small (a tile under a box of 32 × 32 cells: 63 instead of 89 thousand), slightly more elsewhere. In bfloat16,
// with one piece of the channels instead of two, search and tables halve. The hottest tile of the five levels (53
// boxes) takes 121 thousand instructions, 46 us at 1.5 a cycle (before 209 us). Tiles are not split: coarse levels,
// whose tiles lie under the most boxes, come first, so that the others run beside them; a hot tile of the finest level
// can still end a launch late.
#pragma once

#include "roi_align_kernel.cuh"

namespace rpcnn {

constexpr int kTileRows = 8;     // pixel rows of a tile; with channels innermost one for each warp
constexpr int kTileColumns = 4;  // pixels of a thread, where channels are innermost
constexpr int kSearch = 1024;    // boxes that a block searches at once: 32 words of one bit each
constexpr int kCells = 32;       // cells along an axis whose weights are tabulated at once: one for each lane

// Tiles of all images of all levels, level by level; rows of tiles are counted over all maps.
struct RoiTiles {
  int begin[kMaxLevels + 1], first_row[kMaxLevels], rows[kMaxLevels], columns[kMaxLevels];
  int width;  // pixels
};

struct RoiTile {
  int level, image, row, column, top, left;
};

RPCNN_HOST_DEVICE RoiTile tile_of(const RoiTiles& tiles, int index) {
  RoiTile tile{};
  while (index >= tiles.begin[tile.level + 1]) ++tile.level;
  index -= tiles.begin[tile.level];
  const int row = index / tiles.columns[tile.level];
  tile.image = row / tiles.rows[tile.level];
  tile.row = tiles.first_row[tile.level] + row;
  tile.column = index - row * tiles.columns[tile.level];
  tile.top = (row - tile.image * tiles.rows[tile.level]) * kTileRows;
  tile.left = tile.column * tiles.width;
  return tile;
}

// The tiles [row, row + rows) × [column, column + columns) that a box reaches. Every block tests every box: one load of
// 16 bytes.
struct alignas(16) RoiReach {
  int row, rows, column, columns;
};

// What a first small kernel computes of every box, for all tiles: its placement, its reach and the pixels that its
// cells read, rows of cells before columns. Cells of more than two samples along an axis are not listed.
template <typename T, typename G>
struct RoiReaches {
  using A = device_accumulate_t<T>;
  PlacedRoi<G>* placed;
  RoiReach* reach;
  PixelWeight<A>* pixels;  // [R, height + width, kStep], of weight 0 after the last
  int height, width;

  RPCNN_HOST_DEVICE int64_t first_pixel(int64_t box, bool along_y, int cell) const {
    return (box * (height + width) + (along_y ? 0 : height) + cell) * kStep;
  }
  static int64_t bytes(int64_t R, const RoiRule& rule) {
    const int64_t lists = (rule.height + rule.width) * kStep * int64_t(sizeof(PixelWeight<A>));
    return R * (int64_t(sizeof(PlacedRoi<G>) + sizeof(RoiReach)) + lists);
  }
  RoiReaches(void* scratch, int64_t R, const RoiRule& rule)
      : placed(static_cast<PlacedRoi<G>*>(scratch)),
        reach(reinterpret_cast<RoiReach*>(placed + R)),
        pixels(reinterpret_cast<PixelWeight<A>*>(reach + R)),
        height(int(rule.height)),
        width(int(rule.width)) {
    static_assert(sizeof(PlacedRoi<G>) % 16 == 0, "what follows is aligned to 16 bytes");
  }
};

// The tiles of `side` pixels that an axis reaches: the first of them; their number.
template <typename G>
RPCNN_HOST_DEVICE int axis_reach(const RoiAxis<G>& axis, int64_t cells, int64_t size, int side, int* first) {
  *first = 0;
  if (axis.samples == 0) return 0;
  double a = double(axis.start), b = double(axis.start) + double(axis.bin) * double(cells);
  if (a > b) {
    const double c = a;
    a = b, b = c;
  }
  a = std::floor(a) - 1.0, b = std::ceil(b) + 2.0;  // a sample reads two pixels; 1 more for rounding
  const double limit = double(size);
  const int low = static_cast<int>(a < 0 ? 0.0 : (a > limit ? limit : a));
  const int high = static_cast<int>(b < 0 ? 0.0 : (b > limit ? limit : b));
  *first = low / side;
  return high > low ? (high - 1) / side - *first + 1 : 0;
}

template <typename G>
RPCNN_HOST_DEVICE bool is_listed(const RoiAxis<G>& axis) {
  return axis.samples <= kStep / 2;
}

// Grid: rows and columns of cells of all boxes, one for each thread.
template <typename T, typename G>
__global__ void roi_reach_kernel(RoiMaps<T> maps, const G* boxes, int64_t R, RoiRule rule, RoiTiles tiles,
                                 RoiReaches<T, G> reaches) {
  using A = device_accumulate_t<T>;
  const int lines = int(rule.height + rule.width);
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < R * lines; i += stride) {
    const int64_t r = i / lines;
    const int line = static_cast<int>(i - r * lines);
    const PlacedRoi<G> roi = place_roi(boxes + r * 5, maps, rule);
    if (line == 0) {
      RoiReach reach;
      reach.rows = axis_reach(roi.y, rule.height, maps.H[roi.level], kTileRows, &reach.row);
      reach.columns = axis_reach(roi.x, rule.width, maps.W[roi.level], tiles.width, &reach.column);
      reach.row += tiles.first_row[roi.level] + static_cast<int>(roi.image) * tiles.rows[roi.level];
      reaches.reach[r] = reach;
      reaches.placed[r] = roi;
    }
    const bool along_y = line < rule.height;
    const RoiAxis<G> axis{along_y ? roi.y.start : roi.x.start, along_y ? roi.y.bin : roi.x.bin,
                          along_y ? roi.y.samples : roi.x.samples};
    PixelWeight<A>* list = reaches.pixels + i * kStep;
    for (int k = 0; k < kStep; ++k) list[k] = {0, A(0)};
    if (is_listed(axis))
      list_pixels(axis, along_y ? line : line - rule.height, (along_y ? maps.H : maps.W)[roi.level], 1, list);
  }
}

constexpr int kFewSamples = 8;  // up to this number, test each sample: the search needs divisions in double

// Adds the weights that a cell's samples give the pixels [begin, begin + count) of an axis to weights[0],
// weights[step], …; returns a bit for each pixel whose weight is not 0.
template <typename A, typename G>
RPCNN_HOST_DEVICE unsigned add_weights(const RoiAxis<G>& axis, int64_t cell, int64_t cells, int64_t size, int begin,
                                       int count, A* weights, int step) {
  int64_t first = 0, last = axis.samples;
  if (axis.samples > kFewSamples) {
    roi_samples_at(axis, cells, begin, begin + count, size, &first, &last);
    const int64_t before = cell * axis.samples;
    first = first > before ? first - before : 0;
    last = last - before < axis.samples ? last - before : axis.samples;
  }
  const A share = A(1) / A(axis.samples > 0 ? axis.samples : 1);
  unsigned read = 0;
  for (int64_t k = first; k < last; ++k) {
    const Tap<G> tap = roi_tap(axis.position(cell, k), size);
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const int line = static_cast<int>(side ? tap.hi : tap.lo) - begin;
      const A weight = A(side ? tap.w_hi : tap.w_lo) * share;
      if (weight == A(0) || line < 0 || line >= count) continue;
      weights[line * step] += weight;
      read |= 1u << line;
    }
  }
  return read;
}

// The weights of a box's cells on the rows and columns of a tile: samples are separable.
template <typename A, bool kInnermost>
struct RoiWeights {
  static constexpr int kColumns = kInnermost ? kTileColumns : 32;  // of a tile
  static constexpr int kPitch = kColumns + (kInnermost ? 0 : 1);   // odd: no two lanes use one bank
  alignas(16) A columns[kCells][kPitch];
  A rows[kTileRows][kCells + 1];
  // A bit for each cell that reads a row of the tile (with planes: any row), and any column.
  unsigned row_cells[kInnermost ? kTileRows : 1], column_cells;
};

// Tabulates the weights of a cell, of `cells` along an axis of `size` pixels, on a tile's rows or columns, as number k
// of its box; returns a bit for each of them that it reads.
template <typename T, typename G, typename Weights>
RPCNN_HOST_DEVICE unsigned tabulate_cell(const RoiReaches<T, G>& reaches, int box, bool along_y, int cell, int cells,
                                         int64_t size, const RoiTile& tile, Weights& weights, int k) {
  using A = device_accumulate_t<T>;
  const RoiAxis<G>& axis = *(along_y ? &reaches.placed[box].y : &reaches.placed[box].x);
  const PixelWeight<A>* pixels = reaches.pixels + reaches.first_pixel(box, along_y, cell);
  PixelWeight<A> list[kStep];  // loaded before it is known whether it is filled: one wait instead of two
#pragma unroll
  for (int i = 0; i < kStep; ++i) list[i] = pixels[i];
  const int lines = along_y ? kTileRows : Weights::kColumns, begin = along_y ? tile.top : tile.left;
  const int step = along_y ? kCells + 1 : 1;
  A* own = along_y ? &weights.rows[0][k] : weights.columns[k];
  for (int line = 0; line < lines; ++line) own[line * step] = A(0);
  if (!is_listed(axis)) return add_weights(axis, cell, cells, size, begin, lines, own, step);
  unsigned read = 0;
#pragma unroll
  for (int i = 0; i < kStep; ++i) {
    const unsigned line = list[i].offset - unsigned(begin);
    if (list[i].weight == A(0) || line >= unsigned(lines)) continue;
    own[line * step] = list[i].weight;
    read |= 1u << line;
  }
  return read;
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
    roi_align_backward_kernel(RoiMaps<T> maps, RoiTiles tiles, RoiReaches<T, G> reaches, int R, RoiRule rule,
                              const T* grad) {
  using A = device_accumulate_t<T>;
  using Own = Channels<T, V, kInnermost>;
  using L = WarpMapping<V, kInnermost>;
  using Weights = RoiWeights<A, kInnermost>;
  constexpr int kGroup = kInnermost ? 8 : 4;                      // boxes whose weights are tabulated at once
  constexpr int kPixels = kInnermost ? kTileColumns : kTileRows;  // of a thread: of one row, of one column
  SIMT_SHARED(Weights, weights, [kGroup]);
  SIMT_SHARED(unsigned, words, [kSearch / 32]);
  SIMT_SHARED(int, listed, [kSearch]);
  SIMT_SHARED(RoiTile, own_tile, [1]);  // in shared memory to save registers
  const int lane = threadIdx.x, warp = threadIdx.y, thread = warp * 32 + lane;
  const int height = int(rule.height), width = int(rule.width), cells = height * width;
  const int C = static_cast<int>(maps.C), pieces = static_cast<int>(L::pieces(C));
  // The last level comes first: its tiles lie under the most boxes, and started last they would run alone.
  if (thread == 0) own_tile[0] = tile_of(tiles, tiles.begin[maps.levels] - 1 - int(blockIdx.x) / pieces);
  __syncthreads();
  const RoiTile& tile = own_tile[0];
  // With channels innermost each warp takes one row of the tile; with planes every thread takes all rows in turn.
  const int c = int(blockIdx.x) % pieces * L::kChannels + L::channel(threadIdx);
  struct Pack {
    T value[kInnermost ? V : 1];
  };
  const int step = kInnermost ? C / V : 1, pack = kInnermost ? c / V : 0;  // packs from a cell to the next; the own one
  A sum[kPixels][V] = {};
  for (int base = 0; base < R; base += kSearch) {
#pragma unroll
    for (int k = 0; k < kSearch / kBlock; ++k) {
      const int mine = base + k * kBlock + thread;
      bool hit = false;
      if (mine < R) {
        const RoiReach reach = reaches.reach[mine];
        hit = unsigned(tile.row - reach.row) < unsigned(reach.rows) &&
              unsigned(tile.column - reach.column) < unsigned(reach.columns);
      }
      const unsigned hits = __ballot_sync(~0u, hit);
      if (lane == 0) words[k * (kBlock / 32) + warp] = hits;
    }
    __syncthreads();
    // Every warp counts the hits, a word for each lane; the first lists them in order.
    unsigned hits = words[lane];
    int end = __popc(hits);
    for (int d = 1; d < 32; d *= 2) {
      const int before = __shfl_up_sync(~0u, end, d);
      if (lane >= d) end += before;
    }
    const int total = __shfl_sync(~0u, end, 31);
    if (warp == 0)
      for (int at = end - __popc(hits); hits; hits &= hits - 1) listed[at++] = base + lane * 32 + __ffs(hits) - 1;
    __syncthreads();
    for (int first = 0; first < total; first += kGroup)
      for (int p0 = 0; p0 < height; p0 += kCells)
        for (int q0 = 0; q0 < width; q0 += kCells) {
          const int members = total - first < kGroup ? total - first : kGroup;
          const int ps = height - p0 < kCells ? height - p0 : kCells, qs = width - q0 < kCells ? width - q0 : kCells;
          // A lane tabulates one cell; the cells of an axis take 8, 16 or 32 lanes, so that a ballot tells who reads a
          // line.
          int bits = 3;
          while ((1 << bits) < (ps > qs ? ps : qs)) ++bits;
          const int together = 32 >> bits, k = lane & ((1 << bits) - 1);
          for (int turn = warp * together; turn < 2 * members; turn += together * (kBlock / 32)) {
            const int axis_number = turn + (lane >> bits), m = axis_number / 2;
            const bool exists = axis_number < 2 * members, along_y = axis_number % 2 == 0;
            unsigned read = 0;  // a bit for each line of the tile
            if (exists && k < (along_y ? ps : qs))
              read =
                  tabulate_cell(reaches, listed[first + m], along_y, k + (along_y ? p0 : q0), along_y ? height : width,
                                along_y ? maps.H[tile.level] : maps.W[tile.level], tile, weights[m], k);
            const auto cells_where = [&](bool reads) {
              return __ballot_sync(~0u, reads) >> (lane - k) & (~0u >> (32 - (1 << bits)));
            };
            const unsigned any = cells_where(read != 0);
            unsigned own_row = any;
            if (kInnermost) {
#pragma unroll
              for (int line = 0; line < kTileRows; ++line) {
                const unsigned reading = cells_where(read >> line & 1);
                if (line == k) own_row = reading;
              }
            }
            if (exists && along_y && k < (kInnermost ? kTileRows : 1)) weights[m].row_cells[k] = own_row;
            if (exists && !along_y && k == 0) weights[m].column_cells = any;
          }
          __syncthreads();
          for (int m = 0; m < members; ++m) {
            const Weights& own = weights[m];
            // Cells that read one line are neighbors, because samples run along the axis. A thread adds the cells up
            // along the axis on which it has one pixel, and then gives each sum to its pixels on the other.
            const unsigned rows = own.row_cells[kInnermost ? warp : 0], columns = own.column_cells;
            if (rows == 0 || columns == 0 || c >= C) continue;
            const unsigned outer = kInnermost ? columns : rows, inner = kInnermost ? rows : columns;
            const int i_first = __ffs(inner) - 1, i_last = 32 - __clz(inner);
            const Pack* box =
                reinterpret_cast<const Pack*>(grad + (int64_t(listed[first + m]) * C + (kInnermost ? 0 : c)) * cells);
            for (int o = __ffs(outer) - 1; o < 32 - __clz(outer); ++o) {
              A line[V] = {};
#pragma unroll 2
              for (int i = i_first; i < i_last; ++i) {
                const int p = kInnermost ? i : o, q = kInnermost ? o : i;
                const A w = kInnermost ? own.rows[warp][p] : own.columns[q][lane];
                if (w == A(0)) continue;  // 0 · NaN and 0 · ∞ are NaN
                A value[V];
                Own::load(box[unsigned((p0 + p) * width + q0 + q) * step + pack].value, 0, cells, 0, C - c, value);
#pragma unroll
                for (int k = 0; k < V; ++k) line[k] += w * value[k];
              }
#pragma unroll
              for (int j = 0; j < kPixels; ++j) {
                const A w = kInnermost ? own.columns[o][j] : own.rows[j][o];
                if (w == A(0)) continue;
#pragma unroll
                for (int k = 0; k < V; ++k) sum[j][k] += w * line[k];
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
  for (int j = 0; j < kPixels; ++j) {
    const int64_t y = tile.top + (kInnermost ? warp : j), x = tile.left + (kInnermost ? j : lane);
    if (y < H && x < W) Own::store(image, y * W + x, H * W, c, C, sum[j]);
  }
}

// scratch: RoiReaches<T, G>::bytes(R, rule), aligned to 16 bytes. R below 2³¹ − kSearch: threads step past it.
template <typename T, typename G>
void launch_roi_align_backward(const RoiMaps<T>& maps, const G* boxes, int64_t R, const RoiRule& rule, const T* grad,
                               void* scratch, Stream stream) {
  const RoiReaches<T, G> reaches(scratch, R, rule);
  choose_channels<T>(maps.channels_last, packs_whole(maps, grad), [&](auto v, auto innermost) {
    constexpr int V = decltype(v)::value;
    constexpr bool kInnermost = decltype(innermost)::value;
    RoiTiles tiles{};
    tiles.width = kInnermost ? kTileColumns : 32;
    for (int l = 0; l < maps.levels; ++l) {
      tiles.columns[l] = static_cast<int>((maps.W[l] + tiles.width - 1) / tiles.width);
      tiles.rows[l] = static_cast<int>((maps.H[l] + kTileRows - 1) / kTileRows);
      const int rows = static_cast<int>(maps.N) * tiles.rows[l];
      tiles.begin[l + 1] = tiles.begin[l] + rows * tiles.columns[l];
      if (l + 1 < maps.levels) tiles.first_row[l + 1] = tiles.first_row[l] + rows;
    }
    const int64_t blocks = tiles.begin[maps.levels] * WarpMapping<V, kInnermost>::pieces(maps.C);
    if (!blocks) return;
    if (R)
      SIMT_LAUNCH((roi_reach_kernel<T, G>), blocks_for(R * (rule.height + rule.width)), kBlock, 0, stream, maps, boxes,
                  R, rule, tiles, reaches);
    SIMT_LAUNCH((roi_align_backward_kernel<T, G, V, kInnermost>), static_cast<unsigned>(blocks), dim3(32, 8), 0, stream,
                maps, tiles, reaches, static_cast<int>(R), rule, grad);
  });
}

}  // namespace rpcnn
