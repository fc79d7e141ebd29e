// Activation functions, alone and after a bias, and their derivatives.

__device__ __forceinline__ float limited(float x) { return clipped(x, -80.0f, 80.0f); }

// x times a gate, where a gate of 0 makes 0 of minus infinity, too.
__device__ __forceinline__ float times(float x, float gate) {
  return (x < 0.0f ? limited(x) : x) * gate;
}

__device__ __forceinline__ float gate(float x, float a, float b) {
  return sigmoid_of(x * (a + b * x * x));
}

__device__ __forceinline__ float gated(float x, float a, float b) {
  return times(x, gate(limited(x), a, b));
}

__device__ __forceinline__ float gated_slope(float x, float a, float b) {
  x = limited(x);
  const float s = gate(x, a, b);
  return s * (1.0f + x * (a + 3.0f * b * x * x) * (1.0f - s));
}

__device__ __forceinline__ float hard_sigmoid_of(float x) {
  return clipped(x / 6.0f + 0.5f, 0.0f, 1.0f);
}

__device__ __forceinline__ bool is_between(float y, float low, float high) {
  return y > low && y < high;
}

__device__ __forceinline__ float hard_swish_slope(float x) {
  const float y = hard_sigmoid_of(x);
  return y + (is_between(y, 0.0f, 1.0f) ? x / 6.0f : 0.0f);
}

__device__ __forceinline__ float mish_slope(float x) {
  const float gate = tanhf(softplus_of(x));
  return gate + limited(x) * sigmoid_of(x) * (1.0f - gate * gate);
}

__device__ __forceinline__ float softsign_of(float x) {
  x = clipped(x, -FLOAT_MAX, FLOAT_MAX);
  return x / (1.0f + fabsf(x));
}

#define GELU 1.595769122f, 0.0713548163f

// The functions in the handlers' order: name, value at x, and derivative, which is
// computed from x where the value y does not tell it.
#define EACH_ACTIVATION(DO)                                                        \
  DO(rel, rel_of(x), y > 0.0f ? 1.0f : 0.0f)                                       \
  DO(tanh, tanhf(x), 1.0f - y * y)                                                 \
  DO(sigmoid, sigmoid_of(x), y * (1.0f - y))                                       \
  DO(el, el_of(x), y >= 0.0f ? 1.0f : y + 1.0f)                                    \
  DO(softplus, softplus_of(x), -expm1f(-y))                                        \
  DO(leaky_rel, x > 0.0f ? x : 0.01f * x, y > 0.0f ? 1.0f : 0.01f)                 \
  DO(gelu, gated(x, GELU), gated_slope(x, GELU))                                   \
  DO(swish, gated(x, 1.0f, 0.0f), gated_slope(x, 1.0f, 0.0f))                      \
  DO(hard_swish, times(x, hard_sigmoid_of(x)), hard_swish_slope(x))                \
  DO(mish, times(x, tanhf(softplus_of(x))), mish_slope(x))                         \
  DO(hard_sigmoid, hard_sigmoid_of(x),                                             \
     is_between(y, 0.0f, 1.0f) ? 1.0f / 6.0f : 0.0f)                               \
  DO(relu6, clipped(x, 0.0f, 6.0f), is_between(y, 0.0f, 6.0f) ? 1.0f : 0.0f)       \
  DO(softsign, softsign_of(x), (1.0f - fabsf(y)) * (1.0f - fabsf(y)))

#define NUMBER(NAME, VALUE, SLOPE) NUMBER_OF_##NAME,
enum { NUMBER_OF_linear = 0, EACH_ACTIVATION(NUMBER) };

__device__ __forceinline__ float activated(int activation, float x) {
#define VALUE_OF(NAME, VALUE, SLOPE) case NUMBER_OF_##NAME: return VALUE;
  switch (activation) {
    EACH_ACTIVATION(VALUE_OF)
    default: return x;
  }
}

__device__ __forceinline__ float slope(int activation, float x, float y) {
#define SLOPE_OF(NAME, VALUE, SLOPE) case NUMBER_OF_##NAME: return SLOPE;
  switch (activation) {
    EACH_ACTIVATION(SLOPE_OF)
    default: return 1.0f;
  }
}

// Of x: (x, y). After adding a bias to h: (h, bias, y). Backward: (y, dy, dx), with x
// in place of y where the derivative is computed from it.
#define ACTIVATION(NAME, VALUE, SLOPE)                                             \
  ELEMENTWISE(NAME##_forward, b = activated(NUMBER_OF_##NAME, a))                  \
  ELEMENTWISE(NAME##_biased, a += b; c = activated(NUMBER_OF_##NAME, a))           \
  ELEMENTWISE(NAME##_deriv, c = b * slope(NUMBER_OF_##NAME, a, a))                 \
  ELEMENTWISE(NAME##_deriv_add, c += b * slope(NUMBER_OF_##NAME, a, a))
EACH_ACTIVATION(ACTIVATION)
