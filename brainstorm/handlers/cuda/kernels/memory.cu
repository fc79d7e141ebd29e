// Moving numbers, and random ones.

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
