#include "draw_samples_kernel.cuh"

#include "exports.h"

SIMT_EXPORT sample_keys(const int64_t* matched, const void* random, int64_t n, bool negatives, void* keys) {
  return simt_run(
      [&] { rpcnn::launch_sample_keys(matched, as<float>(random), n, negatives, as<int32_t>(keys), nullptr); });
}

SIMT_EXPORT take_samples(const void* sorted, const int64_t* indices, const int64_t* matched, int64_t n, int64_t size,
                         int64_t max_positive, int64_t* samples, int64_t* people) {
  return simt_run([&] {
    rpcnn::launch_take_samples(as<int32_t>(sorted), indices, matched, n, size, max_positive, samples, people, nullptr);
  });
}
