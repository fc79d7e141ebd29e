// Sums and other work on whole rows or columns.
//
// Sums are computed in float64: those of many numbers stay exact, and squares do not
// overflow.
//
// A block has blockDim.y rows of blockDim.x threads, a power of two.

// One value for each thread; the sum over each row of threads is returned to all.
__device__ double sum_over_x(double value) {
  __shared__ double values[MAX_THREADS];
  double *row = values + threadIdx.y * blockDim.x;
  row[threadIdx.x] = value;
  __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) row[threadIdx.x] += row[threadIdx.x + half];
    __syncthreads();
  }
  const double sum = row[0];
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

// The sum of what all MAX_THREADS threads have, and of what those before this one have.
__device__ int count_before(int value, int thread, int *before) {
  __shared__ int counts[MAX_THREADS];
  counts[thread] = value;
  __syncthreads();
  for (int step = 1; step < MAX_THREADS; step *= 2) {
    const int more = thread >= step ? counts[thread - step] : 0;
    __syncthreads();
    counts[thread] += more;
    __syncthreads();
  }
  *before = counts[thread] - value;
  const int total = counts[MAX_THREADS - 1];
  __syncthreads();
  return total;
}

// out[r] = sum of a[r, :]. Row r ends where all rows together have `total` elements.
extern "C" __global__ void row_sums(
    const float *a, long long row_stride, long long col_stride, int rows,
    long long cols, long long total, float *out, long long out_stride) {
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  const long long left = row < rows ? total - row * cols : 0;
  const long long length = left < cols ? left : cols;
  double sum = 0.0;
  for (long long c = threadIdx.x; c < length; c += blockDim.x)
    sum += a[row * row_stride + c * col_stride];
  sum = sum_over_x(sum);
  if (threadIdx.x == 0 && row < rows) out[row * out_stride] = (float)sum;
}

// The sums over each chunk of rows, of a or, where there is b, of a * b. Block
// (32, 8); the grid has a column of blocks for each chunk.
extern "C" __global__ void column_sums(
    const float *a, long long a_row, long long a_col, const float *b, long long b_row,
    long long b_col, long long rows, int cols, long long chunk, float *out,
    long long out_row, long long out_col, int add) {
  __shared__ double sums[8][32];
  const int x = threadIdx.x, y = threadIdx.y;
  const int col = blockIdx.x * 32 + x;
  const long long start = blockIdx.y * chunk;
  const long long stop = start + chunk < rows ? start + chunk : rows;
  double sum = 0.0;
  if (col < cols)
    for (long long r = start + y; r < stop; r += 8) {
      const double value = a[r * a_row + col * a_col];
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
    *place = (float)(add ? *place + sums[0][x] : sums[0][x]);
  }
}

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

// -- rows of matrices -----------------------------------------------------------

// out[i] = m[indices[i]]; an index that is no row makes NaN, and is reported.
extern "C" __global__ void take_rows(
    const float *m, long long m_row, int rows, const float *indices,
    long long indices_row, float *out, long long out_row, int count, int cols,
    Failure *failure) {
  const long long i = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  if (i >= count) return;
  const float index = indices[i * indices_row];
  const bool good = is_index(index, rows);
  if (!good && threadIdx.x == 0) fail(failure, BAD_ROW, rows - 1, index);
  for (int c = threadIdx.x; c < cols; c += blockDim.x)
    out[i * out_row + c] = good ? m[(int)index * m_row + c] : nanf("");
}

// out[indices[i]] += a[i]. Each block adds to a part of the rows, and looks through all
// indices for them: those of MAX_THREADS * LOOK_AT at a time are listed first. What is
// added to a row is added by the same row of threads in the order of i, so that the
// sum is the same each time.

#define LOOK_AT 8

extern "C" __global__ void add_to_rows(
    const float *a, long long a_row, const float *indices, long long indices_row,
    int count, float *out, long long out_row, int rows, int cols, Failure *failure) {
  __shared__ int listed[MAX_THREADS * LOOK_AT];
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  const int share = (rows + gridDim.x - 1) / gridDim.x, first = blockIdx.x * share;
  for (long long start = 0; start < count; start += MAX_THREADS * LOOK_AT) {
    const long long from = start + thread * LOOK_AT;
    int mine[LOOK_AT], found = 0, before;
    for (long long i = from; i < from + LOOK_AT && i < count; ++i) {
      const float index = indices[i * indices_row];
      if (!is_index(index, rows)) {
        if (blockIdx.x == 0) fail(failure, BAD_DESTINATION, rows - 1, index);
      } else if ((int)index >= first && (int)index - first < share) {
        mine[found++] = (int)i;
      }
    }
    const int total = count_before(found, thread, &before);
    for (int k = 0; k < found; ++k) listed[before + k] = mine[k];
    __syncthreads();
    for (int k = 0; k < total; ++k) {
      const long long i = listed[k];
      const int row = (int)indices[i * indices_row];
      if (row % blockDim.y != threadIdx.y) continue;
      for (int c = threadIdx.x; c < cols; c += blockDim.x)
        out[row * out_row + c] += a[i * a_row + c];
    }
    __syncthreads();
  }
}

// -- softmax --------------------------------------------------------------------

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

// -- layer normalisation --------------------------------------------------------

// A row of threads normalises one row.
extern "C" __global__ void layer_norm_forward(
    const float *x, long long x_row, const float *gamma, const float *beta,
    float *sigma, long long sigma_row, float *x_hat, long long x_hat_row, float *y,
    long long y_row, int rows, int cols, float epsilon) {
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  const int length = row < rows ? cols : 0;
  x += row * x_row, x_hat += row * x_hat_row, y += row * y_row;
  double sum = 0.0, squares = 0.0;
  for (int c = threadIdx.x; c < length; c += blockDim.x) sum += x[c];
  const double mean = sum_over_x(sum) / (cols > 0 ? cols : 1);
  for (int c = threadIdx.x; c < length; c += blockDim.x) {
    x_hat[c] = (float)(x[c] - mean);
    squares += (double)x_hat[c] * x_hat[c];
  }
  squares = sum_over_x(squares) / (cols > 0 ? cols : 1);
  const float deviation = (float)sqrt(squares + epsilon);
  for (int c = threadIdx.x; c < length; c += blockDim.x) {
    x_hat[c] /= deviation;
    y[c] = gamma[c] * x_hat[c] + beta[c];
  }
  if (threadIdx.x == 0 && row < rows) sigma[row * sigma_row] = deviation;
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

// -- indices --------------------------------------------------------------------

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
