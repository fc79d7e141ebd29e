"""Rows of a matrix that are chosen by their numbers, with NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from brainstorm.handlers.numpy.losses import NumpyLosses
from brainstorm.handlers.numpy.pieces import row_pieces_of
from brainstorm.handlers.operations.embedding import EmbeddingOperations
from brainstorm.handlers.programs import whole
from brainstorm.utils import HandlerError

# So many elements are put in order at once, which takes as much memory.
_TAKEN_AT_ONCE = 2**18


class NumpyEmbedding(NumpyLosses, EmbeddingOperations):
    """Part of NumpyHandler."""

    @whole
    def take_rows(self, m: Any, indices: Any, out: Any) -> None:
        rows = self._whole_numbers(indices, len(m), "take_rows: indices")[:, 0]
        if not out.size:
            return
        if out.flags.c_contiguous:
            # Other modes than 'raise' write into `out` directly.
            np.take(m, rows, 0, out, "clip")
            return
        for rows, part in row_pieces_of(rows, out):
            values = self.scratch(part.shape)
            np.take(m, rows, 0, values, "clip")
            np.copyto(part, values)

    @whole
    def check_limit(self, a: Any, limit: int, text: str) -> None:
        if a.size and np.maximum.reduce(a, None) > limit:
            raise HandlerError(text)

    @whole
    def add_to_rows(
        self, a: Any, indices: Any, out: Any, fresh_out: bool = False
    ) -> None:
        rows = self._whole_numbers(indices, len(out), "add_to_rows: indices")
        if not out.flags.writeable:  # np.add.at does not look
            raise ValueError("add_to_rows: the destination is read-only")
        if fresh_out:
            out.fill(0)
        if not a.size:
            return
        width = out.shape[1]
        if not out.flags.c_contiguous:
            np.add.at(out, rows[:, 0], a)
            return
        pieces = row_pieces_of(rows, a)
        if fresh_out:
            pieces = self._put_first(rows[:, 0], a, out)
        # Adding at single places of a flat array is faster than at rows.
        flat = out.reshape(-1)
        columns = self._row_numbers(width)
        for starts, values in pieces:
            places = self._temporary(values.shape, "places", np.intp)
            np.multiply(starts, width, starts)
            np.copyto(places, starts)
            np.add(places, columns, places)
            np.add.at(flat, places.reshape(-1), self._contiguous(values).reshape(-1))

    def _put_first(
        self, rows: np.ndarray, a: np.ndarray, out: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Put the first of what is to be added to each row, which is zero, there.

        Yields:
            Rows, as a column, and values that are still to be added to them.
        """
        # Sorted numbers tell which rows are the same, and where they came from.
        count, bits = len(rows), len(rows).bit_length()
        order, mask = self._temporary((2, count), "order", np.intp), (1 << bits) - 1
        keys, repeated = order
        np.left_shift(rows, bits, keys)
        np.add(keys, self._row_numbers(count), keys)
        keys.sort()
        np.right_shift(keys, bits, repeated)
        repeated[1:] = np.equal(
            repeated[1:], repeated[:-1], self._temporary((count - 1,), "bool", np.bool_)
        )
        repeated[0] = 0
        firsts = count - np.count_nonzero(repeated)
        np.bitwise_and(keys, mask, keys)
        np.left_shift(repeated, bits, repeated)
        np.add(keys, repeated, keys)
        keys.sort()
        np.bitwise_and(keys, mask, keys)
        rows.take(keys, None, repeated, "clip")
        a = self._contiguous(a)
        step = max(1, _TAKEN_AT_ONCE // a.shape[1])
        cuts = [*range(0, firsts, step), *range(firsts, count, step), count]
        for start, stop in itertools.pairwise(cuts):
            values = self.scratch((stop - start, a.shape[1]))
            a.take(keys[start:stop], 0, values, "clip")
            if start < firsts:
                out[repeated[start:stop]] = values
            else:
                yield from row_pieces_of(repeated[start:stop, np.newaxis], values)
