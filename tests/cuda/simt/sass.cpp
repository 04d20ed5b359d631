// The library's side of sass.h: which machine code is executed, and what was counted.
#ifdef SIMT_SASS
#include "sass.h"

#include "exports.h"

namespace sass {
static std::unique_ptr<Library> library;
static std::vector<Counts> launches;

void execute(const char* symbol, dim3 grid, dim3 block, const std::vector<unsigned char>& parameters) {
  if (!library) throw std::runtime_error("sass: no machine code yet, call sass_library first");
  launches.push_back(
      launch(library->kernel(short_name(symbol)), {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, parameters));
}
}  // namespace sass

// Takes kernels from what `cuobjdump --dump-sass` wrote into a file.
SIMT_EXPORT sass_library(const char* path) {
  return simt_run([&] {
    sass::library = std::make_unique<sass::Library>(path);
    sass::launches.clear();
  });
}

// The counts of all launches since the last call: a line for each, fields separated by tabs.
SIMT_EXPORT sass_counts() {
  static std::string text;
  text.clear();
  for (const sass::Counts& c : sass::launches) {
    text += c.kernel;
    for (const uint64_t n : {c.blocks, c.warps, c.instructions, c.lanes, c.longest_warp, c.longest_block, c.loads,
                             c.stores, c.busy, c.sectors, c.level2, c.wavefronts, c.shared})
      text += '\t' + std::to_string(n);
    for (const uint64_t n : c.pipes) text += '\t' + std::to_string(n);
    text += '\n';
  }
  sass::launches.clear();
  return text.c_str();
}
#endif
