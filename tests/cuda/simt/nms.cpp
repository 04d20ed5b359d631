#include "nms_kernel.cuh"

#include <memory>

#include "exports.h"

SIMT_EXPORT nms_keys(int64_t dtype, const void* scores, int64_t stride, int64_t n, void* keys) {
  return simt_run_as(dtype, [&](auto type) {
    using S = decltype(type);
    rpcnn::launch_nms_keys(as<S>(scores), stride, n, as<rpcnn::nms_key_t<S>>(keys), nullptr);
  });
}

SIMT_EXPORT nms_buckets(const int64_t* idxs, int64_t stride, const int64_t* best, int64_t n, int16_t* buckets) {
  return simt_run([&] { rpcnn::launch_nms_buckets(idxs, stride, best, n, buckets, nullptr); });
}

// With idxs also ranks and buckets.
SIMT_EXPORT nms(int64_t dtype, const void* boxes, int64_t row_stride, int64_t corner_stride, const int64_t* idxs,
                int64_t idx_stride, const int64_t* best, const int64_t* ranks, const int16_t* buckets, int64_t n,
                const double* threshold, int64_t band, int64_t limit, int64_t slots, int64_t* indices,
                int64_t* number) {
  return simt_run_as(dtype, [&](auto type) {
    using B = decltype(type);
    using T = rpcnn::device_accumulate_t<B>;
    // Exact sizes, so that the address sanitizer sees an overrun.
    const int64_t tiles = rpcnn::nms_tiles(n);
    std::unique_ptr<rpcnn::Corners<T>[]> sorted(new rpcnn::Corners<T>[n]);
    std::unique_ptr<int64_t[]> groups(new int64_t[n]), carried(new int64_t[2]);
    std::unique_ptr<uint8_t[]> dead(new uint8_t[n]);
    std::unique_ptr<int32_t[]> places(new int32_t[n]);
    std::unique_ptr<uint64_t[]> starts(new uint64_t[tiles]), kept(new uint64_t[tiles]);
    std::unique_ptr<uint64_t[]> mask(new uint64_t[rpcnn::nms_mask_words(n, band)]);
    rpcnn::launch_nms<B, T>(
        as<B>(boxes), row_stride, corner_stride, idxs, idx_stride, {best, ranks, buckets}, *threshold, band,
        {sorted.get(), idxs ? groups.get() : nullptr, dead.get(), starts.get(), idxs ? places.get() : nullptr, n},
        mask.get(), kept.get(), carried.get(), limit, slots, indices, number, nullptr);
  });
}
