// The torch side that upsample_sum and gse_fuse share on CUDA: checks, the table of levels, empty levels.
#pragma once

#include "common.h"
#include "pyramid_adjoint_kernel.cuh"

namespace rpcnn {

inline void check_cuda_levels(const char* op, const std::vector<Tensor>& levels) {
  STD_TORCH_CHECK(!levels.empty() && levels.size() <= kMaxLevels, op, ": features must hold 1 to ", kMaxLevels,
                  " maps, got ", levels.size());
  for (const Tensor& q : levels)
    STD_TORCH_CHECK(q.dim() == 4 && q.is_cuda() && q.get_device_index() == levels[0].get_device_index() &&
                        q.scalar_type() == levels[0].scalar_type() && q.size(0) == levels[0].size(0) &&
                        q.size(1) == levels[0].size(1) && q.size(2) > 0 && q.size(3) > 0,
                    op, ": features must be non-empty [N, C, H, W] maps that agree in N, C, dtype and device");
}

template <typename T>
Pyramid<T> pyramid_of(const std::vector<Tensor>& levels, const Tensor& target, bool channels_last, bool align_corners) {
  Pyramid<T> pyramid(levels_of(levels, channels_last), target.size(2), target.size(3), align_corners);
  for (size_t l = 0; l < levels.size(); ++l) pyramid.map[l] = data<T>(levels[l]);
  return pyramid;
}

// Empty maps of the levels' sizes.
inline std::vector<Tensor> empty_levels(const std::vector<Tensor>& levels, ScalarType dtype, bool channels_last) {
  std::vector<Tensor> out;
  for (const Tensor& q : levels) out.push_back(empty_like_device(q, sizes_of(q), dtype, channels_last));
  return out;
}

}  // namespace rpcnn
