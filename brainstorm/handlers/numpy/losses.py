"""Softmax and losses with NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from brainstorm.handlers.numpy.arithmetic import NumpyArithmetic
from brainstorm.handlers.numpy.pieces import pieces, row_pieces
from brainstorm.handlers.operations.contract import check_indices
from brainstorm.handlers.operations.losses import LossOperations


class NumpyLosses(NumpyArithmetic, LossOperations):
    """Part of NumpyHandler."""

    _numbers: np.ndarray
    _range: np.ndarray
    _starts: tuple[int, np.ndarray]
    _largest_loss: np.ndarray
    _largest_indices: dict[int, np.ndarray]

    def softmax_m(self, m: Any, out: Any) -> None:
        if m.size:
            rows = len(m), 1
            self._softmax(m, out, self.scratch(rows, "maxima"), self.scratch(rows))

    def _softmax(
        self, m: np.ndarray, out: np.ndarray, maxima: np.ndarray, sums: np.ndarray
    ) -> None:
        """Softmax of rows that are not empty.

        `maxima` (M, 1) receives the largest of each row, `sums` (M, 1) the sums of
        exp(m - maxima).
        """
        for m, out, maxima, sums in row_pieces(m, out, maxima, sums):
            self.do(np.maximum.reduce, m, 1, None, maxima, True)
            self._with_vector(np.subtract, m, maxima, out)
            self.do(np.exp, out, out)
            self.do(np.add.reduce, out, 1, None, sums, True)
            self._with_vector(np.divide, out, sums, out)

    def log_softmax_m(self, m: Any, out: Any) -> None:
        if not m.size:
            return
        rows = len(m), 1
        maxima, sums = self.scratch(rows, "maxima"), self.scratch(rows)
        self._softmax(m, out, maxima, sums)
        self.do(np.log, sums, sums)
        self._with_vector(np.subtract, m, maxima, out)
        self._with_vector(np.subtract, out, sums, out)

    def softmax_ce_forward(
        self, x: Any, targets: Any, predictions: Any, loss: Any
    ) -> None:
        columns = self._whole_numbers(targets, x.shape[1], "class indices")
        if not len(x):
            return
        maxima = self._temporary(loss.shape, "maxima", self.dtype)
        own = self._temporary(loss.shape, 2, self.dtype)
        self._softmax(x, predictions, maxima, loss)
        # -log of the prediction is log(sum) + maximum - own input.
        self._take(x, columns, own)
        self.do(np.subtract, maxima, own, own)
        self.do(np.log, loss, loss)
        self.do(np.add, loss, own, loss)
        self.do(np.minimum, loss, self._largest_loss, out=loss)

    def sigmoid_ce_forward(
        self, x: Any, targets: Any, predictions: Any, loss: Any
    ) -> None:
        for x, targets, predictions, loss in pieces(x, targets, predictions, loss):
            # As in `sigmoid`, and -log(1 - p) = log(1 + e) + max(x, 0).
            e, log = self.scratch(x.shape), self.scratch(x.shape, 2)
            self.do(np.abs, x, e)
            self.do(np.multiply, e, self._minus_one, e)
            self.do(np.exp, e, e)
            self.do(np.log1p, e, log)
            self.do(np.sign, x, predictions)
            self.do(np.maximum, predictions, e, out=predictions)
            self.do(np.add, e, self._one, e)
            self.do(np.divide, predictions, e, predictions)
            other = self.scratch(x.shape, 3)
            self.do(np.maximum, x, self._zero, out=other)
            self.do(np.add, other, log, other)
            self.do(np.minimum, other, self._largest_loss, out=other)
            self.do(np.minimum, x, self._zero, out=e)
            self.do(np.subtract, log, e, log)
            self.do(np.minimum, log, self._largest_loss, out=log)
            self.do(np.multiply, targets, log, loss)
            self.do(np.subtract, self._one, targets, e)
            self.do(np.multiply, e, other, e)
            self.do(np.add, loss, e, loss)

    def binarize_v(self, v: Any, out: Any) -> None:
        rows, columns = out.shape
        if columns > 2048 or out.size > 16384:  # half floats are whole up to there
            chosen = self._whole_numbers(v, columns, "binarize_v: indices")
            self.do(out.fill, 0)
            places = self._row_numbers(rows), chosen[:, 0]
            self.do(out.__setitem__, places, 1)
            return
        # Each row has one place that equals its index, if that is one.
        equal = self._temporary(out.shape, "bool", np.bool_)
        self.do(out.__setitem__, ..., v)
        self.do(np.equal, out, self._column_numbers(rows, columns), equal)
        found = self._temporary((rows,), "found", np.bool_)
        self.do(np.logical_or.reduce, equal, 1, None, found)
        self.do(check_unless_all, found, v, columns, "binarize_v: indices")
        self.do(out.__setitem__, ..., equal)

    def _column_numbers(self, rows: int, columns: int) -> np.ndarray:
        """A matrix that has in each place the number of its column."""
        numbers = self._numbers
        if numbers.shape[1] != columns or len(numbers) < rows:
            numbers = np.tile(np.arange(columns, dtype=self.dtype), (rows, 1))
            self._numbers = numbers
        return numbers[:rows]

    def index_m_by_v(self, m: Any, v: Any, out: Any) -> None:
        columns = self._whole_numbers(v, m.shape[1], "index_m_by_v: indices")
        self._take(m, columns, out)

    def _take(self, m: np.ndarray, columns: np.ndarray, out: np.ndarray) -> None:
        """Take from each row of `m` the given column; overwrites `columns`."""
        if not len(columns):
            return
        self.do(np.add, columns, self._row_starts(*m.shape), columns)
        values = out if out.flags.c_contiguous else self.scratch(out.shape)
        # Other modes than 'raise' write into `values` directly.
        self.do(self._contiguous(m).take, columns, None, values, "clip")
        if values is not out:
            self.do(out.__setitem__, ..., values)

    def _row_starts(self, rows: int, width: int) -> np.ndarray:
        """Where the rows of a matrix begin, as a column."""
        width_now, starts = self._starts
        if width_now != width or len(starts) < rows:
            starts = np.arange(rows)[:, np.newaxis] * width
            self._starts = width, starts
        return starts[:rows]

    def _row_numbers(self, rows: int) -> np.ndarray:
        numbers = self._range
        if len(numbers) < rows:
            numbers = self._range = np.arange(rows)
        return numbers[:rows]

    def _whole_numbers(self, indices: np.ndarray, count: int, what: str) -> np.ndarray:
        """The indices as integers, checked as `check_indices` does."""
        shape = indices.shape
        limited = self._temporary(shape, 0, self.dtype)
        numbers = self._temporary(shape, "int", np.intp)
        equal = self._temporary(shape, "bool", np.bool_)
        self.do(np.abs, indices, limited)
        # NaN is left out.
        self.do(np.fmin, limited, self._largest_index(count), out=limited)
        self.do(numbers.__setitem__, ..., limited)
        self.do(limited.__setitem__, ..., numbers)
        self.do(np.equal, limited, indices, equal)
        self.do(check_unless_all, equal, indices, count, what)
        return numbers

    def _largest_index(self, count: int) -> np.ndarray:
        """The largest number below `count` that the handler's type has."""
        known = self._largest_indices
        largest = known.get(count)
        if largest is None:
            largest = np.array(count - 1, self.dtype)
            if int(largest) >= count:
                largest = np.array(np.nextafter(largest, self._zero))
            if len(known) > 99:
                known.clear()
            known[count] = largest
        return largest


def check_unless_all(
    good: np.ndarray, indices: np.ndarray, count: int, what: str
) -> None:
    """Look closer at indices unless all of them are good."""
    if not np.logical_and.reduce(good, None):
        check_indices(indices, count, what)
