// roi_align and multilevel_roi_align: out[r, c] = Wy[r] · X[level_r][image_r, c] · Wx[r]ᵀ, forward and backward.
//
// RoIAlign is separable: a row of Wy holds one cell's mean bilinear weights over the map's rows. Both axes' weights are
// tabulated once per box and shared by all channels. Samples that hit the same pixel are merged, so that a cell reads
// ny · nx pixels (9 where a cell is a pixel or less) instead of 4 taps for each of 4 samples.
// Fewest bytes: the touched part of the maps read once, the output written once; for [2, 256, 200, 304], 512 boxes, 7×7
// in fp32 119 + 26 MB. Backward: the gradient read once, every map gradient written once: 125 + 26 MB.
// Work split. Channels innermost: a pixel is one contiguous vector over channels; forward by box, backward by strips of
// rows that walk the boxes in order. Otherwise: forward by (box, block of channels), backward by (image, channel)
// plane. No two threads write one place, no atomics, and every sum runs in the same order for any number of threads.
#include <cmath>
#include <cstring>

#include "../geometry/roi.h"
#include "common.h"

namespace rpcnn {
namespace {

// The merged weights of all cells of one axis of one box.
template <typename A>
struct AxisTable {
  struct Cell {
    int64_t first = 0, count = 0, offset = 0;  // pixels first … first + count − 1, weights from offset on
  };
  std::vector<Cell> cells;
  std::vector<A> weights;
  int64_t low = 0, high = 0;  // pixels [low, high) that any cell reads

  template <typename B>
  void build(const RoiAxis<B>& axis, int64_t num_cells, int64_t size) {
    cells.assign(num_cells, {});
    weights.clear();
    low = size, high = 0;
    for (int64_t c = 0; c < num_cells; ++c) {
      int64_t begin, end, first = size, last = -1;
      roi_samples_inside(axis, c, size, &begin, &end);
      for (int64_t s = begin; s < end; ++s) {
        const Tap<B> t = roi_tap(axis.position(c, s), size);
        if (t.w_lo == B(0) && t.w_hi == B(0)) continue;
        first = std::min(first, t.lo);
        last = std::max(last, t.w_hi == B(0) ? t.lo : t.hi);
      }
      if (last < first) continue;
      cells[c] = {first, last - first + 1, int64_t(weights.size())};
      weights.resize(weights.size() + cells[c].count, A(0));
      A* w = weights.data() + cells[c].offset;
      const A share = A(1) / A(axis.samples);
      for (int64_t s = begin; s < end; ++s) {
        const Tap<B> t = roi_tap(axis.position(c, s), size);
        if (t.w_lo != B(0)) w[t.lo - first] += A(t.w_lo) * share;
        if (t.w_hi != B(0)) w[t.hi - first] += A(t.w_hi) * share;
      }
      low = std::min(low, first);
      high = std::max(high, last + 1);
    }
    if (high < low) low = high = 0;
  }
};

template <typename A>
struct Roi {
  int64_t image = 0, level = 0;
  AxisTable<A> y, x;
};

struct Pooling {  // what the caller asked for
  std::vector<double> scales;
  int64_t height, width, sampling_ratio;
  bool aligned;
  double canonical_size = 224, area_offset = 0;
  int64_t canonical_level = 4;
};

struct MapSize {
  int64_t H, W;
};

template <typename A, typename B>
void build_roi(const B* box, const Pooling& p, const std::vector<MapSize>& maps, Roi<A>& roi) {
  roi.image = static_cast<int64_t>(box[0]);
  const bool finite = std::isfinite(box[1]) && std::isfinite(box[2]) && std::isfinite(box[3]) && std::isfinite(box[4]);
  roi.level = maps.size() == 1 || !finite
                  ? 0
                  : roi_level(float(box[1]), float(box[2]), float(box[3]), float(box[4]), float(p.canonical_size),
                              float(p.canonical_level), std::round(-std::log2(float(p.scales[0]))),
                              float(p.area_offset), int64_t(maps.size()));
  RoiAxis<B> y{0, 0, 0}, x{0, 0, 0};  // no samples: zeros
  const MapSize map = maps[roi.level];
  if (finite && map.H > 0 && map.W > 0) {
    const B scale = B(p.scales[roi.level]);
    y = roi_axis(box[2], box[4], scale, p.height, p.sampling_ratio, p.aligned);
    x = roi_axis(box[1], box[3], scale, p.width, p.sampling_ratio, p.aligned);
  }
  roi.y.build(y, p.height, map.H);
  roi.x.build(x, p.width, map.W);
}

// Geometry in double where the boxes or the maps are, in float otherwise.
template <typename A>
void build_roi(const Tensor& boxes, int64_t r, const Pooling& p, const std::vector<MapSize>& maps, Roi<A>& roi) {
  if (boxes.scalar_type() == ScalarType::Double) {
    build_roi<A, double>(boxes.const_data_ptr<double>() + r * 5, p, maps, roi);
  } else {
    A box[5];
    for (int k = 0; k < 5; ++k) box[k] = A(boxes.const_data_ptr<float>()[r * 5 + k]);
    build_roi<A, A>(box, p, maps, roi);
  }
}

template <typename T, typename A>
RPCNN_CLONES void add_scaled(A* sum, const T* x, A w, int64_t count) {
  for (int64_t c = 0; c < count; ++c) sum[c] += w * A(x[c]);
}

template <typename T, typename A>
RPCNN_CLONES void convert(const A* from, T* to, int64_t count) {
  for (int64_t c = 0; c < count; ++c) to[c] = T(from[c]);
}

// Channels innermost: map [H, W, C] of the box's image, out [height, width, C]; sum holds C values.
template <typename T, typename A>
void pool_channels_last(const Roi<A>& roi, const T* map, int64_t W, int64_t C, T* out, A* sum) {
  for (const auto& y : roi.y.cells)
    for (const auto& x : roi.x.cells) {
      std::fill(sum, sum + C, A(0));
      for (int64_t i = 0; i < y.count; ++i) {
        const A wy = roi.y.weights[y.offset + i];
        if (wy == A(0)) continue;
        const T* row = map + ((y.first + i) * W + x.first) * C;
        for (int64_t j = 0; j < x.count; ++j) add_scaled<T, A>(sum, row + j * C, wy * roi.x.weights[x.offset + j], C);
      }
      convert<T, A>(sum, out, C);
      out += C;
    }
}

// One plane [H, W]: rows first interpolated along x into `rows` [high − low, width], then blended along y.
template <typename T, typename A>
RPCNN_CLONES void pool_plane(const Roi<A>& roi, const T* plane, int64_t W, int64_t width, T* out, A* rows, A* sum) {
  for (int64_t y = roi.y.low; y < roi.y.high; ++y) {
    const T* source = plane + y * W;
    A* row = rows + (y - roi.y.low) * width;
    for (int64_t q = 0; q < width; ++q) {
      const auto cell = roi.x.cells[q];
      const A* w = roi.x.weights.data() + cell.offset;
      A value = 0;
      for (int64_t j = 0; j < cell.count; ++j) value += w[j] * A(source[cell.first + j]);
      row[q] = value;
    }
  }
  for (const auto& cell : roi.y.cells) {
    for (int64_t q = 0; q < width; ++q) sum[q] = A(0);
    for (int64_t i = 0; i < cell.count; ++i) {
      const A w = roi.y.weights[cell.offset + i];
      const A* row = rows + (cell.first + i - roi.y.low) * width;
      for (int64_t q = 0; q < width; ++q) sum[q] += w * row[q];
    }
    for (int64_t q = 0; q < width; ++q) out[q] = T(sum[q]);
    out += width;
  }
}

template <typename T>
void forward(const std::vector<Tensor>& maps, const std::vector<MapSize>& sizes, const Tensor& boxes, const Pooling& p,
             bool channels_last, Tensor& out) {
  using A = accumulate_t<T>;
  const int64_t R = boxes.size(0), C = maps[0].size(1), cells = p.height * p.width;
  T* target = out.mutable_data_ptr<T>();
  constexpr int64_t kChannels = 64;  // of a work item where planes are far apart in memory
  const int64_t blocks = channels_last ? 1 : (C + kChannels - 1) / kChannels;
  parallel(R * blocks, 1, [&](int64_t begin, int64_t end) {
    Roi<A> roi;
    std::vector<A> rows, sum(std::max(C, p.width));
    int64_t built = -1;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t r = i / blocks;
      if (r != built) build_roi(boxes, r, p, sizes, roi), built = r;
      const MapSize size = sizes[roi.level];
      const T* map = maps[roi.level].template const_data_ptr<T>() + roi.image * C * size.H * size.W;
      if (channels_last) {
        pool_channels_last<T, A>(roi, map, size.W, C, target + r * cells * C, sum.data());
        continue;
      }
      rows.resize(std::max<int64_t>(roi.y.high - roi.y.low, 1) * p.width);
      const int64_t last = std::min(C, (i % blocks + 1) * kChannels);
      for (int64_t c = i % blocks * kChannels; c < last; ++c)
        pool_plane<T, A>(roi, map + c * size.H * size.W, size.W, p.width, target + (r * C + c) * cells, rows.data(),
                         sum.data());
    }
  });
}

// Adds a box's gradient [height, width, C] to the rows [top, bottom) of a map gradient, `strip` starting at row top.
template <typename T, typename A>
void unpool_channels_last(const Roi<A>& roi, const T* grad, int64_t W, int64_t C, int64_t top, int64_t bottom,
                          A* strip) {
  const int64_t width = int64_t(roi.x.cells.size());
  for (size_t p = 0; p < roi.y.cells.size(); ++p) {
    const auto& y = roi.y.cells[p];
    for (int64_t i = std::max<int64_t>(0, top - y.first); i < std::min(y.count, bottom - y.first); ++i) {
      const A wy = roi.y.weights[y.offset + i];
      if (wy == A(0)) continue;
      A* row = strip + (y.first + i - top) * W * C;
      for (int64_t q = 0; q < width; ++q) {
        const auto& x = roi.x.cells[q];
        const T* g = grad + (int64_t(p) * width + q) * C;
        for (int64_t j = 0; j < x.count; ++j)
          add_scaled<T, A>(row + (x.first + j) * C, g, wy * roi.x.weights[x.offset + j], C);
      }
    }
  }
}

// Adds a box's gradient [height, width] of one channel to a plane; `rows` holds [high − low, width].
template <typename T, typename A>
RPCNN_CLONES void unpool_plane(const Roi<A>& roi, const T* grad, int64_t W, int64_t width, A* plane, A* rows) {
  const int64_t count = roi.y.high - roi.y.low;
  for (int64_t i = 0; i < count * width; ++i) rows[i] = A(0);
  for (const auto& cell : roi.y.cells) {
    for (int64_t i = 0; i < cell.count; ++i) {
      const A w = roi.y.weights[cell.offset + i];
      A* row = rows + (cell.first + i - roi.y.low) * width;
      for (int64_t q = 0; q < width; ++q) row[q] += w * A(grad[q]);
    }
    grad += width;
  }
  for (int64_t y = 0; y < count; ++y) {
    A* target = plane + (roi.y.low + y) * W;
    for (int64_t q = 0; q < width; ++q) {
      const auto cell = roi.x.cells[q];
      const A* w = roi.x.weights.data() + cell.offset;
      const A g = rows[y * width + q];
      for (int64_t j = 0; j < cell.count; ++j) target[cell.first + j] += w[j] * g;
    }
  }
}

template <typename T>
void backward(const Tensor& grad, const Tensor& boxes, const Pooling& p, const std::vector<MapSize>& sizes,
              bool channels_last, std::vector<Tensor>& outputs) {
  using A = accumulate_t<T>;
  const int64_t R = boxes.size(0), C = grad.size(1), N = outputs[0].size(0), cells = p.height * p.width;
  std::vector<Roi<A>> rois(R);
  parallel(R, 8, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) build_roi(boxes, r, p, sizes, rois[r]);
  });
  // The boxes of each image and level, in their order.
  std::vector<std::vector<int64_t>> members(N * sizes.size());
  int64_t tallest = 1;
  for (int64_t r = 0; r < R; ++r) {
    members[rois[r].level * N + rois[r].image].push_back(r);
    tallest = std::max(tallest, rois[r].y.high - rois[r].y.low);
  }
  const T* source = grad.const_data_ptr<T>();
  constexpr int64_t kStrip = 8;  // rows of a work item: 2.5 MB at 304 × 256 floats
  for (size_t l = 0; l < sizes.size(); ++l) {
    const auto [H, W] = sizes[l];
    if (outputs[l].numel() == 0) continue;
    T* target = outputs[l].mutable_data_ptr<T>();
    const int64_t pieces = channels_last ? (H + kStrip - 1) / kStrip : C;
    parallel(N * pieces, 1, [&](int64_t begin, int64_t end) {
      std::vector<A> wide, rows(channels_last ? 0 : tallest * p.width);
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
            unpool_channels_last<T, A>(roi, source + r * cells * C, W, C, top, bottom, sums);
          } else {
            unpool_plane<T, A>(roi, source + (r * C + piece) * cells, W, p.width, sums, rows.data());
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
    if (out.numel()) forward<decltype(type)>(maps, sizes, rows, p, channels_last, out);
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
