// What all kernels share. All files here are compiled as one, this one first.
//
// Kernels assume nothing about threads of a warp running in step. Barriers are
// reached by all threads of a block. Sizes may be any; grids never have to match
// them, because each thread takes one element after the other.

#define MAX_THREADS 256  // of blocks that share values
#define FLOAT_MAX 3.402823466e+38f

// What a kernel found wrong with values, for the host to read later.
struct Failure {
  int operation;   // which check failed, 0 for none
  int limit;       // what was expected
  float value;     // what was found
  int not_finite;  // set by find_not_finite
};

__device__ Failure failure = {0, 0, 0.0f, 0};

enum { BAD_TARGET = 1, BAD_COLUMN = 2, BAD_INDEX = 3, BAD_TIMING = 4 };
enum { LINEAR = 0, REL = 1, TANH = 2, SIGMOID = 3, EL = 4 };

// Only the first failure is kept.
__device__ void fail(int operation, int limit, float value) {
  if (atomicCAS(&failure.operation, 0, operation) == 0) {
    failure.limit = limit;
    failure.value = value;
  }
}

__device__ __forceinline__ long long thread_number() {
  return (long long)blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ long long thread_count() {
  return (long long)gridDim.x * blockDim.x;
}

// Whether a float is an index of one of `count` things; not so for NaN.
__device__ __forceinline__ bool is_index(float value, int count) {
  return value >= 0.0f && value < (float)count && value == floorf(value);
}

__device__ __forceinline__ float sigmoid_of(float x) {
  return 1.0f / (1.0f + expf(-x));
}

// NaN stays NaN here and below.
__device__ __forceinline__ float rel_of(float x) { return x <= 0.0f ? 0.0f : x; }

__device__ __forceinline__ float el_of(float x) {
  return x >= 0.0f ? x : expm1f(x);
}

__device__ __forceinline__ float clipped(float x, float low, float high) {
  return x < low ? low : x > high ? high : x;
}

// The remainder that has the sign of the divisor.
__device__ __forceinline__ float modulo(float a, float b) {
  const float rest = fmodf(a, b);
  return rest != 0.0f && (rest < 0.0f) != (b < 0.0f) ? rest + b : rest;
}

__device__ __forceinline__ float activated(int activation, float x) {
  switch (activation) {
    case REL: return rel_of(x);
    case TANH: return tanhf(x);
    case SIGMOID: return sigmoid_of(x);
    case EL: return el_of(x);
    default: return x;
  }
}

// The derivative of an activation function, from its value.
__device__ __forceinline__ float slope(int activation, float y) {
  switch (activation) {
    case REL: return y > 0.0f ? 1.0f : 0.0f;
    case TANH: return 1.0f - y * y;
    case SIGMOID: return y * (1.0f - y);
    case EL: return y >= 0.0f ? 1.0f : y + 1.0f;
    default: return 1.0f;
  }
}
