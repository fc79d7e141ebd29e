// Leaky integration and spiking neurons. A thread takes a unit of a sequence through
// the steps. Arrays with a carried state have it in their last row, where the step
// before step 0 is looked for; arrays without steps are (B, N) without gaps.

ELEMENTWISE(step_t, b = a >= s ? 1.0f : 0.0f)

#define FOR_UNITS(i, b, n)                                                       \
  for (unsigned i = thread_number(), b, n;                                       \
       i < (unsigned)batch * units && (b = i / units, n = i % units, true);      \
       i += thread_count())

// values[t] += factors[t] values[t - direction]
extern "C" __global__ void recur(
    int batch, unsigned units, Sequence values, Sequence factors, int rows, int first,
    int count, int direction) {
  const int source = first - direction;
  FOR_UNITS(i, b, n) {
    float value = at(values, source < 0 ? rows - 1 : source, b, n);
    for (int k = 0, t = first; k < count; ++k, t += direction) {
      value = at(values, t, b, n) + at(factors, t, b, n) * value;
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

// One step back in time; more holds the deltas of its spikes from the step after.
extern "C" __global__ void integrate_back(
    int batch, unsigned units, Sequence du, Sequence factors, Sequence slopes,
    Sequence currents, Sequence left, const float *gain, const float *more, int steps,
    int t) {
  FOR_UNITS(i, b, n) {
    float delta = at(du, t, b, n);
    if (t < steps - 1)
      delta += more[i] * at(slopes, t, b, n) +
               at(factors, t, b, n) * at(du, t + 1, b, n);
    at(du, t, b, n) = delta;
    const bool frozen = left.data && at(left, t > 0 ? t - 1 : steps, b, n) != 0.0f;
    at(currents, t, b, n) = frozen ? 0.0f : gain[i] * delta;
  }
}
