// Rows of matrices.

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
