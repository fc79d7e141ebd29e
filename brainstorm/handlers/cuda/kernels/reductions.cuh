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
