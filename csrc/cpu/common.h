// What every CPU kernel needs: checks, dtype dispatch, threads, vector clones, huge pages.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

// One build for every x86-64 processor: the loader picks the widest clone at run time. Plain "avx2" would
// give no fused multiply-add, hence the architecture levels.
#if defined(__x86_64__) && defined(__GNUC__) && defined(__linux__)
#define RPCNN_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define RPCNN_CLONES
#endif

namespace rpcnn {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Half types accumulate in float, float and double in themselves.
template <typename T>
using accumulate_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Calls f(T{}) with the C++ type of a floating dtype; an error names the op for any other.
template <typename F>
void dispatch_floating(const char* op, ScalarType dtype, F&& f) {
  switch (dtype) {
    case ScalarType::Float:
      return f(float{});
    case ScalarType::Double:
      return f(double{});
    case ScalarType::Half:
      return f(Half{});
    case ScalarType::BFloat16:
      return f(BFloat16{});
    default:
      break;
  }
  STD_TORCH_CHECK(false, op, ": dtype must be float32, float64, float16 or bfloat16, got ",
                  torch::headeronly::toString(dtype));
}

// Channels-last in memory. A tensor that is both (one channel, one pixel) counts as contiguous.
inline bool is_channels_last(const Tensor& t) {
  if (t.dim() != 4 || t.is_contiguous()) return false;
  const int64_t C = t.size(1), H = t.size(2), W = t.size(3);
  const int64_t want[4] = {H * W * C, 1, W * C, C};
  for (int i = 0; i < 4; ++i)
    if (t.size(i) != 1 && t.stride(i) != want[i]) return false;
  return true;
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

// An uninitialised tensor of the given sizes on the CPU, its pages advised huge where it is large.
inline Tensor empty_cpu(std::vector<int64_t> sizes, ScalarType dtype, bool channels_last = false) {
  Tensor out = torch::stable::empty(
      sizes, dtype, std::nullopt, torch::stable::Device(torch::headeronly::DeviceType::CPU), std::nullopt,
      channels_last ? torch::headeronly::MemoryFormat::ChannelsLast : torch::headeronly::MemoryFormat::Contiguous);
  advise_huge_pages(out.mutable_data_ptr(), out.numel() * int64_t(out.element_size()));
  return out;
}

// The tensor itself where its memory already is dense in the wanted layout, else a dense copy.
inline Tensor dense(const Tensor& t, bool channels_last) {
  if (channels_last ? is_channels_last(t) : t.is_contiguous()) return t;
  return torch::stable::contiguous(
      t, channels_last ? torch::headeronly::MemoryFormat::ChannelsLast : torch::headeronly::MemoryFormat::Contiguous);
}

// f(begin, end) over [0, count) in parallel; at least `grain` items a thread.
template <typename F>
void parallel(int64_t count, int64_t grain, const F& f) {
  if (count > 0) torch::stable::parallel_for(0, count, grain, f);
}

}  // namespace rpcnn
