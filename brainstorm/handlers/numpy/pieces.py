"""Cutting arrays into pieces, so that temporaries are small and stay in the cache."""

from __future__ import annotations

from typing import Any

import numpy as np

# Larger elementwise work is cut into pieces of this many elements.
_CHUNK = 16384


def pieces(*arrays: np.ndarray) -> Any:
    """Cut arrays of one shape alike into pieces of at most about `_CHUNK` elements."""
    if arrays[0].size <= _CHUNK:
        return (arrays,)
    if all(a.flags.c_contiguous for a in arrays):
        arrays = tuple(a.reshape(-1) for a in arrays)
    return row_pieces(*arrays)


def row_pieces(*arrays: np.ndarray) -> Any:
    """Cut arrays of one length alike along their first axis."""
    first = arrays[0]
    if first.size <= _CHUNK:
        return (arrays,)
    rows = len(first)
    step = max(1, _CHUNK * rows // first.size)
    return (tuple(a[i : i + step] for a in arrays) for i in range(0, rows, step))


def row_pieces_of(column: np.ndarray, m: np.ndarray) -> Any:
    """Cut a matrix, and something with as many rows, alike along their first axis."""
    if m.size <= _CHUNK:
        return ((column, m),)
    step = max(1, _CHUNK // m.shape[1])
    return ((column[i : i + step], m[i : i + step]) for i in range(0, len(m), step))


def vector_pieces(m: np.ndarray, v: np.ndarray, out: np.ndarray) -> Any:
    """Cut matrices along their first axis, and the vector too unless it is a row."""
    if m.size <= _CHUNK:
        return ((m, v, out),)
    if len(v) == len(m):
        return row_pieces(m, v, out)
    return ((m, v, out) for m, out in row_pieces(m, out))
