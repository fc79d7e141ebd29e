// A stand-in for libcuda.so.1, as far as PyCudaHandler needs it through PyCUDA, for
// tests: an emulation, not a GPU. Device memory is host memory, new memory is full of
// NaN, kernels are host code, and everything is done at once. Other functions that
// PyCUDA is linked to answer "not supported".
#include <cuda.h>
#include <dlfcn.h>
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {

const size_t MEMORY = size_t(4) << 30;
const int MULTIPROCESSORS = 2;

struct Kernel {  // as in shim.h
  const char *name;
  void (*enter)(const void *);
  size_t size;
  bool barriers;
};
typedef int (*Launch)(const Kernel *, const unsigned *, const unsigned *, const void *,
                      size_t, int);
struct Function {
  const Kernel *kernel;
  Launch launch;
};

std::atomic<long long> waits{0};
std::mutex lock;
std::map<CUdeviceptr, size_t> allocations;
size_t used = 0;
thread_local int contexts = 0;  // on the stack of this thread

// A stream remembers what is captured on it; a graph is a list of that.
typedef std::vector<std::function<CUresult()>> Calls;
struct Stream {
  Calls captured;
  bool capturing = false;
};
thread_local int captures = 0;  // of streams by this thread
std::atomic<long long> starts{0};
std::atomic<long long> graphs{0};
CUcontext const PRIMARY = reinterpret_cast<CUcontext>(0x10);

// Whether memory lies within one allocation, or in a module.
bool is_device_memory(CUdeviceptr start, size_t size) {
  auto next = allocations.upper_bound(start);
  if (next != allocations.begin()) {
    const auto &[first, length] = *std::prev(next);
    if (start + size <= first + length) return true;
  }
  Dl_info module;
  return dladdr(reinterpret_cast<void *>(start), &module) != 0;
}

CUresult copy(CUdeviceptr device, size_t size, void *to, const void *from) {
  if (!contexts) return CUDA_ERROR_INVALID_CONTEXT;
  if (captures) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  std::lock_guard<std::mutex> guard(lock);
  if (!is_device_memory(device, size)) return CUDA_ERROR_INVALID_VALUE;
  memcpy(to, from, size);
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" {

CUresult cuInit(unsigned) { return CUDA_SUCCESS; }

CUresult cuDriverGetVersion(int *version) {
  *version = 13000;
  return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char **text) {
  switch (error) {
    case CUDA_ERROR_INVALID_VALUE: *text = "invalid value"; break;
    case CUDA_ERROR_OUT_OF_MEMORY: *text = "out of memory"; break;
    case CUDA_ERROR_INVALID_IMAGE: *text = "invalid image"; break;
    case CUDA_ERROR_INVALID_CONTEXT: *text = "invalid context"; break;
    case CUDA_ERROR_NOT_FOUND: *text = "not found"; break;
    case CUDA_ERROR_LAUNCH_FAILED: *text = "launch failed"; break;
    case CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: *text = "not while capturing"; break;
    case CUDA_ERROR_NOT_SUPPORTED: *text = "not emulated"; break;
    default: *text = "error"; break;
  }
  return CUDA_SUCCESS;
}

// -- device and context ---------------------------------------------------------

CUresult cuDeviceGetCount(int *count) {
  *count = getenv("EMULATE_NO_GPU") ? 0 : 1;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int) {
  *device = 0;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int size, CUdevice) {
  snprintf(name, size, "emulation on the CPU, not a GPU");
  return CUDA_SUCCESS;
}

static int capability() {
  const char *told = getenv("EMULATED_CAPABILITY");
  return told ? atoi(told) : 9;
}

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice) {
  *major = capability();
  *minor = 0;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice) {
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = MULTIPROCESSORS; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = capability(); break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; break;
    default: return CUDA_ERROR_NOT_SUPPORTED;
  }
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice) {
  *context = PRIMARY;
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice) { return CUDA_SUCCESS; }

CUresult cuCtxPushCurrent(CUcontext) {
  ++contexts;
  return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent(CUcontext *context) {
  if (!contexts) return CUDA_ERROR_INVALID_CONTEXT;
  --contexts;
  if (context) *context = PRIMARY;
  return CUDA_SUCCESS;
}

CUresult cuCtxDetach(CUcontext) { return CUDA_SUCCESS; }

CUresult cuCtxGetDevice(CUdevice *device) {
  *device = 0;
  return contexts ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

// How often the host has waited, or would have on a GPU.
long long emulated_waits() { return waits; }

CUresult cuCtxSynchronize() {
  ++waits;
  if (captures) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  return contexts ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

// -- memory ---------------------------------------------------------------------

CUresult cuMemAlloc(CUdeviceptr *address, size_t size) {
  ++waits;
  if (!contexts) return CUDA_ERROR_INVALID_CONTEXT;
  if (captures) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  std::lock_guard<std::mutex> guard(lock);
  if (!size) return CUDA_ERROR_INVALID_VALUE;
  if (size > MEMORY - used) return CUDA_ERROR_OUT_OF_MEMORY;
  void *memory = malloc(size);
  if (!memory) return CUDA_ERROR_OUT_OF_MEMORY;
  memset(memory, 0xFF, size);
  *address = reinterpret_cast<CUdeviceptr>(memory);
  allocations[*address] = size;
  used += size;
  return CUDA_SUCCESS;
}

CUresult cuMemFree(CUdeviceptr address) {
  std::lock_guard<std::mutex> guard(lock);
  auto found = allocations.find(address);
  if (found == allocations.end()) return CUDA_ERROR_INVALID_VALUE;
  used -= found->second;
  allocations.erase(found);
  free(reinterpret_cast<void *>(address));
  return CUDA_SUCCESS;
}

CUresult cuMemHostAlloc(void **memory, size_t size, unsigned) {
  if (!contexts) return CUDA_ERROR_INVALID_CONTEXT;
  return (*memory = malloc(size)) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemFreeHost(void *memory) {
  free(memory);
  return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t size) {
  return copy(to, size, reinterpret_cast<void *>(to), from);
}

CUresult cuMemcpyDtoH(void *to, CUdeviceptr from, size_t size) {
  ++waits;
  return copy(from, size, to, reinterpret_cast<const void *>(from));
}

// -- kernels --------------------------------------------------------------------

// The stand-in for nvcc makes shared libraries.
CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned,
                            CUjit_option *, void **) {
  const char *bytes = static_cast<const char *>(image);
  if (memcmp(bytes, ELFMAG, SELFMAG)) return CUDA_ERROR_INVALID_IMAGE;
  Elf64_Ehdr header;
  memcpy(&header, bytes, sizeof header);
  const size_t size = header.e_shoff + size_t(header.e_shnum) * header.e_shentsize;
  const int file = memfd_create("kernels", 0);
  if (write(file, bytes, size) != ssize_t(size)) return CUDA_ERROR_INVALID_IMAGE;
  const std::string path = "/proc/self/fd/" + std::to_string(file);
  void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return CUDA_ERROR_INVALID_IMAGE;
  *module = reinterpret_cast<CUmodule>(library);
  return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  typedef const Kernel *(*Table)();
  const Table table = reinterpret_cast<Table>(dlsym(module, "emulated_kernels"));
  const Launch launch = reinterpret_cast<Launch>(dlsym(module, "emulated_launch"));
  if (!table || !launch) return CUDA_ERROR_NOT_FOUND;
  for (const Kernel *kernel = table(); kernel->name; ++kernel)
    if (!strcmp(kernel->name, name)) {
      *function = reinterpret_cast<CUfunction>(new Function{kernel, launch});
      return CUDA_SUCCESS;
    }
  return CUDA_ERROR_NOT_FOUND;
}

// Has a product made by a graph if its stream is capturing: whether that is so.
int emulated_capture(void *stream, CUresult (*call)(const void *), const void *data,
                     size_t size) {
  Stream *s = static_cast<Stream *>(stream);
  if (!s || !s->capturing) {
    ++starts;
    return 0;
  }
  const std::string copied(static_cast<const char *>(data), size);
  s->captured.push_back([call, copied] { return call(copied.data()); });
  return 1;
}

// Of kernels, products and graphs by the host, and graphs that are still there.
long long emulated_starts() { return starts; }
long long emulated_graphs() { return graphs; }

CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz,
                        unsigned bx, unsigned by, unsigned bz, unsigned,
                        CUstream stream, void **, void **extra) {
  if (!contexts) return CUDA_ERROR_INVALID_CONTEXT;
  Stream *s = reinterpret_cast<Stream *>(stream);
  // The emulation is stricter than a GPU: all launches belong to the graph.
  if (captures && !(s && s->capturing)) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  const void *arguments = nullptr;
  size_t size = 0;
  for (; extra && *extra != CU_LAUNCH_PARAM_END; extra += 2) {
    if (extra[0] == CU_LAUNCH_PARAM_BUFFER_POINTER) arguments = extra[1];
    if (extra[0] == CU_LAUNCH_PARAM_BUFFER_SIZE) size = *static_cast<size_t *>(extra[1]);
  }
  const Function *f = reinterpret_cast<const Function *>(function);
  const std::string copied(static_cast<const char *>(arguments), size);
  auto run = [=] {
    const unsigned grid[] = {gx, gy, gz}, block[] = {bx, by, bz};
    std::lock_guard<std::mutex> guard(lock);  // kernels have global variables
    const int result = f->launch(f->kernel, grid, block, copied.data(), size, 0);
    return result ? CUDA_ERROR_LAUNCH_FAILED : CUDA_SUCCESS;
  };
  if (captures) {
    s->captured.push_back(run);
    return CUDA_SUCCESS;
  }
  ++starts;
  return run();
}

// -- streams and graphs ---------------------------------------------------------

CUresult cuStreamCreate(CUstream *stream, unsigned) {
  *stream = reinterpret_cast<CUstream>(new Stream);
  return CUDA_SUCCESS;
}

CUresult cuStreamDestroy(CUstream stream) {
  delete reinterpret_cast<Stream *>(stream);
  return CUDA_SUCCESS;
}

CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode) {
  Stream *s = reinterpret_cast<Stream *>(stream);
  if (!contexts) return CUDA_ERROR_INVALID_CONTEXT;
  if (!s || s->capturing || getenv("EMULATE_NO_GRAPHS"))
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  s->capturing = true;
  ++captures;
  return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
  Stream *s = reinterpret_cast<Stream *>(stream);
  if (!s->capturing) return CUDA_ERROR_INVALID_VALUE;
  s->capturing = false;
  --captures;
  ++graphs;
  *graph = reinterpret_cast<CUgraph>(new Calls(std::move(s->captured)));
  s->captured.clear();
  return CUDA_SUCCESS;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *executable, CUgraph graph,
                                     unsigned long long) {
  ++graphs;
  const Calls *calls = reinterpret_cast<Calls *>(graph);
  *executable = reinterpret_cast<CUgraphExec>(new Calls(*calls));
  return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec executable, CUstream) {
  if (!contexts) return CUDA_ERROR_INVALID_CONTEXT;
  ++starts;
  for (const auto &call : *reinterpret_cast<Calls *>(executable))
    if (const CUresult result = call()) return result;
  return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph graph) {
  --graphs;
  delete reinterpret_cast<Calls *>(graph);
  return CUDA_SUCCESS;
}

CUresult cuGraphExecDestroy(CUgraphExec executable) {
  --graphs;
  delete reinterpret_cast<Calls *>(executable);
  return CUDA_SUCCESS;
}

}  // extern "C"
