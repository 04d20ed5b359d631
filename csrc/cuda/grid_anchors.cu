#include "../proposals.h"
#include "common.h"
#include "grid_anchors_kernel.cuh"

namespace rpcnn {
namespace {

Tensor grid_anchors(Tensor cells, std::vector<int64_t> strides, std::vector<int64_t> heights,
                    std::vector<int64_t> widths) {
  const int64_t levels = cells.dim() == 3 ? cells.size(0) : 0;
  STD_TORCH_CHECK(cells.is_cuda() && levels > 0 && levels <= kAnchorLevels && cells.size(1) > 0 && cells.size(2) == 4,
                  "grid_anchors: cells must be [L, R, 4] of 1 to 8 levels on a GPU");
  const ScalarType dtype = cells.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double,
                  "grid_anchors: cells must be float32 or float64");
  const AnchorGrid grid = anchor_grid(levels, cells.size(1), strides, heights, widths);
  OnDeviceOf device(cells);
  const Tensor source = dense(cells, false);
  Tensor anchors = empty_like_device(cells, {grid.first[levels], 4}, dtype);
  const auto run = [&](auto type) {
    using T = decltype(type);
    launch_grid_anchors<T>(grid, data<T>(source), mutable_data<Corners<T>>(anchors), device.stream);
  };
  dtype == ScalarType::Double ? run(double{}) : run(float{});
  check_launch("grid_anchors");
  return anchors;
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CUDA, m) {
  m.impl("grid_anchors", TORCH_BOX(&grid_anchors));
}

}  // namespace
}  // namespace rpcnn
