// Sorting by integer keys.
#pragma once

#include <cstdint>
#include <vector>

namespace rpcnn {

template <typename Key>
struct Keyed {
  Key key;
  int32_t index;
};

// Stable, ascending; byte by byte from the least significant, passing over those that all keys share.
template <typename Key>
void radix_sort(std::vector<Keyed<Key>>& items) {
  std::vector<Keyed<Key>> sorted(items.size());
  for (size_t shift = 0; shift < 8 * sizeof(Key); shift += 8) {
    int64_t starts[257] = {};
    for (const auto& item : items) ++starts[((item.key >> shift) & 255) + 1];
    if (items.empty() || starts[((items[0].key >> shift) & 255) + 1] == int64_t(items.size())) continue;
    for (int digit = 0; digit < 256; ++digit) starts[digit + 1] += starts[digit];
    for (const auto& item : items) sorted[starts[(item.key >> shift) & 255]++] = item;
    items.swap(sorted);
  }
}

}  // namespace rpcnn
