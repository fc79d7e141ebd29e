// What all kernels share. All files here are compiled as one, this one first.
//
// Kernels assume nothing about threads of a warp running in step. Barriers are
// reached by all threads of a block. Sizes may be any; grids never have to match
// them, because each thread takes one element after the other.

#define MAX_THREADS 256  // of blocks that share values
#define FLOAT_MAX 3.402823466e+38f

// What kernels found wrong with values, for the host to read later: each of its threads
// has its own.
struct Failure {
  int operation;   // which check failed, 0 for none
  int limit;       // what was expected
  float value;     // what was found
  int not_finite;  // set by find_not_finite
};

enum {
  BAD_TARGET = 1, BAD_COLUMN = 2, BAD_INDEX = 3, BAD_TIMING = 4, BAD_ROW = 5,
  BAD_LABEL = 6, TOO_MANY_LABELS = 7, BAD_DESTINATION = 8, BAD_BACKWARD_TARGET = 9
};

// Only the first failure is kept.
__device__ void fail(Failure *failure, int operation, int limit, float value) {
  if (atomicCAS(&failure->operation, 0, operation) == 0) {
    failure->limit = limit;
    failure->value = value;
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

// Nothing overflows, and nothing cancels.
__device__ __forceinline__ float sigmoid_of(float x) {
  const float e = expf(-fabsf(x));
  return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

// NaN stays NaN here and below.
__device__ __forceinline__ float rel_of(float x) { return x <= 0.0f ? 0.0f : x; }

__device__ __forceinline__ float el_of(float x) {
  return x >= 0.0f ? x : expm1f(x);
}

__device__ __forceinline__ float clipped(float x, float low, float high) {
  return x < low ? low : x > high ? high : x;
}

__device__ __forceinline__ float softplus_of(float x) {
  return rel_of(x) + log1pf(expf(-fabsf(x)));
}

// The -log of a probability, of which none counts as less than 1e-6.
__device__ __forceinline__ float limited_loss(float loss) {
  return loss > 13.8155106f ? 13.8155106f : loss;
}

// The remainder that has the sign of the divisor.
__device__ __forceinline__ float modulo(float a, float b) {
  const float rest = fmodf(a, b);
  return rest != 0.0f && (rest < 0.0f) != (b < 0.0f) ? rest + b : rest;
}
