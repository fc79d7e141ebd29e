// Elementwise operations on up to six arrays, in the order of the operation's
// arguments. Each comes in two versions: one for dense arrays of one size, and one
// for any views, where a stride of zero repeats an array.

struct Scalars {
  long long first;                     // number of the first element
  Failure *failure;                    // what was found wrong, and what not finite
  float s, t, u, v, w, x, y;           // what the operation makes of them
  unsigned seed, call_low, call_high;  // of random numbers
};

struct Layout {
  int size[3];
  long long stride[6][3];
};

__device__ __forceinline__ long long place(
    const Layout &layout, int array, int x, int y, int z) {
  const long long *stride = layout.stride[array];
  return x * stride[0] + y * stride[1] + z * stride[2];
}

#define ELEMENTWISE(NAME, ...)                                                     \
  __device__ __forceinline__ void NAME##_at(                                       \
      float &a, float &b, float &c, float &d, float &e, float &f,                  \
      const Scalars &scalars, long long index) {                                   \
    const float s = scalars.s, t = scalars.t;                                      \
    (void)s, (void)t;                                                              \
    __VA_ARGS__;                                                                   \
  }                                                                                \
  extern "C" __global__ void NAME(                                                 \
      long long n, float *a, float *b, float *c, float *d, float *e, float *f,     \
      Scalars scalars) {                                                           \
    for (long long i = thread_number(); i < n; i += thread_count())                \
      NAME##_at(a[i], b[i], c[i], d[i], e[i], f[i], scalars, scalars.first + i);   \
  }                                                                                \
  extern "C" __global__ void NAME##_strided(                                       \
      Layout layout, float *a, float *b, float *c, float *d, float *e, float *f,   \
      Scalars scalars) {                                                           \
    const unsigned width = layout.size[2], height = layout.size[1];                \
    const unsigned n = layout.size[0] * height * width;                            \
    for (unsigned i = thread_number(); i < n; i += thread_count()) {               \
      const unsigned z = i % width, row = i / width;                               \
      const unsigned y = row % height, x = row / height;                           \
      NAME##_at(a[place(layout, 0, x, y, z)], b[place(layout, 1, x, y, z)],        \
                c[place(layout, 2, x, y, z)], d[place(layout, 3, x, y, z)],        \
                e[place(layout, 4, x, y, z)], f[place(layout, 5, x, y, z)],        \
                scalars, scalars.first + i);                                       \
    }                                                                              \
  }

// -- memory ---------------------------------------------------------------------

ELEMENTWISE(copy_to, b = a)
ELEMENTWISE(copy_to_if, if (c != 0.0f) b = a)
ELEMENTWISE(fill, a = s)

// Dense arrays, one for each row of blocks.
struct Pieces {
  float *data[16];
  long long size[16];
};

extern "C" __global__ void clear(Pieces pieces) {
  float *data = pieces.data[blockIdx.y];
  const long long n = pieces.size[blockIdx.y];
  for (long long i = thread_number(); i < n; i += thread_count()) data[i] = 0.0f;
}

ELEMENTWISE(fill_if, if (b != 0.0f) a = s)
ELEMENTWISE(find_not_finite,
            if (!(fabsf(a) <= FLOAT_MAX)) scalars.failure->not_finite = 1)

// -- arithmetic -----------------------------------------------------------------

ELEMENTWISE(abs_t, b = fabsf(a))
ELEMENTWISE(add_st, b = s + a)
ELEMENTWISE(add_tt, c = a + b)
ELEMENTWISE(add_into_if, if (c != 0.0f) b += a)
ELEMENTWISE(clip_t, b = clipped(a, s, t))
ELEMENTWISE(divide_tt, c = a / b)
ELEMENTWISE(log_t, b = logf(a))
ELEMENTWISE(modulo_tt, c = modulo(a, b))
ELEMENTWISE(mult_add_st, b += s * a)
ELEMENTWISE(mult_add_tt, c += a * b)
ELEMENTWISE(mult_st, b = s * a)
ELEMENTWISE(mult_tt, c = a * b)
ELEMENTWISE(sign_t, b = a > 0.0f ? 1.0f : a < 0.0f ? -1.0f : a)
ELEMENTWISE(sqrt_t, b = sqrtf(a))
ELEMENTWISE(subtract_tt, c = a - b)

// -- activation functions -------------------------------------------------------
// Of x: (x, y). After adding a bias to h: (h, bias, y). Backward: (y, dy, dx), with x
// in place of y for gelu and swish.

#define ACTIVATION(NAME, KIND)                                                     \
  ELEMENTWISE(NAME##_forward, b = activated(KIND, a))                              \
  ELEMENTWISE(NAME##_biased, a += b; c = activated(KIND, a))                       \
  ELEMENTWISE(NAME##_deriv, c = b * slope(KIND, a, a))                             \
  ELEMENTWISE(NAME##_deriv_add, c += b * slope(KIND, a, a))

ACTIVATION(rel, REL)
ACTIVATION(tanh, TANH)
ACTIVATION(sigmoid, SIGMOID)
ACTIVATION(el, EL)
ACTIVATION(softplus, SOFTPLUS)
ACTIVATION(leaky_rel, LEAKY_REL)
ACTIVATION(gelu, GELU)
ACTIVATION(swish, SWISH)

// -- losses ---------------------------------------------------------------------

// (x, targets, predictions, loss); -log(sigmoid(x)) is softplus(-x)
ELEMENTWISE(sigmoid_ce_forward, c = sigmoid_of(a);
            d = b * limited_loss(softplus_of(-a)) +
                (1.0f - b) * limited_loss(softplus_of(a)))
// (targets, predictions, dloss, dcee, dx)
ELEMENTWISE(sigmoid_ce_backward, d = b - a; e += d * c)
ELEMENTWISE(sigmoid_ce_backward_fresh, d = b - a; e = d * c)

// -- batch normalisation --------------------------------------------------------

// (sum over rows, mean, mu); s: 1 / rows; t: decay; u: 1 - decay
ELEMENTWISE(batch_norm_mean, b = s * a; c = t * c - scalars.u * b)
// (sum of squares, sigma_b, sigma); s, t, u as above; v: epsilon
ELEMENTWISE(batch_norm_deviation, b = sqrtf(s * a + scalars.v);
            c = t * c + scalars.u * b)
// (centered, sigma_b, x_hat, gamma, beta, y)
ELEMENTWISE(batch_norm_scale, c = a / b; f = d * c + e)
// (x, gamma, beta, mu, sigma, y)
ELEMENTWISE(batch_norm_inference, f = b * (a + d) / e + c)
// (dy, x_hat, sum of dy x_hat, sum of dy, gamma / sigma_b, dx); s: 1 / rows
ELEMENTWISE(batch_norm_backward, f += e * (a - s * (d + b * c)))
ELEMENTWISE(batch_norm_backward_fresh, f = e * (a - s * (d + b * c)))

// -- updates --------------------------------------------------------------------
// They leave the parameters alone once a check of the same pass has failed.

#define UPDATE(NAME, ...)                                                          \
  ELEMENTWISE(NAME, if (scalars.failure->operation == 0) { __VA_ARGS__; })

UPDATE(sgd_update, a -= s * b)
UPDATE(momentum_update,
       c = t * c - s * b;
       a += c)
UPDATE(nesterov_ahead,
       b *= s;
       a += b)
UPDATE(nesterov_correct,
       c -= s * b;
       a -= s * b)

// (parameters, gradients, mean, variance); s to w: both factors of each running mean,
// epsilon; x: rate; y: what the decay leaves
UPDATE(adam_update,
       c = s * c + t * b;
       d = scalars.u * d + scalars.v * (b * b);
       a = scalars.y * a - scalars.x * (c / (sqrtf(d) + scalars.w)))
// (parameters, gradients, mean_square); s, t: both factors of the running mean
UPDATE(rms_prop_update,
       c = s * c + t * (b * b);
       a -= scalars.u * (b / (sqrtf(c) + scalars.v)))
UPDATE(ada_grad_update,
       c += b * b;
       a -= s * (b / (sqrtf(c) + t)))
// (parameters, gradients, mean_square, mean_square_step); s, t as above
UPDATE(ada_delta_update,
       c = s * c + t * (b * b);
       const float step = b * sqrtf((d + scalars.v) / (c + scalars.v));
       d = s * d + t * (step * step);
       a -= scalars.u * step)

// -- random numbers -------------------------------------------------------------
// Philox 4x32-10: Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011.
// The counter consists of the element's number and of that of the call, so what an
// element gets depends neither on the grid nor on the strides.

struct Four {
  unsigned word[4];
};

__device__ __forceinline__ Four philox(Four counter, unsigned key0, unsigned key1) {
  unsigned *w = counter.word;
  for (int round = 0; round < 10; ++round) {
    const unsigned long long first = 0xD2511F53ull * w[0];
    const unsigned long long second = 0xCD9E8D57ull * w[2];
    const unsigned w1 = w[1], w3 = w[3];
    w[0] = (unsigned)(second >> 32) ^ w1 ^ key0;
    w[1] = (unsigned)second;
    w[2] = (unsigned)(first >> 32) ^ w3 ^ key1;
    w[3] = (unsigned)first;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// Four elements share the four words of one counter.
__device__ __forceinline__ Four random_words(const Scalars &scalars, long long index) {
  const unsigned long long group = (unsigned long long)index / 4;
  const Four counter = {{(unsigned)group, (unsigned)(group >> 32), scalars.call_low,
                         scalars.call_high}};
  return philox(counter, scalars.seed, 0);
}

// Uniform in [0, 1).
__device__ __forceinline__ float uniform(const Scalars &scalars, long long index) {
  return (random_words(scalars, index).word[index % 4] >> 8) * (1.0f / 16777216.0f);
}

// Standard normal: Box and Muller, A note on the generation of random normal
// deviates, 1958. Two elements share two words.
__device__ __forceinline__ float normal(const Scalars &scalars, long long index) {
  const Four words = random_words(scalars, index);
  const int pair = index % 4 / 2 * 2;
  const float scale = 1.0f / 16777216.0f;
  const float above_zero = ((words.word[pair] >> 8) + 1) * scale;
  const float angle = 6.283185307f * ((words.word[pair + 1] >> 8) * scale);
  const float radius = sqrtf(-2.0f * logf(above_zero));
  return radius * (index % 2 ? sinf(angle) : cosf(angle));
}

ELEMENTWISE(fill_gaussian, a = s + t * normal(scalars, index))
ELEMENTWISE(generate_probability_mask, a = uniform(scalars, index) < s ? 1.0f : 0.0f)
// (x, mask, y)
ELEMENTWISE(dropout_forward, b = uniform(scalars, index) < s ? t : 0.0f; c = a * b)
