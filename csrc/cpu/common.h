// Shared by all CPU kernels: checks, dtype dispatch, threads, vector clones, huge pages.
#pragma once

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "../tensors.h"
#include "halves.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

// One build for every x86-64 processor: the loader picks the widest clone at run time. Plain "avx2" would
// give no fused multiply-add, hence the architecture levels. clang has no clones of templates: there -march decides.
// Not under a sanitizer, which starts after the loader.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__) && \
    !defined(__SANITIZE_ADDRESS__)
#define RPCNN_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define RPCNN_CLONES
#endif

namespace rpcnn {

// Half types accumulate in float, float and double in themselves.
template <typename T>
using accumulate_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <typename F>
void dispatch_floating(const char* op, ScalarType dtype, F&& f) {
  dispatch_floating_as<Half, BFloat16>(op, dtype, f);
}

// A fresh large tensor costs a page fault per 4 KiB at its first touch: 32–48 ms for 124 MB, 10 ms with 2 MiB
// pages (measured on two x86-64 cores). Call before the first write.
inline void advise_huge_pages(void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = uintptr_t(2) << 20;
  const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + kPage - 1) & ~(kPage - 1);
  const uintptr_t last = (reinterpret_cast<uintptr_t>(data) + uintptr_t(bytes)) & ~(kPage - 1);
  if (bytes >= int64_t(4 * kPage) && last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

// An uninitialized tensor of the given sizes on the CPU, with huge pages if it is large.
inline Tensor empty_cpu(std::vector<int64_t> sizes, ScalarType dtype, bool channels_last = false) {
  Tensor out =
      torch::stable::empty(sizes, dtype, std::nullopt, torch::stable::Device(torch::headeronly::DeviceType::CPU),
                           std::nullopt, memory_format(channels_last));
  advise_huge_pages(out.mutable_data_ptr(), out.numel() * int64_t(out.element_size()));
  return out;
}

// f(begin, end) over [0, count) in parallel; at least `grain` items a thread.
template <typename F>
void parallel(int64_t count, int64_t grain, const F& f) {
  if (count > 0) torch::stable::parallel_for(0, count, grain, f);
}

}  // namespace rpcnn
