#include "grid_anchors_kernel.cuh"

#include <cstring>
#include <memory>

#include "exports.h"

SIMT_EXPORT grid_anchors(int64_t dtype, const void* cells, int64_t levels, int64_t ratios, const int64_t* strides,
                         const int64_t* heights, const int64_t* widths, void* anchors) {
  return simt_run([&] {
    rpcnn::AnchorGrid grid{int(levels), int(ratios)};
    for (int l = 0; l < levels; ++l) {
      grid.strides[l] = strides[l], grid.widths[l] = widths[l];
      grid.first[l + 1] = grid.first[l] + heights[l] * widths[l] * ratios;
    }
    const int64_t count = grid.first[levels];
    const auto run = [&](auto type) {
      using T = decltype(type);
      std::unique_ptr<rpcnn::Corners<T>[]> out(new rpcnn::Corners<T>[count]);  // starts where Corners must
      rpcnn::launch_grid_anchors<T>(grid, as<T>(cells), out.get(), nullptr);
      memcpy(anchors, out.get(), count * sizeof(rpcnn::Corners<T>));
    };
    dtype == 1 ? run(double{}) : run(float{});
  });
}
