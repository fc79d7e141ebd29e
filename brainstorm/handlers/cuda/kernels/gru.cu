// Gated recurrent units; arrays are as in recurrent.cu.

struct GruCells {
  Sequence Ra, Rb, Za, Zb, Pa, Ha, Hb;
};

// `from_x` (T, B, 3N) and `from_y` (B, 3N) hold the products for R, Z and H; `bp` (N,),
// which may be missing, is added to the last ones.
extern "C" __global__ void gru_step(
    Step s, int activation, const float *from_x, const float *from_y, const float *bp,
    GruCells cells, Sequence y, int t) {
  const int units = s.units;
  from_x += 3LL * s.batch * units * t;
  EACH_UNIT(s) {
    const long long place = 3LL * units * b + u;
    const float *of_x = from_x + place, *of_y = from_y + place;
    const float Ra = of_x[0] + of_y[0], Rb = sigmoid_of(Ra);
    const float Za = of_x[units] + of_y[units], Zb = sigmoid_of(Za);
    const float Pa = of_y[2 * units] + (bp ? bp[u] : 0.0f);
    const float Ha = of_x[2 * units] + Rb * Pa, Hb = activated(activation, Ha);
    at(cells.Ra, t, b, u) = Ra;
    at(cells.Rb, t, b, u) = Rb;
    at(cells.Za, t, b, u) = Za;
    at(cells.Zb, t, b, u) = Zb;
    at(cells.Pa, t, b, u) = Pa;
    at(cells.Ha, t, b, u) = Ha;
    at(cells.Hb, t, b, u) = Hb;
    at(y, t, b, u) = Hb + Zb * (at(y, step_before(s, t), b, u) - Hb);
  }
}

// `later` (B, N) holds the deltas of y[t] that come from the step after, and receives
// what goes past the gates. The deltas of Ra, Za and Pa go to `stacked` (B, 3N).
extern "C" __global__ void gru_step_back(
    Step s, int activation, GruCells cells, Sequence y, Sequence dy, Sequence dHa,
    float *stacked, float *later, int t) {
  EACH_UNIT(s) {
    const float Rb = at(cells.Rb, t, b, u), Zb = at(cells.Zb, t, b, u);
    const float Hb = at(cells.Hb, t, b, u), dout = at(dy, t, b, u) + later[i];
    const float dH =
        dout * (1.0f - Zb) * slope(activation, at(cells.Ha, t, b, u), Hb);
    const float dZb = dout * (at(y, step_before(s, t), b, u) - Hb);
    at(dHa, t, b, u) = dH;
    later[i] = dout * Zb;
    float *delta = stacked + 3LL * s.units * b + u;
    delta[0] = dH * at(cells.Pa, t, b, u) * slope(NUMBER_OF_sigmoid, 0.0f, Rb);
    delta[s.units] = dZb * slope(NUMBER_OF_sigmoid, 0.0f, Zb);
    delta[2 * s.units] = dH * Rb;
  }
}

// With the reset gates before the product: `to_gates` (B, 2N) holds that for R and Z.
extern "C" __global__ void gru_reset(
    Step s, const float *from_x, const float *to_gates, GruCells cells, Sequence y,
    int t) {
  from_x += 3LL * s.batch * s.units * t;
  EACH_UNIT(s) {
    const float *of_x = from_x + 3LL * s.units * b + u;
    const float *of_y = to_gates + 2LL * s.units * b + u;
    const float Ra = of_x[0] + of_y[0], Rb = sigmoid_of(Ra);
    const float Za = of_x[s.units] + of_y[s.units];
    at(cells.Ra, t, b, u) = Ra;
    at(cells.Rb, t, b, u) = Rb;
    at(cells.Za, t, b, u) = Za;
    at(cells.Zb, t, b, u) = sigmoid_of(Za);
    at(cells.Pa, t, b, u) = Rb * at(y, step_before(s, t), b, u);
  }
}

// `to_h` (B, N) holds the product for H.
extern "C" __global__ void gru_output(
    Step s, int activation, const float *from_x, const float *to_h, GruCells cells,
    Sequence y, int t) {
  from_x += 3LL * s.batch * s.units * t;
  EACH_UNIT(s) {
    const float Ha = from_x[3LL * s.units * b + 2 * s.units + u] + to_h[i];
    const float Hb = activated(activation, Ha), Zb = at(cells.Zb, t, b, u);
    at(cells.Ha, t, b, u) = Ha;
    at(cells.Hb, t, b, u) = Hb;
    at(y, t, b, u) = Hb + Zb * (at(y, step_before(s, t), b, u) - Hb);
  }
}

// Turn slopes of Za and Ha into deltas for the product: `stacked` is (B, 3N).
extern "C" __global__ void gru_output_back(
    Step s, Sequence dy, Sequence dZa, Sequence dHa, float *stacked, float *out,
    const float *later, int t) {
  EACH_UNIT(s) {
    const float dout = at(dy, t, b, u) + later[i];
    float *delta = stacked + 3LL * s.units * b + u;
    delta[s.units] = at(dZa, t, b, u) * dout;
    delta[2 * s.units] = at(dHa, t, b, u) * dout;
    out[i] = dout;
  }
}

extern "C" __global__ void gru_reset_back(
    Step s, GruCells cells, Sequence dRa, Sequence dPa, float *stacked,
    const float *out, float *later, int t) {
  EACH_UNIT(s) {
    const float dP = at(dPa, t, b, u);
    stacked[3LL * s.units * b + u] = at(dRa, t, b, u) * dP;
    later[i] = out[i] * at(cells.Zb, t, b, u) + dP * at(cells.Rb, t, b, u);
  }
}
