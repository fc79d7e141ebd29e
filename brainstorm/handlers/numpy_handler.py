"""The handler that needs nothing but NumPy, and the reference for all others."""

# Operations are documented in Handler and CoarseOperations. Inside the loops over
# pieces, the names of the arguments stand for their pieces.
# ruff: noqa: D102, B020

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from brainstorm.handlers.base_handler import Handler
from brainstorm.handlers.coarse_operations import check_targets
from brainstorm.handlers.numpy_conv import NumpyConvolutions
from brainstorm.utils import HandlerError, ValidationError, listing

__all__ = ["NumpyHandler"]

# Larger elementwise work is cut into pieces of this many elements, so that
# temporaries are small and stay in the cache.
_CHUNK = 16384
_MAX_VIEWS = 256

# The sigmoid of a x + b x^3 is (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2.
_GELU = (2 * math.sqrt(2 / math.pi), 2 * math.sqrt(2 / math.pi) * 0.044715)


class _Workspace(threading.local):
    """Reusable memory for temporaries, for each thread its own."""

    def __init__(self):
        self.buffers: dict[Any, np.ndarray] = {}
        self.views: dict[Any, np.ndarray] = {}

    def grow(self, key: tuple[Any, tuple[int, ...]], dtype: Any) -> np.ndarray:
        """Make the view for a slot and a shape that has none yet."""
        slot, shape = key
        size = math.prod(shape)
        buffer = self.buffers.get(slot)
        if buffer is None or buffer.size < size:
            buffer = self.buffers[slot] = np.empty(size, dtype)
            self.views = {k: v for k, v in self.views.items() if k[0] != slot}
        if len(self.views) >= _MAX_VIEWS:
            self.views.clear()
        view = self.views[key] = buffer[:size].reshape(shape)
        return view


class NumpyHandler(NumpyConvolutions, Handler):
    """Computes on the CPU with NumPy, in any floating point type.

    Temporaries live in memory that each thread keeps and reuses, so operations on
    contiguous arrays allocate nothing once they have run with arrays of that size.
    For strided ones NumPy itself buffers up to 8192 elements of each operand.

    Random masks and normal values come from a fast generator (SFC64) that is
    seeded from `rnd` when `rnd` is made, and again when `rnd` is set to a seed.

    Args:
        dtype: Data type of all arrays: a NumPy float type or its name.
        seed: Seed of `rnd`; None derives it from ``global_rnd``.

    Raises:
        ValidationError: `dtype` is no floating point type.
    """

    array_type = np.ndarray

    def __init__(self, dtype: Any = np.float32, seed: int | None = None):
        super().__init__(seed)
        self.dtype = _float_type(dtype)
        self.EMPTY = np.zeros(0, self.dtype)
        # As arrays, constants cost half as much as Python's numbers.
        self._zero, self._half, self._one, self._minus_one, self._tiny = (
            np.array(value, self.dtype) for value in (0.0, 0.5, 1.0, -1.0, 1e-6)
        )
        self._ones = np.ones(1, self.dtype)
        self._range = np.arange(1)
        self._starts = 0, np.empty((0, 1), np.intp)
        self._workspace = _Workspace()
        self._generator: np.random.Generator | None = None
        self._generator_origin: Any = None

    def __describe__(self) -> dict[str, Any]:
        description = super().__describe__()
        description["dtype"] = np.dtype(self.dtype).name
        return description

    @classmethod
    def __new_from_description__(cls, description: dict[str, Any]) -> NumpyHandler:
        arguments = {k: v for k, v in description.items() if k != "@type"}
        if not arguments.keys() <= {"dtype", "seed"}:
            raise ValidationError(
                f"the description of a {cls.__name__} has 'dtype' and 'seed',"
                f" got {listing(arguments)}"
            )
        return cls(**arguments)

    # -- randomness ----------------------------------------------------------

    def _draws(self) -> np.random.Generator:
        rnd = self.rnd
        origin = (rnd, rnd.generation)
        if self._generator_origin != origin:
            seed = rnd.generate_seed()
            self._generator = np.random.Generator(np.random.SFC64(seed))
            self._generator_origin = origin
        return self._generator

    def get_random_state(self) -> dict[str, Any]:
        generator = _as_lists(self._draws().bit_generator.state)
        return {**super().get_random_state(), "generator": generator}

    def _apply_random_state(self, state: dict[str, Any]) -> None:
        generator = dict(state["generator"])
        words = np.array(generator["state"]["state"], np.uint64)
        if words.shape != (4,):
            raise ValueError(f"expected 4 words, got {words.shape}")
        self._draws().bit_generator.state = {**generator, "state": {"state": words}}
        super()._apply_random_state(state)

    def _random(self, shape: tuple[int, ...], normal: bool) -> np.ndarray:
        """Random numbers, uniform in [0, 1) or standard normal, in a temporary."""
        dtype = np.float64 if self.dtype is np.float64 else np.float32
        out = self._temporary(shape, "random", dtype)
        generator = self._draws()
        draw = generator.standard_normal if normal else generator.random
        draw(out=out, dtype=dtype)
        return out

    def fill_gaussian(self, mean, std, out):
        for (part,) in _pieces(out):
            draws = self._random(part.shape, normal=True)
            np.multiply(draws, float(std), draws)
            np.add(draws, float(mean), draws)
            part[...] = draws

    def generate_probability_mask(self, mask, probability):
        for (part,) in _pieces(mask):
            chosen = self._temporary(part.shape, "bool", np.bool_)
            np.less(self._random(part.shape, normal=False), float(probability), chosen)
            part[...] = chosen

    # -- memory --------------------------------------------------------------

    def release(self):
        self._workspace = _Workspace()  # of all threads

    def allocate(self, shape):
        return np.empty(shape, self.dtype)

    def ones(self, shape):
        return np.ones(shape, self.dtype)

    def zeros(self, shape):
        return np.zeros(shape, self.dtype)

    def scratch(self, shape, slot=0):
        return self._temporary(shape, slot, self.dtype)

    def _temporary(self, shape: tuple[int, ...], slot: Any, dtype: Any) -> np.ndarray:
        """An array of a slot; a slot is always used with the same dtype."""
        key = (slot, shape)
        workspace = self._workspace
        try:
            return workspace.views[key]
        except KeyError:
            return workspace.grow(key, dtype)

    def overlap(self, a, b):
        if not np.shares_memory(a, b):
            return "none"
        return "same" if _places(a) == _places(b) else "part"

    def create_from_numpy(self, arr):
        return np.array(_numbers(arr), dtype=self.dtype, order="C")

    def get_numpy_copy(self, mem):
        return mem.copy()

    def set_from_numpy(self, mem, arr):
        arr = _numbers(arr)
        if mem.shape != arr.shape:
            raise HandlerError(
                f"can not copy an array of shape {arr.shape} into one of shape"
                f" {mem.shape}"
            )
        mem[...] = arr

    def copy_to(self, src, dest):
        np.copyto(dest, src)

    def copy_to_if(self, src, dest, cond):
        for src, dest, cond in _pieces(src, dest, cond):
            np.copyto(dest, src, where=self._nonzero(cond))

    def fill(self, mem, val):
        mem.fill(val)

    def fill_if(self, mem, val, cond):
        for mem, cond in _pieces(mem, cond):
            np.copyto(mem, float(val), where=self._nonzero(cond))

    def _nonzero(self, cond: np.ndarray) -> np.ndarray:
        chosen = self._temporary(cond.shape, "bool", np.bool_)
        np.not_equal(cond, self._zero, chosen)
        return chosen

    # -- elementwise, tensors ------------------------------------------------

    def abs_t(self, a, out):
        np.abs(a, out)

    def add_st(self, s, t, out):
        np.add(t, float(s), out)

    def add_tt(self, a, b, out):
        np.add(a, b, out)

    def add_into_if(self, a, out, cond):
        for a, out, cond in _pieces(a, out, cond):
            np.add(out, a, out=out, where=self._nonzero(cond))

    def clip_t(self, a, a_min, a_max, out):
        np.maximum(a, float(a_min), out=out)
        np.minimum(out, float(a_max), out=out)

    def divide_tt(self, a, b, out):
        np.divide(a, b, out)

    def log_t(self, a, out):
        np.log(a, out)

    def modulo_tt(self, a, b, out):
        np.mod(a, b, out)

    def mult_add_st(self, s, t, out):
        s = float(s)
        for t, out in _pieces(t, out):
            product = self.scratch(t.shape)
            np.multiply(t, s, product)
            np.add(out, product, out)

    def mult_add_tt(self, a, b, out):
        for a, b, out in _pieces(a, b, out):
            product = self.scratch(a.shape)
            np.multiply(a, b, product)
            np.add(out, product, out)

    def mult_st(self, s, t, out):
        np.multiply(t, float(s), out)

    def mult_tt(self, a, b, out):
        np.multiply(a, b, out)

    def sign_t(self, a, out):
        np.sign(a, out)

    def sqrt_t(self, a, out):
        np.sqrt(a, out)

    def subtract_tt(self, a, b, out):
        np.subtract(a, b, out)

    # -- elementwise, matrix and vector --------------------------------------

    def add_mv(self, m, v, out):
        self._with_vector(np.add, m, v, out)

    def divide_mv(self, m, v, out):
        self._with_vector(np.divide, m, v, out)

    def mult_mv(self, m, v, out):
        self._with_vector(np.multiply, m, v, out)

    def mult_add_mv(self, m, v, out):
        for m, v, out in _vector_pieces(m, v, out):
            product = self.scratch(m.shape)
            self._with_vector(np.multiply, m, v, product)
            np.add(out, product, out)

    def subtract_mv(self, m, v, out):
        self._with_vector(np.subtract, m, v, out)

    def _with_vector(self, ufunc: np.ufunc, m, v, out) -> None:
        """Call a function with a vector that is repeated to the size of a matrix.

        Where operands have different strides NumPy allocates buffers, which takes
        longer than repeating a row; so the vector is repeated beforehand.
        """
        if v.shape == m.shape:
            ufunc(m, v, out)
            return
        for m, v, out in _vector_pieces(m, v, out):
            wide = self.scratch(m.shape, 1)
            np.copyto(wide, v)
            ufunc(m, wide, out)

    # -- products, sums and rearrangements -----------------------------------

    def dot_mm(self, a, b, out, transa=False, transb=False):
        # Unlike np.dot, this copies no strided views.
        np.matmul(a.T if transa else a, b.T if transb else b, out)

    def dot_add_mm(self, a, b, out, transa=False, transb=False):
        product = self.scratch(out.shape)
        np.matmul(a.T if transa else a, b.T if transb else b, product)
        np.add(out, product, out)

    def sum_t(self, a, axis, out):
        if axis is None:
            np.add.reduce(a, None, None, out.reshape(()))
        else:
            np.add.reduce(a, axis, None, out, a.ndim == out.ndim)

    def _sum_rows(self, m, out, fresh):
        ones = self._ones
        if len(ones) < len(m):
            ones = self._ones = np.ones(len(m), self.dtype)
        sums = out if fresh else self.scratch(out.shape)
        np.matmul(ones[: len(m)], m, sums)
        if not fresh:
            np.add(out, sums, out)

    def softmax_m(self, m, out):
        if m.size == 0:
            return
        for m, out in _row_pieces(m, out):
            rows = self.scratch((len(m), 1))
            np.maximum.reduce(m, 1, None, rows, True)
            self._with_vector(np.subtract, m, rows, out)
            np.exp(out, out)
            np.add.reduce(out, 1, None, rows, True)
            self._with_vector(np.divide, out, rows, out)

    def binarize_v(self, v, out):
        columns = self._temporary(v.shape, "int", np.intp)
        columns[...] = v
        out.fill(0)
        out[self._row_numbers(len(v)), columns[:, 0]] = 1

    def index_m_by_v(self, m, v, out):
        columns = self._temporary(v.shape, "int", np.intp)
        columns[...] = v
        self._take(m, columns, out)

    def _take(self, m: np.ndarray, columns: np.ndarray, out: np.ndarray) -> None:
        """Take from each row of `m` the given column; overwrites `columns`."""
        np.add(columns, self._row_starts(*m.shape), columns)
        values = out if out.flags.c_contiguous else self.scratch(out.shape)
        # Other modes than 'raise' write into `values` directly.
        self._contiguous(m).take(columns, None, values, "clip")
        if values is not out:
            np.copyto(out, values)

    def _contiguous(self, m: np.ndarray) -> np.ndarray:
        if m.flags.c_contiguous:
            return m
        copy = self.scratch(m.shape, 1)
        np.copyto(copy, m)
        return copy

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

    def broadcast_t(self, a, axis, out):
        np.copyto(out, a)

    def merge_tt(self, a, b, out):
        np.concatenate((a, b), -1, out)

    def split_add_tt(self, x, out_a, out_b):
        cut = out_a.shape[-1]
        for part, out in ((x[..., :cut], out_a), (x[..., cut:], out_b)):
            for part, out in _row_pieces(part, out):
                added = self.scratch(part.shape)
                np.copyto(added, part)
                np.add(out, added, out)

    def is_fully_finite(self, a):
        for (part,) in _pieces(a):
            finite = self._temporary(part.shape, "bool", np.bool_)
            np.isfinite(part, finite)
            if np.count_nonzero(finite) < finite.size:
                return False
        return True

    # -- activation functions ------------------------------------------------

    def rel(self, x, y):
        np.maximum(x, self._zero, out=y)

    def rel_deriv(self, x, y, dy, dx):
        for y, dy, dx in _pieces(y, dy, dx):
            positive = self._temporary(y.shape, "bool", np.bool_)
            slope = self.scratch(y.shape)
            np.greater(y, self._zero, positive)
            slope[...] = positive  # mixing types in one call is much slower
            np.multiply(dy, slope, dx)

    def tanh(self, x, y):
        np.tanh(x, y)

    def tanh_deriv(self, x, y, dy, dx):
        for y, dy, dx in _pieces(y, dy, dx):
            slope = self.scratch(y.shape)
            np.multiply(y, y, slope)
            np.subtract(self._one, slope, slope)
            np.multiply(dy, slope, dx)

    def sigmoid(self, x, y):
        # (1 + tanh(x / 2)) / 2 can not overflow.
        for x, y in _pieces(x, y):
            np.multiply(x, self._half, y)
            np.tanh(y, y)
            np.multiply(y, self._half, y)
            np.add(y, self._half, y)

    def sigmoid_deriv(self, x, y, dy, dx):
        for y, dy, dx in _pieces(y, dy, dx):
            slope = self.scratch(y.shape)
            np.subtract(self._one, y, slope)
            np.multiply(y, slope, slope)
            np.multiply(dy, slope, dx)

    def el(self, x, y):
        # exp(x) - 1 is above x for negative x, and 0 after cutting off the others.
        for x, y in _pieces(x, y):
            negative = self.scratch(x.shape)
            np.minimum(x, self._zero, out=negative)
            np.expm1(negative, negative)
            np.maximum(x, negative, out=y)

    def el_deriv(self, x, y, dy, dx):
        for y, dy, dx in _pieces(y, dy, dx):
            slope = self.scratch(y.shape)
            np.minimum(y, self._zero, out=slope)
            np.add(slope, self._one, slope)
            np.multiply(dy, slope, dx)

    def softplus(self, x, y):
        # log(1 + exp(-|x|)) + max(x, 0) can not overflow.
        for x, y in _pieces(x, y):
            small = self.scratch(x.shape)
            np.abs(x, small)
            np.multiply(small, self._minus_one, small)
            np.exp(small, small)
            np.log1p(small, small)
            np.maximum(x, self._zero, out=y)
            np.add(y, small, y)

    def softplus_deriv(self, x, y, dy, dx):
        for y, dy, dx in _pieces(y, dy, dx):
            slope = self.scratch(y.shape)
            np.multiply(y, self._minus_one, slope)
            np.expm1(slope, slope)
            np.multiply(slope, self._minus_one, slope)
            np.multiply(dy, slope, dx)

    def leaky_rel(self, x, y):
        for x, y in _pieces(x, y):
            leak = self.scratch(x.shape)
            np.multiply(x, 0.01, leak)
            np.maximum(x, leak, out=y)

    def leaky_rel_deriv(self, x, y, dy, dx):
        for y, dy, dx in _pieces(y, dy, dx):
            positive = self._temporary(y.shape, "bool", np.bool_)
            slope = self.scratch(y.shape)
            np.greater(y, self._zero, positive)
            slope[...] = positive
            np.maximum(slope, 0.01, out=slope)
            np.multiply(dy, slope, dx)

    def gelu(self, x, y):
        self._gated(x, y, *_GELU)

    def gelu_deriv(self, x, y, dy, dx):
        self._gated_deriv(x, dy, dx, *_GELU)

    def swish(self, x, y):
        self._gated(x, y, 1.0, 0.0)

    def swish_deriv(self, x, y, dy, dx):
        self._gated_deriv(x, dy, dx, 1.0, 0.0)

    def _gated(self, x, y, a: float, b: float) -> None:
        """``y = x sigmoid(a x + b x^3)``."""
        for x, y in _pieces(x, y):
            # Beyond this the sigmoid is 0 or 1: nothing overflows, and infinity
            # does not become NaN.
            limited = self.scratch(x.shape, "limited")
            np.maximum(x, -40.0, out=limited)
            gate = self.scratch(x.shape)
            np.minimum(limited, 40.0, out=gate)
            self._gate(gate, a, b)
            np.multiply(limited, gate, y)

    def _gate(self, x: np.ndarray, a: float, b: float) -> None:
        """``x = sigmoid(a x + b x^3)``."""
        slope = self.scratch(x.shape, 1)
        np.multiply(x, x, slope)
        np.multiply(slope, b, slope)
        np.add(slope, a, slope)
        np.multiply(x, slope, x)
        self.sigmoid(x, x)

    def _gated_deriv(self, x, dy, dx, a: float, b: float) -> None:
        """``dx = dy s (1 + x (a + 3 b x^2) (1 - s))``, s being the sigmoid above."""
        for x, dy, dx in _pieces(x, dy, dx):
            limited = self.scratch(x.shape, "limited")
            np.maximum(x, -40.0, out=limited)
            np.minimum(limited, 40.0, out=limited)
            gate, slope = self.scratch(x.shape), self.scratch(x.shape, "slope")
            np.copyto(gate, limited)
            self._gate(gate, a, b)
            np.multiply(limited, limited, slope)
            np.multiply(slope, 3 * b, slope)
            np.add(slope, a, slope)
            np.multiply(slope, limited, slope)
            np.subtract(self._one, gate, limited)
            np.multiply(slope, limited, slope)
            np.add(slope, self._one, slope)
            np.multiply(slope, gate, slope)
            np.multiply(dy, slope, dx)

    # -- coarse operations ---------------------------------------------------

    def act_backward(self, x, y, dy, dx, activation, fresh_dx=False):
        for x, y, dy, dx in _pieces(x, y, dy, dx):
            super().act_backward(x, y, dy, dx, activation, fresh_dx)

    def softmax_ce_forward(self, x, targets, predictions, loss):
        columns = self._class_indices(targets, x.shape[1])
        self.softmax_m(x, predictions)
        self._take(predictions, columns, loss)
        np.maximum(loss, self._tiny, out=loss)
        np.minimum(loss, self._one, out=loss)
        np.log(loss, loss)
        # NumPy 2.4's np.negative is wrong for some strides.
        np.multiply(loss, self._minus_one, loss)

    def _class_indices(self, targets: np.ndarray, classes: int) -> np.ndarray:
        """The targets as integers, checked as `check_targets` does."""
        shape = targets.shape
        limited = self.scratch(shape)
        columns = self._temporary(shape, "int", np.intp)
        equal = self._temporary(shape, "bool", np.bool_)
        np.abs(targets, limited)
        np.fmin(limited, classes - 1, out=limited)  # no NaN comes through
        columns[...] = limited
        limited[...] = columns
        np.equal(limited, targets, equal)
        if np.count_nonzero(equal) < equal.size:
            check_targets(targets, classes)
        return columns

    def take_rows(self, m, indices, out):
        rows = self._class_indices(indices, len(m))[:, 0]
        if out.flags.c_contiguous:
            # Other modes than 'raise' write into `out` directly.
            np.take(m, rows, 0, out, "clip")
            return
        for rows, part in _row_pieces_of(rows, out):
            values = self.scratch(part.shape)
            np.take(m, rows, 0, values, "clip")
            np.copyto(part, values)

    def add_to_rows(self, a, indices, out, fresh_out=False):
        if fresh_out:
            out.fill(0)
        width = out.shape[1]
        rows = self._temporary(indices.shape, "int", np.intp)
        rows[...] = indices
        if not out.flags.c_contiguous:
            np.add.at(out, rows[:, 0], a)
            return
        if fresh_out and rows.size:
            rows, a = self._put_first(rows[:, 0], a, out)
        # Adding at single places of a flat array is faster than at rows.
        np.multiply(rows, width, rows)
        flat = out.reshape(-1)
        columns = self._row_numbers(width)
        for starts, values in _row_pieces_of(rows, a):
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

    def reverse_steps(self, x, lengths, out, fresh_out=False):
        if lengths is None:
            self._put(x[::-1], out, fresh_out)
            return
        if fresh_out:
            out.fill(0)
        ends = self._temporary(lengths.shape, "int", np.intp)
        ends[...] = lengths
        for b, end in enumerate(ends[:, 0]):
            self._put(x[:end, b][::-1], out[:end, b], fresh_out)

    def sigmoid_ce_forward(self, x, targets, predictions, loss):
        for arrays in _pieces(x, targets, predictions, loss):
            super().sigmoid_ce_forward(*arrays)

    def dropout_forward(self, x, mask, y, drop_prob):
        for x, mask, y in _pieces(x, mask, y):
            super().dropout_forward(x, mask, y, drop_prob)

    def momentum_update(self, parameters, gradients, velocity, learning_rate, momentum):
        for arrays in _pieces(parameters, gradients, velocity):
            super().momentum_update(*arrays, learning_rate, momentum)

    def adam_update(self, parameters, gradients, mean, variance, *rest, **named):
        for arrays in _pieces(parameters, gradients, mean, variance):
            super().adam_update(*arrays, *rest, **named)

    def rms_prop_update(self, parameters, gradients, mean_square, *rest, **named):
        for arrays in _pieces(parameters, gradients, mean_square):
            super().rms_prop_update(*arrays, *rest, **named)

    def ada_grad_update(self, parameters, gradients, sum_of_squares, *rest, **named):
        for arrays in _pieces(parameters, gradients, sum_of_squares):
            super().ada_grad_update(*arrays, *rest, **named)

    def ada_delta_update(
        self, parameters, gradients, mean_square, mean_square_step, *rest, **named
    ):
        for arrays in _pieces(parameters, gradients, mean_square, mean_square_step):
            super().ada_delta_update(*arrays, *rest, **named)

    def constrain_rows(self, m, limit, norms):
        if len(m) == 1:
            self._constrain_row(m[0], limit, norms)
            return
        for rows, row_norms in _row_pieces(m, norms):
            super().constrain_rows(rows, limit, row_norms)

    def _constrain_row(self, row: np.ndarray, limit: float, norm: np.ndarray) -> None:
        """The same for a single row, which may be that of all gradients."""
        total = 0.0
        for (part,) in _pieces(row):
            squares = self.scratch(part.shape)
            np.multiply(part, part, squares)
            total += float(np.add.reduce(squares))
        excess = math.sqrt(total) / limit
        norm.fill(excess)
        if not excess <= 1:
            np.multiply(row, 1 / excess, row)


def _pieces(*arrays: np.ndarray) -> Any:
    """Cut arrays of one shape alike into pieces of at most about `_CHUNK` elements."""
    if arrays[0].size <= _CHUNK:
        return (arrays,)
    if all(a.flags.c_contiguous for a in arrays):
        arrays = tuple(a.reshape(-1) for a in arrays)
    return _row_pieces(*arrays)


def _row_pieces(*arrays: np.ndarray) -> Any:
    """Cut arrays of one length alike along their first axis."""
    first = arrays[0]
    if first.size <= _CHUNK:
        return (arrays,)
    rows = len(first)
    step = max(1, _CHUNK * rows // first.size)
    return (tuple(a[i : i + step] for a in arrays) for i in range(0, rows, step))


def _row_pieces_of(column: np.ndarray, m: np.ndarray) -> Any:
    """Cut a matrix, and something with as many rows, alike along their first axis."""
    if m.size <= _CHUNK:
        return ((column, m),)
    step = max(1, _CHUNK // m.shape[1])
    return ((column[i : i + step], m[i : i + step]) for i in range(0, len(m), step))


def _places(a: np.ndarray) -> tuple[Any, ...]:
    """Where the elements of an array lie."""
    steps = [step for size, step in zip(a.shape, a.strides, strict=True) if size > 1]
    return a.__array_interface__["data"][0], a.shape, steps


def _vector_pieces(m: np.ndarray, v: np.ndarray, out: np.ndarray) -> Any:
    """Cut matrices along their first axis, and the vector too unless it is a row."""
    if m.size <= _CHUNK:
        return ((m, v, out),)
    if len(v) == len(m):
        return _row_pieces(m, v, out)
    return ((m, v, out) for m, out in _row_pieces(m, out))


def _float_type(dtype: Any) -> type:
    try:
        given = np.dtype(dtype)
    except TypeError:
        given = None
    if given is None or given.kind != "f":
        raise ValidationError(
            f"the dtype of a handler is a floating point type, not {dtype!r}"
        )
    return given.type


def _numbers(arr: Any) -> np.ndarray:
    arr = np.asarray(arr)
    if arr.dtype.kind not in "biuf":
        raise HandlerError(
            "expected an array of booleans, integers or floats, got one of dtype"
            f" {arr.dtype}"
        )
    return arr


def _as_lists(state: Any) -> Any:
    if isinstance(state, dict):
        return {k: _as_lists(v) for k, v in state.items()}
    return state.tolist() if isinstance(state, np.ndarray) else state
