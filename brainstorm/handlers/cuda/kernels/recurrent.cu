// One step of recurrent layers: everything but the matrix products.
//
// Arrays are (T + 1, B, N), with the carried state in row T, where the step before
// step 0 is looked for.

// Where the units and sequences are, and the clock, without which timing is null.
struct Step {
  int steps, batch, units;
  int activation;
  const float *timing;
  Sequence clock;
};

__device__ __forceinline__ int step_before(const Step &s, int t) {
  return t > 0 ? t - 1 : s.steps;
}

// Whether a clockwork's unit keeps what it had: the clock shows the steps up to and
// with step t.
__device__ __forceinline__ bool keeps(const Step &s, int t, int b, int n) {
  return s.timing && modulo(at(s.clock, t, b, 0) - 1.0f, s.timing[n]) != 0.0f;
}

extern "C" __global__ void advance_clock(Step s, Failure *failure) {
  for (int b = thread_number(); b < s.batch; b += thread_count())
    for (int t = 0; t < s.steps; ++t)
      at(s.clock, t, b, 0) = at(s.clock, step_before(s, t), b, 0) + 1.0f;
  for (int n = thread_number(); n < s.units; n += thread_count())
    if (!(s.timing[n] >= 1.0f)) fail(failure, BAD_TIMING, 1, s.timing[n]);
}

// Ha holds the sum of both products.
extern "C" __global__ void recurrent_forward_step(
    Step s, const float *bias, Sequence Ha, Sequence y, int t) {
  const int before = step_before(s, t);
  const unsigned n = s.batch * s.units;
  for (unsigned i = thread_number(); i < n; i += thread_count()) {
    const int b = i / (unsigned)s.units, u = i % (unsigned)s.units;
    if (keeps(s, t, b, u)) {
      at(Ha, t, b, u) = at(Ha, before, b, u);
      at(y, t, b, u) = at(y, before, b, u);
    } else {
      const float h = at(Ha, t, b, u) + bias[u];
      at(Ha, t, b, u) = h;
      at(y, t, b, u) = activated(s.activation, h);
    }
  }
}

// dHb[t] holds what comes from the step after, none for the last step. With a
// clock, dHb[t - 1] receives what goes past the units.
extern "C" __global__ void recurrent_backward_step(
    Step s, Sequence Ha, Sequence y, Sequence dy, Sequence dHa, Sequence dHb, int t) {
  const int before = step_before(s, t);
  const unsigned n = s.batch * s.units;
  for (unsigned i = thread_number(); i < n; i += thread_count()) {
    const int b = i / (unsigned)s.units, u = i % (unsigned)s.units;
    const float later = t < s.steps - 1 ? at(dHb, t, b, u) : 0.0f;
    const float dout = at(dy, t, b, u) + later;
    const bool kept = keeps(s, t, b, u);
    at(dHb, t, b, u) = dout;
    const float slope_here = slope(s.activation, at(Ha, t, b, u), at(y, t, b, u));
    at(dHa, t, b, u) = kept ? 0.0f : dout * slope_here;
    if (s.timing) at(dHb, before, b, u) = kept ? dout : 0.0f;
    if (t == 0) at(dHa, s.steps, b, u) = 0.0f;
  }
}
