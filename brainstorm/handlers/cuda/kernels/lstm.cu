// Long short-term memory; arrays are as in recurrent.cu.

struct Cells {
  Sequence Za, Zb, Ia, Ib, Fa, Fb, Oa, Ob, Ca, Cb;
};

// `products` (T, B, 4N) holds the sums of both products for Z, I, F and O;
// `peepholes` may be null.
extern "C" __global__ void lstm_forward_step(
    Step s, const float *products, const float *bias, const float *peepholes,
    Cells cells, Sequence y, int t) {
  const int before = step_before(s, t), units = s.units;
  const unsigned n = s.batch * units;
  products += 4LL * n * t;
  for (unsigned i = thread_number(); i < n; i += thread_count()) {
    const int b = i / (unsigned)units, u = i % (unsigned)units;
    const float *product = products + 4LL * units * b + u;
    const bool kept = keeps(s, t, b, u);
    const float old_cell = at(cells.Ca, before, b, u);
    const float Za = product[0] + bias[u];
    float Ia = product[units] + bias[units + u];
    float Fa = product[2 * units] + bias[2 * units + u];
    float Oa = product[3 * units] + bias[3 * units + u];
    if (peepholes) {
      Ia += old_cell * peepholes[u];
      Fa += old_cell * peepholes[units + u];
    }
    const float Zb = activated(s.activation, Za);
    const float Ib = sigmoid_of(Ia), Fb = sigmoid_of(Fa);
    const float cell = kept ? old_cell : Ib * Zb + Fb * old_cell;
    if (peepholes) Oa += cell * peepholes[2 * units + u];
    const float Ob = sigmoid_of(Oa), Cb = activated(s.activation, cell);
    at(cells.Za, t, b, u) = Za;
    at(cells.Zb, t, b, u) = Zb;
    at(cells.Ia, t, b, u) = Ia;
    at(cells.Ib, t, b, u) = Ib;
    at(cells.Fa, t, b, u) = Fa;
    at(cells.Fb, t, b, u) = Fb;
    at(cells.Oa, t, b, u) = Oa;
    at(cells.Ob, t, b, u) = Ob;
    at(cells.Ca, t, b, u) = cell;
    at(cells.Cb, t, b, u) = Cb;
    at(y, t, b, u) = kept ? at(y, before, b, u) : Ob * Cb;
  }
}

// `carry` (B, N) holds the deltas of y[t] that come from the step after, none for the
// last step. With a clock it receives what goes past the units. d.Ca[t] holds what
// comes from the step after. The deltas of Za, Ia, Fa and Oa also go to `stacked`
// (T, B, 4N).
extern "C" __global__ void lstm_backward_step(
    Step s, const float *peepholes, Cells cells, Sequence dy, Cells d, float *carry,
    float *stacked, int t) {
  const int before = step_before(s, t), units = s.units;
  const bool last = t == s.steps - 1;
  const unsigned n = s.batch * units;
  stacked += 4LL * n * t;
  for (unsigned i = thread_number(); i < n; i += thread_count()) {
    const int b = i / (unsigned)units, u = i % (unsigned)units;
    const bool kept = keeps(s, t, b, u);
    const float old_cell = at(cells.Ca, before, b, u);
    const float Zb = at(cells.Zb, t, b, u), Ib = at(cells.Ib, t, b, u);
    const float Fb = at(cells.Fb, t, b, u), Ob = at(cells.Ob, t, b, u);
    const float Cb = at(cells.Cb, t, b, u);
    const float dout = at(dy, t, b, u) + (last ? 0.0f : carry[i]);
    const float dOb = kept ? 0.0f : dout * Cb, dCb = kept ? 0.0f : dout * Ob;
    const float dOa = dOb * slope(NUMBER_OF_sigmoid, 0.0f, Ob);
    const float cell_slope = slope(s.activation, at(cells.Ca, t, b, u), Cb);
    float dCa = dCb * cell_slope + (last ? 0.0f : at(d.Ca, t, b, u));
    if (peepholes) dCa += dOa * peepholes[2 * units + u];
    const float inside = kept ? 0.0f : dCa;
    const float dZb = inside * Ib, dIb = inside * Zb, dFb = inside * old_cell;
    const float dZa = dZb * slope(s.activation, at(cells.Za, t, b, u), Zb);
    const float dIa = dIb * slope(NUMBER_OF_sigmoid, 0.0f, Ib);
    const float dFa = dFb * slope(NUMBER_OF_sigmoid, 0.0f, Fb);
    float dCa_before = kept ? dCa : dCa * Fb;
    if (peepholes) dCa_before += dIa * peepholes[u] + dFa * peepholes[units + u];
    at(d.Za, t, b, u) = dZa;
    at(d.Zb, t, b, u) = dZb;
    at(d.Ia, t, b, u) = dIa;
    at(d.Ib, t, b, u) = dIb;
    at(d.Fa, t, b, u) = dFa;
    at(d.Fb, t, b, u) = dFb;
    at(d.Oa, t, b, u) = dOa;
    at(d.Ob, t, b, u) = dOb;
    at(d.Ca, t, b, u) = dCa;
    at(d.Cb, t, b, u) = dCb;
    at(d.Ca, before, b, u) = dCa_before;
    if (s.timing) carry[i] = kept ? dout : 0.0f;
    float *delta = stacked + 4LL * units * b + u;
    delta[0] = dZa;
    delta[units] = dIa;
    delta[2 * units] = dFa;
    delta[3 * units] = dOa;
    if (t == 0) {
      const int carried = s.steps;
      at(d.Za, carried, b, u) = at(d.Zb, carried, b, u) = 0.0f;
      at(d.Ia, carried, b, u) = at(d.Ib, carried, b, u) = 0.0f;
      at(d.Fa, carried, b, u) = at(d.Fb, carried, b, u) = 0.0f;
      at(d.Oa, carried, b, u) = at(d.Ob, carried, b, u) = 0.0f;
      at(d.Cb, carried, b, u) = 0.0f;
    }
  }
}

// The sums over steps and sequences of the deltas of Ia, Fa and Oa times the cells
// that their peepholes look at: a row (3, N) for each block row, which takes `chunk`
// rows of all steps. Block (32, 8).
extern "C" __global__ void peephole_gradients(
    Step s, Sequence Ca, Sequence dIa, Sequence dFa, Sequence dOa, int chunk,
    float *out) {
  __shared__ double sums[3][8][32];
  const int x = threadIdx.x, y = threadIdx.y, u = blockIdx.x * 32 + x;
  const long long rows = (long long)s.steps * s.batch;
  const long long start = (long long)blockIdx.y * chunk;
  const long long stop = start + chunk < rows ? start + chunk : rows;
  double sum[3] = {0.0, 0.0, 0.0};
  if (u < s.units)
    for (long long r = start + y; r < stop; r += 8) {
      const int t = r / s.batch, b = r % s.batch;
      const double old_cell = at(Ca, step_before(s, t), b, u);
      sum[0] += at(dIa, t, b, u) * old_cell;
      sum[1] += at(dFa, t, b, u) * old_cell;
      sum[2] += (double)at(dOa, t, b, u) * at(Ca, t, b, u);
    }
  for (int k = 0; k < 3; ++k) sums[k][y][x] = sum[k];
  __syncthreads();
  if (y < 3 && u < s.units) {
    double total = 0.0;
    for (int i = 0; i < 8; ++i) total += sums[y][i][x];
    out[(3LL * blockIdx.y + y) * s.units + u] = (float)total;
  }
}
