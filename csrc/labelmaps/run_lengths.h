// Paints a mask given as COCO's compressed run lengths, without decoding it to a mask.
//
// The code is a sequence of signed numbers. Each character, less '0', holds 5 bits of a number, low bits first; bit 5
// says that the number continues, and bit 4 of its last character is the sign. A number is the length of a run: zeros,
// then ones, in turn. From the fourth number on it is the difference from the length two before.
//
// Fewest bytes: the code is read and the ones are written once. pycocotools writes every pixel of every mask one by
// one, and returns uninitialized memory where a code is too short.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace rpcnn::labelmaps {

// Writes `value` where the mask is 1. Returns false where the code is invalid or not of exactly `size` pixels.
inline bool paint_runs(std::string_view code, uint8_t value, uint8_t* pixels, int64_t size) {
  constexpr int kMostBits = 35;  // lengths below 2³¹ and their differences
  int64_t at = 0, before[2] = {0, 0};
  size_t i = 0;
  for (int64_t run = 0; i < code.size(); ++run) {
    int64_t number = 0;
    int bits = 0;
    for (bool more = true; more;) {
      if (i == code.size() || bits == kMostBits) return false;
      const int digit = static_cast<uint8_t>(code[i++]) - '0';
      if (digit < 0 || digit > 63) return false;
      number |= int64_t{digit & 31} << bits;
      bits += 5;
      more = digit & 32;
      if (!more && (digit & 16)) number -= int64_t{1} << bits;
    }
    if (run > 2) number += before[run % 2];
    before[run % 2] = number;
    if (number < 0 || number > size - at) return false;
    if (run % 2 && number) std::memset(pixels + at, value, number);
    at += number;
  }
  return at == size;
}

}  // namespace rpcnn::labelmaps
