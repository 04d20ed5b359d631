// Shared by all kernels that take torch tensors, on any device: memory layouts and the choice of an element type.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <limits>
#include <vector>

namespace rpcnn {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Calls f(T{}) with the type of a floating dtype, the half types being the device's; an error names the op for others.
template <typename Half, typename BFloat16, typename F>
void dispatch_floating_as(const char* op, ScalarType dtype, F&& f) {
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

inline torch::headeronly::MemoryFormat memory_format(bool channels_last) {
  return channels_last ? torch::headeronly::MemoryFormat::ChannelsLast : torch::headeronly::MemoryFormat::Contiguous;
}

// The tensor itself where its memory already is dense in the wanted layout, else a dense copy.
inline Tensor dense(const Tensor& t, bool channels_last) {
  if (channels_last ? is_channels_last(t) : t.is_contiguous()) return t;
  return torch::stable::contiguous(t, memory_format(channels_last));
}

inline std::vector<Tensor> dense_levels(const std::vector<Tensor>& levels, bool channels_last) {
  std::vector<Tensor> out;
  for (const Tensor& q : levels) out.push_back(dense(q, channels_last));
  return out;
}

// Of a size, count or index that comes as a number: beyond 32 bits it asks for more memory than there is, and the
// message of the allocator would not name it.
inline void check_extent(const char* op, const char* name, int64_t value, int64_t least) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  STD_TORCH_CHECK(value >= least && value <= kMost, op, ": ", name, " must lie in ", least, "..", kMost, ", got ",
                  value);
}

// Of a map [N, C, H, W].
inline std::vector<int64_t> sizes_of(const Tensor& t) {
  return {t.size(0), t.size(1), t.size(2), t.size(3)};
}

}  // namespace rpcnn
