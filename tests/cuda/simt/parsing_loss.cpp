#include "parsing_loss_kernel.cuh"

#include "exports.h"

// Scratch of exactly the size needed, filled with junk.
template <typename N>
static std::unique_ptr<N[]> scratch(int64_t numbers) {
  std::unique_ptr<N[]> out(new N[numbers]);
  memset(out.get(), 0xff, numbers * sizeof(N));
  return out;
}

SIMT_EXPORT parsing_loss(int64_t dtype, const void* logits, const void* target, int64_t R, int64_t K, int64_t H,
                         int64_t W, int64_t pool, bool innermost, bool pool_logits, int64_t ignored, void* loss,
                         void* valid, void* miou, void* pooled, void* log_sum, void* largest) {
  return simt_run_as(dtype, [&](auto type) {
    using T = decltype(type);
    using A = rpcnn::device_accumulate_t<T>;
    const auto maps = rpcnn::parsing_maps(as<T>(logits), as<uint8_t>(target), R, int(K), int(H), int(W), int(pool),
                                          ignored, innermost, pool_logits, as<A>(log_sum), as<uint8_t>(largest));
    const int64_t tiles = R * maps.tiles();
    const auto rows = scratch<uint32_t>(tiles * 3 * K);
    const auto losses = scratch<A>(tiles);
    rpcnn::launch_parsing_loss(maps, as<T>(pooled), rows.get(), losses.get(), as<A>(loss), as<int64_t>(valid),
                               as<float>(miou), nullptr);
  });
}

SIMT_EXPORT parsing_loss_backward(int64_t dtype, const void* grad_loss, const void* grad_pooled, const void* logits,
                                  const void* target, int64_t R, int64_t K, int64_t H, int64_t W, int64_t pool,
                                  bool innermost, bool pool_logits, int64_t ignored, void* log_sum, void* largest,
                                  void* grad) {
  return simt_run_as(dtype, [&](auto type) {
    using T = decltype(type);
    using A = rpcnn::device_accumulate_t<T>;
    const auto maps = rpcnn::parsing_maps(as<T>(logits), as<uint8_t>(target), R, int(K), int(H), int(W), int(pool),
                                          ignored, innermost, pool_logits, as<A>(log_sum), as<uint8_t>(largest));
    rpcnn::launch_parsing_loss_backward(maps, as<A>(grad_loss), as<T>(grad_pooled), as<T>(grad), nullptr);
  });
}
