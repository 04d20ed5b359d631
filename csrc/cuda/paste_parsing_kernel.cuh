// paste_parsing: each person's class probabilities, spread bilinearly over its box, to label maps of the whole image.
//
// Fewest bytes: the maps read, 5 bytes an image pixel and one per pixel and person written; 20 people in 800×1216: 26
// MB of maps, 24 MB out. One launch, one thread a pixel; a block is a tile of 32×8 pixels, so that a warp writes one
// run of each map. People are taken in chunks: each thread prepares one person's box and scales, in double, in shared
// memory. The best person comes first: the first hit decides a pixel, and without per-person maps the rest are skipped.
// Probabilities are read through the L1 cache: neighbors sample the same cells, 4 reads a class, 4 more where the
// global map helps. Nothing of classes × image size is stored.
#pragma once

#include "device.cuh"

namespace rpcnn {

constexpr int kTileWidth = 32, kTileHeight = 8;
constexpr int kChunk = kTileWidth * kTileHeight;  // people prepared at a time: 12 KB of shared memory

// One axis of a map laid over [low, high) of the image: which pixels lie on it, and between which cells.
struct PasteAxis {
  double low, scale;  // cells a pixel
  int first, last;    // pixels whose centers lie inside

  RPCNN_HOST_DEVICE static PasteAxis over(double low, double high, int cells, int size) {
    const double extent = high - low;
    if (!(extent > 0) || !(extent - extent == 0)) return {0, 0, 0, 0};
    const double begin = ceil(low - 0.5), end = ceil(high - 0.5);
    const int first = begin < 0 ? 0 : begin > size ? size : static_cast<int>(begin);
    const int last = end < first ? first : end > size ? size : static_cast<int>(end);
    return {low, double(cells) / extent, first, last};
  }
  RPCNN_HOST_DEVICE bool holds(int64_t pixel) const { return pixel >= first && pixel < last; }
};

// A pixel's place on an axis: a cell, how far to the next, and that one (the same at the end).
struct PasteCell {
  int lower, upper;
  float fraction;
  RPCNN_HOST_DEVICE PasteCell(const PasteAxis& axis, int64_t pixel, int cells) {
    const double at = (double(pixel) + 0.5 - axis.low) * axis.scale - 0.5;
    const double inside = at < 0 ? 0 : at > cells - 1 ? cells - 1 : at;
    lower = static_cast<int>(inside);
    upper = lower + 1 < cells ? lower + 1 : lower;
    fraction = static_cast<float>(inside - lower);
  }
};

// Maps [K, h, w] at one place.
struct PasteSampler {
  const float* maps;
  int64_t plane;
  int top_left, top_right, bottom_left, bottom_right;
  float down, right;
  RPCNN_HOST_DEVICE PasteSampler(const float* maps_, int h, int w, const PasteCell& y, const PasteCell& x)
      : maps(maps_),
        plane(int64_t(h) * w),
        top_left(y.lower * w + x.lower),
        top_right(y.lower * w + x.upper),
        bottom_left(y.upper * w + x.lower),
        bottom_right(y.upper * w + x.upper),
        down(y.fraction),
        right(x.fraction) {}
  RPCNN_HOST_DEVICE float operator()(int k) const {
    const float* map = maps + k * plane;
    const float a = map[top_left] + down * (map[bottom_left] - map[top_left]);
    const float b = map[top_right] + down * (map[bottom_right] - map[top_right]);
    return a + right * (b - a);
  }
};

struct PasteMaps {  // [count, K, h, w]
  const float* data;
  int64_t count;
  int K, h, w;
};

struct PasteGlobal {  // [K, h, w] or null, over height × width image pixels from the corner
  const float* data;
  int h, w;
  double height, width;
  float weight, gate;
};

struct PasteOut {
  uint8_t* labels;     // [H, W]
  int32_t* instances;  // [H, W]
  uint8_t* people;     // [R, H, W] or null
  bool paint_labels;
};

struct PastePerson {
  PasteAxis y, x;
};

__global__ void __launch_bounds__(kChunk)
    paste_parsing_kernel(PasteMaps maps, const float* boxes, const uint8_t* painted, PasteGlobal global, PasteAxis down,
                         PasteAxis across, int H, int W, PasteOut out) {
  SIMT_SHARED(PastePerson, people, [kChunk]);
  const int lane = threadIdx.x;
  const int tiles = (W + kTileWidth - 1) / kTileWidth;
  const int64_t x = int64_t(blockIdx.x % tiles) * kTileWidth + lane % kTileWidth;
  const int64_t y = int64_t(blockIdx.x / tiles) * kTileHeight + lane / kTileWidth;
  const bool inside = x < W && y < H, helped = global.data && global.weight != 0;
  const PasteSampler everywhere(global.data, global.h, global.w, PasteCell(down, y, global.h),
                                PasteCell(across, x, global.w));
  int label = 0, number = 0;
  if (inside && global.data && global.gate < INFINITY) {
    float best = -INFINITY;
    for (int k = 0; k < maps.K; ++k) {
      const float value = everywhere(k);
      if (value > best) best = value, label = k;
    }
    if (!(best > global.gate)) label = 0;
  }
  for (int64_t start = 0; start < maps.count; start += kChunk) {
    __syncthreads();
    if (start + lane < maps.count) {
      const float* box = boxes + 4 * (start + lane);
      people[lane] = {PasteAxis::over(box[1], box[3], maps.h, H), PasteAxis::over(box[0], box[2], maps.w, W)};
    }
    __syncthreads();
    const int some = static_cast<int>(maps.count - start < kChunk ? maps.count - start : kChunk);
    for (int i = 0; i < some && inside; ++i) {
      const int64_t person = start + i;
      const PastePerson& p = people[i];
      const bool visible = painted[person] && number == 0;
      int mine = 0;
      if (p.y.holds(y) && p.x.holds(x) && (visible || out.people)) {
        const PasteSampler sample(maps.data + person * maps.K * maps.h * maps.w, maps.h, maps.w,
                                  PasteCell(p.y, y, maps.h), PasteCell(p.x, x, maps.w));
        float own = -INFINITY, joined = -INFINITY;
        int own_label = 0, joined_label = 0;
        for (int k = 0; k < maps.K; ++k) {
          const float value = sample(k);
          if (value > own) own = value, own_label = k;
          if (!helped) continue;
          const float sum = value + global.weight * everywhere(k);
          if (sum > joined) joined = sum, joined_label = k;
        }
        mine = own_label > 0 ? (helped ? joined_label : own_label) : 0;
        if (visible && mine > 0) {
          number = static_cast<int>(person) + 1;
          if (out.paint_labels) label = mine;
        }
      }
      if (out.people) out.people[(person * H + y) * W + x] = static_cast<uint8_t>(mine);
    }
  }
  if (!inside) return;
  out.labels[y * W + x] = static_cast<uint8_t>(label);
  out.instances[y * W + x] = number;
}

// H, W, h and w below 2³¹ and their tiles, too; contiguous maps.
inline void launch_paste_parsing(const PasteMaps& maps, const float* boxes, const uint8_t* painted,
                                 const PasteGlobal& global, int64_t H, int64_t W, const PasteOut& out, Stream stream) {
  const int64_t tiles = (W + kTileWidth - 1) / kTileWidth * ((H + kTileHeight - 1) / kTileHeight);
  // The global map's axes are the same for all threads; divisions in double are slow on most GPUs.
  const PasteAxis down = PasteAxis::over(0, global.height, global.h, static_cast<int>(H));
  const PasteAxis across = PasteAxis::over(0, global.width, global.w, static_cast<int>(W));
  SIMT_LAUNCH((paste_parsing_kernel), static_cast<unsigned>(tiles), static_cast<unsigned>(kChunk), 0, stream, maps,
              boxes, painted, global, down, across, static_cast<int>(H), static_cast<int>(W), out);
}

}  // namespace rpcnn
