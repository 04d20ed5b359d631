// Vectors of eight numbers, for what compilers do not vectorize themselves: shuffles and transposition.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace rpcnn {

constexpr int64_t kLanes = 8;

template <typename A>
struct Lanes {
  typedef std::conditional_t<sizeof(A) == 4, int32_t, int64_t> Index;
  typedef A Values __attribute__((vector_size(kLanes * sizeof(A))));
  typedef Index Indices __attribute__((vector_size(kLanes * sizeof(A))));
};

// Inlined into each clone of a function (RPCNN_CLONES), to be compiled for the clone's instruction set.
#define RPCNN_INLINE inline __attribute__((always_inline))

template <typename V>
RPCNN_INLINE void load(const void* from, V& to) {
  std::memcpy(&to, from, sizeof to);
}
template <typename V>
RPCNN_INLINE void store(const V& from, void* to) {
  std::memcpy(to, &from, sizeof from);
}

// to[k] = from[at[k]].
template <typename A>
RPCNN_INLINE void pick(const typename Lanes<A>::Values& from, const typename Lanes<A>::Indices& at,
                       typename Lanes<A>::Values& to) {
#if defined(__clang__)
  for (int64_t k = 0; k < kLanes; ++k) to[k] = from[at[k]];
#else
  to = __builtin_shuffle(from, at);
#endif
}

// to[i · to_stride + j] = from[j · from_stride + i] for 8 × 8 numbers: three rounds of eight shuffles.
template <typename A>
RPCNN_INLINE void transpose(const A* from, int64_t from_stride, A* to, int64_t to_stride) {
  typename Lanes<A>::Values r[8], s[8];
#pragma GCC unroll 8
  for (int k = 0; k < 8; ++k) load(from + k * from_stride, r[k]);
#pragma GCC unroll 4
  for (int k = 0; k < 8; k += 2) {
    s[k] = __builtin_shufflevector(r[k], r[k + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    s[k + 1] = __builtin_shufflevector(r[k], r[k + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
#pragma GCC unroll 2
  for (int k = 0; k < 8; k += 4)
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      r[k + 2 * half] = __builtin_shufflevector(s[k + half], s[k + 2 + half], 0, 1, 8, 9, 4, 5, 12, 13);
      r[k + 2 * half + 1] = __builtin_shufflevector(s[k + half], s[k + 2 + half], 2, 3, 10, 11, 6, 7, 14, 15);
    }
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    s[k] = __builtin_shufflevector(r[k], r[k + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    s[k + 4] = __builtin_shufflevector(r[k], r[k + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
#pragma GCC unroll 8
  for (int k = 0; k < 8; ++k) store(s[k], to + k * to_stride);
}

}  // namespace rpcnn
