// Resizes label maps by nearest neighbor: new pixel i is old pixel ⌊i · old / new⌋, exact in integers; and mirrors
// them.
//
// Fewest bytes: the old pixels are read and the new ones written once. A run of one label takes one comparison for
// eight of its old pixels and one fill; a new row with the old row of the one above is a copy of that.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "pixel_runs.h"

namespace rpcnn::labelmaps {

struct Resize {
  int64_t height, width, new_height, new_width;
  const uint8_t* table;         // the new label of each old one
  bool mirrored;                // left and right are exchanged
  std::vector<int64_t> starts;  // [width + 1]: the first new column that is of this old column or a later one

  Resize(int64_t height, int64_t width, int64_t new_height, int64_t new_width, const uint8_t* table, bool mirrored)
      : height(height),
        width(width),
        new_height(new_height),
        new_width(new_width),
        table(table),
        mirrored(mirrored),
        starts(width + 1) {
    for (int64_t x = 0; x <= width; ++x) starts[x] = (x * new_width + width - 1) / width;
  }

  void row(const uint8_t* old, uint8_t* fresh) const {
    for (int64_t x = 0, end; x < width; x = end) {
      const uint64_t eight = 0x0101010101010101u * old[x];
      end = x + 1;
      while (end + 8 <= width && word_at(old + end) == eight) end += 8;
      while (end < width && old[end] == old[x]) ++end;
      const int64_t first = mirrored ? new_width - starts[end] : starts[x];
      std::fill_n(fresh + first, starts[end] - starts[x], table[old[x]]);
    }
  }

  void operator()(const uint8_t* old, uint8_t* fresh) const {
    int64_t above = -1;
    for (int64_t y = 0; y < new_height; ++y, fresh += new_width) {
      const int64_t from = y * height / new_height;
      if (from == above)
        std::memcpy(fresh, fresh - new_width, new_width);
      else
        row(old + from * width, fresh);
      above = from;
    }
  }
};

}  // namespace rpcnn::labelmaps
