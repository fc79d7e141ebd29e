"""Products of matrices, and sums, with NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from brainstorm.handlers.numpy.memory import NumpyMemory
from brainstorm.handlers.operations.products import ProductOperations

# So many rows make a block. Up to four blocks are summed in one go.
ROWS_AT_ONCE = 32
COLUMNS_AT_ONCE = 2048


class NumpyProducts(NumpyMemory, ProductOperations):
    """Part of NumpyHandler."""

    def dot_mm(
        self, a: Any, b: Any, out: Any, transa: bool = False, transb: bool = False
    ) -> None:
        # Unlike np.dot, this copies no strided views.
        self.do(np.matmul, a.T if transa else a, b.T if transb else b, out)

    def dot_add_mm(
        self, a: Any, b: Any, out: Any, transa: bool = False, transb: bool = False
    ) -> None:
        product = self.scratch(out.shape)
        self.do(np.matmul, a.T if transa else a, b.T if transb else b, product)
        self.do(np.add, out, product, out)

    def batch_dot_mm(
        self, a: Any, b: Any, out: Any, transa: bool = False, transb: bool = False
    ) -> None:
        a, b = (a.swapaxes(1, 2) if transa else a), (b.swapaxes(1, 2) if transb else b)
        self.do(np.matmul, a, b, out)

    def batch_dot_add_mm(
        self, a: Any, b: Any, out: Any, transa: bool = False, transb: bool = False
    ) -> None:
        product = self.scratch(out.shape)
        NumpyProducts.batch_dot_mm(self, a, b, product, transa, transb)
        self.do(np.add, out, product, out)

    def sum_t(self, a: Any, axis: int | None, out: Any) -> None:
        if axis is None:
            flat = self._contiguous(a).reshape(1, -1)
            self._add_columns(flat, out.reshape(1))
        elif a.ndim == 1:
            self._add_columns(a[np.newaxis], out.reshape(1))
        elif axis == 0 or a.strides[0] < a.strides[1]:
            m = a if axis == 0 else a.T
            self._add_rows(
                m, out if out.ndim == 1 else out[0] if axis == 0 else out[:, 0]
            )
        else:
            self._add_columns(a, out if out.ndim == 1 else out[:, 0])

    def _sum_rows(self, m: Any, out: Any, fresh: bool) -> None:
        if fresh:
            self._add_rows(m, out)
        else:
            sums = self.scratch(out.shape)
            self._add_rows(m, sums)
            self.do(np.add, out, sums, out)

    def _add_rows(self, m: np.ndarray, out: np.ndarray) -> None:
        """Sum (M, N) over its rows into the vector (N,).

        Products with ones are the fastest sums over rows. NumPy's or the library's
        own order of adding would lose digits where there are many rows; so blocks of
        rows are summed, and then their sums.
        """
        rows, columns = m.shape
        slot = 0
        while rows > 4 * ROWS_AT_ONCE:
            blocks, rest = divmod(rows, ROWS_AT_ONCE)
            sums = self.scratch((blocks + (rest > 0), columns), ("sums", slot))
            blocked = m[: rows - rest].reshape(blocks, ROWS_AT_ONCE, columns)
            self.do(np.matmul, self._ones[:ROWS_AT_ONCE], blocked, sums[:blocks])
            if rest:
                self.do(np.matmul, self._ones[:rest], m[rows - rest :], sums[blocks])
            m, rows, slot = sums, len(sums), 1 - slot
        self.do(np.matmul, self._ones[:rows], m, out)

    def _add_columns(self, m: np.ndarray, out: np.ndarray) -> None:
        """Sum (M, N) over its columns into the vector (M,).

        NumPy adds neighbours in pairs, but older ones only within its buffer.
        """
        rows, columns = m.shape
        slot = 0
        while columns > 2 * COLUMNS_AT_ONCE:
            blocks, rest = divmod(columns, COLUMNS_AT_ONCE)
            sums = self.scratch((rows, blocks + (rest > 0)), ("sums", slot))
            blocked = m[:, : columns - rest].reshape(rows, blocks, COLUMNS_AT_ONCE)
            self.do(np.add.reduce, blocked, 2, None, sums[:, :blocks])
            if rest:
                self.do(np.add.reduce, m[:, columns - rest :], 1, None, sums[:, blocks])
            m, columns, slot = sums, sums.shape[1], 1 - slot
        self.do(np.add.reduce, m, 1, None, out)
