// encode_boxes: reads 24 bytes a box and writes 16, for 256 or 512 boxes: a call costs what calling costs.
#include "../geometry/encode.h"

#include "common.h"

namespace rpcnn {
namespace {

Tensor encode_boxes(Tensor gt_boxes, Tensor references, Tensor matched, double center_weight, double size_weight) {
  const ScalarType dtype = references.scalar_type();
  const auto is_boxes = [&](const Tensor& t) {
    return t.dim() == 2 && t.size(1) == 4 && t.is_cpu() && t.scalar_type() == dtype;
  };
  STD_TORCH_CHECK(
      is_boxes(references) && is_boxes(gt_boxes) && (dtype == ScalarType::Float || dtype == ScalarType::Double),
      "encode_boxes: gt_boxes and references must be float32 or float64 [n, 4] on the CPU, both of one dtype");
  const int64_t n = references.size(0), G = gt_boxes.size(0);
  STD_TORCH_CHECK(
      matched.dim() == 1 && matched.size(0) == n && matched.is_cpu() && matched.scalar_type() == ScalarType::Long,
      "encode_boxes: matched must be int64 [n] on the CPU");
  const Tensor truth = dense(gt_boxes, false), from = dense(references, false), of = dense(matched, false);
  Tensor out = empty_cpu({n, 4}, dtype);
  const auto run = [&](auto type) {
    using T = decltype(type);
    const T *boxes = truth.const_data_ptr<T>(), *reference = from.const_data_ptr<T>();
    const int64_t* index = of.const_data_ptr<int64_t>();
    T* to = out.mutable_data_ptr<T>();
    for (int64_t i = 0; i < n; ++i, to += 4) {
      const int64_t g = index[i];
      STD_TORCH_CHECK(g < G, "encode_boxes: matched must be less than ", G, ", got ", g);
      Targets<T> target{};
      if (g >= 0) target = encoded(boxes + 4 * g, reference + 4 * i, T(center_weight), T(size_weight));
      to[0] = target.dx, to[1] = target.dy, to[2] = target.dw, to[3] = target.dh;
    }
  };
  dtype == ScalarType::Double ? run(double{}) : run(float{});
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CPU, m) {
  m.impl("encode_boxes", TORCH_BOX(&encode_boxes));
}

}  // namespace
}  // namespace rpcnn
