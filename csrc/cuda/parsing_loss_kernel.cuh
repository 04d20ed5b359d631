// parsing_loss: with m = max_k x_k and Z = Σ_k exp(x_k − m) of each pixel, per valid pixel of class y the cross entropy
// log Z − (x_y − m), the counts of parsing_miou, and per cell of s × s pixels the maximum of p_k = exp(x_k − log Z −
// m). Its gradient: g_k = p_k (a [valid] − Σ_j p_j b_j) + p_k b_k − a [valid, k = y], where a is the gradient of the
// sum and b_k that of the maximum where this pixel is it, else 0.
//
// Between the two the forward pass keeps log Z + m of each pixel and the place of each maximum in its cell, a byte: the
// backward pass finds neither again. p_k is exact to |log Z + m| units in the last place of 1.
//
// Fewest bytes, 32 RoIs × 20 classes × 128², bfloat16, s = 4: forward 21 MB of logits, 0.5 MB of labels in, 2.1 MB of
// log Z + m, 1.3 MB of maxima, 0.7 MB of places out; backward 26 MB in, 21 MB out.
//
// A block has a tile of cells side by side, 512 pixels or more. Forward, first one thread a pixel, whose sum of
// exponentials is rescaled when a pack of classes raises the maximum, so that logits are read once; then one thread a
// cell and pack of classes, whose second reading of the logits hits the L1 cache and needs no exponential but of the
// maximum: it compares x_k − log Z − m. Counts and losses go to a row of the block, and a second launch adds the rows
// in a fixed order. Backward, first one thread a cell and class: p_k b_k of each maximum; then one thread a pixel: a
// [valid] less the sum of those at this pixel; then packs of classes in the order of memory, which write the gradient
// in whole sectors.
//
// Ladder, for the case above, counted, not timed, for an H100 (132 multiprocessors of four a clock at 1.755 GHz).
// PyTorch's ops with parsing_miou: 18 launches and 442 MB forward, 8 and 624 MB backward. Here 2 and 26 MB, 1 and 47
// MB: 7.8 and 13.9 µs at the DRAM's speed. Instructions of all warps, forward and backward:
//   expf, places byte by byte        14.2 M, 15 µs; 18.0 M, 19 µs; nvcc spilled registers for a fifth block
//   ex2.approx, packed, four blocks  11.1 M, 12 µs; 15.0 M, 16 µs
// Forward 400 instructions a warp of pixels and 630 a warp of cells and packs; backward 225 a warp of pixels, 90 a warp
// of packs and 58 a warp of maxima.
#pragma once

#include <cstring>
#include <type_traits>

#include "channels.cuh"
#include "class_counts.cuh"

namespace rpcnn {

constexpr int kTilePixels = 512;       // at least, where the map has them
constexpr int kSharedTile = 48 << 10;  // bytes of a tile's shared memory, at most
constexpr int kUnpacked = 4;           // classes at a time where they are moved one by one

// Exact to three units in the last place for x near 0, to |x| of them elsewhere; 0 where it is less than the smallest
// normal number. expf takes eight instructions, this three.
RPCNN_HOST_DEVICE float exponential(float x) {
  x *= 1.44269504f;
#if defined(__CUDA_ARCH__)
  asm("ex2.approx.ftz.f32 %0, %0;" : "+f"(x));
  return x;
#else
  return exp2f(x);
#endif
}
RPCNN_HOST_DEVICE double exponential(double x) {
  return exp(x);
}
RPCNN_HOST_DEVICE float logarithm(float x) {
  return logf(x);
}
RPCNN_HOST_DEVICE double logarithm(double x) {
  return log(x);
}

// The tile of a block: cells side by side in one RoI.
struct Tile {
  int64_t roi;
  int first;  // pixel of the map
  int cell;   // the first, in the map of cells
  int cells;  // at most 512 / s
  int width;  // in pixels
};

// Maps of one call. All steps are in elements; a map has less than 2³¹.
template <typename T>
struct ParsingMaps {
  using A = device_accumulate_t<T>;
  const T* logits;
  const uint8_t* target;
  A* log_sum;        // [RoI][H][W], log Z + m
  uint8_t* largest;  // [RoI][K][rows][columns] as the pooled maps: the place of the maximum in its cell
  int64_t rois;
  int K, H, W, pool, ignored;
  bool innermost, pool_logits;
  int rows, columns, tile;  // cells of a map; cells of a tile

  RPCNN_HOST_DEVICE int packs(int V) const { return (K + V - 1) / V; }
  RPCNN_HOST_DEVICE int across() const { return (columns + tile - 1) / tile; }
  RPCNN_HOST_DEVICE int tiles() const { return rows * across(); }
  RPCNN_HOST_DEVICE int class_step() const { return innermost ? 1 : H * W; }
  RPCNN_HOST_DEVICE int pixel_step() const { return innermost ? K : 1; }
  RPCNN_HOST_DEVICE int64_t map() const { return int64_t(K) * H * W; }
  // Of class k of a cell of the tile, in the pooled maps.
  RPCNN_HOST_DEVICE int64_t pooled(const Tile& t, int cell, int k) const {
    const int plane = rows * columns;
    return t.roi * K * plane + (innermost ? (t.cell + cell) * K + k : k * plane + t.cell + cell);
  }
  RPCNN_HOST_DEVICE Tile tile_of(unsigned block) const {
    const unsigned roi = block / tiles(), rest = block % tiles(), row = rest / across(), start = rest % across() * tile;
    const int cells = columns - int(start) < tile ? columns - int(start) : tile;
    return {roi, int(row * W + start) * pool, int(row * columns + start), cells, cells * pool};
  }
  // The pixel at a row and column of the tile.
  RPCNN_HOST_DEVICE int pixel(const Tile& t, int row, int column) const { return t.first + row * W + column; }
  // n / pool for n < 4096, pool <= 16.
  RPCNN_HOST_DEVICE int by_pool(int n) const { return n * ((65536 + pool - 1) / pool) >> 16; }
  RPCNN_HOST_DEVICE int truth(int64_t pixel) const {
    const int label = target[pixel];
    return label < K && label != ignored ? label : -1;
  }
};

// V neighboring classes of a pixel: in one access where kPacked. Classes beyond the last are -inf.
template <typename T, int V, bool kPacked>
struct ClassPack {
  using A = device_accumulate_t<T>;
  using Pack = std::conditional_t<V * sizeof(T) == 16, int4, int2>;
  static RPCNN_HOST_DEVICE void load(const T* from, int step, int left, A* value) {
    T read[V];
    if constexpr (kPacked) {
      const Pack pack = *reinterpret_cast<const Pack*>(from);
      memcpy(read, &pack, sizeof(pack));
    }
#pragma unroll
    for (int v = 0; v < V; ++v) value[v] = kPacked ? A(read[v]) : v < left ? A(from[v * step]) : -A(INFINITY);
  }
  static RPCNN_HOST_DEVICE void store(T* to, int step, int left, const A* value) {
    if constexpr (kPacked) {
      T write[V];
#pragma unroll
      for (int v = 0; v < V; ++v) write[v] = T(value[v]);
      Pack pack;
      memcpy(&pack, write, sizeof(pack));
      *reinterpret_cast<Pack*>(to) = pack;
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v)
        if (v < left) to[v * step] = T(value[v]);
    }
  }
};

// log_sum, largest, pooled; a row of counts [3][K] and a sum of losses per block.
template <typename T, int V, bool kPacked, typename A = device_accumulate_t<T>>
__global__ void __launch_bounds__(kBlock, resident_blocks<A>(V == 8 ? 3 : 4))
    parsing_loss_kernel(ParsingMaps<T> maps, ClassCounts classes, T* pooled, uint32_t* rows, A* losses) {
  using Classes = ClassPack<T, V, kPacked>;
  SIMT_DYN_SHARED(uint32_t, counts);
  SIMT_SHARED(A, sums, [kBlock / 32]);
  const Tile tile = maps.tile_of(blockIdx.x);
  const int K = maps.K, class_step = maps.class_step(), pixel_step = maps.pixel_step();
  const T* logits = maps.logits + tile.roi * maps.map();
  const int64_t plane = tile.roi * maps.H * maps.W;
  classes.clear(counts);
  __syncthreads();
  A loss = 0;
  for (unsigned i = threadIdx.x; i < unsigned(maps.pool * tile.width); i += kBlock) {
    const int pixel = maps.pixel(tile, i / tile.width, i % tile.width);
    const T* from = logits + int64_t(pixel) * pixel_step;
    A best = -A(INFINITY), sum = 0;
    int label = 0;
    for (int k = 0; k < K; k += V) {
      A value[V], before = best;
      Classes::load(from + int64_t(k) * class_step, class_step, K - k, value);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        label = value[v] > best ? k + v : label;
        best = value[v] > best ? value[v] : best;
      }
      const A base = best == -A(INFINITY) ? A(0) : best;
      sum *= exponential(before - base);
#pragma unroll
      for (int v = 0; v < V; ++v) sum += exponential(value[v] - base);
    }
    const A log = logarithm(sum);
    maps.log_sum[plane + pixel] = log + best;
    const int truth = maps.truth(plane + pixel);
    if (truth < 0) continue;
    classes.add_pixel(counts, truth, label);
    loss += log - (A(from[int64_t(truth) * class_step]) - best);
  }
  for (int half = 16; half > 0; half /= 2) loss += __shfl_xor_sync(~0u, loss, half);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = loss;
  __syncthreads();
  classes.store(counts, rows + int64_t(blockIdx.x) * 3 * K);
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < kBlock / 32; ++warp) loss += sums[warp];
    losses[blockIdx.x] = loss;
  }
  const unsigned packs = maps.packs(V);
  for (unsigned i = threadIdx.x; i < packs * tile.cells; i += kBlock) {
    const int cell = maps.innermost ? i / packs : i % tile.cells;
    const int k = V * int(maps.innermost ? i % packs : i / tile.cells);
    A best[V];
    int place[V];
#pragma unroll
    for (int v = 0; v < V; ++v) best[v] = -A(INFINITY), place[v] = 0;
    const int pixel = maps.pixel(tile, 0, cell * maps.pool);
    const T* from = logits + int64_t(pixel) * pixel_step + int64_t(k) * class_step;
    const A* log_sum = maps.log_sum + plane + pixel;
    const int to_next_row = maps.W - maps.pool;
    for (int row = 0, here = 0; row < maps.pool;
         ++row, from += int64_t(to_next_row) * pixel_step, log_sum += to_next_row)
      for (int column = 0; column < maps.pool; ++column, ++here, from += pixel_step, ++log_sum) {
        A value[V];
        Classes::load(from, class_step, K - k, value);
        const A shift = maps.pool_logits ? A(0) : *log_sum;
#pragma unroll
        for (int v = 0; v < V; ++v) {
          value[v] -= shift;
          const bool more = value[v] > best[v] || value[v] != value[v];  // as max_pool2d: the first, or the last NaN
          place[v] = more ? here : place[v];
          best[v] = more ? value[v] : best[v];
        }
      }
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (k + v >= K) break;
      const int64_t at = maps.pooled(tile, cell, k + v);
      pooled[at] = T(maps.pool_logits ? best[v] : exponential(best[v]));
      maps.largest[at] = static_cast<uint8_t>(place[v]);
    }
  }
}

// A block for the score of each RoI, and one for the sum of all losses. rows, losses: of the blocks of each RoI.
template <typename A>
__global__ void __launch_bounds__(kBlock)
    parsing_loss_sums_kernel(const uint32_t* rows, const A* losses, int64_t rois, int K, int tiles, A* loss,
                             int64_t* valid, float* miou) {
  SIMT_DYN_SHARED(uint32_t, counts);
  SIMT_SHARED(double, sums, [kBlock / 32]);
  const int64_t roi = blockIdx.x;
  if (roi < rois) {
    const RoiScore score = score_of_rows<kBlock>(rows + roi * tiles * 3 * K, K, tiles, counts);
    if (threadIdx.x == 0) valid[roi] = score.pixels, miou[roi] = score.miou;
    return;
  }
  double sum = 0;
  for (int64_t i = threadIdx.x; i < rois * tiles; i += kBlock) sum += double(losses[i]);
  for (int half = 16; half > 0; half /= 2) sum += __shfl_xor_sync(~0u, sum, half);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int warp = 1; warp < kBlock / 32; ++warp) sum += sums[warp];
  *loss = A(sum);
}

// The shared memory of a tile's gradient.
template <typename A>
struct TileGradient {
  A *hits, *scale;  // [cell, class] p_k b_k of each maximum; [pixel] a [valid] − Σ_j p_j b_j
  uint8_t* places;  // [cell, class]
  RPCNN_HOST_DEVICE TileGradient(A* shared, int cells, int K, int pool)
      : hits(shared), scale(shared + cells * K), places(reinterpret_cast<uint8_t*>(scale + cells * pool * pool)) {}
  static size_t bytes(int cells, int K, int pool) {
    return cells * (size_t(K) * (sizeof(A) + 1) + size_t(pool) * pool * sizeof(A));
  }
};

// The places of V neighboring classes, read in words; of V = 1, each when asked for.
template <int V>
struct Places {
  using Word = std::conditional_t<V % 4 == 0, uint32_t, uint16_t>;
  Word words[V / sizeof(Word)];
  RPCNN_HOST_DEVICE explicit Places(const uint8_t* from) {
#pragma unroll
    for (unsigned i = 0; i < V / sizeof(Word); ++i) words[i] = reinterpret_cast<const Word*>(from)[i];
  }
  RPCNN_HOST_DEVICE int at(int v, int) const { return words[v / sizeof(Word)] >> 8 * (v % sizeof(Word)) & 255; }
};
template <>
struct Places<1> {
  const uint8_t* from;
  RPCNN_HOST_DEVICE explicit Places(const uint8_t* from) : from(from) {}
  RPCNN_HOST_DEVICE int at(int v, int stride) const { return from[v * stride]; }
};

// grad_loss: one number or null; grad_pooled: as the pooled maps, or null.
template <typename T, int V, bool kPacked, typename A = device_accumulate_t<T>>
__global__ void __launch_bounds__(kBlock, resident_blocks<A>(4))
    parsing_loss_backward_kernel(ParsingMaps<T> maps, const A* grad_loss, const T* grad_pooled, T* grad) {
  using Classes = ClassPack<T, V, kPacked>;
  SIMT_DYN_SHARED(A, shared);
  const Tile tile = maps.tile_of(blockIdx.x);
  const int K = maps.K, class_step = maps.class_step(), pixel_step = maps.pixel_step();
  const T* logits = maps.logits + tile.roi * maps.map();
  const int64_t plane = tile.roi * maps.H * maps.W;
  const TileGradient<A> own(shared, tile.cells, K, maps.pool);
  const A weight = grad_loss ? *grad_loss : A(0);
  // Of a cell's class in shared memory: neighbors are what the last step's neighboring threads read.
  const int cell_stride = maps.innermost ? K : 1, class_stride = maps.innermost ? 1 : tile.cells;
  const unsigned hits = K * tile.cells;
  for (unsigned i = threadIdx.x; i < hits; i += kBlock) {
    const int cell = maps.innermost ? i / K : i % tile.cells, k = maps.innermost ? i % K : i / tile.cells;
    const int64_t at = maps.pooled(tile, cell, k);
    const int place = maps.largest[at], row = maps.by_pool(place);
    const int pixel = maps.pixel(tile, row, cell * maps.pool + place - row * maps.pool);
    A hit = grad_pooled ? A(grad_pooled[at]) : A(0);
    if (!maps.pool_logits)
      hit *=
          exponential(A(logits[int64_t(pixel) * pixel_step + int64_t(k) * class_step]) - maps.log_sum[plane + pixel]);
    own.hits[i] = hit;
    own.places[i] = static_cast<uint8_t>(place);
  }
  __syncthreads();
  for (unsigned i = threadIdx.x; i < unsigned(maps.pool * tile.width); i += kBlock) {
    const int row = i / tile.width, column = i % tile.width, cell = maps.by_pool(column);
    const int place = row * maps.pool + column - cell * maps.pool;
    A scale = maps.truth(plane + maps.pixel(tile, row, column)) < 0 ? A(0) : weight;
    for (int k = 0; k < K && !maps.pool_logits; ++k) {
      const int at = cell * cell_stride + k * class_stride;
      if (own.places[at] == place) scale -= own.hits[at];
    }
    own.scale[i] = scale;
  }
  __syncthreads();
  // Neighboring threads: packs of a pixel where classes are innermost, else columns.
  const int packs = maps.packs(V), fast = maps.innermost ? packs : tile.width;
  const int slow = maps.innermost ? tile.width : packs, step = fast < kBlock ? kBlock / fast : 1;
  const int first_fast = fast < kBlock ? threadIdx.x % fast : threadIdx.x;
  const int first_slow = fast < kBlock ? threadIdx.x / fast : 0;
  if (first_slow >= step) return;
  for (int row = 0; row < maps.pool; ++row)
    for (int s = first_slow; s < slow; s += step)
      for (int f = first_fast; f < fast; f += kBlock) {
        const int column = maps.innermost ? s : f, k = V * (maps.innermost ? f : s), cell = maps.by_pool(column);
        const int pixel = maps.pixel(tile, row, column), place = row * maps.pool + column - cell * maps.pool;
        const int64_t at = int64_t(pixel) * pixel_step + int64_t(k) * class_step;
        const int truth = maps.truth(plane + pixel);
        const A shift = maps.log_sum[plane + pixel], scale = own.scale[row * tile.width + column];
        A value[V];
        Classes::load(logits + at, class_step, K - k, value);
        const int hit = cell * cell_stride + k * class_stride;
        const Places<kPacked ? V : 1> places(own.places + hit);
#pragma unroll
        for (int v = 0; v < V; ++v) {
          value[v] = exponential(value[v] - shift) * scale;
          if ((kPacked || k + v < K) && places.at(v, class_stride) == place)
            value[v] += own.hits[hit + v * class_stride];
          if (k + v == truth) value[v] -= weight;
        }
        Classes::store(grad + tile.roi * maps.map() + at, class_step, K - k, value);
      }
}

// Cells of a tile: 512 pixels or more, if their gradient fits in shared memory.
template <typename A>
int cells_of_tile(int columns, int K, int pool) {
  int cells = kTilePixels / (pool * pool) > 32 ? kTilePixels / (pool * pool) : 32;
  cells = cells < columns ? cells : columns;
  while (cells > 1 && TileGradient<A>::bytes(cells, K, pool) > kSharedTile) cells = (cells + 1) / 2;
  return cells;
}

template <typename T>
ParsingMaps<T> parsing_maps(const T* logits, const uint8_t* target, int64_t rois, int K, int H, int W, int pool,
                            int64_t ignored, bool innermost, bool pool_logits, device_accumulate_t<T>* log_sum,
                            uint8_t* largest) {
  ParsingMaps<T> maps{logits, target, log_sum, largest, rois, K, H, W, pool, -1, innermost, pool_logits};
  if (ignored >= 0 && ignored < K) maps.ignored = static_cast<int>(ignored);
  maps.rows = H / pool;
  maps.columns = W / pool;
  maps.tile = cells_of_tile<device_accumulate_t<T>>(maps.columns, K, pool);
  return maps;
}

// f(V, kPacked) as constants: 16 or 8 bytes of classes at once where all pixels allow it.
template <typename T, typename F>
void choose_classes(const ParsingMaps<T>& maps, const void* other, F&& f) {
  constexpr int kPack = 16 / int(sizeof(T));
  const auto whole = [&](int bytes) {
    return maps.innermost && maps.K * int(sizeof(T)) % bytes == 0 &&
           (reinterpret_cast<uintptr_t>(maps.logits) | reinterpret_cast<uintptr_t>(other)) % bytes == 0;
  };
  if (whole(16)) return f(std::integral_constant<int, kPack>{}, std::true_type{});
  if constexpr (kPack > 2)
    if (whole(8)) return f(std::integral_constant<int, kPack / 2>{}, std::true_type{});
  f(std::integral_constant<int, kUnpacked>{}, std::false_type{});
}

// rows: 3 K numbers, losses: one, for each tile of each RoI.
template <typename T, typename A = device_accumulate_t<T>>
void launch_parsing_loss(const ParsingMaps<T>& maps, T* pooled, uint32_t* rows, A* losses, A* loss, int64_t* valid,
                         float* miou, Stream stream) {
  const ClassCounts classes(maps.K);
  const unsigned blocks = static_cast<unsigned>(maps.rois * maps.tiles());
  if (blocks)
    choose_classes(maps, nullptr, [&](auto V, auto packed) {
      SIMT_LAUNCH((parsing_loss_kernel<T, V, packed>), blocks, kBlock, classes.bytes(), stream, maps, classes, pooled,
                  rows, losses);
    });
  SIMT_LAUNCH((parsing_loss_sums_kernel<A>), static_cast<unsigned>(maps.rois + 1), kBlock,
              3 * maps.K * sizeof(uint32_t), stream, rows, losses, maps.rois, maps.K, maps.tiles(), loss, valid, miou);
}

template <typename T, typename A = device_accumulate_t<T>>
void launch_parsing_loss_backward(const ParsingMaps<T>& maps, const A* grad_loss, const T* grad_pooled, T* grad,
                                  Stream stream) {
  const unsigned blocks = static_cast<unsigned>(maps.rois * maps.tiles());
  if (blocks)
    choose_classes(maps, grad, [&](auto V, auto packed) {
      SIMT_LAUNCH((parsing_loss_backward_kernel<T, V, packed>), blocks, kBlock,
                  TileGradient<A>::bytes(maps.tile, maps.K, maps.pool), stream, maps, grad_loss, grad_pooled, grad);
    });
}

}  // namespace rpcnn
