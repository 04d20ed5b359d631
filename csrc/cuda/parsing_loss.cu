#include <optional>
#include <tuple>

#include "common.h"
#include "parsing_loss_kernel.cuh"

namespace rpcnn {
namespace {

void check(const Tensor& logits, const Tensor& target, int64_t pool) {
  STD_TORCH_CHECK(logits.dim() == 4 && logits.is_cuda() && logits.size(1) > 0 && logits.size(1) <= 256,
                  "parsing_loss: logits must be [R, K, H, W] of 1 to 256 classes on a GPU");
  STD_TORCH_CHECK(target.dim() == 3 && target.is_cuda() && target.get_device_index() == logits.get_device_index() &&
                      target.scalar_type() == ScalarType::Byte && target.size(0) == logits.size(0) &&
                      target.size(1) == logits.size(2) && target.size(2) == logits.size(3),
                  "parsing_loss: target must be uint8 [R, H, W] of the logits' sizes on their GPU");
  STD_TORCH_CHECK(pool > 0 && pool <= 16 && logits.size(2) > 0 && logits.size(3) > 0 && logits.size(2) % pool == 0 &&
                      logits.size(3) % pool == 0,
                  "parsing_loss: pool must be 1 to 16 and divide height and width, got ", pool);
  constexpr int64_t kMost = int64_t(1) << 31;
  STD_TORCH_CHECK(logits.size(1) * logits.size(2) * logits.size(3) < kMost && target.numel() < kMost,
                  "parsing_loss: the logits of a RoI, and the pixels of all, must stay below 2^31");
}

// The maps of a call; logits and target are dense, as log_sum and largest.
template <typename T>
ParsingMaps<T> maps_of(const Tensor& logits, const Tensor& target, int64_t pool, bool pool_logits, int64_t ignore_index,
                       bool innermost, const Tensor& log_sum, const Tensor& largest) {
  const auto size = [&](int i) { return static_cast<int>(logits.size(i)); };
  return parsing_maps(data<T>(logits), data<uint8_t>(target), logits.size(0), size(1), size(2), size(3),
                      static_cast<int>(pool), ignore_index, innermost, pool_logits,
                      mutable_data<device_accumulate_t<T>>(log_sum), mutable_data<uint8_t>(largest));
}

ScalarType accumulation(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> parsing_loss(Tensor logits, Tensor target, int64_t pool,
                                                                        bool pool_logits, int64_t ignore_index) {
  check(logits, target, pool);
  OnDeviceOf device(logits);
  const bool last = is_channels_last(logits);
  const Tensor source = dense(logits, last), truth = dense(target, false);
  const int64_t R = logits.size(0), K = logits.size(1), H = logits.size(2), W = logits.size(3);
  const ScalarType wide = accumulation(logits);
  const Tensor loss = empty_like_device(logits, {}, wide), valid = empty_like_device(logits, {R}, ScalarType::Long);
  const Tensor miou = empty_like_device(logits, {R}, ScalarType::Float);
  const std::vector<int64_t> cells{R, K, H / pool, W / pool};
  const Tensor pooled = empty_like_device(logits, cells, logits.scalar_type(), last);
  const Tensor log_sum = empty_like_device(logits, {R, H, W}, wide);
  const Tensor largest = empty_like_device(logits, cells, ScalarType::Byte, last);
  dispatch_floating("parsing_loss", logits.scalar_type(), [&](auto type) {
    using T = decltype(type);
    using A = device_accumulate_t<T>;
    const auto maps = maps_of<T>(source, truth, pool, pool_logits, ignore_index, last, log_sum, largest);
    const int64_t tiles = R * maps.tiles();
    const Tensor rows = empty_like_device(logits, {tiles, 3, K}, ScalarType::Int);
    const Tensor losses = empty_like_device(logits, {tiles}, wide);
    launch_parsing_loss(maps, mutable_data<T>(pooled), static_cast<uint32_t*>(rows.mutable_data_ptr()),
                        mutable_data<A>(losses), mutable_data<A>(loss), mutable_data<int64_t>(valid),
                        mutable_data<float>(miou), device.stream);
  });
  check_launch("parsing_loss");
  return {loss, valid, miou, pooled, log_sum, largest};
}

Tensor parsing_loss_backward(std::optional<Tensor> grad_loss, std::optional<Tensor> grad_pooled, Tensor logits,
                             Tensor target, Tensor log_sum, Tensor largest, int64_t pool, bool pool_logits,
                             int64_t ignore_index) {
  check(logits, target, pool);
  const auto beside = [&](const Tensor& t) { return t.is_cuda() && t.get_device_index() == logits.get_device_index(); };
  const auto covers_cells = [&](const Tensor& t, ScalarType dtype) {
    return beside(t) && t.scalar_type() == dtype && t.dim() == 4 && t.size(0) == logits.size(0) &&
           t.size(1) == logits.size(1) && t.size(2) == logits.size(2) / pool && t.size(3) == logits.size(3) / pool;
  };
  STD_TORCH_CHECK(
      !grad_loss || (beside(*grad_loss) && grad_loss->numel() == 1 && grad_loss->scalar_type() == accumulation(logits)),
      "parsing_loss_backward: grad_loss must be one number of the loss's dtype");
  STD_TORCH_CHECK(!grad_pooled || covers_cells(*grad_pooled, logits.scalar_type()),
                  "parsing_loss_backward: grad_pooled must be [R, K, H / pool, W / pool] in the logits' dtype");
  STD_TORCH_CHECK(covers_cells(largest, ScalarType::Byte) && beside(log_sum) &&
                      log_sum.scalar_type() == accumulation(logits) && log_sum.numel() == target.numel(),
                  "parsing_loss_backward: log_sum and largest must be those of parsing_loss");
  OnDeviceOf device(logits);
  const bool last = is_channels_last(logits);
  const Tensor source = dense(logits, last), truth = dense(target, false);
  const Tensor logs = dense(log_sum, false), places = dense(largest, last);
  std::optional<Tensor> grads;
  if (grad_pooled) grads = dense(*grad_pooled, last);
  const Tensor out = empty_like_device(logits, sizes_of(logits), logits.scalar_type(), last);
  dispatch_floating("parsing_loss_backward", logits.scalar_type(), [&](auto type) {
    using T = decltype(type);
    using A = device_accumulate_t<T>;
    const auto maps = maps_of<T>(source, truth, pool, pool_logits, ignore_index, last, logs, places);
    launch_parsing_loss_backward<T>(maps, grad_loss ? data<A>(*grad_loss) : nullptr, grads ? data<T>(*grads) : nullptr,
                                    mutable_data<T>(out), device.stream);
  });
  check_launch("parsing_loss_backward");
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CUDA, m) {
  m.impl("parsing_loss", TORCH_BOX(&parsing_loss));
  m.impl("parsing_loss_backward", TORCH_BOX(&parsing_loss_backward));
}

}  // namespace
}  // namespace rpcnn
