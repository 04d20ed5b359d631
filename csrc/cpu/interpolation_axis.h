// One axis of a bilinear interpolation as tables: the taps of every output pixel, and their transpose (the output
// pixels that read an input pixel, with their weights) for backward passes that gather, which need no atomics and are
// deterministic.
#pragma once

#include <vector>

#include "../geometry/interpolate.h"

namespace rpcnn {

template <typename T>
struct InterpolationAxis {
  struct Reader {
    int64_t index;
    T weight;
  };
  std::vector<Tap<T>> taps;           // [out]
  std::vector<Reader> readers;        // grouped by input pixel, ascending
  std::vector<int64_t> reader_begin;  // [in + 1]

  InterpolationAxis(int64_t in, int64_t out, bool align_corners) : taps(out), reader_begin(in + 1, 0) {
    const T step = interpolation_step<T>(in, out, align_corners);
    for (int64_t o = 0; o < out; ++o) taps[o] = interpolation_tap<T>(o, in, step, align_corners);
    for (const auto& tap : taps) {
      ++reader_begin[tap.lo + 1];
      if (tap.hi != tap.lo) ++reader_begin[tap.hi + 1];
    }
    for (int64_t i = 0; i < in; ++i) reader_begin[i + 1] += reader_begin[i];
    readers.resize(reader_begin[in]);
    std::vector<int64_t> next(reader_begin.begin(), reader_begin.end() - 1);
    for (int64_t o = 0; o < out; ++o) {
      const auto& tap = taps[o];
      if (tap.hi == tap.lo) {
        readers[next[tap.lo]++] = {o, T(1)};
      } else {
        readers[next[tap.lo]++] = {o, tap.w_lo};
        readers[next[tap.hi]++] = {o, tap.w_hi};
      }
    }
  }
};

}  // namespace rpcnn
