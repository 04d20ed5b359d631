// Where the cells of a box read: sparse interpolation weights of both axes, tabulated once per box.
//
// RoIAlign is separable: a cell's value is Σ_y Σ_x wy · wx · map[y, x], where wy and wx are its mean bilinear weights
// over the map's rows and columns. Samples that hit the same pixel are merged, so that a cell reads ny · nx pixels (9
// where a cell is a pixel or less, 16 where it is larger) instead of 4 taps for each of its 4 samples.
#pragma once

#include <cmath>

#include "../geometry/roi.h"
#include "common.h"

namespace rpcnn {

// Rows of a sparse matrix: the entries of row i are those from begin[i] to begin[i + 1].
template <typename A>
struct SparseRows {
  struct Entry {
    int64_t column;
    A weight;
  };
  std::vector<int64_t> begin;
  std::vector<Entry> entries;

  const Entry* first(int64_t row) const { return entries.data() + begin[row]; }
  const Entry* last(int64_t row) const { return entries.data() + begin[row + 1]; }
  int64_t count(int64_t row) const { return begin[row + 1] - begin[row]; }
};

// The weights of one axis of one box: cells × pixels.
template <typename A>
struct AxisWeights {
  SparseRows<A> cells;
  int64_t low = 0, high = 0;  // every pixel read lies in [low, high)

  int64_t extent() const { return high - low; }

  template <typename B>
  void build(const RoiAxis<B>& axis, int64_t num_cells, int64_t size) {
    cells.begin.reserve(num_cells + 1), cells.begin.assign(1, 0);
    cells.entries.clear(), cells.entries.reserve(4 * num_cells);
    low = size, high = 0;
    const A share = A(1) / A(axis.samples > 0 ? axis.samples : 1);
    for (int64_t c = 0; c < num_cells; ++c) {
      const size_t start = cells.entries.size();
      int64_t begin, end;
      roi_samples_inside(axis, c, size, &begin, &end);
      for (int64_t s = begin; s < end; ++s) {
        const Tap<B> t = roi_tap(axis.position(c, s), size);
        if (is_outside(t)) continue;
        add(start, t.lo, A(t.w_lo) * share);
        if (t.hi != t.lo) add(start, t.hi, A(t.w_hi) * share);
      }
      cells.begin.push_back(int64_t(cells.entries.size()));
    }
    if (high < low) low = high = 0;
  }

  // Pixels × cells.
  SparseRows<A> transposed() const {
    SparseRows<A> pixels;
    pixels.begin.assign(high - low + 1, 0);
    for (const auto& e : cells.entries) ++pixels.begin[e.column - low + 1];
    for (int64_t i = 0; i < high - low; ++i) pixels.begin[i + 1] += pixels.begin[i];
    pixels.entries.resize(cells.entries.size());
    std::vector<int64_t> next(pixels.begin.begin(), pixels.begin.end());
    for (int64_t c = 0; c + 1 < int64_t(cells.begin.size()); ++c)
      for (auto e = cells.first(c); e != cells.last(c); ++e) pixels.entries[next[e->column - low]++] = {c, e->weight};
    return pixels;
  }

 private:
  // Samples run along the axis, so a pixel that this cell has read before is among its last entries.
  void add(size_t start, int64_t pixel, A weight) {
    low = std::min(low, pixel), high = std::max(high, pixel + 1);
    auto& all = cells.entries;
    for (size_t i = all.size(); i > start && i + 3 > all.size(); --i)
      if (all[i - 1].column == pixel) {
        all[i - 1].weight += weight;
        return;
      }
    all.push_back({pixel, weight});
  }
};

template <typename A>
struct Roi {
  int64_t image = 0, level = 0;
  AxisWeights<A> y, x;

  // A bound on how many different rows are read.
  int64_t rows_read() const { return std::min<int64_t>(y.extent(), int64_t(y.cells.entries.size())); }
};

struct Pooling {  // the arguments of the op
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

}  // namespace rpcnn
