// The numbers among the arguments of roi_align and multilevel_roi_align, checked alike on every device.
#pragma once

#include <cmath>
#include <vector>

#include "geometry/roi.h"
#include "tensors.h"

namespace rpcnn {

inline void check_roi_numbers(const char* op, const std::vector<double>& scales, int64_t height, int64_t width,
                              int64_t sampling_ratio, double canonical_size, double area_offset) {
  check_extent(op, "output_height", height, 1);
  check_extent(op, "output_width", width, 1);
  for (const double scale : scales)
    STD_TORCH_CHECK(scale > 0 && std::isfinite(scale), op, ": spatial_scale must be positive and finite, got ", scale);
  STD_TORCH_CHECK(sampling_ratio <= kMostSamplingRatio, op, ": sampling_ratio must be at most ", kMostSamplingRatio,
                  ", got ", sampling_ratio);
  STD_TORCH_CHECK(canonical_size > 0 && std::isfinite(canonical_size), op,
                  ": canonical_size must be positive and finite, got ", canonical_size);
  STD_TORCH_CHECK(std::isfinite(area_offset), op, ": area_offset must be finite, got ", area_offset);
}

}  // namespace rpcnn
