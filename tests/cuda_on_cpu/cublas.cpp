// A stand-in for the few functions of cuBLAS that are used, for tests: an emulation.
// Matrices are in Fortran order, as in the real one.
#include <cstddef>
#include <cstring>

extern "C" {

// Of the stand-in for the driver; there is none in the other emulation.
__attribute__((weak)) int emulated_capture(void *stream, int (*call)(const void *),
                                           const void *data, size_t size);

struct Handle {
  void *stream, *workspace;
};

int cublasCreate_v2(void **handle) {
  *handle = new Handle{nullptr, nullptr};
  return 0;
}

int cublasDestroy_v2(void *handle) {
  delete static_cast<Handle *>(handle);
  return 0;
}

int cublasSetStream_v2(void *handle, void *stream) {
  *static_cast<Handle *>(handle) = {stream, nullptr};
  return 0;
}

int cublasSetWorkspace_v2(void *handle, void *workspace, size_t) {
  static_cast<Handle *>(handle)->workspace = workspace;
  return 0;
}

static int multiply(int transa, int transb, int m, int n, int k, float alpha,
                    const float *a, int lda, const float *b, int ldb, float beta,
                    float *c, int ldc) {
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
      out = (float)(alpha * sum) + (beta == 0 ? 0 : beta * out);
    }
  return 0;
}

struct Products {
  int transa, transb, m, n, k, lda, ldb, ldc, count;
  const float *a, *b;
  float *c, alpha, beta;
  long long step_a, step_b, step_c;
};

static int multiply_all(const void *products) {
  Products p;
  memcpy(&p, products, sizeof p);
  for (long long i = 0; i < p.count; ++i) {
    const int status =
        multiply(p.transa, p.transb, p.m, p.n, p.k, p.alpha, p.a + i * p.step_a, p.lda,
                 p.b + i * p.step_b, p.ldb, p.beta, p.c + i * p.step_c, p.ldc);
    if (status) return status;
  }
  return 0;
}

// Alpha and beta are read now, all else when it is computed.
int cublasSgemmStridedBatched(void *handle, int transa, int transb, int m, int n,
                              int k, const float *alpha, const float *a, int lda,
                              long long step_a, const float *b, int ldb,
                              long long step_b, const float *beta, float *c, int ldc,
                              long long step_c, int count) {
  if (count < 0) return 7;
  const Products p = {transa, transb, m,      n,     k,      lda,    ldb,   ldc, count,
                      a,      b,      c,      *alpha, *beta, step_a, step_b, step_c};
  if (handle && emulated_capture) {
    const Handle *h = static_cast<Handle *>(handle);
    if (emulated_capture(h->stream, multiply_all, &p, sizeof p))
      return h->workspace ? 0 : 3;  // it may not allocate then
  }
  return multiply_all(&p);
}

int cublasSgemm_v2(void *handle, int transa, int transb, int m, int n, int k,
                   const float *alpha, const float *a, int lda, const float *b, int ldb,
                   const float *beta, float *c, int ldc) {
  return cublasSgemmStridedBatched(handle, transa, transb, m, n, k, alpha, a, lda, 0, b,
                                   ldb, 0, beta, c, ldc, 0, 1);
}
}
