#include <algorithm>
#include <optional>
#include <tuple>

#include "common.h"
#include "nms_kernel.cuh"
#include "sort.h"

namespace rpcnn {
namespace {

void check(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& idxs, double threshold) {
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 4 && boxes.is_cuda(), "nms: boxes must be [R, 4] on the GPU");
  const int64_t n = boxes.size(0);
  const auto beside = [&](const Tensor& t) {
    return t.dim() == 1 && t.size(0) == n && t.is_cuda() && t.get_device_index() == boxes.get_device_index();
  };
  STD_TORCH_CHECK(beside(scores), "nms: scores must be [R] on the boxes' device");
  STD_TORCH_CHECK(!idxs || (beside(*idxs) && idxs->scalar_type() == ScalarType::Long),
                  "nms: idxs must be int64 [R] on the boxes' device");
  STD_TORCH_CHECK(n <= INT32_MAX, "nms: boxes must be at most ", INT32_MAX, ", got ", n);
  STD_TORCH_CHECK(threshold >= 0 && threshold <= 1, "nms: iou_threshold must lie in 0..1, got ", threshold);
}

// Fills the first entries of `indices` with the kept boxes, at most `limit` of them, and those up to `slots` with -1,
// on the current stream. Returns the number of kept boxes, int64 []. Nothing waits for the device.
Tensor keep_best(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& idxs, double threshold,
                 int64_t limit, int64_t slots, const Tensor& indices) {
  const int64_t n = boxes.size(0), tiles = nms_tiles(n), grouped = idxs ? n : 0;
  OnDeviceOf device(boxes);
  const auto scratch = [&](int64_t size, ScalarType dtype) { return empty_like_device(boxes, {size}, dtype); };
  Tensor number = empty_like_device(boxes, {}, ScalarType::Long);
  if (n == 0 || limit == 0) {
    torch::stable::fill_(indices, -1);
    return torch::stable::zero_(number);
  }
  const bool wide = scores.scalar_type() == ScalarType::Double;
  const Tensor keys = scratch(n, wide ? ScalarType::Long : ScalarType::Int);
  dispatch_floating("nms", scores.scalar_type(), [&](auto type) {
    using S = decltype(type);
    launch_nms_keys(data<S>(scores), scores.stride(0), n, mutable_data<nms_key_t<S>>(keys), device.stream);
  });
  check_launch("nms");
  const Tensor best = stable_sort(keys).indices;
  std::optional<Sorted> by_bucket;
  if (idxs) {
    const Tensor buckets = scratch(n, ScalarType::Short);
    launch_nms_buckets(data<int64_t>(*idxs), idxs->stride(0), data<int64_t>(best), n, mutable_data<int16_t>(buckets),
                       device.stream);
    check_launch("nms");
    by_bucket = stable_sort(buckets);
  }
  const Order order{data<int64_t>(best), idxs ? data<int64_t>(by_bucket->indices) : nullptr,
                    idxs ? data<int16_t>(by_bucket->keys) : nullptr};
  const Tensor groups = scratch(grouped, ScalarType::Long), places = scratch(grouped, ScalarType::Int);
  const Tensor dead = scratch(n, ScalarType::Byte), starts = scratch(tiles, ScalarType::Long);
  const Tensor kept = scratch(tiles, ScalarType::Long), carried = scratch(2, ScalarType::Long);
  const Tensor mask = scratch(nms_mask_words(n), ScalarType::Long);
  dispatch_floating("nms", boxes.scalar_type(), [&](auto type) {
    using B = decltype(type);
    using T = device_accumulate_t<B>;
    const Tensor sorted =
        empty_like_device(boxes, {n, 4}, std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float);
    const Candidates<T> all{
        mutable_data<Corners<T>>(sorted), idxs ? mutable_data<int64_t>(groups) : nullptr, mutable_data<uint8_t>(dead),
        mutable_data<uint64_t>(starts),   idxs ? mutable_data<int32_t>(places) : nullptr, n};
    launch_nms<B, T>(data<B>(boxes), boxes.stride(0), boxes.stride(1), idxs ? data<int64_t>(*idxs) : nullptr,
                     idxs ? idxs->stride(0) : 0, order, threshold, kBand, all, mutable_data<uint64_t>(mask),
                     mutable_data<uint64_t>(kept), mutable_data<int64_t>(carried), limit, slots,
                     mutable_data<int64_t>(indices), mutable_data<int64_t>(number), device.stream);
  });
  check_launch("nms");
  return number;
}

Tensor nms(Tensor boxes, Tensor scores, std::optional<Tensor> idxs, double iou_threshold, int64_t max_keep) {
  check(boxes, scores, idxs, iou_threshold);
  const int64_t n = boxes.size(0), limit = max_keep < 0 ? n : std::min(n, max_keep);
  Tensor indices = empty_like_device(boxes, {limit}, ScalarType::Long);
  const Tensor number = keep_best(boxes, scores, idxs, iou_threshold, limit, 0, indices);
  if (limit == 0) return indices;
  // The one wait: the size of the result.
  OnDeviceOf device(boxes);
  int64_t total = 0;
  const cudaError_t copied =
      cudaMemcpyAsync(&total, data<int64_t>(number), sizeof total, cudaMemcpyDeviceToHost, device.stream);
  const cudaError_t waited = cudaStreamSynchronize(device.stream);
  if (copied != cudaSuccess || waited != cudaSuccess)
    cudaGetLastError();  // else the next launch check reports it again
  STD_TORCH_CHECK(copied == cudaSuccess && waited == cudaSuccess,
                  "nms: ", cudaGetErrorString(copied == cudaSuccess ? waited : copied));
  return torch::stable::narrow(indices, 0, 0, total);
}

std::tuple<Tensor, Tensor> nms_padded(Tensor boxes, Tensor scores, std::optional<Tensor> idxs, double iou_threshold,
                                      int64_t max_keep) {
  check(boxes, scores, idxs, iou_threshold);
  check_extent("nms_padded", "max_keep", max_keep, 0);
  const Tensor indices = empty_like_device(boxes, {max_keep}, ScalarType::Long);
  const int64_t limit = std::min(boxes.size(0), max_keep);
  const Tensor number = keep_best(boxes, scores, idxs, iou_threshold, limit, max_keep, indices);
  return {indices, number};
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CUDA, m) {
  m.impl("nms", TORCH_BOX(&nms));
  m.impl("nms_padded", TORCH_BOX(&nms_padded));
}

}  // namespace
}  // namespace rpcnn
