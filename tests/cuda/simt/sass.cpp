// The library's side of sass.h: which machine code is executed, and what was counted.
#ifdef SIMT_SASS
#include "sass.h"

#include "exports.h"

// Scratch memory starts where CUDA has it, too: addresses decide what is counted.
void* operator new(size_t bytes) {
  if (void* at = aligned_alloc(512, (bytes + 512) / 512 * 512)) return at;
  throw std::bad_alloc();
}
void* operator new[](size_t bytes) {
  return operator new(bytes);
}
void operator delete(void* at) noexcept {
  free(at);
}
void operator delete[](void* at) noexcept {
  free(at);
}
void operator delete(void* at, size_t) noexcept {
  free(at);
}
void operator delete[](void* at, size_t) noexcept {
  free(at);
}

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

// Runs a kernel of the library by its name, with the bytes of its parameters.
SIMT_EXPORT sass_run(const char* kernel, int64_t blocks, int64_t threads, const void* parameters, int64_t bytes) {
  return simt_run([&] {
    const auto* from = static_cast<const unsigned char*>(parameters);
    sass::launches.push_back(sass::launch(sass::library->kernel(kernel), {uint32_t(blocks), 1, 1},
                                          {uint32_t(threads), 1, 1}, {from, from + bytes}));
  });
}

// The counts of all launches since the last call: names, then a line for each launch, fields separated by tabs.
SIMT_EXPORT sass_counts() {
  static std::string text;
  text =
      "kernel\tblocks\twarps\tinstructions\tlanes\tlongest_warp\tlongest_block\tloads\tstores\tbusy\tsectors\t"
      "level2\tglobal\tshared\tfma\talu\tfp64\txu\tmemory\tuniform\tcontrol\n";
  for (const sass::Counts& c : sass::launches) {
    text += c.kernel;
    for (const uint64_t n : {c.blocks, c.warps, c.instructions, c.lanes, c.longest_warp, c.longest_block, c.loads,
                             c.stores, c.busy, c.sectors, c.level2, c.global, c.shared})
      text += '\t' + std::to_string(n);
    for (const uint64_t n : c.pipes) text += '\t' + std::to_string(n);
    text += '\n';
  }
  sass::launches.clear();
  return text.c_str();
}
#endif
