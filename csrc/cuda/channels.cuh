// How a block of 32 × 8 threads shares the places (pixels, cells) and channels of maps, in either layout.
//
// With channels innermost a warp works on one place: what depends on the place alone is uniform, and each lane loads
// and stores 16 bytes of neighboring channels (one element per lane where C or an address is no multiple of that). With
// planes a warp works on 32 places and each thread on kPlanes planes: stores are coalesced, and loads lie as close
// together as the places.
#pragma once

#include <cstring>
#include <type_traits>

#include "device.cuh"

namespace rpcnn {

constexpr int kPlanes = 4;  // channels of a thread where channels are planes

template <typename T>
constexpr bool kIsBfloat16 = false;
#if __has_include(<cuda_bf16.h>)
template <>
constexpr bool kIsBfloat16<__nv_bfloat16> = true;
#endif

// Number k of a pack. A bfloat16 is the upper half of its float: nvcc takes two instructions for the upper half of a
// word instead of one mask.
template <typename A, typename T>
RPCNN_HOST_DEVICE A widened(const T* pack, int k) {
  if constexpr (kIsBfloat16<T>) {
    uint32_t word;
    memcpy(&word, pack + k / 2 * 2, 4);
    word = k % 2 ? word & 0xffff0000u : word << 16;
    A value;
    memcpy(&value, &word, 4);
    return value;
  } else {
    return A(pack[k]);
  }
}

// V channels of one place. Innermost: V neighbors in memory, moved in packs of 16 bytes; C is a multiple of V. Planes:
// those that exist.
template <typename T, int V, bool kInnermost>
struct Channels {
  using A = device_accumulate_t<T>;
  // A 16-byte access of vector type is not split by compilers.
  static constexpr int kPacks = V > 1 ? int(sizeof(T)) * V / 16 : 0;
  static_assert(!kInnermost || V == 1 || sizeof(T) * V == 16u * kPacks, "whole packs or one element");

  // The channel c + k, or the last one where planes end before.
  static RPCNN_HOST_DEVICE int64_t index(int64_t c, int k, int64_t C) {
    return kInnermost || c + k < C ? c + k : C - 1;
  }

  // Where a thread's channels c, c + 1, … of element `place` of planes `plane` elements large begin.
  template <typename P>
  static RPCNN_HOST_DEVICE P* start(P* image, int64_t place, int64_t plane, int64_t c, int64_t C) {
    return image + (kInnermost ? place * C + c : c * plane + place);
  }

  // value[k] = the channel c + k at element `place` of its plane.
  static RPCNN_HOST_DEVICE void load(const T* image, int64_t place, int64_t plane, int64_t c, int64_t C, A* value) {
    load_from(start(image, place, plane, c, C), plane, C - c, value);
  }
  static RPCNN_HOST_DEVICE void store(T* image, int64_t place, int64_t plane, int64_t c, int64_t C, const A* sum) {
    store_to(start(image, place, plane, c, C), plane, C - c, sum);
  }

  // The same where `from` or `to` is the start; `left`: channels from c on, which only planes ask for.
  static RPCNN_HOST_DEVICE void load_from(const T* from, int64_t plane, int64_t left, A* value) {
    if constexpr (kInnermost && V > 1) {
      const int4* packs = reinterpret_cast<const int4*>(from);
      T read[V];
#pragma unroll
      for (int i = 0; i < kPacks; ++i) {
        const int4 pack = packs[i];
        memcpy(reinterpret_cast<char*>(read) + 16 * i, &pack, 16);
      }
#pragma unroll
      for (int k = 0; k < V; ++k) value[k] = widened<A>(read, k);
    } else {
#pragma unroll
      for (int k = 0; k < V; ++k) value[k] = kInnermost || k < left ? A(from[k * plane]) : A(0);
    }
  }
  static RPCNN_HOST_DEVICE void store_to(T* to, int64_t plane, int64_t left, const A* sum) {
    if constexpr (kInnermost && V > 1) {
      T value[V];
#pragma unroll
      for (int k = 0; k < V; ++k) value[k] = T(sum[k]);
      int4* packs = reinterpret_cast<int4*>(to);
#pragma unroll
      for (int i = 0; i < kPacks; ++i) {
        int word[4];
        memcpy(word, reinterpret_cast<const char*>(value) + 16 * i, 16);
        // An intrinsic, because nvcc split the assignment into four stores.
        __stwb(packs + i, make_int4(word[0], word[1], word[2], word[3]));
      }
    } else {
#pragma unroll
      for (int k = 0; k < V; ++k)
        if (kInnermost || k < left) to[k * plane] = T(sum[k]);
    }
  }
};

// Lanes of a warp count channels where these are innermost and places otherwise; threadIdx.y counts the other.
template <int V, bool kInnermost>
struct WarpMapping {
  static constexpr int kPlaces = kInnermost ? 8 : 32, kChannels = (kInnermost ? 32 : 8) * V;
  static RPCNN_HOST_DEVICE int place(const uint3& thread) { return static_cast<int>(kInnermost ? thread.y : thread.x); }
  static RPCNN_HOST_DEVICE int channel(const uint3& thread) {
    return static_cast<int>(kInnermost ? thread.x : thread.y) * V;
  }
  // Blocks needed to cover the channels.
  static RPCNN_HOST_DEVICE int64_t pieces(int64_t C) { return (C + kChannels - 1) / kChannels; }
};

// The number of blocks per multiprocessor to compile for: without it nvcc spills registers to fit one more. Kernels in
// double serve gradient checks and get all the registers they need.
template <typename G>
constexpr int resident_blocks(int blocks) {
  return sizeof(G) == 8 ? 1 : blocks;
}

// ⌈items / each⌉, capped at the largest grid in y and z.
inline unsigned grid_size(int64_t items, int64_t each = 1) {
  const int64_t blocks = (items + each - 1) / each;
  return static_cast<unsigned>(blocks < kMaxGrid ? blocks : kMaxGrid);
}

// Blocks for every column and row of maps: columns, rows, images × pieces of the channels.
template <int V, bool kInnermost>
dim3 map_grid(int64_t columns, int64_t rows, int64_t images, int64_t C) {
  using L = WarpMapping<V, kInnermost>;
  return dim3(static_cast<unsigned>((columns + L::kPlaces - 1) / L::kPlaces), grid_size(rows),
              grid_size(images * L::pieces(C)));
}

// Maps of several sizes with the same images and channels.
struct Levels {
  int count;
  int64_t N, C, H[kMaxLevels], W[kMaxLevels];
  bool channels_last;

  RPCNN_HOST_DEVICE int64_t pixels(int l) const { return H[l] * W[l]; }
  RPCNN_HOST_DEVICE int64_t image(int l) const { return C * pixels(l); }
  // The level of a row counted over all levels; the row becomes the one within it.
  RPCNN_HOST_DEVICE int level_of(int64_t* row) const {
    int l = 0;
    while (*row >= H[l]) *row -= H[l++];
    return l;
  }
  int64_t rows() const {
    int64_t sum = 0;
    for (int l = 0; l < count; ++l) sum += H[l];
    return sum;
  }
  int64_t widest() const {
    int64_t most = 0;
    for (int l = 0; l < count; ++l) most = W[l] > most ? W[l] : most;
    return most;
  }
};

template <typename T>
bool packs_divide(int64_t C) {
  return C * int64_t(sizeof(T)) % 16 == 0;
}
inline bool starts_pack(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % 16 == 0;
}

// Calls f(V as a constant, kInnermost as a constant); `whole`: 16 bytes of channels can be moved at once everywhere.
template <typename T, typename F>
void choose_channels(bool innermost, bool whole, F&& f) {
  if (!innermost) {
    f(std::integral_constant<int, kPlanes>{}, std::false_type{});
  } else if (whole) {
    f(std::integral_constant<int, 16 / int(sizeof(T))>{}, std::true_type{});
  } else {
    f(std::integral_constant<int, 1>{}, std::true_type{});
  }
}

}  // namespace rpcnn
