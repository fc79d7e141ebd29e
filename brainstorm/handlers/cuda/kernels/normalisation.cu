// Batch and layer normalisation.

// (sum over rows, mean, mu); s: 1 / rows; t: decay; u: 1 - decay
ELEMENTWISE(batch_norm_mean, b = s * a; c = t * c - scalars.u * b)
// (sum of squares, sigma_b, sigma); s, t, u as above; v: epsilon
ELEMENTWISE(batch_norm_deviation, b = sqrtf(s * a + scalars.v);
            c = t * c + scalars.u * b)
// (centered, sigma_b, x_hat, gamma, beta, y)
ELEMENTWISE(batch_norm_scale, c = a / b; f = d * c + e)
// (x, gamma, beta, mu, sigma, y)
ELEMENTWISE(batch_norm_inference, f = b * (a + d) / e + c)
// (dy, x_hat, sum of dy x_hat, sum of dy, gamma / sigma_b, dx); s: 1 / rows
ELEMENTWISE(batch_norm_backward, f += e * (a - s * (d + b * c)))
ELEMENTWISE(batch_norm_backward_fresh, f = e * (a - s * (d + b * c)))

// A row of threads normalises one row.
extern "C" __global__ void layer_norm_forward(
    const float *x, long long x_row, const float *gamma, const float *beta,
    float *mean, long long mean_row, float *sigma, long long sigma_row, float *y,
    long long y_row, int rows, int cols, float epsilon) {
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  const int length = row < rows ? cols : 0;
  x += row * x_row, y += row * y_row;
  double sum = 0.0, squares = 0.0;
  for (int c = threadIdx.x; c < length; c += blockDim.x) sum += x[c];
  const double middle = sum_over_x(sum) / (cols > 0 ? cols : 1);
  for (int c = threadIdx.x; c < length; c += blockDim.x) {
    y[c] = (float)(x[c] - middle);
    squares += (double)y[c] * y[c];
  }
  squares = sum_over_x(squares) / (cols > 0 ? cols : 1);
  const float deviation = (float)sqrt(squares + epsilon);
  for (int c = threadIdx.x; c < length; c += blockDim.x) {
    y[c] = gamma[c] * (y[c] / deviation) + beta[c];
  }
  if (threadIdx.x == 0 && row < rows) {
    mean[row * mean_row] = (float)middle;
    sigma[row * sigma_row] = deviation;
  }
}

// dx (+)= (d - mean(d) - x_hat mean(d x_hat)) / sigma with d = gamma dy.
extern "C" __global__ void layer_norm_backward(
    const float *gamma, const float *sigma, long long sigma_row, const float *x_hat,
    long long x_hat_row, const float *dy, long long dy_row, float *dx,
    long long dx_row, int rows, int cols, int fresh) {
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  const int length = row < rows ? cols : 0;
  x_hat += row * x_hat_row, dy += row * dy_row, dx += row * dx_row;
  double sum = 0.0, product = 0.0;
  for (int c = threadIdx.x; c < length; c += blockDim.x) {
    sum += gamma[c] * dy[c];
    product += gamma[c] * dy[c] * x_hat[c];
  }
  const float mean = (float)(sum_over_x(sum) / cols);
  const float mean_product = (float)(sum_over_x(product) / cols);
  for (int c = threadIdx.x; c < length; c += blockDim.x) {
    const float inner = gamma[c] * dy[c] - mean - x_hat[c] * mean_product;
    const float delta = inner / sigma[row * sigma_row];
    dx[c] = fresh ? delta : dx[c] + delta;
  }
}
