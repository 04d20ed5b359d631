#include <algorithm>
#include <tuple>

#include "common.h"
#include "draw_samples_kernel.cuh"
#include "sort.h"

namespace rpcnn {
namespace {

std::tuple<Tensor, Tensor> draw_samples(Tensor matched, Tensor keys, int64_t count, int64_t max_positive,
                                        bool negatives) {
  STD_TORCH_CHECK(matched.dim() == 1 && matched.is_cuda() && matched.scalar_type() == ScalarType::Long,
                  "draw_samples: matched must be int64 [n] on a GPU");
  const int64_t n = matched.size(0), size = std::min(count, n);
  STD_TORCH_CHECK(keys.dim() == 1 && keys.size(0) == n && keys.is_cuda() &&
                      keys.get_device_index() == matched.get_device_index() && keys.scalar_type() == ScalarType::Float,
                  "draw_samples: keys must be float32 [n] on the GPU of matched");
  STD_TORCH_CHECK(count >= 0 && max_positive >= 0, "draw_samples: count and max_positive must be >= 0");
  OnDeviceOf device(matched);
  Tensor samples = empty_like_device(matched, {size}, ScalarType::Long);
  Tensor people = empty_like_device(matched, {size}, ScalarType::Long);
  if (size == 0) return {samples, people};
  const Tensor truth = dense(matched, false), random = dense(keys, false);
  const Tensor unsorted = empty_like_device(matched, {n}, ScalarType::Int);
  launch_sample_keys(data<int64_t>(truth), data<float>(random), n, negatives, mutable_data<int32_t>(unsorted),
                     device.stream);
  check_launch("draw_samples");
  const Sorted sorted = stable_sort(unsorted);
  launch_take_samples(data<int32_t>(sorted.keys), data<int64_t>(sorted.indices), data<int64_t>(truth), n, size,
                      max_positive, mutable_data<int64_t>(samples), mutable_data<int64_t>(people), device.stream);
  check_launch("draw_samples");
  return {samples, people};
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CUDA, m) {
  m.impl("draw_samples", TORCH_BOX(&draw_samples));
}

}  // namespace
}  // namespace rpcnn
