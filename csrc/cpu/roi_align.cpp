// roi_align and multilevel_roi_align: out[r, c] = Wy[r] · map[level_r][image_r, c] · Wx[r]ᵀ, forward and backward.
//
// Fewest bytes: the pixels that boxes read, once, and the output written once; for [2, 256, 200, 304], 512 boxes, 7×7
// in fp32 119 + 26 MB. Backward: the gradient read once, every map gradient written once: 125 + 26 MB. The bottleneck
// is reading the pixels of the cells from the caches: 16 per channel and cell of 7×7, 411 MB.
// Work split. Channels innermost: a pixel is one contiguous vector over channels; forward by rows of cells, those of
// neighboring boxes after one another; backward by strips of rows that walk the boxes in order. Otherwise, planes:
// eight at a time, transposed to vectors of eight channels; backward by plane. No two threads write one place, no
// atomics, and every sum runs in the same order for any number of threads.
//
// Ladder, 512 boxes 7×7 on [2, 256, 200, 304] in fp32, two cores, times faster than torchvision:
//   forward, channels last   26  by box; prefetching the next cell's pixels gained nothing
//                            30  rows of cells in the order of their places; the L3 cache limits: 411 MB are read
//   forward, planes          0.5 by box: memory is read at random
//                            4.9 by plane: rows of cells blended along y, then gathered along x from the L1 cache;
//                                GCC's generic tuning has no gathers, so that each tap was a load and an insertion
//                            11  eight planes transposed, a tap is a vector
//                            12  as many taps for every cell: no multiplications of addresses
//   backward                 13 to 17 planes, 6 to 35 channels last: the gradient's 125 MB are fresh memory, which the
//                                system clears (10 ms); where it is retained (see benchmarks/RESULTS.md) 17 and 35
// Half types halve the bytes from memory; conversions in vectors cost as much again as the sums.
#include <cstring>
#include <limits>

#include "../roi_arguments.h"
#include "radix_sort.h"
#include "roi_weights.h"
#include "vectors.h"
#include "weighted_sum.h"

namespace rpcnn {
namespace {

template <typename T, typename A>
RPCNN_CLONES void convert(const A* from, T* __restrict to, int64_t count) {
  for (int64_t c = 0; c < count; ++c) to[c] = T(from[c]);
}

// Channels innermost: row i of a box's cells from its map [H, W, C] into out [width, C]; `wide` holds C sums of half
// maps.
template <typename T, typename A>
void pool_row(const Roi<A>& roi, int64_t i, const T* map, int64_t W, int64_t C, int64_t width, T* out, A* wide,
              Terms<T, A>& terms) {
  for (int64_t j = 0; j < width; ++j, out += C) {
    terms.clear();
    for (auto y = roi.y.cells.first(i); y != roi.y.cells.last(i); ++y)
      for (auto x = roi.x.cells.first(j); x != roi.x.cells.last(j); ++x)
        terms.add(map + (y->column * W + x->column) * C, y->weight * x->weight);
    if constexpr (std::is_same_v<A, T>) {
      add_up(out, terms, C, true);
    } else {
      add_up(wide, terms, C, true);
      convert<T, A>(wide, out, C);
    }
  }
}

// Pixels of eight planes, `stride` apart, as [count][8]; planes from `channels` on as zeros.
template <typename T, typename A>
RPCNN_CLONES void interleave(const T* planes, int64_t stride, int64_t channels, int64_t count, A* tile) {
  int64_t k = 0;
  if (channels == kLanes) {
    for (; k + kLanes <= count; k += kLanes) {
      if constexpr (std::is_same_v<A, T>) {
        transpose<A>(planes + k, stride, tile + k * kLanes, kLanes);
      } else {
        A block[kLanes * kLanes];
        for (int64_t c = 0; c < kLanes; ++c)
          for (int64_t i = 0; i < kLanes; ++i) block[c * kLanes + i] = A(planes[c * stride + k + i]);
        transpose<A>(block, kLanes, tile + k * kLanes, kLanes);
      }
    }
  }
  for (; k < count; ++k)
    for (int64_t c = 0; c < kLanes; ++c) tile[k * kLanes + c] = c < channels ? A(planes[c * stride + k]) : A(0);
}

// A box's weights along x as pool_tile reads them: every cell has the same number of taps. Missing ones have weight 0
// at a pixel that the cell reads anyway, so that a NaN elsewhere does not spread. Cells that read nothing have count 0.
template <typename A>
struct TileTaps {
  int64_t most = 0;             // taps of a cell
  std::vector<int32_t> offset;  // [cells][most], in numbers from the tile's first column
  std::vector<A> weight;
  std::vector<uint8_t> any;  // [cells]

  TileTaps() = default;
  TileTaps(const AxisWeights<A>& x, int64_t cells, int64_t left) : any(cells) {
    for (int64_t j = 0; j < cells; ++j) most = std::max(most, x.cells.count(j));
    offset.assign(cells * most, 0), weight.assign(cells * most, A(0));
    for (int64_t j = 0; j < cells; ++j) {
      any[j] = x.cells.count(j) > 0;
      for (int64_t t = 0; any[j] && t < most; ++t) {
        const bool real = t < x.cells.count(j);
        offset[j * most + t] = int32_t((x.cells.first(j)[real ? t : 0].column - left) * kLanes);
        weight[j * most + t] = real ? x.cells.first(j)[t].weight : A(0);
      }
    }
  }
};

// cells [height · width][8] of a box from a tile of pixels [.., width_in][8] that begins with row `top`. kTaps is the
// number of taps along x, 0 for any.
template <typename A, int kTaps>
RPCNN_CLONES void pool_tile(const SparseRows<A>& rows, const TileTaps<A>& x, const A* tile, int64_t top,
                            int64_t width_in, const Pooling& p, A* cells) {
  const int64_t taps = kTaps ? kTaps : x.most, height = p.height, width = p.width;
  for (int64_t i = 0; i < height; ++i) {
    const auto *first = rows.first(i), *last = rows.last(i);
    const int32_t* offset = x.offset.data();
    const A* weight = x.weight.data();
    for (int64_t j = 0; j < width; ++j, cells += kLanes, offset += taps, weight += taps) {
      typename Lanes<A>::Values sum = {}, pixel;
      for (auto y = first; y != last && x.any[j]; ++y) {
        typename Lanes<A>::Values line = {};
        const A* row = tile + (y->column - top) * width_in * kLanes;
#pragma GCC unroll 4
        for (int64_t t = 0; t < taps; ++t) {
          load(row + offset[t], pixel);
          line += weight[t] * pixel;
        }
        sum += y->weight * line;
      }
      store(sum, cells);
    }
  }
}

template <typename A>
void pool_tile(const Roi<A>& roi, const TileTaps<A>& x, const A* tile, int64_t top, int64_t width_in, const Pooling& p,
               A* cells) {
  const auto pool = x.most == 3 ? pool_tile<A, 3> : x.most == 4 ? pool_tile<A, 4> : pool_tile<A, 0>;
  pool(roi.y.cells, x, tile, top, width_in, p, cells);
}

// The cells [height, width] of a box from one plane, in the order of sums of pool_tile.
template <typename T, typename A>
void pool_plane(const Roi<A>& roi, const T* plane, int64_t W, const Pooling& p, T* out) {
  for (int64_t i = 0; i < p.height; ++i)
    for (int64_t j = 0; j < p.width; ++j) {
      A sum = 0;
      for (auto y = roi.y.cells.first(i); y != roi.y.cells.last(i) && roi.x.cells.count(j); ++y) {
        A line = 0;
        for (auto x = roi.x.cells.first(j); x != roi.x.cells.last(j); ++x)
          line += x->weight * A(plane[y->column * W + x->column]);
        sum += y->weight * line;
      }
      *out++ = T(sum);
    }
}

// cells [count][8] into the first `channels` of out [8][count].
template <typename T, typename A>
RPCNN_CLONES void separate(const A* cells, int64_t count, int64_t channels, T* out) {
  int64_t k = 0;
  if constexpr (std::is_same_v<A, T>)
    if (channels == kLanes)
      for (; k + kLanes <= count; k += kLanes) transpose<A>(cells + k * kLanes, kLanes, out + k, count);
  for (; k < count; ++k)
    for (int64_t c = 0; c < channels; ++c) out[c * count + k] = T(cells[k * kLanes + c]);
}

// Every box's weights.
template <typename A>
std::vector<Roi<A>> build_rois(const Tensor& boxes, const Pooling& p, const std::vector<MapSize>& sizes) {
  std::vector<Roi<A>> rois(boxes.size(0));
  parallel(boxes.size(0), 8, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) build_roi(boxes, r, p, sizes, rois[r]);
  });
  return rois;
}

// The boxes of each level and image, at [level · images + image], in their order.
template <typename A>
std::vector<std::vector<int64_t>> group_rois(const std::vector<Roi<A>>& rois, int64_t levels, int64_t images) {
  std::vector<std::vector<int64_t>> members(levels * images);
  for (size_t r = 0; r < rois.size(); ++r) members[rois[r].level * images + rois[r].image].push_back(int64_t(r));
  return members;
}

template <typename A>
int64_t widest(const std::vector<Roi<A>>& rois) {
  int64_t most = 1;
  for (const auto& roi : rois) most = std::max(most, roi.x.high - roi.x.low);
  return most;
}

// The rows of cells of all boxes, neighbors on the maps one after another, so that what several read is still in the
// L2 cache: by tiles of 16 rows and 32 columns.
template <typename A>
std::vector<Keyed<uint64_t>> rows_by_place(const std::vector<Roi<A>>& rois, int64_t height) {
  STD_TORCH_CHECK(int64_t(rois.size()) <= std::numeric_limits<int32_t>::max() / height,
                  "roi_align: at most 2^31 - 1 rows of cells, got ", rois.size(), " boxes of ", height);
  std::vector<Keyed<uint64_t>> rows;
  rows.reserve(rois.size() * height);
  for (const auto& roi : rois)
    for (int64_t i = 0; i < height; ++i) {
      const uint64_t y = roi.y.cells.count(i) ? uint64_t(roi.y.cells.first(i)->column) : 0;
      const uint64_t tile = std::min<uint64_t>(y / 16, 0xfff) << 12 | std::min<uint64_t>(roi.x.low / 32, 0xfff);
      rows.push_back({uint64_t(roi.level) << 56 | uint64_t(roi.image) << 24 | tile, int32_t(rows.size())});
    }
  radix_sort(rows);
  return rows;
}

template <typename T>
void forward_channels_last(const std::vector<Tensor>& maps, const std::vector<MapSize>& sizes, const Tensor& boxes,
                           const Pooling& p, T* out) {
  using A = accumulate_t<T>;
  const int64_t C = maps[0].size(1);
  const auto rois = build_rois<A>(boxes, p, sizes);
  const auto rows = rows_by_place(rois, p.height);
  parallel(int64_t(rows.size()), 1, [&](int64_t begin, int64_t end) {
    Terms<T, A> terms;
    std::vector<A> wide(C);
    for (int64_t k = begin; k < end; ++k) {
      const int64_t row = rows[k].index;
      const Roi<A>& roi = rois[row / p.height];
      const MapSize size = sizes[roi.level];
      const T* map = maps[roi.level].template const_data_ptr<T>() + roi.image * C * size.H * size.W;
      pool_row<T, A>(roi, row % p.height, map, size.W, C, p.width, out + row * p.width * C, wide.data(), terms);
    }
  });
}

constexpr int64_t kMostTile = int64_t(1) << 24;  // pixels: 512 MB of floats a thread, and offsets that fit in 32 bits

// Eight planes at a time: their pixels are interleaved into a tile, so that a tap is one vector of channels. A tile is
// the whole map (2 MB for 200 × 304 floats: the L2 cache) where the boxes together would read it more than once,
// else the rows that one box reads. A box whose tile would not fit in kMostTile reads the planes one by one.
template <typename T>
void forward_planes(const std::vector<Tensor>& maps, const std::vector<MapSize>& sizes, const Tensor& boxes,
                    const Pooling& p, T* out) {
  using A = accumulate_t<T>;
  const int64_t N = maps[0].size(0), C = maps[0].size(1), groups = (C + kLanes - 1) / kLanes;
  const auto rois = build_rois<A>(boxes, p, sizes);
  const auto members = group_rois(rois, int64_t(maps.size()), N);
  std::vector<bool> whole(members.size());
  const auto tiled = [&](int64_t r) {
    return rois[r].y.extent() <= kMostTile / std::max<int64_t>(1, rois[r].x.extent());
  };
  int64_t largest = 0;  // pixels of a tile
  for (size_t m = 0; m < members.size(); ++m) {
    const int64_t pixels = sizes[m / N].H * sizes[m / N].W;
    int64_t read = 0;
    for (const int64_t r : members[m]) {
      read += rois[r].rows_read() * rois[r].x.extent();
      if (tiled(r)) largest = std::max(largest, rois[r].y.extent() * rois[r].x.extent());
    }
    whole[m] = read > pixels && pixels <= kMostTile;
    if (whole[m]) largest = std::max(largest, pixels);
  }
  std::vector<TileTaps<A>> taps(rois.size());
  parallel(int64_t(rois.size()), 8, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      if (tiled(r))
        taps[r] = TileTaps<A>(rois[r].x, p.width, whole[rois[r].level * N + rois[r].image] ? 0 : rois[r].x.low);
  });
  std::vector<int64_t> images;  // that have a box: threads share their planes evenly
  for (int64_t n = 0; n < N; ++n)
    if (std::any_of(rois.begin(), rois.end(), [&](const auto& roi) { return roi.image == n; })) images.push_back(n);
  parallel(int64_t(images.size()) * groups, 1, [&](int64_t begin, int64_t end) {
    std::vector<A> tile(largest * kLanes), cells(p.height * p.width * kLanes);
    std::vector<bool> filled;
    for (int64_t i = begin; i < end; ++i)
      for (size_t l = 0; l < maps.size(); ++l) {
        const int64_t n = images[i / groups], first = i % groups * kLanes, channels = std::min(kLanes, C - first);
        const auto [H, W] = sizes[l];
        const T* planes = maps[l].template const_data_ptr<T>() + (n * C + first) * H * W;
        if (whole[l * N + n]) interleave<T, A>(planes, H * W, channels, H * W, tile.data());
        for (const int64_t r : members[l * N + n]) {
          const Roi<A>& roi = rois[r];
          if (!tiled(r)) {
            for (int64_t c = 0; c < channels; ++c)
              pool_plane<T, A>(roi, planes + c * H * W, W, p, out + (r * C + first + c) * p.height * p.width);
            continue;
          }
          if (whole[l * N + n]) {
            pool_tile<A>(roi, taps[r], tile.data(), 0, W, p, cells.data());
          } else {
            filled.assign(roi.y.extent(), false);
            for (const auto& y : roi.y.cells.entries) {
              const int64_t row = y.column - roi.y.low;
              if (!filled[row])
                interleave<T, A>(planes + y.column * W + roi.x.low, H * W, channels, roi.x.extent(),
                                 tile.data() + row * roi.x.extent() * kLanes);
              filled[row] = true;
            }
            pool_tile<A>(roi, taps[r], tile.data(), roi.y.low, roi.x.extent(), p, cells.data());
          }
          separate<T, A>(cells.data(), p.height * p.width, channels, out + (r * C + first) * p.height * p.width);
        }
      }
  });
}

// A box's weights from the pixels' side.
template <typename A>
struct Readers {
  SparseRows<A> y, x;
};

// Adds a box's gradient [height, width, C] to the rows [top, bottom) of a map gradient, `strip` starting at row top.
template <typename T, typename A>
void unpool_channels_last(const Roi<A>& roi, const Readers<A>& readers, const T* grad, int64_t W, int64_t C,
                          int64_t width, int64_t top, int64_t bottom, A* strip, Terms<T, A>& terms) {
  for (int64_t y = std::max(top, roi.y.low); y < std::min(bottom, roi.y.high); ++y) {
    const int64_t i = y - roi.y.low;
    if (readers.y.count(i) == 0) continue;
    for (int64_t x = roi.x.low; x < roi.x.high; ++x) {
      const int64_t j = x - roi.x.low;
      terms.clear();
      for (auto p = readers.y.first(i); p != readers.y.last(i); ++p)
        for (auto q = readers.x.first(j); q != readers.x.last(j); ++q)
          terms.add(grad + (p->column * width + q->column) * C, p->weight * q->weight);
      add_up(strip + ((y - top) * W + x) * C, terms, C, false);
    }
  }
}

// Adds a box's gradient [height, width] of one channel to a plane.
template <typename T, typename A>
RPCNN_CLONES void unpool_plane(const Roi<A>& roi, const T* grad, int64_t W, const Pooling& p, A* __restrict plane,
                               A* __restrict row) {
  const int64_t left = roi.x.low, count = roi.x.high - left;
  for (int64_t i = 0; i < p.height; ++i, grad += p.width) {
    if (roi.y.cells.count(i) == 0) continue;
    for (int64_t x = 0; x < count; ++x) row[x] = A(0);
    for (int64_t j = 0; j < p.width; ++j) {
      const A g = A(grad[j]);
      for (auto x = roi.x.cells.first(j); x != roi.x.cells.last(j); ++x) row[x->column - left] += x->weight * g;
    }
    for (auto y = roi.y.cells.first(i); y != roi.y.cells.last(i); ++y) {
      A* target = plane + y->column * W + left;
      const A w = y->weight;
      for (int64_t x = 0; x < count; ++x) target[x] += w * row[x];
    }
  }
}

template <typename T>
void backward(const Tensor& grad, const Tensor& boxes, const Pooling& p, const std::vector<MapSize>& sizes,
              bool channels_last, std::vector<Tensor>& outputs) {
  using A = accumulate_t<T>;
  const int64_t R = boxes.size(0), C = grad.size(1), N = outputs[0].size(0), cells = p.height * p.width;
  const auto rois = build_rois<A>(boxes, p, sizes);
  const auto members = group_rois(rois, int64_t(sizes.size()), N);
  std::vector<Readers<A>> readers(channels_last ? R : 0);
  parallel(int64_t(readers.size()), 8, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) readers[r] = {rois[r].y.transposed(), rois[r].x.transposed()};
  });
  const T* source = grad.const_data_ptr<T>();
  constexpr int64_t kStrip = 8;  // rows of a work item: 2.5 MB at 304 × 256 floats
  for (size_t l = 0; l < sizes.size(); ++l) {
    const auto [H, W] = sizes[l];
    if (outputs[l].numel() == 0) continue;
    T* target = outputs[l].mutable_data_ptr<T>();
    const int64_t pieces = channels_last ? (H + kStrip - 1) / kStrip : C;
    parallel(N * pieces, 1, [&](int64_t begin, int64_t end) {
      std::vector<A> wide, row(widest(rois));
      Terms<T, A> terms;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / pieces, piece = i % pieces;
        const int64_t top = channels_last ? piece * kStrip : 0, bottom = channels_last ? std::min(H, top + kStrip) : H;
        T* place = channels_last ? target + (n * H + top) * W * C : target + (n * C + piece) * H * W;
        const int64_t count = channels_last ? (bottom - top) * W * C : H * W;
        A* sums;  // half gradients are summed in float and rounded once
        if constexpr (std::is_same_v<A, T>) {
          sums = place;
        } else {
          wide.resize(count);
          sums = wide.data();
        }
        std::fill(sums, sums + count, A(0));
        for (const int64_t r : members[l * N + n]) {
          const Roi<A>& roi = rois[r];
          if (roi.y.high <= top || roi.y.low >= bottom) continue;
          if (channels_last) {
            unpool_channels_last<T, A>(roi, readers[r], source + r * cells * C, W, C, p.width, top, bottom, sums,
                                       terms);
          } else {
            unpool_plane<T, A>(roi, source + (r * C + piece) * cells, W, p, sums, row.data());
          }
        }
        if constexpr (!std::is_same_v<A, T>) convert<T, A>(sums, place, count);
      }
    });
  }
}

Tensor checked_boxes(const char* op, const Tensor& boxes, int64_t images) {
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 5 && boxes.is_cpu() &&
                      (boxes.scalar_type() == ScalarType::Float || boxes.scalar_type() == ScalarType::Double),
                  op, ": boxes must be float32 or float64 [R, 5] on the CPU");
  const Tensor rows = dense(boxes, false);
  const bool wide = rows.scalar_type() == ScalarType::Double;
  for (int64_t r = 0; r < rows.size(0); ++r) {
    const double index = wide ? rows.const_data_ptr<double>()[r * 5] : rows.const_data_ptr<float>()[r * 5];
    STD_TORCH_CHECK(index >= 0 && index < double(images) && index == std::floor(index), op, ": boxes[", r,
                    ", 0] must be an image index in 0..", images - 1, ", got ", index);
  }
  return rows;
}

void check_pooling(const char* op, const Pooling& p, size_t levels) {
  check_roi_numbers(op, p.scales, p.height, p.width, p.sampling_ratio, p.canonical_size, p.area_offset);
  STD_TORCH_CHECK(levels > 0 && p.scales.size() == levels, op, ": one spatial scale per level is wanted, got ",
                  p.scales.size(), " for ", levels);
}

Tensor pool(const char* op, const std::vector<Tensor>& features, const Tensor& boxes, const Pooling& p) {
  check_pooling(op, p, features.size());
  for (const Tensor& f : features)
    STD_TORCH_CHECK(f.dim() == 4 && f.is_cpu() && f.scalar_type() == features[0].scalar_type() &&
                        f.size(0) == features[0].size(0) && f.size(1) == features[0].size(1),
                    op, ": maps must be [N, C, H, W] and agree in N, C, dtype and device");
  const Tensor rows = checked_boxes(op, boxes, features[0].size(0));
  const bool channels_last = is_channels_last(features[0]);
  std::vector<Tensor> maps;
  std::vector<MapSize> sizes;
  for (const Tensor& f : features) {
    maps.push_back(dense(f, channels_last));
    sizes.push_back({f.size(2), f.size(3)});
  }
  Tensor out = empty_cpu({rows.size(0), maps[0].size(1), p.height, p.width}, maps[0].scalar_type(), channels_last);
  dispatch_floating(op, out.scalar_type(), [&](auto type) {
    using T = decltype(type);
    if (out.numel() == 0) return;
    const auto run = channels_last ? forward_channels_last<T> : forward_planes<T>;
    run(maps, sizes, rows, p, out.mutable_data_ptr<T>());
  });
  return out;
}

std::vector<Tensor> unpool(const char* op, const Tensor& grad, const Tensor& boxes, const Pooling& p, int64_t batch,
                           const std::vector<int64_t>& heights, const std::vector<int64_t>& widths,
                           bool channels_last) {
  check_pooling(op, p, heights.size());
  STD_TORCH_CHECK(heights.size() == widths.size(), op, ": heights and widths must agree in length");
  check_extent(op, "batch", batch, 0);
  STD_TORCH_CHECK(grad.dim() == 4 && grad.is_cpu() && grad.size(0) == boxes.size(0) && grad.size(2) == p.height &&
                      grad.size(3) == p.width,
                  op, ": grad must be [R, C, height, width] with one row per box");
  const Tensor rows = checked_boxes(op, boxes, batch);
  std::vector<Tensor> outputs;
  std::vector<MapSize> sizes;
  for (size_t l = 0; l < heights.size(); ++l) {
    check_extent(op, "height", heights[l], 0);
    check_extent(op, "width", widths[l], 0);
    sizes.push_back({heights[l], widths[l]});
    outputs.push_back(empty_cpu({batch, grad.size(1), heights[l], widths[l]}, grad.scalar_type(), channels_last));
  }
  if (std::all_of(outputs.begin(), outputs.end(), [](const Tensor& map) { return map.numel() == 0; })) return outputs;
  const Tensor source = dense(grad, channels_last);
  dispatch_floating(op, grad.scalar_type(),
                    [&](auto type) { backward<decltype(type)>(source, rows, p, sizes, channels_last, outputs); });
  return outputs;
}

Tensor roi_align(Tensor input, Tensor boxes, double spatial_scale, int64_t height, int64_t width,
                 int64_t sampling_ratio, bool aligned) {
  return pool("roi_align", {input}, boxes, {{spatial_scale}, height, width, sampling_ratio, aligned});
}

Tensor roi_align_backward(Tensor grad, Tensor boxes, double spatial_scale, int64_t batch, int64_t height, int64_t width,
                          int64_t sampling_ratio, bool aligned, bool channels_last) {
  const Pooling p{{spatial_scale}, grad.size(2), grad.size(3), sampling_ratio, aligned};
  return unpool("roi_align_backward", grad, boxes, p, batch, {height}, {width}, channels_last)[0];
}

Tensor multilevel_roi_align(std::vector<Tensor> features, Tensor boxes, std::vector<double> spatial_scales,
                            int64_t height, int64_t width, int64_t sampling_ratio, bool aligned, double canonical_size,
                            int64_t canonical_level, double area_offset) {
  return pool("multilevel_roi_align", features, boxes,
              {spatial_scales, height, width, sampling_ratio, aligned, canonical_size, area_offset, canonical_level});
}

std::vector<Tensor> multilevel_roi_align_backward(Tensor grad, Tensor boxes, std::vector<double> spatial_scales,
                                                  int64_t batch, std::vector<int64_t> heights,
                                                  std::vector<int64_t> widths, int64_t sampling_ratio, bool aligned,
                                                  double canonical_size, int64_t canonical_level, double area_offset,
                                                  bool channels_last) {
  const Pooling p{spatial_scales, grad.size(2),   grad.size(3), sampling_ratio,
                  aligned,        canonical_size, area_offset,  canonical_level};
  return unpool("multilevel_roi_align_backward", grad, boxes, p, batch, heights, widths, channels_last);
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CPU, m) {
  m.impl("roi_align", TORCH_BOX(&roi_align));
  m.impl("roi_align_backward", TORCH_BOX(&roi_align_backward));
  m.impl("multilevel_roi_align", TORCH_BOX(&multilevel_roi_align));
  m.impl("multilevel_roi_align_backward", TORCH_BOX(&multilevel_roi_align_backward));
}

}  // namespace
}  // namespace rpcnn
