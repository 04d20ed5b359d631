// decode_proposals: a thread a proposal of any level and image: deltas and anchor of the chosen index, decoded, clipped
// to the image, with its group.
//
// Fewest bytes, 17,482 proposals (two images, 2000 of each of four levels and 741 of the fifth), float32: 40 in and 24
// out each, 1.1 MB. 1 launch; PyTorch's ops take 101 and move 19.5 MB. Counted, nothing was timed: it takes what a
// launch takes.
//
// topk stays PyTorch's, one call a level: it selects within rows of up to 182,400 logits with many blocks, and a level
// of fewer anchors than are kept is only sorted.
#pragma once

#include <vector>

#include "../geometry/anchors.h"
#include "device.cuh"

namespace rpcnn {

constexpr int kLaunchImages = 64;  // whose sizes fit in the arguments of a launch

template <typename D>
struct ProposalLevels {
  const D* deltas[kAnchorLevels];        // [N, A_l, 4]
  const int64_t* best[kAnchorLevels];    // [N, k_l]
  int64_t anchors[kAnchorLevels + 1];    // first anchor of each level, and their number
  int64_t proposals[kAnchorLevels + 1];  // the same of an image's proposals
  int levels;
};

struct ImageSizes {
  int64_t first, count;  // images of this launch
  float height[kLaunchImages], width[kLaunchImages];
};

// anchors: [A, 4]. boxes and groups: of all images.
template <typename D, typename T = device_accumulate_t<D>>
__global__ void decode_proposals_kernel(ProposalLevels<D> from, const T* anchors, ImageSizes sizes, int min_size,
                                        T* boxes, int64_t* groups) {
  const int64_t each = from.proposals[from.levels], step = int64_t(gridDim.x) * kBlock;
  for (int64_t i = int64_t(blockIdx.x) * kBlock + threadIdx.x; i < sizes.count * each; i += step) {
    const int64_t own = i / each, image = sizes.first + own, rank = i - own * each, to = image * each + rank;
    int l = 0;
    while (rank >= from.proposals[l + 1]) ++l;
    const int64_t A = from.anchors[l + 1] - from.anchors[l], k = from.proposals[l + 1] - from.proposals[l];
    const int64_t index = from.best[l][image * k + rank - from.proposals[l]];
    Corners<T> box{T(0), T(0), T(0), T(0)};
    if (index >= 0 && index < A) {
      const D* d = from.deltas[l] + 4 * (image * A + index);
      const T* a = anchors + 4 * (from.anchors[l] + index);
      box = clipped(decoded(Corners<T>{a[0], a[1], a[2], a[3]}, T(d[0]), T(d[1]), T(d[2]), T(d[3])),
                    T(sizes.height[own]), T(sizes.width[own]), T(min_size));
    }
    T* out = boxes + 4 * to;
    out[0] = box.x1, out[1] = box.y1, out[2] = box.x2, out[3] = box.y2;
    groups[to] = image * from.levels + l;
  }
}

template <typename D, typename T = device_accumulate_t<D>>
void launch_decode_proposals(const ProposalLevels<D>& from, const T* anchors, const std::vector<int64_t>& heights,
                             const std::vector<int64_t>& widths, int min_size, T* boxes, int64_t* groups,
                             Stream stream) {
  const auto images = static_cast<int64_t>(heights.size());
  ImageSizes sizes{};
  for (sizes.first = 0; sizes.first < images; sizes.first += kLaunchImages) {
    sizes.count = images - sizes.first < kLaunchImages ? images - sizes.first : kLaunchImages;
    for (int64_t i = 0; i < sizes.count; ++i) {
      sizes.height[i] = static_cast<float>(heights[sizes.first + i]);
      sizes.width[i] = static_cast<float>(widths[sizes.first + i]);
    }
    const int64_t proposals = sizes.count * from.proposals[from.levels];
    if (proposals == 0) return;
    SIMT_LAUNCH((decode_proposals_kernel<D>), blocks_for(proposals), kBlock, 0, stream, from, anchors, sizes, min_size,
                boxes, groups);
  }
}

}  // namespace rpcnn
