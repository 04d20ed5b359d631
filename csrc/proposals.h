// The arguments of grid_anchors and decode_proposals, checked. Shared by CPU and CUDA.
#pragma once

#include <string>

#include "geometry/anchors.h"
#include "tensors.h"

namespace rpcnn {

inline AnchorGrid anchor_grid(int64_t levels, int64_t ratios, const std::vector<int64_t>& strides,
                              const std::vector<int64_t>& heights, const std::vector<int64_t>& widths) {
  AnchorGrid grid{};
  STD_TORCH_CHECK(
      int64_t(strides.size()) == levels && int64_t(heights.size()) == levels && int64_t(widths.size()) == levels,
      "grid_anchors: strides, heights and widths must hold one number for each of ", levels, " levels");
  STD_TORCH_CHECK(ratios <= INT32_MAX, "grid_anchors: at most 2^31 - 1 anchors a cell");
  grid.levels = int(levels), grid.ratios = int(ratios);
  for (int l = 0; l < grid.levels; ++l) {
    check_extent("grid_anchors", "strides", strides[l], 1);
    check_extent("grid_anchors", "heights", heights[l], 1);
    check_extent("grid_anchors", "widths", widths[l], 1);
    grid.widths[l] = widths[l], grid.strides[l] = strides[l];
    // Anchors of 16 bytes: more than 2^40 of them ask for more memory than there is, and their number might overflow.
    constexpr int64_t kMost = int64_t(1) << 40;
    STD_TORCH_CHECK(heights[l] * widths[l] <= kMost / ratios - grid.first[l] / ratios,
                    "grid_anchors: heights and widths must give at most 2^40 anchors");
    grid.first[l + 1] = grid.first[l] + heights[l] * widths[l] * ratios;
  }
  return grid;
}

inline void check_proposals(const std::vector<Tensor>& deltas, const std::vector<Tensor>& best, const Tensor& anchors,
                            const std::vector<int64_t>& heights, const std::vector<int64_t>& widths, int64_t min_size) {
  const std::string op = "decode_proposals: ";
  STD_TORCH_CHECK(!deltas.empty() && deltas.size() <= size_t(kAnchorLevels) && best.size() == deltas.size(), op,
                  "deltas and best must hold 1 to 8 levels, got ", deltas.size(), " and ", best.size());
  int64_t total = 0;
  for (size_t l = 0; l < deltas.size(); ++l) {
    const Tensor &delta = deltas[l], &chosen = best[l];
    STD_TORCH_CHECK(delta.dim() == 3 && delta.size(2) == 4 && delta.size(0) == deltas[0].size(0) &&
                        delta.scalar_type() == deltas[0].scalar_type() && delta.device() == anchors.device(),
                    op, "deltas[", l, "] must be [N, A, 4] on the anchors' device, of one dtype");
    STD_TORCH_CHECK(chosen.dim() == 2 && chosen.size(0) == delta.size(0) && chosen.scalar_type() == ScalarType::Long &&
                        chosen.device() == anchors.device(),
                    op, "best[", l, "] must be int64 [N, k] on the anchors' device");
    total += delta.size(1);
  }
  const ScalarType wide = deltas[0].scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  STD_TORCH_CHECK(anchors.dim() == 2 && anchors.size(0) == total && anchors.size(1) == 4, op, "anchors must be [",
                  total, ", 4]");
  STD_TORCH_CHECK(anchors.scalar_type() == wide, op, "anchors must be float64 if the deltas are, else float32");
  STD_TORCH_CHECK(int64_t(heights.size()) == deltas[0].size(0) && widths.size() == heights.size(), op,
                  "heights and widths must hold one number for each of ", deltas[0].size(0), " images");
  STD_TORCH_CHECK(min_size == 0 || min_size == 1, op, "min_size must be 0 or 1, got ", min_size);
}

}  // namespace rpcnn
