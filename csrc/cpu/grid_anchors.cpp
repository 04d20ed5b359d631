// grid_anchors: writes 16 bytes an anchor, 3.9 MB for 243,000, and reads nothing. Not timed yet.
#include "../proposals.h"
#include "common.h"

namespace rpcnn {
namespace {

Tensor grid_anchors(Tensor cells, std::vector<int64_t> strides, std::vector<int64_t> heights,
                    std::vector<int64_t> widths) {
  const int64_t levels = cells.dim() == 3 ? cells.size(0) : 0;
  STD_TORCH_CHECK(cells.is_cpu() && levels > 0 && levels <= kAnchorLevels && cells.size(1) > 0 && cells.size(2) == 4,
                  "grid_anchors: cells must be [L, R, 4] of 1 to 8 levels on the CPU");
  const ScalarType dtype = cells.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double,
                  "grid_anchors: cells must be float32 or float64");
  const AnchorGrid grid = anchor_grid(cells.size(0), cells.size(1), strides, heights, widths);
  const Tensor source = dense(cells, false);
  Tensor out = empty_cpu({grid.first[levels], 4}, dtype);
  const auto run = [&](auto type) {
    using T = decltype(type);
    const T* from = source.const_data_ptr<T>();
    T* to = out.mutable_data_ptr<T>();
    for (int l = 0; l < grid.levels; ++l) {
      const int64_t stride = grid.strides[l], ratios = grid.ratios;
      parallel(heights[l], 1 + 16384 / widths[l], [&](int64_t begin, int64_t end) {
        T* out = to + 4 * (grid.first[l] + begin * widths[l] * ratios);
        for (int64_t row = begin; row < end; ++row)
          for (int64_t column = 0; column < widths[l]; ++column)
            for (int64_t r = 0; r < ratios; ++r, out += 4) {
              const T* cell = from + 4 * (l * ratios + r);
              const Corners<T> anchor = AnchorGrid::shifted(cell, T(column * stride), T(row * stride));
              out[0] = anchor.x1, out[1] = anchor.y1, out[2] = anchor.x2, out[3] = anchor.y2;
            }
      });
    }
  };
  dtype == ScalarType::Double ? run(double{}) : run(float{});
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CPU, m) {
  m.impl("grid_anchors", TORCH_BOX(&grid_anchors));
}

}  // namespace
}  // namespace rpcnn
