#include "common.h"
#include "encode_boxes_kernel.cuh"

namespace rpcnn {
namespace {

Tensor encode_boxes(Tensor gt_boxes, Tensor references, Tensor matched, double center_weight, double size_weight) {
  const ScalarType dtype = references.scalar_type();
  const auto beside = [&](const Tensor& t) {
    return t.is_cuda() && t.get_device_index() == references.get_device_index();
  };
  const auto is_boxes = [&](const Tensor& t) {
    return beside(t) && t.dim() == 2 && t.size(1) == 4 && t.scalar_type() == dtype;
  };
  STD_TORCH_CHECK(
      is_boxes(references) && is_boxes(gt_boxes) && (dtype == ScalarType::Float || dtype == ScalarType::Double),
      "encode_boxes: gt_boxes and references must be float32 or float64 [n, 4] on one GPU, both of one dtype");
  const int64_t n = references.size(0);
  STD_TORCH_CHECK(
      beside(matched) && matched.dim() == 1 && matched.size(0) == n && matched.scalar_type() == ScalarType::Long,
      "encode_boxes: matched must be int64 [n] on the GPU of the references");
  OnDeviceOf device(references);
  const Tensor truth = dense(gt_boxes, false), from = dense(references, false), of = dense(matched, false);
  Tensor out = empty_like_device(references, {n, 4}, dtype);
  const auto run = [&](auto type) {
    using T = decltype(type);
    launch_encode_boxes<T>(data<T>(truth), truth.size(0), data<T>(from), data<int64_t>(of), n, T(center_weight),
                           T(size_weight), mutable_data<T>(out), device.stream);
  };
  dtype == ScalarType::Double ? run(double{}) : run(float{});
  check_launch("encode_boxes");
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CUDA, m) {
  m.impl("encode_boxes", TORCH_BOX(&encode_boxes));
}

}  // namespace
}  // namespace rpcnn
