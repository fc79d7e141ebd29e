// Updates of parameters.
// They leave the parameters alone once a check of the same pass has failed.

#define UPDATE(NAME, ...)                                                          \
  ELEMENTWISE(NAME, if (scalars.failure->operation == 0) { __VA_ARGS__; })

UPDATE(sgd_update, a -= s * b)
UPDATE(momentum_update,
       c = t * c - s * b;
       a += c)
UPDATE(nesterov_ahead,
       b *= s;
       a += b)
UPDATE(nesterov_correct,
       c -= s * b;
       a -= s * b)

// (parameters, gradients, mean, variance); s to w: both factors of each running mean,
// epsilon; x: step; y: what the decay leaves
UPDATE(adam_update,
       c = s * c + t * b;
       d = scalars.u * d + scalars.v * (b * b);
       a = scalars.y * a + scalars.x * (c / (sqrtf(d) + scalars.w)))
// (parameters, gradients, mean); s to v: both factors of each mean; w: minus the step
// size; x: what the decay leaves
UPDATE(lion_update,
       const float mix = s * c + t * b;
       const float sign = mix > 0.0f ? 1.0f : mix < 0.0f ? -1.0f : mix;
       a = scalars.x * a + scalars.w * sign;
       c = scalars.u * c + scalars.v * b)
// (parameters, gradients, mean_square); s, t: both factors of the running mean
UPDATE(rms_prop_update,
       c = s * c + t * (b * b);
       a -= scalars.u * (b / (sqrtf(c) + scalars.v)))
UPDATE(ada_grad_update,
       c += b * b;
       a -= s * (b / (sqrtf(c) + t)))
// (parameters, gradients, mean_square, mean_square_step); s, t as above
UPDATE(ada_delta_update,
       c = s * c + t * (b * b);
       const float step = b * sqrtf((d + scalars.v) / (c + scalars.v));
       d = s * d + t * (step * step);
       a -= scalars.u * step)

// The sum of the squares of values[start:stop], which a row of threads adds up.
__device__ double sum_of_squares(const float *values, int start, int stop) {
  double sum = 0.0;
  for (int c = start + threadIdx.x; c < stop; c += blockDim.x)
    sum += (double)values[c] * values[c];
  return sum_over_x(sum);
}

// Divide values[start:stop] by max(1, norm / limit).
__device__ void constrain(
    float *values, int start, int stop, double norm, float limit) {
  const double divisor = norm <= limit ? 1.0 : norm / limit;
  for (int c = start + threadIdx.x; c < stop; c += blockDim.x)
    values[c] = divisor <= FLOAT_MAX ? values[c] / (float)divisor
                                     : (float)(values[c] / divisor);
}

// Divide each row by max(1, its norm / limit).
extern "C" __global__ void constrain_rows(
    float *m, long long m_row, int rows, int cols, float limit, float *norms,
    long long norms_row) {
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  const int length = row < rows ? cols : 0;
  float *values = m + row * m_row;
  const double norm = sqrt(sum_of_squares(values, 0, length));
  constrain(values, 0, length, norm, limit);
  if (threadIdx.x == 0 && row < rows) norms[row * norms_row] = (float)norm;
}

// The same for a few long rows, in two launches: a row of blocks works on each, and
// each block on `chunk` columns. First the parts' sums of squares.
extern "C" __global__ void squares_of_parts(
    const float *m, long long m_row, int cols, int chunk, double *squares) {
  const int start = blockIdx.x * chunk;
  const int stop = cols - start < chunk ? cols : start + chunk;
  const double sum = sum_of_squares(m + blockIdx.y * m_row, start, stop);
  if (threadIdx.x == 0) squares[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

extern "C" __global__ void constrain_parts(
    float *m, long long m_row, int cols, int chunk, const double *squares, float limit,
    float *norms, long long norms_row) {
  double sum = 0.0;
  for (unsigned k = threadIdx.x; k < gridDim.x; k += blockDim.x)
    sum += squares[blockIdx.y * gridDim.x + k];
  const double norm = sqrt(sum_over_x(sum));
  const int start = blockIdx.x * chunk;
  const int stop = cols - start < chunk ? cols : start + chunk;
  constrain(m + blockIdx.y * m_row, start, stop, norm, limit);
  if (threadIdx.x == 0 && blockIdx.x == 0)
    norms[blockIdx.y * norms_row] = (float)norm;
}
