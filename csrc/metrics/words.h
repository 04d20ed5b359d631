// Label maps come in runs: pixels are looked at 64 and eight at a time before they are looked at one by one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace rpcnn::metrics {

inline uint64_t word_at(const uint8_t* pixels) {
  uint64_t word;
  std::memcpy(&word, pixels, 8);
  return word;
}

// Whether eight pixels have one value.
template <class T>
bool eight_alike(const T* pixels) {
  return std::equal(pixels, pixels + 7, pixels + 1);
}

template <>
inline bool eight_alike(const uint8_t* pixels) {
  return word_at(pixels) == 0x0101010101010101u * pixels[0];
}

// Whether all of 64 pixels are background; in 16-byte words, which every 64-bit machine has.
inline bool background(const uint8_t* pixels) {
  using Words = uint64_t __attribute__((vector_size(16)));
  Words words[4];
  std::memcpy(words, pixels, 64);
  const Words any = (words[0] | words[1]) | (words[2] | words[3]);
  return (any[0] | any[1]) == 0;
}

// f(i, n) for the eight pixels from i on: once where they are alike in every map, else one by one.
template <class F, class... Maps>
void in_runs(int64_t i, const F& f, const Maps*... maps) {
  if ((eight_alike(maps + i) && ...)) return f(i, 8);
  for (int64_t k = i; k < i + 8; ++k) f(k, 1);
}

// f(i, n) for all pixels, n of them at a time that are alike in every map; 64 where blank(i) says so of them. f is a
// copy and best captures by value: bytes that it writes might otherwise be its own captures.
template <class Blank, class F, class... Maps>
void for_runs(int64_t pixels, Blank blank, F f, const Maps*... maps) {
  int64_t i = 0;
  for (; i + 64 <= pixels; i += 64) {
    if (blank(i))
      f(i, 64);
    else
      for (int64_t k = i; k < i + 64; k += 8) in_runs(k, f, maps...);
  }
  for (; i < pixels; ++i) f(i, 1);
}

// The same where a map is not background; of a few pixels at its edges it may be.
template <class F, class... Maps>
void for_labelled_runs(int64_t pixels, F f, const uint8_t* map, const Maps*... others) {
  int64_t i = 0;
  for (; i + 64 <= pixels; i += 64) {
    __builtin_prefetch(map + i + 2048);
    if (background(map + i)) continue;
    for (int64_t k = i; k < i + 64; k += 8)
      if (word_at(map + k)) in_runs(k, f, map, others...);
  }
  for (; i < pixels; ++i) f(i, 1);
}

}  // namespace rpcnn::metrics
