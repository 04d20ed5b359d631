// sass_launch.h: launches of csrc/cuda as executions of the kernels' machine code, by sass.cpp.
#pragma once

#include <typeinfo>
#include <vector>

namespace sass {

// symbol: the name of a type Symbol, as the compiler writes it.
void execute(const char* symbol, dim3 grid, dim3 block, const std::vector<unsigned char>& parameters);

// A type whose name holds the kernel's. The kernel itself has no name that can be asked for where it is static.
template <auto Kernel>
struct Symbol {};

template <typename S>
struct Launch {
  dim3 grid, block;

  template <typename... P, typename... A>
  void operator()(void (*)(P...), A&&... arguments) {
    std::vector<unsigned char> bytes;
    (append<P>(&bytes, static_cast<P>(arguments)), ...);
    execute(typeid(S).name(), grid, block, bytes);
  }
  template <typename T>
  static void append(std::vector<unsigned char>* bytes, const T& value) {
    bytes->resize((bytes->size() + alignof(T) - 1) / alignof(T) * alignof(T));
    const auto* from = reinterpret_cast<const unsigned char*>(&value);
    bytes->insert(bytes->end(), from, from + sizeof(T));
  }
};

}  // namespace sass
