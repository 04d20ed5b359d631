#include "parsing_miou_kernel.cuh"

#include "exports.h"

// Of exactly the size needed, filled with junk.
static std::unique_ptr<uint32_t[]> scratch(int64_t N, int64_t K, int64_t H, int64_t W) {
  const int64_t numbers = rpcnn::parsing_miou_rows(N, int(K), H, W);
  std::unique_ptr<uint32_t[]> rows(new uint32_t[numbers]);
  for (int64_t i = 0; i < numbers; ++i) rows[i] = 0xdeadbeef;
  return rows;
}

SIMT_EXPORT parsing_miou(int64_t dtype, const void* logits, const int64_t* strides, const void* target, int64_t bytes,
                         bool is_signed, const int64_t* target_strides, int64_t N, int64_t K, int64_t H, int64_t W,
                         int64_t ignored, float* out) {
  auto rows = scratch(N, K, H, W);
  return simt_run_as(dtype, [&](auto type) {
    using T = decltype(type);
    rpcnn::launch_parsing_miou_of_logits(
        as<T>(logits), {strides[0], strides[1], strides[2], strides[3]},
        rpcnn::Labels{target, int(bytes), is_signed, {target_strides[0], 0, target_strides[1], target_strides[2]}}, N,
        int(K), H, W, ignored, rows.get(), out, nullptr);
  });
}

SIMT_EXPORT parsing_miou_labels(const void* labels, int64_t label_bytes, bool label_signed,
                                const int64_t* label_strides, const void* target, int64_t bytes, bool is_signed,
                                const int64_t* target_strides, int64_t N, int64_t K, int64_t H, int64_t W,
                                int64_t ignored, float* out) {
  auto rows = scratch(N, K, H, W);
  return simt_run([&] {
    rpcnn::launch_parsing_miou(
        rpcnn::GivenLabel{
            {labels, int(label_bytes), label_signed, {label_strides[0], 0, label_strides[1], label_strides[2]}}},
        rpcnn::Labels{target, int(bytes), is_signed, {target_strides[0], 0, target_strides[1], target_strides[2]}}, N,
        int(K), H, W, ignored, rows.get(), out, nullptr);
  });
}
