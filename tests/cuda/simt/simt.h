// simt.h: run CUDA kernels on the CPU, one fiber per CUDA thread.  A test fixture.
//
// csrc/cuda/device.cuh defines the launch macros for nvcc.  For g++ and clang++ this
// header supplies the device language (threadIdx, __shared__, __syncthreads, warp
// votes and shuffles, atomics) and a scheduler for one block at a time, in which
//   * blocks, and threads between two barriers, run in a seeded order (simt::order),
//   * a barrier not all threads reach, threads at different __syncthreads, a lane that
//     is missing from its mask or has exited: an error that names the threads,
//   * dynamic shared memory is a fresh heap block of the exact size, filled with junk
//     (AddressSanitizer sees overruns), __shared__ arrays are filled with junk,
//   * -fsanitize=thread sees each CUDA thread as a thread and only barriers, kernel
//     boundaries and atomics as order: a missing __syncthreads is a reported race.
#pragma once

#ifdef __CUDACC__
#error "simt.h is the CPU side of csrc/cuda/device.cuh; nvcc does not need it"
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#if __has_include(<vector_types.h>)  // CUDA headers: plain host types, half, bfloat16
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <vector_functions.h>
#include <vector_types.h>
#else
struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
inline int4 make_int4(int x, int y, int z, int w) {
  return {x, y, z, w};
}
inline float2 make_float2(float x, float y) {
  return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}
#endif

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __forceinline__
#undef __launch_bounds__
#undef __restrict__
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __shared__ static /* one block at a time: a static is the block's */

#if defined(__SANITIZE_THREAD__)
#define SIMT_TSAN 1
#elif defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SIMT_TSAN 1
#elif __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif
#ifdef SIMT_TSAN
#define SIMT_INTERNAL __attribute__((no_sanitize("thread"), noinline))
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned);
void __tsan_switch_to_fiber(void*, unsigned);
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#else
#define SIMT_INTERNAL
inline void __tsan_acquire(void*) {}
inline void __tsan_release(void*) {}
#endif
#ifdef SIMT_ASAN
extern "C" {
void __sanitizer_start_switch_fiber(void**, const void*, size_t);
void __sanitizer_finish_switch_fiber(void*, const void**, size_t*);
}
#endif

namespace simt {

enum Order { Ascending, Descending, Random };
inline Order order = Ascending;
inline uint64_t seed = 1;
inline uint64_t switches = 0;

// ---- fibers: save the callee-saved registers, swap stacks -------------------------
extern "C" void simt_switch(void** save, void* load);
#if defined(__x86_64__)
asm(R"(.text
.weak simt_switch
.type simt_switch,@function
simt_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi); movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
)");
#else
#error "simt.h: add simt_switch for this processor"
#endif

constexpr size_t kStack =
#if defined(SIMT_ASAN) || defined(SIMT_TSAN)
    256 << 10;
#else
    64 << 10;
#endif

enum State : uint8_t { Ready, AtBlock, AtWarp, Done };
enum Op : uint8_t { Sync, Shfl, Ballot };

struct Thread {
  void* sp = nullptr;
  State state = Done;
  Op op = Sync;
  unsigned mask = 0, index = 0;    // warp-op mask; linear index in the block
  int src = 0;                     // lane to read from (Shfl)
  uint64_t value = 0, result = 0;  // what the lane brings to, takes from a warp op
  const char* file = nullptr;      // where it waits
  int line = 0;
  uint3 tid{};
  std::unique_ptr<char[]> stack;
  void* tsan = nullptr;
};

struct Machine {
  std::vector<Thread> threads;
  std::vector<unsigned> sched;
  unsigned char* dyn = nullptr;
  Thread* self = nullptr;
  void* home = nullptr;  // the scheduler's stack
  void* home_tsan = nullptr;
  const void* home_bottom = nullptr;
  size_t home_size = 0;
  dim3 grid, block;
  uint3 bid{};
  unsigned count = 0, alive = 0, waiting = 0, generation = 0, votes = 0, serial = 0;
  const std::function<void()>* body = nullptr;
  char fence[4];  // addresses TSan knows barriers by
  std::mt19937_64 rng;
  std::string error;
};
inline Machine m;
inline bool running() {
  return m.self;
}

SIMT_INTERNAL inline void to_scheduler(Thread* t, bool exiting = false) {
  (void)exiting;
#ifdef SIMT_ASAN
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(exiting ? nullptr : &fake, m.home_bottom, m.home_size);
#endif
#ifdef SIMT_TSAN
  __tsan_switch_to_fiber(m.home_tsan, 1);
#endif
  simt_switch(&t->sp, m.home);
#ifdef SIMT_ASAN
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

[[noreturn]] SIMT_INTERNAL inline void fiber_main() {
#ifdef SIMT_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &m.home_bottom, &m.home_size);
#endif
  __tsan_acquire(&m.fence[2]);
  try {
    (*m.body)();
  } catch (const std::exception& e) {
    m.error = e.what();
  }
  __tsan_release(&m.fence[3]);
  m.self->state = Done;
  to_scheduler(m.self, true);
  std::abort();
}

SIMT_INTERNAL inline void start(Thread& t) {  // a stack whose 'ret' enters fiber_main
  if (!t.stack) t.stack.reset(new char[kStack]);
  auto top = reinterpret_cast<uintptr_t>(t.stack.get() + kStack) & ~uintptr_t(15);
  void** p = reinterpret_cast<void**>(top);
  *--p = nullptr;  // keeps the stack aligned at entry
  *--p = reinterpret_cast<void*>(&fiber_main);
  for (int i = 0; i < 6; ++i) *--p = nullptr;
  t.sp = p;
  t.state = Ready;
#ifdef SIMT_TSAN
  if (!t.tsan) t.tsan = __tsan_create_fiber(0);
#endif
}

SIMT_INTERNAL inline void resume(Thread& t) {
  ++switches;
  m.self = &t;
#ifdef SIMT_ASAN
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, t.stack.get(), kStack);
#endif
#ifdef SIMT_TSAN
  __tsan_switch_to_fiber(t.tsan, 1);
#endif
  simt_switch(&m.home, t.sp);
#ifdef SIMT_ASAN
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  m.self = nullptr;
}

SIMT_INTERNAL inline std::string where(const Thread& t) {
  char s[256];
  std::snprintf(s, sizeof s, "block (%u,%u,%u) thread (%u,%u,%u)", m.bid.x, m.bid.y, m.bid.z, t.tid.x, t.tid.y,
                t.tid.z);
  return t.state == AtBlock ? std::string(s) + " at the __syncthreads of " + t.file + ":" + std::to_string(t.line) : s;
}

// ---- barriers --------------------------------------------------------------------
SIMT_INTERNAL inline void try_release_block() {
  if (!m.waiting || m.waiting != m.alive) return;
  const Thread* first = nullptr;
  for (unsigned i = 0; i < m.count; ++i) {
    Thread& t = m.threads[i];
    if (t.state != AtBlock) continue;
    if (!first) first = &t;
    if ((t.line != first->line || t.file != first->file) && m.error.empty())
      m.error = "divergent barrier: " + where(*first) + ", " + where(t);
  }
  for (unsigned i = 0; i < m.count; ++i)
    if (m.threads[i].state == AtBlock) {
      m.threads[i].state = Ready;
      m.threads[i].result = m.votes;
    }
  m.waiting = m.votes = 0;
  ++m.generation;
}

SIMT_INTERNAL inline void try_release_warp(Thread& me) {
  const unsigned base = me.index & ~31u, mask = me.mask;
  uint64_t votes = 0;
  for (unsigned l = 0; l < 32; ++l) {
    if (!(mask >> l & 1)) continue;
    if (base + l >= m.count || m.threads[base + l].state == Done) {
      m.error = where(me) + ": lane " + std::to_string(l) + " of its warp mask has exited or does not exist";
      return;
    }
    const Thread& t = m.threads[base + l];
    if (t.state != AtWarp || t.mask != mask || t.op != me.op) return;
    if (t.value) votes |= 1u << l;
  }
  for (unsigned l = 0; l < 32; ++l) {
    if (!(mask >> l & 1)) continue;
    Thread& t = m.threads[base + l];
    if (me.op == Shfl) {
      if (!(mask >> (t.src & 31) & 1)) {
        m.error = where(t) + ": shuffle reads lane " + std::to_string(t.src) + ", not in its mask";
        return;
      }
      t.result = m.threads[base + (t.src & 31)].value;
    } else {
      t.result = votes;
    }
    t.state = Ready;
  }
}

SIMT_INTERNAL inline unsigned sync_block(bool vote, const char* file, int line) {
  Thread* t = m.self;
  char* f = &m.fence[m.generation & 1];
  t->state = AtBlock;
  t->file = file;
  t->line = line;
  ++m.waiting;
  m.votes += vote;
  __tsan_release(f);
  to_scheduler(t);
  __tsan_acquire(f);
  return t->result;
}

SIMT_INTERNAL inline uint64_t warp_op(Op op, unsigned mask, uint64_t value, int src) {
  Thread* t = m.self;
  if (!(mask >> (t->index & 31) & 1))
    throw std::runtime_error(where(*t) + ": not in the mask of its own warp operation");
  t->state = AtWarp;
  t->op = op;
  t->mask = mask;
  t->value = value;
  t->src = src;
  if (op == Sync) __tsan_release(&m.threads[t->index & ~31u]);  // only __syncwarp orders memory
  to_scheduler(t);
  if (op == Sync) __tsan_acquire(&m.threads[t->index & ~31u]);
  return t->result;
}

SIMT_INTERNAL inline void run_block() {
  m.count = m.alive = m.block.x * m.block.y * m.block.z;
  m.waiting = 0;
  for (unsigned i = 0; i < m.count; ++i) {
    Thread& t = m.threads[i];
    t.index = i;
    t.tid = {i % m.block.x, i / m.block.x % m.block.y, i / (m.block.x * m.block.y)};
    start(t);
    m.sched[i] = order == Descending ? m.count - 1 - i : i;
  }
  while (m.alive) {
    if (order == Random) std::shuffle(m.sched.begin(), m.sched.begin() + m.count, m.rng);
    bool progress = false;
    for (unsigned k = 0; k < m.count; ++k) {
      Thread& t = m.threads[m.sched[k]];
      if (t.state != Ready) continue;
      progress = true;
      resume(t);
      if (t.state == Done)
        --m.alive;
      else if (t.state == AtWarp)
        try_release_warp(t);
      try_release_block();
      if (!m.error.empty()) return;
    }
    if (!progress) {
      for (unsigned i = 0; i < m.count; ++i)
        if (m.threads[i].state != Done) {
          m.error = "deadlock: " + where(m.threads[i]) +
                    (m.threads[i].state == AtBlock ? ", others elsewhere" : " waits for the lanes of its warp mask");
          return;
        }
    }
  }
}

// The first thread of a block to reach a SIMT_SHARED array fills it with junk.
struct Fresh {
  void* p;
  unsigned serial;
};
constexpr size_t kSharedArrays = 4096;  // of all kernels together
inline Fresh shared_arrays[kSharedArrays];
SIMT_INTERNAL inline void fresh(void* p, size_t bytes) {
  size_t at = (reinterpret_cast<uintptr_t>(p) >> 5) % kSharedArrays, tried = 0;
  while (shared_arrays[at].p && shared_arrays[at].p != p) {
    if (++tried == kSharedArrays) throw std::runtime_error("too many shared arrays for simt::shared_arrays");
    at = (at + 1) % kSharedArrays;
  }
  Fresh* f = shared_arrays + at;
  f->p = p;
  if (f->serial == m.serial) return;
  f->serial = m.serial;
  for (size_t i = 0; i < bytes; ++i) static_cast<volatile unsigned char*>(p)[i] = 0xFF;
}

inline void launch(dim3 grid, dim3 block, size_t shmem, const std::function<void()>& body) {
  const size_t n = size_t(block.x) * block.y * block.z, blocks = size_t(grid.x) * grid.y * grid.z;
  if (!n || n > 1024 || block.z > 64) throw std::runtime_error("launch: bad block size");
  if (!blocks || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    throw std::runtime_error("launch: bad grid size");
  if (shmem > (227u << 10)) throw std::runtime_error("launch: too much shared memory");
  if (m.threads.size() < n) m.threads.resize(n);
  m.sched.resize(std::max(m.sched.size(), n));
  m.grid = grid;
  m.block = block;
  m.body = &body;
  m.rng.seed(seed);
  m.error.clear();
#ifdef SIMT_TSAN
  m.home_tsan = __tsan_get_current_fiber();
#endif
  std::vector<unsigned> todo(blocks);
  for (size_t i = 0; i < blocks; ++i) todo[i] = order == Descending ? blocks - 1 - i : i;
  if (order == Random) std::shuffle(todo.begin(), todo.end(), m.rng);
  for (unsigned b : todo) {
    m.bid = {b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y)};
    std::unique_ptr<unsigned char[]> dyn(new unsigned char[shmem]);
    std::memset(dyn.get(), 0xFF, shmem);  // NaN in every float format
    m.dyn = dyn.get();
    ++m.serial;
    __tsan_release(&m.fence[2]);
    run_block();
    __tsan_acquire(&m.fence[3]);
    if (!m.error.empty()) {  // the fibers still alive are dropped, not unwound
      m.self = nullptr;
      throw std::runtime_error("simt: " + m.error);
    }
  }
}

template <class T>
uint64_t to_bits(T v) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t b = 0;
  std::memcpy(&b, &v, sizeof v);
  return b;
}
template <class T>
T from_bits(uint64_t b) {
  T v;
  std::memcpy(&v, &b, sizeof v);
  return v;
}
template <class T>
T shfl(unsigned mask, T v, int src) {
  return from_bits<T>(warp_op(Shfl, mask, to_bits(v), src));
}
inline int lane() {
  return m.self->index & 31;
}

template <class T, class F>
T atomic_rmw(T* p, F f) {  // relaxed, as CUDA's are
  T old, next;
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  do next = f(old);
  while (!__atomic_compare_exchange(p, &old, &next, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}
}  // namespace simt

#ifdef SIMT_SASS  // the kernel's machine code is executed instead: sass_launch.h
#include "sass_launch.h"
namespace simt {
constexpr int64_t kMaxGrid = 65535;  // the counts are those of a GPU's grids
}
#define SIMT_LAUNCH(kernel, grid, block, shmem, stream, ...) \
  ::sass::Launch<::sass::Symbol<(kernel)>>{(grid), (block)}((kernel), __VA_ARGS__)
#else
namespace simt {
constexpr int64_t kMaxGrid = 5;
}
#define SIMT_LAUNCH(kernel, grid, block, shmem, stream, ...) \
  ::simt::launch((grid), (block), (shmem), [&] { (kernel)(__VA_ARGS__); })
#endif
#define SIMT_DYN_SHARED(T, name) T* name = reinterpret_cast<T*>(::simt::m.dyn)
#define SIMT_SHARED(T, name, dims) \
  static T name dims;              \
  ::simt::fresh(&name, sizeof(name))

#define threadIdx (::simt::m.self->tid)
#define blockIdx (::simt::m.bid)
#define blockDim (::simt::m.block)
#define gridDim (::simt::m.grid)
constexpr int warpSize = 32;

#define __syncthreads() ((void)::simt::sync_block(false, __FILE__, __LINE__))
#define __syncthreads_count(p) (int(::simt::sync_block((p), __FILE__, __LINE__)))
#define __syncthreads_or(p) (__syncthreads_count(p) != 0)
inline void __syncwarp(unsigned mask = ~0u) {
  simt::warp_op(simt::Sync, mask, 0, 0);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline unsigned __ballot_sync(unsigned mask, int p) {
  return simt::warp_op(simt::Ballot, mask, p != 0, 0);
}
inline int __any_sync(unsigned mask, int p) {
  return __ballot_sync(mask, p) != 0;
}
inline int __all_sync(unsigned mask, int p) {
  return (__ballot_sync(mask, p) & mask) == mask;
}
template <class T>
T __shfl_sync(unsigned k, T v, int s, int w = 32) {
  int l = simt::lane();
  return simt::shfl(k, v, (l & ~(w - 1)) | (s & (w - 1)));
}
template <class T>
T __shfl_up_sync(unsigned k, T v, unsigned d, int w = 32) {
  int l = simt::lane();
  return simt::shfl(k, v, (l & (w - 1)) < int(d) ? l : l - int(d));
}
template <class T>
T __shfl_down_sync(unsigned k, T v, unsigned d, int w = 32) {
  int l = simt::lane();
  return simt::shfl(k, v, (l & (w - 1)) + int(d) >= w ? l : l + int(d));
}
template <class T>
T __shfl_xor_sync(unsigned k, T v, int x, int w = 32) {
  int l = simt::lane(), s = l ^ x;
  return simt::shfl(k, v, (s & ~(w - 1)) > (l & ~(w - 1)) ? l : s);
}
inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x) {
  return __builtin_popcountll(x);
}
inline int __ffs(int x) {
  return __builtin_ffs(x);
}
inline int __ffsll(long long x) {
  return __builtin_ffsll(x);
}
inline int __clz(int x) {
  return x ? __builtin_clz(x) : 32;
}
inline int __clzll(long long x) {
  return x ? __builtin_clzll(x) : 64;
}
inline unsigned __activemask() {
  throw std::runtime_error("__activemask: not portable, pass the mask");
}
template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
void __stwb(T* p, T value) {
  *p = value;
}
inline float __fdividef(float a, float b) {
  return a / b;
}
using std::max;
using std::min;
template <class T>
T atomicAdd(T* p, std::common_type_t<T> v) {
  return simt::atomic_rmw(p, [=](T o) { return T(o + v); });
}
template <class T>
T atomicMax(T* p, std::common_type_t<T> v) {
  return simt::atomic_rmw(p, [=](T o) { return o < v ? v : o; });
}
template <class T>
T atomicMin(T* p, std::common_type_t<T> v) {
  return simt::atomic_rmw(p, [=](T o) { return v < o ? v : o; });
}
template <class T>
T atomicOr(T* p, std::common_type_t<T> v) {
  return simt::atomic_rmw(p, [=](T o) { return T(o | v); });
}
template <class T>
T atomicAnd(T* p, std::common_type_t<T> v) {
  return simt::atomic_rmw(p, [=](T o) { return T(o & v); });
}
template <class T>
T atomicExch(T* p, std::common_type_t<T> v) {
  return simt::atomic_rmw(p, [=](T) { return T(v); });
}
template <class T>
T atomicCAS(T* p, std::common_type_t<T> c, std::common_type_t<T> v) {
  return simt::atomic_rmw(p, [=](T o) { return o == c ? T(v) : o; });
}
