// Runs kernels for the tests, as told on the standard input: an emulation, not a GPU.
// Compiled together with the translated kernels and cublas.cpp, with sanitizers.
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>

extern "C" int cublasSgemm_v2(void *, int, int, int, int, int, const float *,
                              const float *, int, const float *, int, const float *,
                              float *, int);
extern "C" int cublasSgemmStridedBatched(void *, int, int, int, int, int, const float *,
                                         const float *, int, long long, const float *,
                                         int, long long, const float *, float *, int,
                                         long long, int);

static std::map<uintptr_t, size_t> allocations;

static void receive(void *data, size_t size) {
  if (size && fread(data, size, 1, stdin) != 1) exit(0);
}

template <class T>
static T receive() {
  T value;
  receive(&value, sizeof value);
  return value;
}

static void answer(const void *data, size_t size) {
  if (size) fwrite(data, size, 1, stdout);
}

template <class T>
static void answer(T value) {
  answer(&value, sizeof value);
}

static std::string receive_text() {
  std::string text(receive<uint64_t>(), '\0');
  receive(&text[0], text.size());
  return text;
}

// All that a launch may write to: what its arguments point into.
static std::map<char *, size_t> reachable(const std::string &arguments) {
  std::map<char *, size_t> found;
  for (size_t i = 0; i + sizeof(uintptr_t) <= arguments.size(); i += sizeof(uintptr_t)) {
    uintptr_t value;
    memcpy(&value, &arguments[i], sizeof value);
    auto next = allocations.upper_bound(value);
    if (next == allocations.begin()) continue;
    const auto &[start, size] = *--next;
    if (value < start + size) found[reinterpret_cast<char *>(start)] = size;
  }
  return found;
}

static std::map<char *, std::string> contents(const std::map<char *, size_t> &memory) {
  std::map<char *, std::string> copies;
  for (const auto &[start, size] : memory) copies[start].assign(start, size);
  return copies;
}

// In both orders; the results have to be the same.
static int launch_both_ways(const emulation::Kernel &kernel, const unsigned *grid,
                            const unsigned *block, const std::string &arguments) {
  const auto memory = reachable(arguments);
  const auto before = contents(memory);
  // Exact in size and aligned, so that reading beyond the arguments is noticed.
  char *exact = static_cast<char *>(malloc(arguments.size()));
  memcpy(exact, arguments.data(), arguments.size());
  int result = emulation::launch(kernel, grid, block, exact, arguments.size(), false);
  if (result == emulation::FINE) {
    const auto forward = contents(memory);
    for (const auto &[start, copy] : before) memcpy(start, copy.data(), copy.size());
    result = emulation::launch(kernel, grid, block, exact, arguments.size(), true);
    if (result == emulation::FINE && contents(memory) != forward) result = 4;
  }
  free(exact);
  return result;
}

static void launch() {
  const std::string name = receive_text(), sizes = receive_text();
  const std::string arguments = receive_text();
  unsigned grid_and_block[6];
  memcpy(grid_and_block, sizes.data(), sizeof grid_and_block);
  const emulation::Kernel *kernel = emulated_kernels();
  while (kernel->name && name != kernel->name) ++kernel;
  answer<int32_t>(kernel->name ? launch_both_ways(*kernel, grid_and_block,
                                                  grid_and_block + 3, arguments)
                               : -1);
}

static void allocate() {
  const size_t size = receive<uint64_t>();
  void *memory = malloc(size);
  memset(memory, 0xFF, size);  // as floats these are NaN
  allocations[reinterpret_cast<uintptr_t>(memory)] = size;
  answer(memory);
}

static void multiply() {
  struct {
    int32_t transa, transb, m, n, k, lda, ldb, ldc;
    float *a, *b, *c;
    float beta;
  } p = receive<decltype(p)>();
  const float one = 1.0f;
  answer<int32_t>(cublasSgemm_v2(nullptr, p.transb, p.transa, p.n, p.m, p.k, &one, p.b,
                                 p.ldb, p.a, p.lda, &p.beta, p.c, p.ldc));
}

static void multiply_batched() {
  struct {
    int32_t transa, transb, m, n, k, lda, ldb, ldc, count, add;
    float *a, *b, *c;
    int64_t step_a, step_b, step_c;
  } p = receive<decltype(p)>();
  const float one = 1.0f, beta = p.add ? 1.0f : 0.0f;
  answer<int32_t>(cublasSgemmStridedBatched(
      nullptr, p.transb, p.transa, p.n, p.m, p.k, &one, p.b, p.ldb, p.step_b, p.a,
      p.lda, p.step_a, &beta, p.c, p.ldc, p.step_c, p.count));
}

int main() {
  for (;;) {
    switch (receive<char>()) {
      case 'A':
        allocate();
        break;
      case 'F': {
        char *memory = receive<char *>();
        allocations.erase(reinterpret_cast<uintptr_t>(memory));
        free(memory);
        continue;
      }
      case 'W': {
        char *memory = receive<char *>();
        receive(memory, receive<uint64_t>());
        continue;
      }
      case 'R': {
        const char *memory = receive<const char *>();
        answer(memory, receive<uint64_t>());
        break;
      }
      case 'L':
        launch();
        break;
      case 'M':
        multiply();
        break;
      case 'B':
        multiply_batched();
        break;
    }
    fflush(stdout);
  }
}
