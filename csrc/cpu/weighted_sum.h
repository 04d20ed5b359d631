// Weighted sums of several vectors in one pass: the inner loop of RoIAlign's taps and of a pyramid's rows.
#pragma once

#include "common.h"

namespace rpcnn {

// Vectors and their weights, waiting to be summed.
template <typename T, typename A>
struct Terms {
  std::vector<const T*> from;
  std::vector<A> weight;

  void clear() { from.clear(), weight.clear(); }
  void add(const T* vector, A w) { from.push_back(vector), weight.push_back(w); }
};

// sum[c] = (kFirst ? 0 : sum[c]) + Σ_t weight[t] · from[t][c]: all terms at once, so that a sum is stored once.
template <typename T, typename A, int kTerms, bool kFirst>
RPCNN_CLONES void add_terms(A* __restrict sum, const T* const* from, const A* weight, int64_t n) {
  for (int64_t c = 0; c < n; ++c) {
    A value = kFirst ? A(0) : sum[c];
#pragma GCC unroll 8
    for (int t = 0; t < kTerms; ++t) value += weight[t] * A(from[t][c]);
    sum[c] = value;
  }
}

template <typename T, typename A, bool kFirst>
void add_some(A* sum, const T* const* from, const A* weight, int64_t terms, int64_t n) {
  switch (terms) {
#define RPCNN_TERMS(count) \
  case count:              \
    return add_terms<T, A, count, kFirst>(sum, from, weight, n);
    RPCNN_TERMS(0)
    RPCNN_TERMS(1)
    RPCNN_TERMS(2)
    RPCNN_TERMS(3)
    RPCNN_TERMS(4)
    RPCNN_TERMS(5)
    RPCNN_TERMS(6)
    RPCNN_TERMS(7)
    default:
      RPCNN_TERMS(8)
#undef RPCNN_TERMS
  }
}

// sum = Σ terms, or sum += Σ terms.
template <typename T, typename A>
void add_up(A* sum, const Terms<T, A>& terms, int64_t n, bool fresh) {
  const int64_t count = int64_t(terms.from.size());
  for (int64_t i = 0; i < count || (fresh && i == 0); i += 8) {
    const int64_t some = std::min<int64_t>(8, count - i);
    if (fresh && i == 0) {
      add_some<T, A, true>(sum, terms.from.data(), terms.weight.data(), some, n);
    } else {
      add_some<T, A, false>(sum, terms.from.data() + i, terms.weight.data() + i, some, n);
    }
  }
}

}  // namespace rpcnn
