// Paints a mask that is given as COCO's compressed run lengths, without making the mask.
//
// The code is numbers of 5 bits a character, low bits first, counted from '0'; bit 5 says that more follow, bit 4 of a
// number's last character is its sign. A number is the length of a run, of zeros and ones by turns, zeros first; from
// the fourth on it is the difference from the number two before.
//
// Fewest bytes: the code is read and the ones are written once. pycocotools writes every pixel of every mask, one by
// one, and hands out memory that nobody wrote where a code is too short.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace rpcnn::metrics {

// Writes `value` into the ones of pixels [size]. False where the code is none of exactly `size` pixels.
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

}  // namespace rpcnn::metrics
