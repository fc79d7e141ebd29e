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
