#include <cmath>
#include <limits>
#include <optional>
#include <tuple>

#include "common.h"
#include "paste_parsing_kernel.cuh"

namespace rpcnn {
namespace {

std::tuple<Tensor, Tensor, Tensor> paste_parsing(Tensor probabilities, Tensor boxes, Tensor painted,
                                                 std::optional<Tensor> semantic, double semantic_height,
                                                 double semantic_width, int64_t height, int64_t width,
                                                 double semantic_weight, double semantic_gate, bool paint_labels,
                                                 bool with_people) {
  const int64_t R = probabilities.dim() == 4 ? probabilities.size(0) : -1;
  STD_TORCH_CHECK(R >= 0 && probabilities.is_cuda() && probabilities.scalar_type() == ScalarType::Float,
                  "paste_parsing: probabilities must be float32 [R, K, h, w] on a GPU");
  const auto beside = [&](const Tensor& t) {
    return t.is_cuda() && t.get_device_index() == probabilities.get_device_index();
  };
  const int64_t K = probabilities.size(1), h = probabilities.size(2), w = probabilities.size(3);
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(0) == R && boxes.size(1) == 4 && beside(boxes) &&
                      boxes.scalar_type() == ScalarType::Float,
                  "paste_parsing: boxes must be float32 [R, 4] on the GPU of the probabilities");
  STD_TORCH_CHECK(
      painted.dim() == 1 && painted.size(0) == R && beside(painted) && painted.scalar_type() == ScalarType::Byte,
      "paste_parsing: painted must be uint8 [R] on the GPU of the probabilities");
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  STD_TORCH_CHECK(K > 0 && K <= 256 && h > 0 && w > 0,
                  "paste_parsing: probabilities must have 1 to 256 classes and at least one cell");
  check_extent("paste_parsing", "height", height, 1);
  check_extent("paste_parsing", "width", width, 1);
  STD_TORCH_CHECK(
      !semantic || (semantic->dim() == 3 && beside(*semantic) && semantic->size(0) == K && semantic->size(1) > 0 &&
                    semantic->size(2) > 0 && semantic->scalar_type() == ScalarType::Float),
      "paste_parsing: semantic must be float32 [K, hs, ws] on the GPU of the probabilities");
  STD_TORCH_CHECK(!semantic || (semantic_height >= double(height) && semantic_width >= double(width) &&
                                std::isfinite(semantic_height) && std::isfinite(semantic_width)),
                  "paste_parsing: semantic_height and semantic_width must be finite and cover the image, got ",
                  semantic_height, " and ", semantic_width);
  const int64_t hs = semantic ? semantic->size(1) : 1, ws = semantic ? semantic->size(2) : 1;
  STD_TORCH_CHECK(R < kMost && h * w < kMost && hs * ws < kMost && height * width < kMost,
                  "paste_parsing: people, maps and image must each stay below 2^31 pixels");
  const Tensor maps = dense(probabilities, false), corners = dense(boxes, false), flags = dense(painted, false);
  std::optional<Tensor> covering;
  if (semantic) covering = dense(*semantic, false);
  const Tensor labels = empty_like_device(maps, {height, width}, ScalarType::Byte);
  const Tensor instances = empty_like_device(maps, {height, width}, ScalarType::Int);
  const Tensor each = empty_like_device(maps, {with_people ? R : 0, height, width}, ScalarType::Byte);
  OnDeviceOf device(maps);
  launch_paste_parsing(
      {data<float>(maps), R, static_cast<int>(K), static_cast<int>(h), static_cast<int>(w)}, data<float>(corners),
      data<uint8_t>(flags),
      {covering ? data<float>(*covering) : nullptr, static_cast<int>(hs), static_cast<int>(ws), semantic_height,
       semantic_width, static_cast<float>(semantic_weight), static_cast<float>(semantic_gate)},
      height, width,
      {mutable_data<uint8_t>(labels), mutable_data<int32_t>(instances),
       with_people ? mutable_data<uint8_t>(each) : nullptr, paint_labels},
      device.stream);
  check_launch("paste_parsing");
  return {labels, instances, each};
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CUDA, m) {
  m.impl("paste_parsing", TORCH_BOX(&paste_parsing));
}

}  // namespace
}  // namespace rpcnn
