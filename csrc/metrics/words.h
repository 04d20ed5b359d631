// Label maps come in runs: eight pixels are looked at as one 64-bit word.
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

inline void set_word(uint8_t* pixels, uint64_t word) {
  std::memcpy(pixels, &word, 8);
}

inline uint64_t eight(uint8_t label) {
  return 0x0101010101010101ull * label;
}

inline bool uniform(uint64_t word) {
  return word == eight(static_cast<uint8_t>(word));
}

// Whether all of 64 pixels are background; in 16-byte words, which every 64-bit machine has.
inline bool background(const uint8_t* pixels) {
  using Words = uint64_t __attribute__((vector_size(16)));
  Words words[4];
  std::memcpy(words, pixels, 64);
  const Words any = (words[0] | words[1]) | (words[2] | words[3]);
  return (any[0] | any[1]) == 0;
}

// word(i) for each i where eight pixels are not all background, pixel(i) for the last few; 64 pixels a step where all
// are. The two are copies and best capture by value: bytes that they write might otherwise be their own captures.
template <class Word, class Pixel>
void for_labelled(const uint8_t* map, int64_t pixels, Word word, Pixel pixel) {
  int64_t i = 0;
  for (; i + 64 <= pixels; i += 64) {
    __builtin_prefetch(map + i + 2048);
    if (background(map + i)) continue;
    for (int k = 0; k < 64; k += 8)
      if (word_at(map + i + k)) word(i + k);
  }
  for (; i + 8 <= pixels; i += 8)
    if (word_at(map + i)) word(i);
  for (; i < pixels; ++i) pixel(i);
}

// Whether eight pixels have one label and one number.
template <class Number>
bool eight_alike(const uint8_t* labels, const Number* numbers) {
  return uniform(word_at(labels)) && std::equal(numbers, numbers + 7, numbers + 1);
}

template <>
inline bool eight_alike(const uint8_t* labels, const uint8_t* numbers) {
  return uniform(word_at(labels)) && uniform(word_at(numbers));
}

}  // namespace rpcnn::metrics
