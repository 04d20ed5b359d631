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
    parallel(grid.first[levels], 16384, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Corners<T> anchor = grid.at(i, from);
        to[4 * i] = anchor.x1, to[4 * i + 1] = anchor.y1, to[4 * i + 2] = anchor.x2, to[4 * i + 3] = anchor.y2;
      }
    });
  };
  dtype == ScalarType::Double ? run(double{}) : run(float{});
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CPU, m) {
  m.impl("grid_anchors", TORCH_BOX(&grid_anchors));
}

}  // namespace
}  // namespace rpcnn
