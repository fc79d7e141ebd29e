// Long short-term memory; arrays are as in recurrent.cu.

struct Cells {
  Sequence Za, Zb, Ia, Ib, Fa, Fb, Oa, Ob, Ca, Cb;
};

// `from_x` (T, B, 4N) and `from_y` (B, 4N) hold the products for Z, I, F and O;
// `peepholes` (3, N) may be null.
extern "C" __global__ void lstm_step(
    Step s, int activation, const float *from_x, const float *from_y,
    const float *peepholes, Cells cells, Sequence y, int t) {
  const int before = step_before(s, t), units = s.units;
  from_x += 4LL * s.batch * units * t;
  EACH_UNIT(s) {
    const long long place = 4LL * units * b + u;
    const float *of_x = from_x + place, *of_y = from_y + place;
    const bool kept = keeps(s, t, b, u);
    const float old_cell = at(cells.Ca, before, b, u);
    const float Za = of_x[0] + of_y[0];
    float Ia = of_x[units] + of_y[units];
    float Fa = of_x[2 * units] + of_y[2 * units];
    float Oa = of_x[3 * units] + of_y[3 * units];
    if (peepholes) {
      Ia += old_cell * peepholes[u];
      Fa += old_cell * peepholes[units + u];
    }
    const float Zb = activated(activation, Za);
    const float Ib = sigmoid_of(Ia), Fb = sigmoid_of(Fa);
    const float cell = kept ? old_cell : Ib * Zb + Fb * old_cell;
    if (peepholes) Oa += cell * peepholes[2 * units + u];
    const float Ob = sigmoid_of(Oa), Cb = activated(activation, cell);
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

// d.Cb[t] and d.Ca[t] hold the deltas of y and of the cell that come from the step
// after, none for the last step; what goes past the products is left in t - 1. The
// deltas of Za, Ia, Fa and Oa also go to `dgates` (T, B, 4N). `more` are deltas from
// outside, its arrays may be missing.
extern "C" __global__ void lstm_step_back(
    Step s, int activation, const float *peepholes, Cells cells, Sequence dy, Cells d,
    Cells more, float *dgates, int t) {
  const int before = step_before(s, t), units = s.units, carried = s.steps;
  const bool last = t == s.steps - 1;
  dgates += 4LL * s.batch * units * t;
  EACH_UNIT(s) {
    const bool kept = keeps(s, t, b, u);
    const float old_cell = at(cells.Ca, before, b, u);
    const float Zb = at(cells.Zb, t, b, u), Ib = at(cells.Ib, t, b, u);
    const float Fb = at(cells.Fb, t, b, u), Ob = at(cells.Ob, t, b, u);
    const float Cb = at(cells.Cb, t, b, u);
    const float dout = at(dy, t, b, u) + (last ? 0.0f : at(d.Cb, t, b, u));
    const float dOb = (kept ? 0.0f : dout * Cb) + from(more.Ob, t, b, u);
    const float dCb = (kept ? 0.0f : dout * Ob) + from(more.Cb, t, b, u);
    const float dOa =
        dOb * slope(NUMBER_OF_sigmoid, 0.0f, Ob) + from(more.Oa, t, b, u);
    float dCa = dCb * slope(activation, at(cells.Ca, t, b, u), Cb) +
                (last ? 0.0f : at(d.Ca, t, b, u)) + from(more.Ca, t, b, u);
    if (peepholes) dCa += dOa * peepholes[2 * units + u];
    const float inside = kept ? 0.0f : dCa;
    const float dZb = inside * Ib + from(more.Zb, t, b, u);
    const float dIb = inside * Zb + from(more.Ib, t, b, u);
    const float dFb = inside * old_cell + from(more.Fb, t, b, u);
    const float dZa =
        dZb * slope(activation, at(cells.Za, t, b, u), Zb) + from(more.Za, t, b, u);
    const float dIa =
        dIb * slope(NUMBER_OF_sigmoid, 0.0f, Ib) + from(more.Ia, t, b, u);
    const float dFa =
        dFb * slope(NUMBER_OF_sigmoid, 0.0f, Fb) + from(more.Fa, t, b, u);
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
    at(d.Cb, before, b, u) = kept ? dout : 0.0f;
    float *delta = dgates + 4LL * units * b + u;
    delta[0] = dZa;
    delta[units] = dIa;
    delta[2 * units] = dFa;
    delta[3 * units] = dOa;
    if (t == 0) {
      at(d.Za, carried, b, u) = at(d.Zb, carried, b, u) = 0.0f;
      at(d.Ia, carried, b, u) = at(d.Ib, carried, b, u) = 0.0f;
      at(d.Fa, carried, b, u) = at(d.Fb, carried, b, u) = 0.0f;
      at(d.Oa, carried, b, u) = at(d.Ob, carried, b, u) = 0.0f;
    }
  }
}
