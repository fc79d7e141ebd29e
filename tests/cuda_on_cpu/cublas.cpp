// A stand-in for the few functions of cuBLAS that are used, for tests: an emulation.
// Matrices are in Fortran order, as in the real one.
#include <cstddef>
#include <cstdlib>

extern "C" {

int cublasCreate_v2(void **handle) {
  *handle = malloc(1);
  return 0;
}

int cublasDestroy_v2(void *handle) {
  free(handle);
  return 0;
}

int cublasSgemm_v2(void *, int transa, int transb, int m, int n, int k,
                   const float *alpha, const float *a, int lda, const float *b, int ldb,
                   const float *beta, float *c, int ldc) {
  const int rows_a = transa ? k : m, rows_b = transb ? n : k;
  if (m < 0 || n < 0 || k < 0 || lda < (rows_a > 1 ? rows_a : 1) ||
      ldb < (rows_b > 1 ? rows_b : 1) || ldc < (m > 1 ? m : 1))
    return 7;
  const ptrdiff_t a_row = transa ? lda : 1, a_col = transa ? 1 : lda;
  const ptrdiff_t b_row = transb ? ldb : 1, b_col = transb ? 1 : ldb;
  for (int j = 0; j < n; ++j)
    for (int i = 0; i < m; ++i) {
      double sum = 0;
      for (int p = 0; p < k; ++p)
        sum += (double)a[i * a_row + p * a_col] * b[p * b_row + j * b_col];
      float &out = c[i + (ptrdiff_t)j * ldc];
      out = (float)(*alpha * sum) + (*beta == 0 ? 0 : *beta * out);
    }
  return 0;
}

int cublasSgemmStridedBatched(void *handle, int transa, int transb, int m, int n,
                              int k, const float *alpha, const float *a, int lda,
                              long long step_a, const float *b, int ldb,
                              long long step_b, const float *beta, float *c, int ldc,
                              long long step_c, int count) {
  if (count < 0) return 7;
  for (long long i = 0; i < count; ++i) {
    const int status =
        cublasSgemm_v2(handle, transa, transb, m, n, k, alpha, a + i * step_a, lda,
                       b + i * step_b, ldb, beta, c + i * step_c, ldc);
    if (status) return status;
  }
  return 0;
}
}
