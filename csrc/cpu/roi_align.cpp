// roi_align and multilevel_roi_align: out[r, c] = Wy[r] · map[level_r][image_r, c] · Wx[r]ᵀ, forward and backward.
//
// Fewest bytes: the touched part of the maps read once, the output written once; for [2, 256, 200, 304], 512 boxes, 7×7
// in fp32 119 + 26 MB. Backward: the gradient read once, every map gradient written once: 125 + 26 MB. What limits is
// the reads of a cell's pixels: 16 of each channel for a cell of 7×7, 411 MB from the caches.
// Work split. Channels innermost: a pixel is one contiguous vector over channels; forward by box, backward by strips of
// rows that walk the boxes in order. Otherwise, planes: a row of cells is blended along y as vectors of pixels, then
// along x; by (image, channel). No two threads write one place, no atomics, and every sum runs in the same order for
// any number of threads.
#include <cstring>

#include "roi_weights.h"
#include "weighted_sum.h"

namespace rpcnn {
namespace {

template <typename T, typename A>
RPCNN_CLONES void convert(const A* from, T* __restrict to, int64_t count) {
  for (int64_t c = 0; c < count; ++c) to[c] = T(from[c]);
}

// Channels innermost: map [H, W, C] of the box's image, out [height, width, C]; `wide` holds C sums of half maps.
template <typename T, typename A>
void pool_channels_last(const Roi<A>& roi, const T* map, int64_t W, int64_t C, const Pooling& p, T* out, A* wide,
                        Terms<T, A>& terms) {
  for (int64_t i = 0; i < p.height; ++i)
    for (int64_t j = 0; j < p.width; ++j, out += C) {
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

// A box's weights as pool_plane reads them, for all channels: along x one array per tap, cells innermost, and cells and
// the window of columns as whole vectors, the latter where the map has room for that.
template <typename A>
struct PlaneTaps {
  static constexpr int64_t kPixels = 16, kCells = 8, kTaps = 4;
  int64_t left = 0, count = 0, cells = 0, taps = 0;  // taps: a multiple of kTaps
  std::vector<int32_t> column;                       // [taps][cells], from `left` on
  std::vector<A> weight;                             // [taps][cells]; missing taps weigh 0 and read a 0 at `count`

  PlaneTaps(const AxisWeights<A>& x, int64_t width, int64_t W) : left(x.low), count(x.high - x.low) {
    const int64_t whole = (count + kPixels - 1) / kPixels * kPixels;
    if (whole <= W) left = std::min(left, W - whole), count = whole;
    for (int64_t j = 0; j < width; ++j) taps = std::max(taps, x.cells.count(j));
    taps = (taps + kTaps - 1) / kTaps * kTaps;
    cells = (width + kCells - 1) / kCells * kCells;
    column.assign(taps * cells, int32_t(count));
    weight.assign(taps * cells, A(0));
    for (int64_t j = 0; j < width; ++j)
      for (int64_t t = 0; t < x.cells.count(j); ++t) {
        column[t * cells + j] = int32_t(x.cells.first(j)[t].column - left);
        weight[t * cells + j] = x.cells.first(j)[t].weight;
      }
  }
};

// sum[j] += Σ_t weight[t][j] · row[column[t][j]] over kTaps taps.
template <typename A>
RPCNN_CLONES void add_taps(const int32_t* column, const A* weight, const A* row, A* __restrict sum, int64_t cells) {
  static_assert(PlaneTaps<A>::kTaps == 4);
  const int32_t *c1 = column + cells, *c2 = c1 + cells, *c3 = c2 + cells;
  const A *w1 = weight + cells, *w2 = w1 + cells, *w3 = w2 + cells;
  for (int64_t j = 0; j < cells; ++j)
    sum[j] += weight[j] * row[column[j]] + w1[j] * row[c1[j]] + w2[j] * row[c2[j]] + w3[j] * row[c3[j]];
}

// One plane [H, W] to cells [height, width]; `row` holds the window's columns, `sum` whole vectors
// of cells.
template <typename T, typename A>
void pool_plane(const Roi<A>& roi, const PlaneTaps<A>& x, const T* plane, int64_t W, const Pooling& p, T* out, A* row,
                A* sum, Terms<T, A>& terms) {
  for (int64_t i = 0; i < p.height; ++i, out += p.width) {
    terms.clear();
    for (auto y = roi.y.cells.first(i); y != roi.y.cells.last(i); ++y)
      terms.add(plane + y->column * W + x.left, y->weight);
    add_up(row, terms, x.count, true);
    row[x.count] = A(0);
    std::fill_n(sum, x.cells, A(0));
    for (int64_t t = 0; t < x.taps; t += PlaneTaps<A>::kTaps)
      add_taps<A>(x.column.data() + t * x.cells, x.weight.data() + t * x.cells, row, sum, x.cells);
    for (int64_t j = 0; j < p.width; ++j) out[j] = T(sum[j]);
  }
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

template <typename T>
void forward_channels_last(const std::vector<Tensor>& maps, const std::vector<MapSize>& sizes, const Tensor& boxes,
                           const Pooling& p, T* out) {
  using A = accumulate_t<T>;
  const int64_t C = maps[0].size(1), cells = p.height * p.width;
  parallel(boxes.size(0), 1, [&](int64_t begin, int64_t end) {
    Roi<A> roi;
    Terms<T, A> terms;
    std::vector<A> wide(C);
    for (int64_t r = begin; r < end; ++r) {
      build_roi(boxes, r, p, sizes, roi);
      const MapSize size = sizes[roi.level];
      const T* map = maps[roi.level].template const_data_ptr<T>() + roi.image * C * size.H * size.W;
      pool_channels_last<T, A>(roi, map, size.W, C, p, out + r * cells * C, wide.data(), terms);
    }
  });
}

// A plane at a time for all its boxes: it is read from memory once (by boxes, 9 times as slow).
template <typename T>
void forward_planes(const std::vector<Tensor>& maps, const std::vector<MapSize>& sizes, const Tensor& boxes,
                    const Pooling& p, T* out) {
  using A = accumulate_t<T>;
  const int64_t N = maps[0].size(0), C = maps[0].size(1), cells = p.height * p.width;
  const auto rois = build_rois<A>(boxes, p, sizes);
  const auto members = group_rois(rois, int64_t(maps.size()), N);
  std::vector<PlaneTaps<A>> taps;
  for (const auto& roi : rois) taps.emplace_back(roi.x, p.width, sizes[roi.level].W);
  constexpr int64_t kMany = 32;  // boxes that together read most of a plane: fetch it in order beforehand
  std::vector<int64_t> images;   // that have a box: threads share their planes evenly
  for (int64_t n = 0; n < N; ++n)
    if (std::any_of(rois.begin(), rois.end(), [&](const auto& roi) { return roi.image == n; })) images.push_back(n);
  parallel(int64_t(images.size()) * C, 1, [&](int64_t begin, int64_t end) {
    Terms<T, A> terms;
    std::vector<A> row(widest(rois) + PlaneTaps<A>::kPixels + 1), sum(p.width + PlaneTaps<A>::kCells);
    for (int64_t i = begin; i < end; ++i)
      for (size_t l = 0; l < maps.size(); ++l) {
        const int64_t n = images[i / C];
        const int64_t pixels = sizes[l].H * sizes[l].W;
        const T* plane = maps[l].template const_data_ptr<T>() + (n * C + i % C) * pixels;
        if (int64_t(members[l * N + n].size()) >= kMany)
          for (int64_t k = 0; k < pixels; k += 64 / int64_t(sizeof(T))) __builtin_prefetch(plane + k);
        for (const int64_t r : members[l * N + n])
          pool_plane<T, A>(rois[r], taps[r], plane, sizes[l].W, p, out + (r * C + i % C) * cells, row.data(),
                           sum.data(), terms);
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
  STD_TORCH_CHECK(p.height > 0 && p.width > 0, op, ": output height and width must be positive, got ", p.height, "×",
                  p.width);
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
  STD_TORCH_CHECK(heights.size() == widths.size() && batch >= 0, op, ": heights and widths must agree in length");
  STD_TORCH_CHECK(grad.dim() == 4 && grad.is_cpu() && grad.size(0) == boxes.size(0) && grad.size(2) == p.height &&
                      grad.size(3) == p.width,
                  op, ": grad must be [R, C, height, width] with one row per box");
  const Tensor rows = checked_boxes(op, boxes, batch);
  std::vector<Tensor> outputs;
  std::vector<MapSize> sizes;
  for (size_t l = 0; l < heights.size(); ++l) {
    STD_TORCH_CHECK(heights[l] >= 0 && widths[l] >= 0, op, ": heights and widths must not be negative");
    sizes.push_back({heights[l], widths[l]});
    outputs.push_back(empty_cpu({batch, grad.size(1), heights[l], widths[l]}, grad.scalar_type(), channels_last));
  }
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
