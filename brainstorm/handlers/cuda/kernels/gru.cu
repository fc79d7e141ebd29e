// Gated recurrent units; arrays are as in recurrent.cu.

struct GruCells {
  Sequence Ra, Rb, Za, Zb, Pa, Ha, Hb;
};

// `from_x` (T, B, 3N) and `from_y` (B, 3N) hold the products for R, Z and H.
extern "C" __global__ void gru_forward_step(
    Step s, const float *from_x, const float *from_y, const float *bias,
    GruCells cells, Sequence y, int t) {
  const int units = s.units;
  const unsigned n = s.batch * units;
  from_x += 3LL * n * t;
  for (unsigned i = thread_number(); i < n; i += thread_count()) {
    const int b = i / (unsigned)units, u = i % (unsigned)units;
    const float *of_x = from_x + 3LL * units * b + u;
    const float *of_y = from_y + 3LL * units * b + u;
    const float Ra = of_x[0] + of_y[0] + bias[u], Rb = sigmoid_of(Ra);
    const float Za = of_x[units] + of_y[units] + bias[units + u], Zb = sigmoid_of(Za);
    const float Pa = of_y[2 * units];
    const float Ha = of_x[2 * units] + Rb * Pa + bias[2 * units + u];
    const float Hb = activated(s.activation, Ha);
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

struct GruDeltas {
  Sequence Ra, Za, Pa, Ha;
};

// `carry` (B, N) holds the deltas of y[t] that come from the step after, none for the
// last step. It receives what goes past the gates. The deltas of Ra, Za and Pa also
// go to `stacked` (T, B, 3N).
extern "C" __global__ void gru_backward_step(
    Step s, GruCells cells, Sequence y, Sequence dy, GruDeltas d, float *carry,
    float *stacked, int t) {
  const int units = s.units;
  const unsigned n = s.batch * units;
  stacked += 3LL * n * t;
  for (unsigned i = thread_number(); i < n; i += thread_count()) {
    const int b = i / (unsigned)units, u = i % (unsigned)units;
    const float Rb = at(cells.Rb, t, b, u), Zb = at(cells.Zb, t, b, u);
    const float Hb = at(cells.Hb, t, b, u);
    const float dout = at(dy, t, b, u) + (t < s.steps - 1 ? carry[i] : 0.0f);
    const float dHa =
        dout * (1.0f - Zb) * slope(s.activation, at(cells.Ha, t, b, u), Hb);
    const float dZb = dout * (at(y, step_before(s, t), b, u) - Hb);
    const float dZa = dZb * slope(NUMBER_OF_sigmoid, 0.0f, Zb), dPa = dHa * Rb;
    const float dRa = dHa * at(cells.Pa, t, b, u) * slope(NUMBER_OF_sigmoid, 0.0f, Rb);
    at(d.Ra, t, b, u) = dRa;
    at(d.Za, t, b, u) = dZa;
    at(d.Pa, t, b, u) = dPa;
    at(d.Ha, t, b, u) = dHa;
    carry[i] = dout * Zb;
    float *delta = stacked + 3LL * units * b + u;
    delta[0] = dRa;
    delta[units] = dZa;
    delta[2 * units] = dPa;
  }
}
