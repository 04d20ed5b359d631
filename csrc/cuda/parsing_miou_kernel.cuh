// parsing_miou: per RoI the mean over present classes of |prediction ∩ truth| / |prediction ∪ truth|.
//
// Fewest bytes: the logits and the target read once, 4 bytes written per RoI. Two launches: blocks of pieces of a RoI
// count its pixels (class_counts.cuh), then a block a RoI makes the mean. One thread a pixel at a time: it keeps the
// running maximum over the classes in registers, where neighbors read neighbors. No label map is stored.
//
// With channels innermost the threads of a warp read K elements apart: one class of 32 pixels touches as many cache
// lines as all their classes together (20 lines for 20 floats). Loading 16 or 8 bytes of classes at once takes a
// quarter or half as many passes over those lines.
//
// Ladder, 32 RoIs of 20 classes × 128², bfloat16, channels innermost, counted, not timed, for an H100 (132
// multiprocessors of four a clock at 1.755 GHz). The logits take 6.6 µs at the DRAM's speed, 32 pixels 180
// instructions:
//   a block of 1024 threads a RoI       one launch; 32 multiprocessors issue 92,000 instructions each: 13 µs
//   pieces of 1024 pixels, 256 threads  two launches; 4 blocks a multiprocessor, 24,000 instructions: 3.5 µs
#pragma once

#include <cstring>
#include <type_traits>

#include "class_counts.cuh"

namespace rpcnn {

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
  Labels labels;
  RPCNN_HOST_DEVICE int64_t operator()(int64_t roi, int64_t row, int64_t column, int) const {
    const PixelStrides& s = labels.strides;
    return labels.at(roi * s.roi + row * s.row + column * s.column);
  }
};

// How the pixels of a RoI are shared by blocks; a piece is large enough for its row of counts to be the smaller part.
struct Pieces {
  int64_t pixels;  // of a piece
  int count;
  Pieces(int64_t all, int K) : pixels(12 * K > 1024 ? 12 * K : 1024), count(0) {
    if (all > 65535 * pixels) pixels = (all + 65534) / 65535;
    count = static_cast<int>((all + pixels - 1) / pixels);
  }
};

// rows [RoI][pieces][3][K].
template <typename Predict>
__global__ void __launch_bounds__(kBlock)
    parsing_miou_kernel(Predict predict, Labels target, ClassCounts classes, int64_t H, int64_t W, int64_t ignored,
                        int64_t piece, uint32_t* rows) {
  SIMT_DYN_SHARED(uint32_t, counts);
  classes.clear(counts);
  __syncthreads();
  const int64_t roi = blockIdx.x, begin = blockIdx.y * piece;
  const int64_t end = begin + piece < H * W ? begin + piece : H * W;
  for (int64_t i = begin + threadIdx.x; i < end; i += kBlock) {
    const uint32_t row = static_cast<uint32_t>(i) / static_cast<uint32_t>(W);  // H · W < 2³²; 64 bits are far slower
    const int64_t column = i - int64_t(row) * W;
    const PixelStrides& s = target.strides;
    const int64_t truth = target.at(roi * s.roi + row * s.row + column * s.column);
    if (truth < 0 || truth >= classes.K || truth == ignored) continue;
    classes.add_pixel(counts, static_cast<int>(truth), predict(roi, row, column, classes.K));
  }
  __syncthreads();
  classes.store(counts, rows + 3 * classes.K * (roi * gridDim.y + blockIdx.y));
}

// Numbers of scratch that launch_parsing_miou needs.
inline int64_t parsing_miou_rows(int64_t rois, int K, int64_t H, int64_t W) {
  return rois * Pieces(H * W, K).count * 3 * K;
}

// K <= kMostClasses, H · W < 2³²; rows: parsing_miou_rows numbers.
template <typename Predict>
void launch_parsing_miou(const Predict& predict, const Labels& target, int64_t rois, int K, int64_t H, int64_t W,
                         int64_t ignored, uint32_t* rows, float* out, Stream stream) {
  if (!rois) return;
  const ClassCounts classes(K);
  const Pieces pieces(H * W, K);
  const unsigned blocks = static_cast<unsigned>(rois);
  if (pieces.count)
    SIMT_LAUNCH((parsing_miou_kernel<Predict>), dim3(blocks, pieces.count), kBlock, classes.bytes(), stream, predict,
                target, classes, H, W, ignored, pieces.pixels, rows);
  SIMT_LAUNCH(mean_iou_kernel<kBlock>, blocks, kBlock, 3 * K * sizeof(uint32_t), stream, rows, K, pieces.count, out);
}

template <typename T>
void launch_parsing_miou_of_logits(const T* logits, const PixelStrides& strides, const Labels& target, int64_t rois,
                                   int K, int64_t H, int64_t W, int64_t ignored, uint32_t* rows, float* out,
                                   Stream stream) {
  const auto launch = [&](auto classes) {
    launch_parsing_miou(ArgMax<T, classes>{logits, strides}, target, rois, K, H, W, ignored, rows, out, stream);
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
