// Softmax and losses.

// A row of threads computes one row; with cols = 0 they only wait for the others.
// Returns x - log(p).
__device__ double softmax_row(const float *x, float *p, int cols) {
  float largest = -FLOAT_MAX;
  for (int c = threadIdx.x; c < cols; c += blockDim.x)
    if (x[c] > largest) largest = x[c];
  largest = max_over_x(largest);
  double sum = 0.0;
  for (int c = threadIdx.x; c < cols; c += blockDim.x) {
    p[c] = expf(x[c] - largest);
    sum += p[c];
  }
  sum = sum_over_x(sum);
  for (int c = threadIdx.x; c < cols; c += blockDim.x) p[c] /= (float)sum;
  return largest + log(sum);
}

extern "C" __global__ void softmax_m(
    const float *x, long long x_row, float *p, long long p_row, int rows, int cols) {
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  softmax_row(x + row * x_row, p + row * p_row, row < rows ? cols : 0);
}

extern "C" __global__ void log_softmax_m(
    const float *x, long long x_row, float *y, long long y_row, int rows, int cols) {
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  const int length = row < rows ? cols : 0;
  x += row * x_row;
  y += row * y_row;
  const double log_sum = softmax_row(x, y, length);
  for (int c = threadIdx.x; c < length; c += blockDim.x)
    y[c] = (float)(x[c] - log_sum);
}

// dx (+)= y (dy - sum(y dy))
extern "C" __global__ void softmax_backward(
    const float *y, long long y_row, const float *dy, long long dy_row, float *dx,
    long long dx_row, int rows, int cols, int fresh) {
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  const int length = row < rows ? cols : 0;
  y += row * y_row;
  dy += row * dy_row;
  dx += row * dx_row;
  double sum = 0.0;
  for (int c = threadIdx.x; c < length; c += blockDim.x) sum += (double)y[c] * dy[c];
  sum = sum_over_x(sum);
  for (int c = threadIdx.x; c < length; c += blockDim.x) {
    const float delta = y[c] * (float)(dy[c] - sum);
    dx[c] = fresh ? delta : dx[c] + delta;
  }
}

// Targets that are no class make a loss of NaN, and are reported.
extern "C" __global__ void softmax_ce_forward(
    const float *x, long long x_row, const float *targets, long long targets_row,
    float *p, long long p_row, float *loss, long long loss_row, int rows, int cols,
    Failure *failure) {
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  const int length = row < rows ? cols : 0;
  const float target = row < rows ? targets[row * targets_row] : 0.0f;
  p += row * p_row;
  softmax_row(x + row * x_row, p, length);
  // -log(p) from the other classes: p itself is rounded to 1 where they are rare.
  double others = 0.0;
  for (int c = threadIdx.x; c < length; c += blockDim.x)
    if (target != (float)c) others += p[c];
  others = sum_over_x(others);
  if (threadIdx.x > 0 || row >= rows) return;
  if (is_index(target, cols)) {
    loss[row * loss_row] = limited_loss(log1pf((float)(others / p[(int)target])));
  } else {
    fail(failure, BAD_TARGET, cols - 1, target);
    loss[row * loss_row] = nanf("");
  }
}

// dx (+)= (p - t_bin) dloss. Without dx only t_bin is computed.
extern "C" __global__ void softmax_ce_backward(
    const float *targets, long long targets_row, const float *p, long long p_row,
    const float *dloss, long long dloss_row, float *t_bin, long long t_bin_row,
    float *dx, long long dx_row, int rows, int cols, int fresh, Failure *failure) {
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const float target = targets[row * targets_row], factor = dloss[row * dloss_row];
  if (threadIdx.x == 0 && !is_index(target, cols))
    fail(failure, BAD_BACKWARD_TARGET, cols - 1, target);
  for (int col = threadIdx.x; col < cols; col += blockDim.x) {
    const float one = target == (float)col ? 1.0f : 0.0f;
    t_bin[row * t_bin_row + col] = one;
    if (dx) {
      const float delta = (p[row * p_row + col] - one) * factor;
      float *place = dx + row * dx_row + col;
      *place = fresh ? delta : *place + delta;
    }
  }
}

// (x, targets, predictions, loss); -log(sigmoid(x)) is softplus(-x)
ELEMENTWISE(sigmoid_ce_forward, c = sigmoid_of(a);
            d = b * limited_loss(softplus_of(-a)) +
                (1.0f - b) * limited_loss(softplus_of(a)))
// (targets, predictions, dloss, dcee, dx)
ELEMENTWISE(sigmoid_ce_backward, d = b - a; e += d * c)
ELEMENTWISE(sigmoid_ce_backward_fresh, d = b - a; e = d * c)

extern "C" __global__ void binarize_v(
    const float *v, long long v_row, float *out, long long out_row, int rows, int cols,
    Failure *failure) {
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const float index = v[row * v_row];
  if (threadIdx.x == 0 && !is_index(index, cols))
    fail(failure, BAD_COLUMN, cols - 1, index);
  for (int col = threadIdx.x; col < cols; col += blockDim.x)
    out[row * out_row + col] = index == (float)col ? 1.0f : 0.0f;
}

extern "C" __global__ void index_m_by_v(
    const float *m, long long m_row, const float *v, long long v_row, float *out,
    long long out_row, int rows, int cols, Failure *failure) {
  for (long long row = thread_number(); row < rows; row += thread_count()) {
    const float index = v[row * v_row];
    const bool good = is_index(index, cols);
    if (!good) fail(failure, BAD_INDEX, cols - 1, index);
    out[row * out_row] = good ? m[row * m_row + (int)index] : nanf("");
  }
}
