// CUDA on the CPU, for tests: an emulation, not a GPU. What kernels use of CUDA C++,
// for g++. Blocks run one after the other, and so do the threads of a block; those of
// kernels with barriers are fibers that change at the barriers.
#pragma once
#include <ucontext.h>

#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

struct dim3 {
  unsigned x, y, z;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static __attribute__((section("emulated_shared")))
#define __syncthreads() emulation::barrier()

static inline int atomicCAS(int *place, int expected, int desired) {
  const int found = *place;
  if (found == expected) *place = desired;
  return found;
}

// Made by the linker; absent where no kernel has shared memory.
extern "C" __attribute__((weak)) char __start_emulated_shared, __stop_emulated_shared;

namespace emulation {

enum Result { FINE = 0, BAD_ARGUMENTS = 1, BAD_GRID = 2, DIVERGENT_BARRIER = 3 };

struct Fiber {
  ucontext_t context;
  dim3 thread;
  bool waiting, done;
};

static const size_t STACK = 32 << 10;
static ucontext_t scheduler;
static Fiber *running;
static void (*body)(const void *);
static const void *arguments;

// AddressSanitizer has to be told when the stack changes.
static const void *scheduler_stack;
static size_t scheduler_size;
static void before_switch(const void *stack, size_t size, void **fake) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(fake, stack, size);
#else
  (void)stack, (void)size, (void)fake;
#endif
}
static void after_switch(void *fake, const void **stack, size_t *size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, stack, size);
#else
  (void)fake, (void)stack, (void)size;
#endif
}

static void run_fiber() {
  after_switch(nullptr, &scheduler_stack, &scheduler_size);
  body(arguments);
  running->done = true;
  before_switch(scheduler_stack, scheduler_size, nullptr);
}

static void barrier() {
  if (!running) abort();
  Fiber *fiber = running;
  fiber->waiting = true;
  void *fake = nullptr;
  before_switch(scheduler_stack, scheduler_size, &fake);
  swapcontext(&fiber->context, &scheduler);
  after_switch(fake, &scheduler_stack, &scheduler_size);
  threadIdx = fiber->thread;
}

static dim3 thread_of(unsigned i) {
  const unsigned row = i / blockDim.x;
  return {i % blockDim.x, row % blockDim.y, row / blockDim.y};
}

static Result run_fibers(unsigned count, bool reverse) {
  static std::vector<Fiber> fibers;
  static std::vector<char> stacks;
  if (fibers.size() < count) {
    fibers.resize(count);
    stacks.resize(count * STACK);
  }
  for (unsigned i = 0; i < count; ++i) {
    Fiber &fiber = fibers[i];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = &stacks[i * STACK];
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = &scheduler;
    fiber.thread = thread_of(i);
    fiber.done = false;
    makecontext(&fiber.context, run_fiber, 0);
  }
  for (;;) {
    unsigned done = 0;
    for (unsigned k = 0; k < count; ++k) {
      const unsigned i = reverse ? count - 1 - k : k;
      Fiber &fiber = fibers[i];
      if (!fiber.done) {
        running = &fiber;
        threadIdx = fiber.thread;
        void *fake = nullptr;
        before_switch(&stacks[i * STACK], STACK, &fake);
        swapcontext(&scheduler, &fiber.context);
        after_switch(fake, nullptr, nullptr);
        running = nullptr;
      }
      done += fiber.done;
    }
    if (done == count) return FINE;
    if (done) return DIVERGENT_BARRIER;  // some threads wait, others have returned
  }
}

static Result run_block(bool barriers, bool reverse) {
  if (&__start_emulated_shared)
    memset(&__start_emulated_shared, 0xFF,
           &__stop_emulated_shared - &__start_emulated_shared);
  const unsigned count = blockDim.x * blockDim.y * blockDim.z;
  if (barriers) return run_fibers(count, reverse);
  for (unsigned k = 0; k < count; ++k) {
    threadIdx = thread_of(reverse ? count - 1 - k : k);
    body(arguments);
  }
  return FINE;
}

// Calls a kernel with arguments that lie in memory as CUDA wants them.
template <class... A, size_t... I>
static void call(void (*kernel)(A...), const char *memory,
                 const size_t (&offsets)[sizeof...(A) + 1], std::index_sequence<I...>) {
  kernel(*reinterpret_cast<const A *>(memory + offsets[I])...);
}

template <class... A>
struct Offsets {
  size_t at[sizeof...(A) + 1];
  Offsets() {
    const size_t sizes[] = {sizeof(A)...}, alignments[] = {alignof(A)...};
    size_t next = 0;
    for (size_t i = 0; i < sizeof...(A); ++i) {
      next = (next + alignments[i] - 1) / alignments[i] * alignments[i];
      at[i] = next;
      next += sizes[i];
    }
    at[sizeof...(A)] = next;
  }
};

template <class... A>
static void enter(void (*kernel)(A...), const void *memory) {
  static const Offsets<A...> offsets;
  call(kernel, static_cast<const char *>(memory), offsets.at,
       std::index_sequence_for<A...>());
}

template <class... A>
static size_t size_of_arguments(void (*)(A...)) {
  return Offsets<A...>().at[sizeof...(A)];
}

struct Kernel {
  const char *name;
  void (*enter)(const void *);
  size_t size;
  bool barriers;
};

static Result launch(const Kernel &kernel, const unsigned *grid, const unsigned *block,
                     const void *memory, size_t size, bool reverse) {
  if (size != kernel.size) return BAD_ARGUMENTS;
  const bool grid_fits = grid[0] && grid[1] && grid[2] && grid[0] < (1u << 31) &&
                         grid[1] < 65536 && grid[2] < 65536;
  const bool block_fits = block[0] && block[1] && block[2] && block[0] <= 1024 &&
                          block[1] <= 1024 && block[2] <= 64 &&
                          block[0] * block[1] * block[2] <= 1024;
  if (!grid_fits || !block_fits) return BAD_GRID;
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  body = kernel.enter;
  arguments = memory;
  const size_t blocks = size_t(grid[0]) * grid[1] * grid[2];
  for (size_t k = 0; k < blocks; ++k) {
    const size_t i = reverse ? blocks - 1 - k : k;
    blockIdx = {unsigned(i % grid[0]), unsigned(i / grid[0] % grid[1]),
                unsigned(i / grid[0] / grid[1])};
    const Result result = run_block(kernel.barriers, reverse);
    if (result != FINE) return result;
  }
  return FINE;
}

}  // namespace emulation
