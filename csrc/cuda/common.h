// The torch side of every CUDA op: checks, dtype dispatch to device types, current stream, launch check.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <vector>

#include "../tensors.h"
#include "channels.cuh"

namespace rpcnn {

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

template <typename F>
void dispatch_floating(const char* op, ScalarType dtype, F&& f) {
  dispatch_floating_as<__half, __nv_bfloat16>(op, dtype, f);
}

inline ScalarType accumulation_type(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline void check_gradient(const char* op, const Tensor& grad, const Tensor& like) {
  STD_TORCH_CHECK(grad.dim() == 4 && sizes_of(grad) == sizes_of(like) && grad.is_cuda() &&
                      grad.get_device_index() == like.get_device_index() && grad.scalar_type() == like.scalar_type(),
                  op, ": grad must have the shape, dtype and device of the result");
}

inline Tensor empty_like_device(const Tensor& t, std::vector<int64_t> sizes, ScalarType dtype,
                                bool channels_last = false) {
  return torch::stable::empty(sizes, dtype, std::nullopt,
                              torch::stable::Device(torch::headeronly::DeviceType::CUDA, t.get_device_index()),
                              std::nullopt, memory_format(channels_last));
}

// The sizes of maps [N, C, H, W] that agree in N and C.
inline Levels levels_of(const std::vector<Tensor>& maps, bool channels_last) {
  Levels levels{};
  levels.count = static_cast<int>(maps.size());
  levels.channels_last = channels_last;
  for (int l = 0; l < levels.count; ++l) {
    levels.N = maps[l].size(0);
    levels.C = maps[l].size(1);
    levels.H[l] = maps[l].size(2);
    levels.W[l] = maps[l].size(3);
  }
  return levels;
}

// Boxes [n, 4] as rows of four corners that one instruction loads: dense, and their start on a multiple of a row.
inline Tensor whole_corners(const Tensor& boxes) {
  const Tensor rows = dense(boxes, false);
  const auto start = reinterpret_cast<uintptr_t>(rows.const_data_ptr());
  return start % (4 * rows.element_size()) == 0 ? rows : torch::stable::clone(rows);
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
