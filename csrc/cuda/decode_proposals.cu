#include <tuple>

#include "../proposals.h"
#include "common.h"
#include "decode_proposals_kernel.cuh"

namespace rpcnn {
namespace {

std::tuple<Tensor, Tensor> decode_proposals(std::vector<Tensor> deltas, std::vector<Tensor> best, Tensor anchors,
                                            std::vector<int64_t> heights, std::vector<int64_t> widths,
                                            int64_t min_size) {
  check_proposals(deltas, best, anchors, heights, widths, min_size);
  STD_TORCH_CHECK(anchors.is_cuda(), "decode_proposals: anchors must be on a GPU");
  OnDeviceOf device(anchors);
  const int64_t N = deltas[0].size(0);
  int64_t count = 0;
  for (const Tensor& chosen : best) count += chosen.size(1);
  Tensor boxes = empty_like_device(anchors, {N, count, 4}, anchors.scalar_type());
  Tensor groups = empty_like_device(anchors, {N, count}, ScalarType::Long);
  const std::vector<Tensor> moves = dense_levels(deltas, false), chosen = dense_levels(best, false);
  const Tensor all = dense(anchors, false);
  dispatch_floating("decode_proposals", deltas[0].scalar_type(), [&](auto type) {
    using D = decltype(type);
    using T = device_accumulate_t<D>;
    ProposalLevels<D> from{};
    from.levels = static_cast<int>(deltas.size());
    for (int l = 0; l < from.levels; ++l) {
      from.deltas[l] = data<D>(moves[l]);
      from.best[l] = data<int64_t>(chosen[l]);
      from.anchors[l + 1] = from.anchors[l] + deltas[l].size(1);
      from.proposals[l + 1] = from.proposals[l] + best[l].size(1);
    }
    launch_decode_proposals(from, data<T>(all), heights, widths, static_cast<int>(min_size), mutable_data<T>(boxes),
                            mutable_data<int64_t>(groups), device.stream);
  });
  check_launch("decode_proposals");
  return {boxes, groups};
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CUDA, m) {
  m.impl("decode_proposals", TORCH_BOX(&decode_proposals));
}

}  // namespace
}  // namespace rpcnn
