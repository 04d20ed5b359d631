#include "nms_kernel.cuh"

#include <memory>

#include "exports.h"

SIMT_EXPORT nms_keys(int64_t dtype, const void* scores, int64_t stride, int64_t n, int64_t* keys) {
  return simt_run_as(dtype,
                     [&](auto type) { rpcnn::launch_nms_keys(as<decltype(type)>(scores), stride, n, keys, nullptr); });
}

SIMT_EXPORT nms(int64_t dtype, const void* boxes, int64_t row_stride, int64_t corner_stride, const int64_t* idxs,
                const int64_t* order, int64_t n, const double* threshold, int64_t limit, int64_t* indices,
                int64_t* counts) {
  return simt_run_as(dtype, [&](auto type) {
    using B = decltype(type);
    using T = rpcnn::device_accumulate_t<B>;
    // Exact sizes, so that the address sanitizer sees an overrun.
    std::unique_ptr<rpcnn::Corners<T>[]> sorted(new rpcnn::Corners<T>[n]);
    std::unique_ptr<int64_t[]> groups(new int64_t[n]), positions(new int64_t[limit]);
    std::unique_ptr<uint8_t[]> dead(new uint8_t[n]);
    std::unique_ptr<uint64_t[]> mask(new uint64_t[std::min<int64_t>(n, rpcnn::kBand) * rpcnn::kBandTiles]);
    rpcnn::launch_nms<B, T>(as<B>(boxes), row_stride, corner_stride, idxs, 1, order, *threshold,
                            {sorted.get(), idxs ? groups.get() : nullptr, dead.get(), n},
                            {positions.get(), indices, counts, limit}, mask.get(), nullptr);
  });
}
