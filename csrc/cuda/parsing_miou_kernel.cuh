// parsing_miou: per RoI the mean over present classes of |prediction ∩ truth| / |prediction ∪ truth|.
//
// Fewest bytes: the logits and the target read once, 4 bytes written per RoI. One launch, one block a RoI, one thread a
// pixel at a time: it keeps the running maximum over the classes in registers, where neighbors read neighbors, and adds
// to one of three counts a class in shared memory: right, missed, wrong; union = their sum. Neighboring pixels mostly
// share a class, so that a single histogram would serialize the warp: each lane has its own column (its own bank) of up
// to 32 copies. No label map is stored, nothing is zeroed or combined in global memory; counts are integers, so the
// order of additions does not matter. A RoI keeps one multiprocessor busy: with few RoIs most of a large GPU is idle.
//
// With channels innermost the threads of a warp read K elements apart: one class of 32 pixels touches as many cache
// lines as all their classes together (20 lines for 20 floats). Loading 16 or 8 bytes of classes at once takes a
// quarter or half as many passes over those lines.
#pragma once

#include <cstring>
#include <type_traits>

#include "device.cuh"

namespace rpcnn {

constexpr int kMostThreads = 1024;
constexpr int kCountBytes = 48 << 10;                                    // shared memory that every GPU has
constexpr int kMostClasses = kCountBytes / (3 * int(sizeof(uint32_t)));  // 4096, with a single copy

// Strides in elements; labels have no class stride.
struct PixelStrides {
  int64_t roi, label, row, column;
};

// Integer labels of any width.
struct Labels {
  const void* data;
  int bytes;
  bool is_signed;
  PixelStrides strides;
  RPCNN_HOST_DEVICE int64_t at(int64_t i) const {
    switch (bytes) {
      case 1:
        return is_signed ? int64_t(static_cast<const int8_t*>(data)[i]) : int64_t(static_cast<const uint8_t*>(data)[i]);
      case 2:
        return static_cast<const int16_t*>(data)[i];
      case 4:
        return static_cast<const int32_t*>(data)[i];
      default:
        return static_cast<const int64_t*>(data)[i];
    }
  }
};

// The predicted class of a pixel: the first of the largest logits, NaN losing to every number. V neighboring classes
// are loaded at once, where packs_classes() allows V > 1.
template <typename T, int V>
struct ArgMax {
  static constexpr int kResident = 1;  // blocks per multiprocessor: for two, nvcc spilled registers
  const T* logits;
  PixelStrides strides;
  RPCNN_HOST_DEVICE int64_t operator()(int64_t roi, int64_t row, int64_t column, int K) const {
    using A = device_accumulate_t<T>;
    const T* pixel = logits + roi * strides.roi + row * strides.row + column * strides.column;
    A best = -INFINITY;
    int label = 0;
#pragma unroll 4
    for (int first = 0; first < K; first += V) {
      T read[V];
      if constexpr (V == 1) {
        read[0] = pixel[first * strides.label];
      } else {
        using Pack = std::conditional_t<V * sizeof(T) == 16, int4, int2>;
        const Pack pack = *reinterpret_cast<const Pack*>(pixel + first);
        memcpy(read, &pack, sizeof(pack));
      }
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const A value = A(read[k]);
        label = value > best ? first + k : label;
        best = value > best ? value : best;
      }
    }
    return label;
  }
};

// Whether the classes of every pixel lie side by side, in aligned packs of V.
template <typename T>
bool packs_classes(const T* logits, const PixelStrides& strides, int K, int V) {
  return strides.label == 1 && K % V == 0 && strides.roi % V == 0 && strides.row % V == 0 && strides.column % V == 0 &&
         reinterpret_cast<uintptr_t>(logits) % (V * sizeof(T)) == 0;
}

struct GivenLabel {
  static constexpr int kResident = 0;  // left to nvcc: two where they fit
  Labels labels;
  RPCNN_HOST_DEVICE int64_t operator()(int64_t roi, int64_t row, int64_t column, int) const {
    const PixelStrides& s = labels.strides;
    return labels.at(roi * s.roi + row * s.row + column * s.column);
  }
};

// copies: a power of two up to 32; counts [3][K][copies].
template <typename Predict>
__global__ void __launch_bounds__(kMostThreads, Predict::kResident)
    parsing_miou_kernel(Predict predict, Labels target, int K, int64_t H, int64_t W, int64_t ignored, int copies,
                        float* out) {
  SIMT_DYN_SHARED(uint32_t, counts);
  const int64_t roi = blockIdx.x;
  for (int i = threadIdx.x; i < 3 * K * copies; i += blockDim.x) counts[i] = 0;
  __syncthreads();
  const int copy = threadIdx.x & (copies - 1);
  const auto count = [&](int which, int64_t label) { atomicAdd(&counts[(which * K + label) * copies + copy], 1u); };
  for (int64_t i = threadIdx.x; i < H * W; i += blockDim.x) {
    const uint32_t row = static_cast<uint32_t>(i) / static_cast<uint32_t>(W);  // H · W < 2³²; 64 bits are far slower
    const int64_t column = i - int64_t(row) * W;
    const PixelStrides& s = target.strides;
    const int64_t truth = target.at(roi * s.roi + row * s.row + column * s.column);
    if (truth < 0 || truth >= K || truth == ignored) continue;
    const int64_t label = predict(roi, row, column, K);
    if (label == truth) {
      count(0, truth);
    } else {
      count(1, truth);
      if (label >= 0 && label < K) count(2, label);
    }
  }
  __syncthreads();
  if (threadIdx.x >= 32) return;
  // One lane per class; the sum then runs in the order of the classes, as on the CPU.
  double total = 0;
  int64_t present = 0;
  for (int first = 0; first < K; first += 32) {
    const int k = first + threadIdx.x;
    int64_t sums[3] = {0, 0, 0};
    for (int c = 0; k < K && c < copies; ++c)
      for (int which = 0; which < 3; ++which)  // lanes start at different banks
        sums[which] += counts[(which * K + k) * copies + ((c + threadIdx.x) & (copies - 1))];
    const int64_t joined = sums[0] + sums[1] + sums[2];
    const double iou = joined ? double(sums[0]) / double(joined) : 0.0;
    present += __popc(__ballot_sync(~0u, joined > 0));
    for (int lane = 0; lane < 32; ++lane) total += __shfl_sync(~0u, iou, lane);
  }
  if (threadIdx.x == 0) out[roi] = present ? float(total / double(present)) : 0.0f;
}

// K <= kMostClasses, H · W < 2³².
template <typename Predict>
void launch_parsing_miou(const Predict& predict, const Labels& target, int64_t rois, int K, int64_t H, int64_t W,
                         int64_t ignored, float* out, Stream stream) {
  int copies = 32;
  while (copies * K > kMostClasses) copies /= 2;
  const int64_t warps = (H * W + 31) / 32;
  const unsigned threads = static_cast<unsigned>(warps < 1                   ? 32
                                                 : 32 * warps > kMostThreads ? kMostThreads
                                                                             : 32 * warps);
  if (rois)
    SIMT_LAUNCH((parsing_miou_kernel<Predict>), static_cast<unsigned>(rois), threads, 3 * K * copies * sizeof(uint32_t),
                stream, predict, target, K, H, W, ignored, copies, out);
}

template <typename T>
void launch_parsing_miou_of_logits(const T* logits, const PixelStrides& strides, const Labels& target, int64_t rois,
                                   int K, int64_t H, int64_t W, int64_t ignored, float* out, Stream stream) {
  const auto launch = [&](auto classes) {
    launch_parsing_miou(ArgMax<T, classes>{logits, strides}, target, rois, K, H, W, ignored, out, stream);
  };
  constexpr int kPack = 16 / int(sizeof(T));
  if (packs_classes(logits, strides, K, kPack))
    launch(std::integral_constant<int, kPack>{});
  else if (packs_classes(logits, strides, K, kPack / 2))
    launch(std::integral_constant<int, kPack / 2>{});
  else
    launch(std::integral_constant<int, 1>{});
}

}  // namespace rpcnn
