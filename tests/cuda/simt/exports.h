// What the emulated launchers share: C names for ctypes, element types by number, errors as text, the schedule.
#pragma once

#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>

#include "channels.cuh"

inline thread_local std::string simt_error;

template <typename F>
const char* simt_run(F&& f) {
  try {
    f();
    return nullptr;
  } catch (const std::exception& error) {
    simt_error = error.what();
    return simt_error.c_str();
  }
}

// f(T{}) for the number that emulator.py gives a dtype: 0 float32, 1 float64, 2 float16, 3 bfloat16.
template <typename F>
const char* simt_run_as(int64_t dtype, F&& f) {
  return simt_run([&] {
    if (dtype == 0) return f(float{});
    if (dtype == 1) return f(double{});
#if __has_include(<cuda_fp16.h>)
    if (dtype == 2) return f(__half{});
    if (dtype == 3) return f(__nv_bfloat16{});
#endif
    throw std::runtime_error("no such element type");
  });
}

inline rpcnn::Levels simt_levels(int count, int64_t N, int64_t C, const int64_t* H, const int64_t* W,
                                 bool channels_last) {
  rpcnn::Levels levels{};
  levels.count = count;
  levels.N = N;
  levels.C = C;
  levels.channels_last = channels_last;
  for (int l = 0; l < count; ++l) levels.H[l] = H[l], levels.W[l] = W[l];
  return levels;
}

// A table of addresses as one of typed addresses.
template <typename T>
T** as(void** table) {
  return reinterpret_cast<T**>(table);
}
template <typename T>
T* as(void* data) {
  return static_cast<T*>(data);
}
template <typename T>
const T* as(const void* data) {
  return static_cast<const T*>(data);
}

// Each launcher returns null, or the text of the error.
#define SIMT_EXPORT extern "C" __attribute__((visibility("default"))) const char*
