// Walks over label maps by runs of equal pixels: 64 and 8 pixels are compared at once before single ones are.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace rpcnn::labelmaps {

inline uint64_t word_at(const uint8_t* pixels) {
  uint64_t word;
  std::memcpy(&word, pixels, 8);
  return word;
}

// Whether eight pixels have one value.
template <class T>
bool eight_equal(const T* pixels) {
  return std::equal(pixels, pixels + 7, pixels + 1);
}

template <>
inline bool eight_equal(const uint8_t* pixels) {
  return word_at(pixels) == 0x0101010101010101u * pixels[0];
}

// Whether all of 64 pixels are background; in 16-byte words, which every 64-bit machine has.
inline bool all_background(const uint8_t* pixels) {
  using Words = uint64_t __attribute__((vector_size(16)));
  Words words[4];
  std::memcpy(words, pixels, 64);
  const Words any = (words[0] | words[1]) | (words[2] | words[3]);
  return (any[0] | any[1]) == 0;
}

// f(i, n) for the eight pixels from i on: once with n = 8 where they are equal in every map, else for each with n = 1.
template <class F, class... Maps>
void for_eight(int64_t i, const F& f, const Maps*... maps) {
  if ((eight_equal(maps + i) && ...)) return f(i, 8);
  for (int64_t k = i; k < i + 8; ++k) f(k, 1);
}

// f(i, n) for all pixels, where the n pixels from i on are equal in every map: n is 64 where blank(i) says so, else 8
// or 1. f is copied and should capture by value: captured references could alias the bytes that it writes, and would
// be loaded again for every pixel.
template <class Blank, class F, class... Maps>
void for_runs(int64_t pixels, Blank blank, F f, const Maps*... maps) {
  int64_t i = 0;
  for (; i + 64 <= pixels; i += 64) {
    if (blank(i))
      f(i, 64);
    else
      for (int64_t k = i; k < i + 64; k += 8) for_eight(k, f, maps...);
  }
  for (; i < pixels; ++i) f(i, 1);
}

// The same, leaving out pixels that are background in the first map. Single ones may still come: f must check.
template <class F, class... Maps>
void for_labeled_runs(int64_t pixels, F f, const uint8_t* map, const Maps*... others) {
  int64_t i = 0;
  for (; i + 64 <= pixels; i += 64) {
    __builtin_prefetch(map + i + 2048);
    if (all_background(map + i)) continue;
    for (int64_t k = i; k < i + 64; k += 8)
      if (word_at(map + k)) for_eight(k, f, map, others...);
  }
  for (; i < pixels; ++i) f(i, 1);
}

}  // namespace rpcnn::labelmaps
