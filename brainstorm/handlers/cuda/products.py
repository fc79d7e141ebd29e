"""Matrix products and sums for PyCudaHandler."""

from __future__ import annotations

import functools
from typing import Any

from brainstorm.handlers.cuda.arrays import MOST, CudaArray, OperationError, place_of
from brainstorm.handlers.cuda.launcher import column_blocks, row_blocks
from brainstorm.handlers.cuda.leaves import CudaLeaves, Leaf
from brainstorm.handlers.operations.products import ProductOperations

# Sums of more elements are cut into parts of at least this size.
PART = 4096
MAX_PARTS = 1024
ROWS_PER_PART = 64
# Long sums of products are cut into parts of at least this size, if there are few:
# cuBLAS computes a tile of about this size with one multiprocessor.
PRODUCTS_PER_PART = 2048
TILE = 64


class CudaProducts(CudaLeaves, ProductOperations):
    """Part of PyCudaHandler."""

    # -- products ------------------------------------------------------------

    def dot_mm(
        self, a: Any, b: Any, out: Any, transa: bool = False, transb: bool = False
    ) -> None:
        self._multiply(a, b, out, transa, transb, add=False)

    def dot_add_mm(
        self, a: Any, b: Any, out: Any, transa: bool = False, transb: bool = False
    ) -> None:
        self._multiply(a, b, out, transa, transb, add=True)

    def batch_dot_mm(
        self, a: Any, b: Any, out: Any, transa: bool = False, transb: bool = False
    ) -> None:
        self._multiply_batch(a, b, out, transa, transb, add=False)

    def batch_dot_add_mm(
        self, a: Any, b: Any, out: Any, transa: bool = False, transb: bool = False
    ) -> None:
        self._multiply_batch(a, b, out, transa, transb, add=True)

    def _multiply_batch(self, a, b, out, transa, transb, add) -> None:
        count, m, n = out.shape
        k = a.shape[1] if transa else a.shape[2]
        if k == 0 and not add:
            self._elementwise("fill", (out,), 0.0)
        elif count and m and n and k:
            first, second, to = _batch(a), _batch(b), _batch(out)
            _check_sizes(m, n, k, count, first[1], second[1], to[1])
            how = (transa, transb, (m, n, k), first, second, to, count, add)
            self.do(Leaf(self._gpu.device.sgemm_batched, how, (a, b, out)))

    def _multiply(self, a, b, out, transa=False, transb=False, add=False) -> None:
        k = a.shape[0] if transa else a.shape[1]
        parts = _parts_of_sums(*out.shape, k, self._gpu.device.max_blocks)
        if parts > 1 and out.contiguous:
            self._multiply_parts(a, b, out, transa, transb, add, parts)
            return
        m, n = out.shape
        if k == 0 and not add:
            self._elementwise("fill", (out,), 0.0)
        elif m and n and k:
            (first, lda), (second, ldb), (to, ldc) = _blas(a), _blas(b), _blas(out)
            _check_sizes(m, n, k, lda, ldb, ldc)
            sizes = (transa, transb, m, n, k)
            places = (first, lda, second, ldb, add, to, ldc)
            self.do(Leaf(self._gpu.device.sgemm, sizes + places, (a, b, out)))

    def _multiply_parts(self, a, b, out, transa, transb, add, parts) -> None:
        """A product whose long sums are computed in equal parts, all at once."""
        m, n = out.shape
        length = (a.shape[0] if transa else a.shape[1]) // parts
        sums = self.scratch((parts, m * n), "parts")
        (first, lda), (second, ldb) = _blas(a), _blas(b)
        _check_sizes(m, n, length, lda, ldb, parts)
        arguments = (
            *(transa, transb, (m, n, length)),
            (first, lda, length * lda if transa else length),
            (second, ldb, length if transb else length * ldb),
            (sums.pointer, n, m * n),
            parts,
        )
        self.do(Leaf(self._gpu.device.sgemm_batched, arguments, (a, b, sums)))
        self._sum_columns(sums, None, out.reshape(m * n), add)

    # -- sums ----------------------------------------------------------------

    def sum_t(self, a: Any, axis: int | None, out: Any) -> None:
        if axis is None or a.ndim == 1:
            self._sum_all(a, out)
        elif axis == 0:
            self._sum_columns(a, None, out)
        else:
            rows, cols = a.shape
            self._launch_row_sums(
                a, (rows, cols), a.strides, rows * cols, out, _step(out)
            )

    def _sum_all(self, a: CudaArray, out: CudaArray) -> None:
        if not a.contiguous and a.ndim == 2:
            rows, cols = a.shape
            sums = self.scratch((rows,), 1)
            self._launch_row_sums(a, a.shape, a.strides, rows * cols, sums, 1)
            a = sums
        step = 1 if a.contiguous else a.strides[0]
        parts = min(-(-a.size // PART), MAX_PARTS)
        if parts > 1:
            length = -(-a.size // parts)
            sums = self.scratch((parts,), 0)
            strides = (length * step, step)
            self._launch_row_sums(a, (parts, length), strides, a.size, sums, 1)
            a, step = sums, 1
        size = a.size
        self._launch_row_sums(a, (1, size), (size, step), size, out, 1)

    def _launch_row_sums(self, a, shape, strides, total, out, out_step) -> None:
        """Sum rows of a flat view of `a`; the last ones end at element `total`."""
        if shape[0] > 0:
            self._launch(
                "row_sums",
                *row_blocks(*shape),
                *(a.pointer, *strides, *shape, total, out.pointer, out_step),
                arrays=(a, out),
            )

    def _sum_columns(
        self, a: CudaArray, b: CudaArray | None, out: CudaArray, add: bool = False
    ) -> None:
        """``out (+)=`` the sums over the rows of `a`, or of ``a b``."""
        rows, cols = a.shape
        if cols == 0:
            return
        wide, most = column_blocks(cols, 1)[0], self._gpu.device.max_blocks
        parts = min(max(1, rows // ROWS_PER_PART), max(1, most // wide), 65535)
        length = -(-rows // parts)
        second = (0, 0, 0) if b is None else (b.pointer, *b.strides)
        destination = (out.pointer, 0, _step(out), add)
        sums: CudaArray | None = None
        if parts > 1:
            sums = self.scratch((parts, cols), 0)
            destination, last = (sums.pointer, cols, 1, False), destination
        self._launch(
            "column_sums",
            (wide, parts),
            (32, 8, 1),
            *(a.pointer, *a.strides, *second, rows, cols, length, *destination),
            arrays=(a, b, out, sums),
        )
        if sums is not None:
            self._launch(
                "column_sums",
                (wide, 1),
                (32, 8, 1),
                *(sums.pointer, cols, 1, 0, 0, 0, parts, cols, parts, *last),
                arrays=(out, sums),
            )

    def _sum_rows(self, m: Any, out: Any, fresh: bool) -> None:
        self._sum_columns(m, None, out, add=not fresh)


def _check_sizes(*sizes: int) -> None:
    """Refuse what cuBLAS, which counts with 32 bits, would take for something else."""
    if max(sizes) > MOST:
        raise OperationError(
            f"matrices of at most {MOST} rows and columns are possible, got {sizes}"
        )


def _blas(m: CudaArray) -> tuple[int, int]:
    """Address, and distance of the rows: cuBLAS looks at it for a single row, too."""
    pointer, distance = place_of(m)
    return pointer, distance if m.shape[0] > 1 else m.shape[1]


def _batch(matrices: CudaArray) -> tuple[int, int, int]:
    """Address, distance of the rows, and distance of the matrices."""
    pointer, step, distance = place_of(matrices)
    _, rows, columns = matrices.shape
    return pointer, distance if rows > 1 else columns, step


@functools.cache
def _parts_of_sums(m: int, n: int, k: int, max_blocks: int) -> int:
    """Into how many equal parts to cut the sums of a matrix product."""
    tiles = -(-m // TILE) * -(-n // TILE)
    if not tiles:
        return 1
    most = min(k // PRODUCTS_PER_PART, max_blocks // (4 * tiles))
    return next(parts for parts in range(max(most, 1), 0, -1) if k % parts == 0)


def _step(vector: CudaArray) -> int:
    """Distance of the elements of an array with at most one size above 1."""
    for size, stride in zip(vector.shape, vector.strides, strict=True):
        if size > 1:
            return stride
    return 1
