"""Products of single rows with a matrix in which little may differ from zero."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

# Fewer products do not pay for looking at a matrix.
_OFTEN = 100
_DTYPES = (np.float32, np.float64)


class SparseProduct:
    """Adds ``a b`` to vectors, again and again with one matrix b.

    With few values other than zero it goes through these alone.

    Args:
        matrix: The matrix b, or its transpose.
        transb: Whether it is that.
    """

    def __init__(self, matrix: np.ndarray, transb: bool):
        self._matrix = matrix
        self._b = matrix.T if transb else matrix
        self._product = np.empty((1, self._b.shape[1]), matrix.dtype)
        self._sparse: Any = None

    @staticmethod
    def is_worth_it(matrix: np.ndarray, a: np.ndarray, times: int) -> bool:
        """Whether there may be something to gain."""
        fits = len(a) == 1 and matrix.dtype in _DTYPES and times >= _OFTEN
        return fits and _limit(matrix) > 0 and find_csr_array() is not None

    def look(self) -> None:
        """Take note of the values, which may have changed."""
        few = np.count_nonzero(self._matrix) <= _limit(self._matrix)
        self._sparse = find_csr_array()(self._b.T) if few else None

    def add(self, a: np.ndarray, out: np.ndarray) -> None:
        """``out += a b`` for matrices of one row."""
        if self._sparse is None:
            np.add(out, np.matmul(a, self._b, self._product), out)
        else:
            np.add(out[0], self._sparse @ a[0], out[0])


def _limit(matrix: np.ndarray) -> float:
    """With so many values, both kinds of products take the same time.

    Measured with 500 to 2000 rows: 12 ns for a kilobyte of a dense matrix; 0.5 ns for
    a value, and 6 us, for a sparse one.
    """
    return matrix.nbytes / 44 - 12_000


@functools.cache
def find_csr_array() -> Any:
    """What scipy calls its sparse matrices; None without scipy, an optional part."""
    try:
        from scipy.sparse import csr_array
    except ImportError:
        return None
    return csr_array
