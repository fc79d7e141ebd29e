// Sums over rows and columns.

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
