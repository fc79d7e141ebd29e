// Sums and other work on whole rows or columns.
//
// A block has blockDim.y rows of blockDim.x threads, a power of two.

// One value for each thread; the sum over each row of threads is returned to all.
__device__ float sum_over_x(float value) {
  __shared__ float values[MAX_THREADS];
  float *row = values + threadIdx.y * blockDim.x;
  row[threadIdx.x] = value;
  __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) row[threadIdx.x] += row[threadIdx.x + half];
    __syncthreads();
  }
  const float sum = row[0];
  __syncthreads();
  return sum;
}

__device__ float max_over_x(float value) {
  __shared__ float values[MAX_THREADS];
  float *row = values + threadIdx.y * blockDim.x;
  row[threadIdx.x] = value;
  __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half && row[threadIdx.x + half] > row[threadIdx.x])
      row[threadIdx.x] = row[threadIdx.x + half];
    __syncthreads();
  }
  const float largest = row[0];
  __syncthreads();
  return largest;
}

// out[r] = sum of a[r, :]. Row r ends where all rows together have `total` elements.
extern "C" __global__ void row_sums(
    const float *a, long long row_stride, long long col_stride, int rows,
    long long cols, long long total, float *out, long long out_stride) {
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  const long long left = row < rows ? total - row * cols : 0;
  const long long length = left < cols ? left : cols;
  float sum = 0.0f;
  for (long long c = threadIdx.x; c < length; c += blockDim.x)
    sum += a[row * row_stride + c * col_stride];
  sum = sum_over_x(sum);
  if (threadIdx.x == 0 && row < rows) out[row * out_stride] = sum;
}

// The sums over each chunk of rows, of a or, where there is b, of a * b. Block
// (32, 8); the grid has a column of blocks for each chunk.
extern "C" __global__ void column_sums(
    const float *a, long long a_row, long long a_col, const float *b, long long b_row,
    long long b_col, long long rows, int cols, long long chunk, float *out,
    long long out_row, long long out_col, int add) {
  __shared__ float sums[8][32];
  const int x = threadIdx.x, y = threadIdx.y;
  const int col = blockIdx.x * 32 + x;
  const long long start = blockIdx.y * chunk;
  const long long stop = start + chunk < rows ? start + chunk : rows;
  float sum = 0.0f;
  if (col < cols)
    for (long long r = start + y; r < stop; r += 8) {
      const float value = a[r * a_row + col * a_col];
      sum += b ? value * b[r * b_row + col * b_col] : value;
    }
  sums[y][x] = sum;
  __syncthreads();
  for (int half = 4; half > 0; half /= 2) {
    if (y < half) sums[y][x] += sums[y + half][x];
    __syncthreads();
  }
  if (y == 0 && col < cols) {
    float *place = out + blockIdx.y * out_row + col * out_col;
    *place = add ? *place + sums[0][x] : sums[0][x];
  }
}

// Divide each row by max(1, its norm / limit).
extern "C" __global__ void constrain_rows(
    float *m, long long m_row, int rows, int cols, float limit, float *norms,
    long long norms_row) {
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  const int length = row < rows ? cols : 0;
  float *values = m + row * m_row;
  float sum = 0.0f;
  for (int c = threadIdx.x; c < length; c += blockDim.x) sum += values[c] * values[c];
  const float norm = sqrtf(sum_over_x(sum));
  const float divisor = norm <= limit ? 1.0f : norm / limit;
  for (int c = threadIdx.x; c < length; c += blockDim.x) values[c] /= divisor;
  if (threadIdx.x == 0 && row < rows) norms[row * norms_row] = norm;
}

// -- rows of matrices -----------------------------------------------------------

// out[i] = m[indices[i]]; an index that is no row makes NaN, and is reported.
extern "C" __global__ void take_rows(
    const float *m, long long m_row, int rows, const float *indices,
    long long indices_row, float *out, long long out_row, int count, int cols) {
  const long long i = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  if (i >= count) return;
  const float index = indices[i * indices_row];
  const bool good = is_index(index, rows);
  if (!good && threadIdx.x == 0) fail(BAD_ROW, rows - 1, index);
  for (int c = threadIdx.x; c < cols; c += blockDim.x)
    out[i * out_row + c] = good ? m[(int)index * m_row + c] : nanf("");
}

// out[indices[i]] += a[i]. Of equal indices the first one adds for all, in their
// order: so the sum is the same each time.
extern "C" __global__ void add_to_rows(
    const float *a, long long a_row, const float *indices, long long indices_row,
    int count, float *out, long long out_row, int rows, int cols) {
  const long long i = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  if (i >= count) return;
  const float index = indices[i * indices_row];
  if (!is_index(index, rows)) return;
  for (long long j = 0; j < i; ++j)
    if (indices[j * indices_row] == index) return;
  for (int c = threadIdx.x; c < cols; c += blockDim.x) {
    float sum = 0.0f;
    for (long long j = i; j < count; ++j)
      if (indices[j * indices_row] == index) sum += a[j * a_row + c];
    out[(int)index * out_row + c] += sum;
  }
}

// -- softmax --------------------------------------------------------------------

// A row of threads computes one row; with cols = 0 they only wait for the others.
// Returns x - log(p).
__device__ float softmax_row(const float *x, float *p, int cols) {
  float largest = -FLOAT_MAX;
  for (int c = threadIdx.x; c < cols; c += blockDim.x)
    if (x[c] > largest) largest = x[c];
  largest = max_over_x(largest);
  float sum = 0.0f;
  for (int c = threadIdx.x; c < cols; c += blockDim.x) {
    p[c] = expf(x[c] - largest);
    sum += p[c];
  }
  sum = sum_over_x(sum);
  for (int c = threadIdx.x; c < cols; c += blockDim.x) p[c] /= sum;
  return largest + logf(sum);
}

extern "C" __global__ void softmax_m(
    const float *x, long long x_row, float *p, long long p_row, int rows, int cols) {
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  softmax_row(x + row * x_row, p + row * p_row, row < rows ? cols : 0);
}

// Targets that are no class make a loss of NaN, and are reported.
extern "C" __global__ void softmax_ce_forward(
    const float *x, long long x_row, const float *targets, long long targets_row,
    float *p, long long p_row, float *loss, long long loss_row, int rows, int cols) {
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  const bool used = row < rows;
  float *predictions = p + row * p_row;
  softmax_row(x + row * x_row, predictions, used ? cols : 0);
  __syncthreads();
  if (threadIdx.x == 0 && used) {
    const float target = targets[row * targets_row];
    float value = 0.0f;
    if (is_index(target, cols)) {
      value = -logf(clipped(predictions[(int)target], 1e-6f, 1.0f));
    } else {
      fail(BAD_TARGET, cols - 1, target);
      value = nanf("");
    }
    loss[row * loss_row] = value;
  }
}

// dx (+)= (p - t_bin) dloss. Without dx only t_bin is computed.
extern "C" __global__ void softmax_ce_backward(
    const float *targets, long long targets_row, const float *p, long long p_row,
    const float *dloss, long long dloss_row, float *t_bin, long long t_bin_row,
    float *dx, long long dx_row, int rows, int cols, int fresh) {
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const float target = targets[row * targets_row], factor = dloss[row * dloss_row];
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

// -- layer normalisation --------------------------------------------------------

// A row of threads normalises one row.
extern "C" __global__ void layer_norm_forward(
    const float *x, long long x_row, const float *gamma, const float *beta,
    float *sigma, long long sigma_row, float *x_hat, long long x_hat_row, float *y,
    long long y_row, int rows, int cols, float epsilon) {
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  const int length = row < rows ? cols : 0;
  x += row * x_row, x_hat += row * x_hat_row, y += row * y_row;
  float sum = 0.0f, squares = 0.0f;
  for (int c = threadIdx.x; c < length; c += blockDim.x) sum += x[c];
  const float mean = sum_over_x(sum) / cols;
  for (int c = threadIdx.x; c < length; c += blockDim.x)
    squares += (x[c] - mean) * (x[c] - mean);
  const float deviation = sqrtf(sum_over_x(squares) / cols + epsilon);
  for (int c = threadIdx.x; c < length; c += blockDim.x) {
    x_hat[c] = (x[c] - mean) / deviation;
    y[c] = gamma[c] * x_hat[c] + beta[c];
  }
  if (threadIdx.x == 0 && length) sigma[row * sigma_row] = deviation;
}

// dx (+)= (d - mean(d) - x_hat mean(d x_hat)) / sigma with d = gamma dy.
extern "C" __global__ void layer_norm_backward(
    const float *gamma, const float *sigma, long long sigma_row, const float *x_hat,
    long long x_hat_row, const float *dy, long long dy_row, float *dx,
    long long dx_row, int rows, int cols, int fresh) {
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  const int length = row < rows ? cols : 0;
  x_hat += row * x_hat_row, dy += row * dy_row, dx += row * dx_row;
  float sum = 0.0f, product = 0.0f;
  for (int c = threadIdx.x; c < length; c += blockDim.x) {
    sum += gamma[c] * dy[c];
    product += gamma[c] * dy[c] * x_hat[c];
  }
  const float mean = sum_over_x(sum) / cols;
  const float mean_product = sum_over_x(product) / cols;
  for (int c = threadIdx.x; c < length; c += blockDim.x) {
    const float inner = gamma[c] * dy[c] - mean - x_hat[c] * mean_product;
    const float delta = inner / sigma[row * sigma_row];
    dx[c] = fresh ? delta : dx[c] + delta;
  }
}

// -- indices --------------------------------------------------------------------

extern "C" __global__ void binarize_v(
    const float *v, long long v_row, float *out, long long out_row, int rows,
    int cols) {
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const float index = v[row * v_row];
  if (threadIdx.x == 0 && !is_index(index, cols)) fail(BAD_COLUMN, cols - 1, index);
  for (int col = threadIdx.x; col < cols; col += blockDim.x)
    out[row * out_row + col] = index == (float)col ? 1.0f : 0.0f;
}

extern "C" __global__ void index_m_by_v(
    const float *m, long long m_row, const float *v, long long v_row, float *out,
    long long out_row, int rows, int cols) {
  for (long long row = thread_number(); row < rows; row += thread_count()) {
    const float index = v[row * v_row];
    const bool good = is_index(index, cols);
    if (!good) fail(BAD_INDEX, cols - 1, index);
    out[row * out_row] = good ? m[row * m_row + (int)index] : nanf("");
  }
}
