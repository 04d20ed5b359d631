// The torch side of every CUDA op: checks, dtype dispatch to device types, current stream, launch check.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <vector>

#include "device.cuh"

namespace rpcnn {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Makes the tensor's device current for as long as it lives, and knows that device's current stream.
struct OnDeviceOf {
  explicit OnDeviceOf(const Tensor& t) : guard(t.get_device_index()) {
    void* handle = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &handle));
    stream = static_cast<Stream>(handle);
  }
  torch::stable::accelerator::DeviceGuard guard;
  Stream stream;
};

inline void check_launch(const char* op) {
  const cudaError_t status = cudaGetLastError();
  STD_TORCH_CHECK(status == cudaSuccess, op, ": the CUDA launch failed: ", cudaGetErrorString(status));
}

// Calls f(T{}) with the device type of a floating dtype; an error names the op for any other.
template <typename F>
void dispatch_floating(const char* op, ScalarType dtype, F&& f) {
  switch (dtype) {
    case ScalarType::Float:
      return f(float{});
    case ScalarType::Double:
      return f(double{});
    case ScalarType::Half:
      return f(__half{});
    case ScalarType::BFloat16:
      return f(__nv_bfloat16{});
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

// The tensor itself where its memory already is dense in the wanted layout, else a dense copy.
inline Tensor dense(const Tensor& t, bool channels_last) {
  if (channels_last ? is_channels_last(t) : t.is_contiguous()) return t;
  return torch::stable::contiguous(
      t, channels_last ? torch::headeronly::MemoryFormat::ChannelsLast : torch::headeronly::MemoryFormat::Contiguous);
}

inline Tensor empty_like_device(const Tensor& t, std::vector<int64_t> sizes, ScalarType dtype,
                                bool channels_last = false) {
  return torch::stable::empty(
      sizes, dtype, std::nullopt, torch::stable::Device(torch::headeronly::DeviceType::CUDA, t.get_device_index()),
      std::nullopt,
      channels_last ? torch::headeronly::MemoryFormat::ChannelsLast : torch::headeronly::MemoryFormat::Contiguous);
}

inline MapShape shape_of(const Tensor& t, bool channels_last) {
  return {t.size(1), t.size(2), t.size(3), channels_last};
}

template <typename T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <typename T>
T* mutable_data(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

}  // namespace rpcnn
