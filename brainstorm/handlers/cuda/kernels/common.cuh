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
enum {
  LINEAR = 0, REL = 1, TANH = 2, SIGMOID = 3, EL = 4,
  SOFTPLUS = 5, LEAKY_REL = 6, GELU = 7, SWISH = 8
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

// The sigmoid that gelu and swish multiply x with. Where it is 0 or 1, x does not
// matter any more and is limited: no infinity becomes NaN.
__device__ __forceinline__ float limited(float x) { return clipped(x, -80.0f, 80.0f); }

__device__ __forceinline__ float gate(int activation, float x) {
  return sigmoid_of(
      activation == GELU ? x * (1.595769122f + 0.0713548163f * x * x) : x);
}

__device__ __forceinline__ float gated(int activation, float x) {
  const float s = gate(activation, limited(x));
  return (x < 0.0f ? limited(x) : x) * s;
}

// The derivative of gelu and swish, from x.
__device__ __forceinline__ float gated_slope(int activation, float x) {
  x = limited(x);
  const float s = gate(activation, x);
  const float inner = activation == GELU ? 1.595769122f + 0.214064449f * x * x : 1.0f;
  return s * (1.0f + x * inner * (1.0f - s));
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
    case SOFTPLUS: return softplus_of(x);
    case LEAKY_REL: return x > 0.0f ? x : 0.01f * x;
    case GELU: case SWISH: return gated(activation, x);
    default: return x;
  }
}

// The derivative of an activation function: from its input x for gelu and swish, from
// its value y for all others.
__device__ __forceinline__ float slope(int activation, float x, float y) {
  switch (activation) {
    case REL: return y > 0.0f ? 1.0f : 0.0f;
    case TANH: return 1.0f - y * y;
    case SIGMOID: return y * (1.0f - y);
    case EL: return y >= 0.0f ? 1.0f : y + 1.0f;
    case SOFTPLUS: return -expm1f(-y);
    case LEAKY_REL: return y > 0.0f ? 1.0f : 0.01f;
    case GELU: case SWISH: return gated_slope(activation, x);
    default: return 1.0f;
  }
}
