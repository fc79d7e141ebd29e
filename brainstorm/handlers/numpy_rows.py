"""Losses, rows of matrices and reversed sequences for NumpyHandler."""

# Operations are documented in CoarseOperations and LayerOperations. Inside the loops
# over pieces, the names of the arguments stand for their pieces.
# ruff: noqa: D102, B020

from __future__ import annotations

import numpy as np

from brainstorm.handlers.coarse_operations import check_indices
from brainstorm.handlers.layer_operations import checked_lengths
from brainstorm.handlers.numpy_pieces import pieces, row_pieces, row_pieces_of
from brainstorm.handlers.programs import whole

__all__ = ["NumpyRows"]


class NumpyRows:
    """Part of NumpyHandler."""

    # -- softmax and losses --------------------------------------------------

    def softmax_m(self, m, out):
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

    def softmax_ce_forward(self, x, targets, predictions, loss):
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

    def sigmoid_ce_forward(self, x, targets, predictions, loss):
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

    # -- indices -------------------------------------------------------------

    def binarize_v(self, v, out):
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
        self.do(_check_unless_all, found, v, columns, "binarize_v: indices")
        self.do(out.__setitem__, ..., equal)

    def _column_numbers(self, rows: int, columns: int) -> np.ndarray:
        """A matrix that has in each place the number of its column."""
        numbers = self._numbers
        if numbers.shape[1] != columns or len(numbers) < rows:
            numbers = np.tile(np.arange(columns, dtype=self.dtype), (rows, 1))
            self._numbers = numbers
        return numbers[:rows]

    def index_m_by_v(self, m, v, out):
        columns = self._whole_numbers(v, m.shape[1], "index_m_by_v: indices")
        self._take(m, columns, out)

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
        self.do(_check_unless_all, equal, indices, count, what)
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

    @whole
    def take_rows(self, m, indices, out):
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
    def add_to_rows(self, a, indices, out, fresh_out=False):
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
        if fresh_out:
            rows, a = self._put_first(rows[:, 0], a, out)
        # Adding at single places of a flat array is faster than at rows.
        np.multiply(rows, width, rows)
        flat = out.reshape(-1)
        columns = self._row_numbers(width)
        for starts, values in row_pieces_of(rows, a):
            places = self._temporary(values.shape, "places", np.intp)
            np.copyto(places, starts)
            np.add(places, columns, places)
            np.add.at(flat, places.reshape(-1), self._contiguous(values).reshape(-1))

    def _put_first(
        self, rows: np.ndarray, a: np.ndarray, out: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Put the first of what is to be added to each row, which is zero, there.

        Returns:
            The rows, as a column, and values that are still to be added.
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
        values = self.scratch(a.shape)
        self._contiguous(a).take(keys, 0, values, "clip")
        rows.take(keys, None, repeated, "clip")
        out[repeated[:firsts]] = values[:firsts]
        return repeated[firsts:, np.newaxis], values[firsts:]

    @whole
    def reverse_steps(self, x, lengths, out, fresh_out=False):
        if lengths is None:
            self._put(x[::-1], out, fresh_out)
            return
        if lengths.size and not (lengths.min() >= 0 and lengths.max() <= len(x)):
            checked_lengths(lengths, len(x), "reverse_steps")
        if fresh_out:
            out.fill(0)
        ends = self._temporary(lengths.shape, "int", np.intp)
        ends[...] = lengths
        for b, end in enumerate(ends[:, 0]):
            self._put(x[:end, b][::-1], out[:end, b], fresh_out)


def _check_unless_all(
    good: np.ndarray, indices: np.ndarray, count: int, what: str
) -> None:
    """Look closer at indices unless all of them are good."""
    if not np.logical_and.reduce(good, None):
        check_indices(indices, count, what)
