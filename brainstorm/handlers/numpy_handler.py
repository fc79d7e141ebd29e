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
from brainstorm.handlers.coarse_operations import SMALLEST_PROBABILITY
from brainstorm.handlers.numpy_activations import NumpyActivations
from brainstorm.handlers.numpy_conv import NumpyConvolutions
from brainstorm.handlers.numpy_pieces import pieces, row_pieces, vector_pieces
from brainstorm.handlers.numpy_rows import NumpyRows
from brainstorm.handlers.numpy_updates import NumpyUpdates
from brainstorm.handlers.programs import whole
from brainstorm.utils import HandlerError, ValidationError, listing

__all__ = ["NumpyHandler"]

# So many rows make a block. Up to four blocks are summed in one go.
ROWS_AT_ONCE = 32
COLUMNS_AT_ONCE = 2048

_MAX_VIEWS = 256


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


class NumpyHandler(
    NumpyActivations, NumpyRows, NumpyConvolutions, NumpyUpdates, Handler
):
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
    records_leaves = True

    def __init__(self, dtype: Any = np.float32, seed: int | None = None):
        super().__init__(seed)
        self.dtype = _float_type(dtype)
        self.EMPTY = np.zeros(0, self.dtype)
        self._set_constants(self.dtype)
        self._set_limits(self.dtype)
        self._ones = np.ones(4 * ROWS_AT_ONCE, self.dtype)
        self._range = np.arange(1)
        self._numbers = np.zeros((0, 0), self.dtype)
        self._largest_loss = np.array(-math.log(SMALLEST_PROBABILITY), self.dtype)
        self._largest_indices: dict[int, np.ndarray] = {}
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

    @whole
    def fill_gaussian(self, mean, std, out):
        for (part,) in pieces(out):
            draws = self._random(part.shape, normal=True)
            np.multiply(draws, float(std), draws)
            np.add(draws, float(mean), draws)
            part[...] = draws

    @whole
    def generate_probability_mask(self, mask, probability):
        for (part,) in pieces(mask):
            chosen = self._temporary(part.shape, "bool", np.bool_)
            np.less(self._random(part.shape, normal=False), float(probability), chosen)
            part[...] = chosen

    # -- memory --------------------------------------------------------------

    def release(self):
        self._workspace = _Workspace()  # of all threads

    def allocate(self, shape):
        return np.zeros(shape, self.dtype)

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

    def create_from_numpy(self, arr):
        return np.array(_numbers(arr), dtype=self.dtype, order="C")

    def get_numpy_copy(self, mem):
        return mem.copy()

    @whole
    def set_from_numpy(self, mem, arr):
        if type(arr) is not np.ndarray or arr.dtype.kind not in "biuf":
            arr = _numbers(arr)
        if mem.shape != arr.shape:
            raise HandlerError(
                f"can not copy an array of shape {arr.shape} into one of shape"
                f" {mem.shape}"
            )
        mem[...] = arr

    def copy_to(self, src, dest):
        self.do(dest.__setitem__, ..., src)

    def copy_to_if(self, src, dest, cond):
        for src, dest, cond in pieces(src, dest, cond):
            self.do(np.copyto, dest, src, where=self._nonzero(cond))

    def fill(self, mem, val):
        self.do(mem.fill, self.number(val))

    def fill_if(self, mem, val, cond):
        for mem, cond in pieces(mem, cond):
            self.do(np.copyto, mem, self.number(val), where=self._nonzero(cond))

    def _nonzero(self, cond: np.ndarray) -> np.ndarray:
        chosen = self._temporary(cond.shape, "bool", np.bool_)
        self.do(np.not_equal, cond, self._zero, chosen)
        return chosen

    # -- elementwise, tensors ------------------------------------------------

    def abs_t(self, a, out):
        self.do(np.abs, a, out)

    def add_st(self, s, t, out):
        self.do(np.add, t, self.number(s), out)

    def add_tt(self, a, b, out):
        self.do(np.add, a, b, out)

    def add_into_if(self, a, out, cond):
        for a, out, cond in pieces(a, out, cond):
            self.do(np.add, out, a, out=out, where=self._nonzero(cond))

    def clip_t(self, a, a_min, a_max, out):
        self.do(np.maximum, a, self.number(a_min), out=out)
        self.do(np.minimum, out, self.number(a_max), out=out)

    def divide_tt(self, a, b, out):
        self.do(np.divide, a, b, out)

    def log_t(self, a, out):
        self.do(np.log, a, out)

    def modulo_tt(self, a, b, out):
        self.do(np.mod, a, b, out)

    def mult_add_st(self, s, t, out):
        s = self.number(s)
        for t, out in pieces(t, out):
            product = self.scratch(t.shape)
            self.do(np.multiply, t, s, product)
            self.do(np.add, out, product, out)

    def mult_add_tt(self, a, b, out):
        for a, b, out in pieces(a, b, out):
            product = self.scratch(a.shape)
            self.do(np.multiply, a, b, product)
            self.do(np.add, out, product, out)

    def mult_st(self, s, t, out):
        self.do(np.multiply, t, self.number(s), out)

    def mult_tt(self, a, b, out):
        self.do(np.multiply, a, b, out)

    def sign_t(self, a, out):
        self.do(np.sign, a, out)

    def sqrt_t(self, a, out):
        self.do(np.sqrt, a, out)

    def subtract_tt(self, a, b, out):
        self.do(np.subtract, a, b, out)

    # -- elementwise, matrix and vector --------------------------------------

    def add_mv(self, m, v, out):
        self._with_vector(np.add, m, v, out)

    def divide_mv(self, m, v, out):
        self._with_vector(np.divide, m, v, out)

    def mult_mv(self, m, v, out):
        self._with_vector(np.multiply, m, v, out)

    def mult_add_mv(self, m, v, out):
        for m, v, out in vector_pieces(m, v, out):
            product = self.scratch(m.shape)
            self._with_vector(np.multiply, m, v, product)
            self.do(np.add, out, product, out)

    def subtract_mv(self, m, v, out):
        self._with_vector(np.subtract, m, v, out)

    def _with_vector(self, ufunc: np.ufunc, m, v, out) -> None:
        """Call a function with a vector that is repeated to the size of a matrix.

        Where operands have different strides NumPy allocates buffers, which takes
        longer than repeating a row; so the vector is repeated beforehand.
        """
        if v.shape == m.shape:
            self.do(ufunc, m, v, out)
            return
        for m, v, out in vector_pieces(m, v, out):
            wide = self.scratch(m.shape, 1)
            self.do(wide.__setitem__, ..., v)
            self.do(ufunc, m, wide, out)

    # -- products, sums and rearrangements -----------------------------------

    def dot_mm(self, a, b, out, transa=False, transb=False):
        # Unlike np.dot, this copies no strided views.
        self.do(np.matmul, a.T if transa else a, b.T if transb else b, out)

    def dot_add_mm(self, a, b, out, transa=False, transb=False):
        product = self.scratch(out.shape)
        self.do(np.matmul, a.T if transa else a, b.T if transb else b, product)
        self.do(np.add, out, product, out)

    def sum_t(self, a, axis, out):
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

    def _sum_rows(self, m, out, fresh):
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

    def _contiguous(self, m: np.ndarray) -> np.ndarray:
        if m.flags.c_contiguous:
            return m
        copy = self.scratch(m.shape, 1)
        self.do(copy.__setitem__, ..., m)
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
        self.do(out.__setitem__, ..., a)

    def merge_tt(self, a, b, out):
        self.do(np.concatenate, (a, b), -1, out)

    def split_add_tt(self, x, out_a, out_b):
        cut = out_a.shape[-1]
        for part, out in ((x[..., :cut], out_a), (x[..., cut:], out_b)):
            for part, out in row_pieces(part, out):
                added = self.scratch(part.shape)
                self.do(added.__setitem__, ..., part)
                self.do(np.add, out, added, out)

    def is_fully_finite(self, a):
        for (part,) in pieces(a):
            finite = self._temporary(part.shape, "bool", np.bool_)
            np.isfinite(part, finite)
            if np.count_nonzero(finite) < finite.size:
                return False
        return True

    # -- coarse operations ---------------------------------------------------

    def act_backward(self, x, y, dy, dx, activation, fresh_dx=False):
        for x, y, dy, dx in pieces(x, y, dy, dx):
            super().act_backward(x, y, dy, dx, activation, fresh_dx)

    def dropout_forward(self, x, mask, y, drop_prob):
        for x, mask, y in pieces(x, mask, y):
            super().dropout_forward(x, mask, y, drop_prob)


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
