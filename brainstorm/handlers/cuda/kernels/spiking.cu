// Leaky integration and spiking neurons. A thread takes a unit of a sequence through
// the steps. Arrays with a carried state have it in their last row, where the step
// before step 0 is looked for; arrays without steps are (B, N) without gaps.

ELEMENTWISE(step_t, b = a >= s ? 1.0f : 0.0f)

#define FOR_UNITS(i, b, n)                                                       \
  for (unsigned i = thread_number(), b, n;                                       \
       i < (unsigned)batch * units && (b = i / units, n = i % units, true);      \
       i += thread_count())

// values[t] = source[t] + factors[t] values[t - direction]
extern "C" __global__ void recur(
    int batch, unsigned units, Sequence values, Sequence source, Sequence factors,
    int rows, int first, int count, int direction) {
  const int before = first - direction;
  FOR_UNITS(i, b, n) {
    float value = at(values, before < 0 ? rows - 1 : before, b, n);
    for (int k = 0, t = first; k < count; ++k, t += direction) {
      value = at(source, t, b, n) + at(factors, t, b, n) * value;
      at(values, t, b, n) = value;
    }
  }
}

// u holds what drives the neurons, to which gain * more is added, if there is any.
extern "C" __global__ void integrate(
    int batch, unsigned units, Sequence u, Sequence v, Sequence y, Sequence left,
    const float *decay, const float *more, const float *gain, int steps, int first,
    int last, float threshold, float reset_to, float drop, int hard,
    float frozen_steps) {
  const int source = first > 0 ? first - 1 : steps;
  FOR_UNITS(i, b, n) {
    float before = at(v, source, b, n);
    float frozen = left.data ? at(left, source, b, n) : 0.0f;
    for (int t = first; t < last; ++t) {
      float now = before;
      if (frozen == 0.0f) {
        now = at(u, t, b, n) + (more ? gain[i] * more[i] : 0.0f);
        now += decay[i] * before;
      }
      at(u, t, b, n) = now;
      const bool fires = now >= threshold;
      at(y, t, b, n) = fires ? 1.0f : 0.0f;
      before = !fires ? now : hard ? reset_to : now + drop;
      at(v, t, b, n) = before;
      if (left.data) {
        frozen = fires ? frozen_steps : rel_of(frozen - 1.0f);
        at(left, t, b, n) = frozen;
      }
    }
  }
}

// One step back in time. Without a step after it, later is null.
extern "C" __global__ void integrate_back(
    int batch, unsigned units, Sequence du, Sequence later, Sequence factors,
    Sequence slopes, Sequence more, Sequence frozen, Sequence gain,
    Sequence currents) {
  FOR_UNITS(i, b, n) {
    float delta = at(du, 0, b, n);
    if (later.data)
      delta += at(more, 0, b, n) * at(slopes, 0, b, n) +
               at(factors, 0, b, n) * at(later, 0, b, n);
    at(du, 0, b, n) = delta;
    const bool counts = !frozen.data || at(frozen, 0, b, n) == 0.0f;
    at(currents, 0, b, n) = counts ? at(gain, 0, b, n) * delta : 0.0f;
  }
}
