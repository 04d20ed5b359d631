#include "common.h"
#include "parsing_miou_kernel.cuh"

namespace rpcnn {
namespace {

Labels labels_of(const Tensor& t) {
  const ScalarType dtype = t.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Byte || dtype == ScalarType::Char || dtype == ScalarType::Short ||
                      dtype == ScalarType::Int || dtype == ScalarType::Long,
                  "parsing_miou: labels must be integers");
  return {t.const_data_ptr(),
          static_cast<int>(t.element_size()),
          dtype != ScalarType::Byte,
          {t.stride(0), 0, t.stride(1), t.stride(2)}};
}

Tensor parsing_miou(Tensor logits_or_labels, Tensor target, int64_t num_classes, int64_t ignore_index) {
  const bool logits = logits_or_labels.dim() == 4;
  STD_TORCH_CHECK(target.dim() == 3 && target.is_cuda() && logits_or_labels.is_cuda() &&
                      target.get_device_index() == logits_or_labels.get_device_index() &&
                      logits_or_labels.dim() == (logits ? 4 : 3),
                  "parsing_miou: wants [N, K, H, W] logits or [N, H, W] labels and a [N, H, W] target, on one GPU");
  STD_TORCH_CHECK(num_classes > 0 && num_classes <= kMostClasses, "parsing_miou: num_classes must be 1 to ",
                  kMostClasses, ", got ", num_classes);
  STD_TORCH_CHECK(!logits || logits_or_labels.size(1) == num_classes,
                  "parsing_miou: num_classes must be the logits' channels");
  const int64_t N = target.size(0), H = target.size(1), W = target.size(2), at = logits ? 2 : 1;
  STD_TORCH_CHECK(logits_or_labels.size(0) == N && logits_or_labels.size(at) == H && logits_or_labels.size(at + 1) == W,
                  "parsing_miou: target must cover the prediction's RoIs and pixels");
  STD_TORCH_CHECK(H * W < (int64_t(1) << 32) && N < (int64_t(1) << 31),
                  "parsing_miou: at most 2^31 - 1 RoIs of 2^32 - 1 pixels, got ", N, " of ", H * W);
  const Tensor out = empty_like_device(target, {N}, ScalarType::Float);
  OnDeviceOf device(target);
  const int K = static_cast<int>(num_classes);
  const Tensor scratch = empty_like_device(target, {parsing_miou_rows(N, K, H, W)}, ScalarType::Int);
  uint32_t* rows = static_cast<uint32_t*>(scratch.mutable_data_ptr());
  float* mious = mutable_data<float>(out);
  if (logits) {
    const Tensor& t = logits_or_labels;
    const PixelStrides strides{t.stride(0), t.stride(1), t.stride(2), t.stride(3)};
    dispatch_floating("parsing_miou", t.scalar_type(), [&](auto type) {
      launch_parsing_miou_of_logits(data<decltype(type)>(t), strides, labels_of(target), N, K, H, W, ignore_index, rows,
                                    mious, device.stream);
    });
  } else {
    launch_parsing_miou(GivenLabel{labels_of(logits_or_labels)}, labels_of(target), N, K, H, W, ignore_index, rows,
                        mious, device.stream);
  }
  check_launch("parsing_miou");
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CUDA, m) {
  m.impl("parsing_miou", TORCH_BOX(&parsing_miou));
}

}  // namespace
}  // namespace rpcnn
