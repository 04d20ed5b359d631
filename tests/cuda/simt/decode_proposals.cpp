#include "decode_proposals_kernel.cuh"

#include "exports.h"

SIMT_EXPORT decode_proposals(int64_t dtype, int64_t levels, void** deltas, void** best, const int64_t* anchors,
                             const int64_t* proposals, const void* boxes, int64_t images, const int64_t* heights,
                             const int64_t* widths, int64_t min_size, void* out, int64_t* groups) {
  return simt_run_as(dtype, [&](auto type) {
    using D = decltype(type);
    using T = rpcnn::device_accumulate_t<D>;
    rpcnn::ProposalLevels<D> from{};
    from.levels = int(levels);
    for (int l = 0; l < levels; ++l) {
      from.deltas[l] = as<D>(deltas)[l], from.best[l] = as<int64_t>(best)[l];
      from.anchors[l + 1] = from.anchors[l] + anchors[l];
      from.proposals[l + 1] = from.proposals[l] + proposals[l];
    }
    rpcnn::launch_decode_proposals(from, as<T>(boxes), std::vector<int64_t>(heights, heights + images),
                                   std::vector<int64_t>(widths, widths + images), int(min_size), as<T>(out), groups,
                                   nullptr);
  });
}
