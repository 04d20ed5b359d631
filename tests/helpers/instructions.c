// Counts the instructions that the calling thread executes in one stretch of code, such as that of a library, by single
// steps: the processor's trap flag raises SIGTRAP after every instruction. That needs neither performance counters nor
// ptrace, which virtual machines and containers may lack. A step takes 10 to 25 µs on a virtual machine, so that code
// elsewhere runs at full speed: meanwhile the stretch is not executable, and entering it raises SIGSEGV.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <ucontext.h>

#define TRAP_FLAG 0x100

static uintptr_t start, size;
static uint64_t count;
static struct sigaction previous[2];

static void executable(int yes) {
  mprotect((void*)start, size, PROT_READ | (yes ? PROT_EXEC : 0));
}

static void handle(int signal, siginfo_t* info, void* context) {
  greg_t* registers = ((ucontext_t*)context)->uc_mcontext.gregs;
  const int inside = (uintptr_t)registers[REG_RIP] - start < size;
  if (signal == SIGSEGV && !(inside && (greg_t)info->si_addr == registers[REG_RIP])) {
    sigaction(SIGSEGV, &previous[1], 0);  // a fault of the code itself, which happens again
  } else if (inside) {
    ++count;
    if (signal == SIGSEGV) executable(1);
    registers[REG_EFL] |= TRAP_FLAG;
  } else {
    executable(0);
    registers[REG_EFL] &= ~TRAP_FLAG;
  }
}

// Begin to count in [from, from + bytes), whole pages.
void begin(uintptr_t from, uintptr_t bytes) {
  const struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO};
  start = from, size = bytes, count = 0;
  sigaction(SIGTRAP, &action, &previous[0]);
  sigaction(SIGSEGV, &action, &previous[1]);
  executable(0);
}

// Stop, and return the number of instructions.
uint64_t end(void) {
  executable(1);
  sigaction(SIGTRAP, &previous[0], 0);
  sigaction(SIGSEGV, &previous[1], 0);
  return count;
}

// The level of x86-64 whose clones of a kernel run: 4, 3, or 1 for the default clone.
int level(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("x86-64-v4") ? 4 : __builtin_cpu_supports("x86-64-v3") ? 3 : 1;
}
