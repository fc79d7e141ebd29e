"""A recurrent layer that runs over a single sequence, with NumPy.

It is one call, however long the sequence: recorded calls for each step would take more
time than what they do. Products with a matrix that is mostly zeros are sparse.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from brainstorm.handlers.numpy.memory import NumpyMemory
from brainstorm.handlers.operations.recurrent import RecurrentCells, RecurrentOperations

# Fewer products do not pay for looking at a matrix.
_OFTEN = 100


class NumpyRecurrent(NumpyMemory, RecurrentOperations):
    """Part of NumpyHandler."""

    def _run_recurrent(
        self,
        R: Any,
        cells: RecurrentCells,
        y: Any,
        activation: str,
        kept: Any,
        leak: float,
        inside: bool,
    ) -> None:
        if kept is None and y.shape[1] == 1:
            self.do(self.plain._run_alone, R, *cells[:2], y, activation, leak, inside)
        else:
            super()._run_recurrent(R, cells, y, activation, kept, leak, inside)

    def _run_alone(self, R, Ha, Hb, y, activation, leak, inside) -> None:
        """As `_run_recurrent`, for arrays (U, 1, N)."""
        steps, act = len(y) - 1, self.act_func[activation]
        act = np.tanh if activation == "tanh" else act
        values = Hb if leak < 1 and not inside else y
        rows = (array[:steps, 0] for array in (Ha, values, y))
        part, rest = (np.asarray(share, y.dtype) for share in (leak, 1.0 - leak))
        sparse = _as_sparse(R) if steps >= _OFTEN else None
        moved, before = np.empty(len(R), y.dtype), y[-1, 0]
        for h, value, out in zip(*rows, strict=True):
            if sparse is None:
                np.dot(R, before, moved)
                np.add(h, moved, h)
            else:
                np.add(h, sparse @ before, h)
            if leak < 1:
                np.multiply(before, rest, moved)
            if leak < 1 and inside:
                np.multiply(h, part, h)
                np.add(h, moved, h)
            act(h, value)
            if values is not y:
                np.multiply(value, part, out)
                np.add(out, moved, out)
            before = out


def _as_sparse(matrix: np.ndarray) -> Any:
    """A sparse copy of a matrix, if products with it take less time; or else None.

    Measured with 500 to 2000 rows: 12 ns for a kilobyte of a dense matrix; 0.5 ns for
    a value, and 6 us, for a sparse one.
    """
    most = matrix.nbytes / 44 - 12_000
    if most <= 0 or matrix.dtype not in (np.float32, np.float64):
        return None
    csr_array = find_csr_array()
    if csr_array is None or np.count_nonzero(matrix) > most:
        return None
    return csr_array(matrix)


@functools.cache
def find_csr_array() -> Any:
    """What scipy calls its sparse matrices; None without scipy, an optional part."""
    try:
        from scipy.sparse import csr_array
    except ImportError:
        return None
    return csr_array
