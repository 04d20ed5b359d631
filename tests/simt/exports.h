// What the emulated launchers share: C names for ctypes, errors as text, the schedule.
#pragma once

#include <exception>
#include <string>

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

// Each launcher returns null, or the text of the error.
#define SIMT_EXPORT extern "C" __attribute__((visibility("default"))) const char*
