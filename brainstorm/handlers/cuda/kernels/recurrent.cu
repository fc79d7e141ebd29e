// One step of recurrent layers: everything but the matrix products.
//
// Arrays are (T + 1, B, N), with the carried state in row T, where the step before
// step 0 is looked for.

// Where the units and sequences are. `kept` (T, B, N) is zero where a unit is updated;
// without it all are.
struct Step {
  int steps, batch, units;
  Sequence kept;
};

__device__ __forceinline__ int step_before(const Step &s, int t) {
  return t > 0 ? t - 1 : s.steps;
}

__device__ __forceinline__ bool keeps(const Step &s, int t, int b, int u) {
  return s.kept.data && at(s.kept, t, b, u) != 0.0f;
}

// An element of an array that may be missing.
__device__ __forceinline__ float from(const Sequence &s, int t, int b, int u) {
  return s.data ? at(s, t, b, u) : 0.0f;
}

// For all units `u` of all sequences `b`.
#define EACH_UNIT(S)                                                               \
  for (unsigned i = thread_number(), b = i / (unsigned)(S).units,                  \
                u = i % (unsigned)(S).units;                                       \
       i < (unsigned)(S).batch * (S).units;                                        \
       i += thread_count(), b = i / (unsigned)(S).units, u = i % (unsigned)(S).units)

extern "C" __global__ void advance_clock(
    int steps, int batch, int units, const float *timing, Sequence clock,
    Failure *failure) {
  for (int b = thread_number(); b < batch; b += thread_count())
    for (int t = 0; t < steps; ++t)
      at(clock, t, b, 0) = at(clock, t > 0 ? t - 1 : steps, b, 0) + 1.0f;
  for (int n = thread_number(); n < units; n += thread_count())
    if (!(timing[n] >= 1.0f)) fail(failure, BAD_TIMING, 1, timing[n]);
}

// Ha holds the sum of both products. Hb receives the activations, where they leak.
extern "C" __global__ void recurrent_step(
    Step s, int activation, float leak, int inside, Sequence Ha, Sequence Hb, Sequence y,
    int t) {
  const int before = step_before(s, t);
  EACH_UNIT(s) {
    const float old = at(y, before, b, u), past = (1.0f - leak) * old;
    const bool leaks = leak < 1.0f, kept = keeps(s, t, b, u);
    float h = at(Ha, t, b, u);
    if (leaks && inside) h = leak * h + past;
    if (kept) h = at(Ha, before, b, u);
    float value = activated(activation, h);
    if (leaks && !inside) {
      at(Hb, t, b, u) = value;
      value = leak * value + past;
    }
    at(Ha, t, b, u) = h;
    at(y, t, b, u) = kept ? old : value;
  }
}

// dHa holds the slopes, dHb the deltas of y but for those that come past the products;
// `more` is added to dHa. `sums` receives the deltas of the sums of products.
extern "C" __global__ void recurrent_step_back(
    Step s, float leak, int inside, Sequence dHa, Sequence dHb, Sequence more,
    Sequence sums, int t) {
  EACH_UNIT(s) {
    float dout = at(dHb, t, b, u);
    if (t + 1 < s.steps) {
      if (keeps(s, t + 1, b, u)) dout += at(dHb, t + 1, b, u);
      if (leak < 1.0f)
        dout += (1.0f - leak) * at(inside ? dHa : dHb, t + 1, b, u);
    }
    const float dh = at(dHa, t, b, u) * dout + from(more, t, b, u);
    at(dHb, t, b, u) = dout;
    at(dHa, t, b, u) = dh;
    at(sums, t, b, u) = inside ? leak * dh : dh;
  }
}
