"""Making arrays, moving what is in them, and random numbers, with NumPy."""

from __future__ import annotations

import functools
import math
import mmap
from collections.abc import Callable
from typing import Any

import numpy as np

from brainstorm.handlers.numpy.draws import BLOCK, OldStream, Stream
from brainstorm.handlers.numpy.pieces import pieces, row_pieces
from brainstorm.handlers.operations.memory import (
    MemoryOperations,
    Workspace,
    check_shape,
    numbers,
)
from brainstorm.handlers.programs import whole

# From so many bytes on, arrays of zeros have pages of their own.
_LARGE_MEMORY = 2**20
_PRIVATE = {"flags": mmap.MAP_PRIVATE} if hasattr(mmap, "MAP_PRIVATE") else {}


class Pages(mmap.mmap):
    """Memory of one array, which is the base of all others that lie in it."""


def untouched_zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros; of large arrays the parts that nobody uses take no memory.

    NumPy would write zeros where freed memory comes back.
    """
    size = math.prod(np.ravel(shape).tolist()) * np.dtype(dtype).itemsize
    if size < _LARGE_MEMORY:
        return np.zeros(shape, dtype)
    try:
        pages = Pages(-1, size, **_PRIVATE)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"can not allocate {size} bytes") from error
    return np.ndarray(shape, dtype, pages)


class NumpyMemory(MemoryOperations):
    """Part of NumpyHandler."""

    _workspace: Workspace
    _stream: Stream
    _drawn_dtype: Any
    _draw: Callable[[], Any]
    _ones: np.ndarray
    _zero: np.ndarray
    _one: np.ndarray
    _minus_one: np.ndarray

    @whole
    def fill_gaussian(self, mean: float, std: float, out: Any) -> None:
        def fill(stream: Any, part: np.ndarray) -> None:
            values = self._temporary(part.shape, "random", self._drawn_dtype)
            stream.normal(values)
            np.multiply(values, float(std), values)
            np.add(values, float(mean), values)
            part[...] = values

        self._fill_blocks(fill, out)

    @whole
    def generate_probability_mask(self, mask: Any, probability: float) -> None:
        def fill(stream: Any, part: np.ndarray) -> None:
            chosen = self._temporary(part.shape, "bool", np.bool_)
            stream.choose(float(probability), chosen)
            part[...] = chosen

        self._fill_blocks(fill, mask)

    def _fill_blocks(
        self, fill: Callable[[Any, np.ndarray], None], array: np.ndarray
    ) -> None:
        """Fill an array block by block with what ``fill(stream, block)`` draws."""
        dense = array
        if not array.flags.c_contiguous:
            dense = self.scratch(array.shape, "drawn")
        flat, randomness = dense.reshape(-1), self._draw()
        begin: Callable[[Any, int], Any] = self._stream.begin
        if isinstance(randomness, OldStream):
            begin = OldStream.begin
        for number, start in enumerate(range(0, flat.size, BLOCK)):
            fill(begin(randomness, number), flat[start : start + BLOCK])
        if dense is not array:
            array[...] = dense

    def allocate(self, shape: tuple[int, ...]) -> Any:
        return untouched_zeros(shape, self.dtype)

    def ones(self, shape: tuple[int, ...]) -> Any:
        return np.ones(shape, self.dtype)

    def zeros(self, shape: tuple[int, ...]) -> Any:
        return untouched_zeros(shape, self.dtype)

    def scratch(self, shape: tuple[int, ...], slot: Any = 0) -> Any:
        return self._temporary(shape, slot, self.dtype)

    def _temporary(self, shape: tuple[int, ...], slot: Any, dtype: Any) -> np.ndarray:
        """An array of a slot; a slot is always used with the same dtype."""
        workspace = self._workspace
        try:
            return workspace.views[slot, shape]
        except KeyError:
            allocate = functools.partial(np.empty, dtype=dtype)
            return workspace.grow(slot, shape, allocate)

    def create_from_numpy(self, arr: np.ndarray) -> Any:
        return np.array(numbers(arr), dtype=self.dtype, order="C")

    def get_numpy_copy(self, mem: Any) -> np.ndarray:
        return mem.copy()

    @whole
    def set_from_numpy(self, mem: Any, arr: np.ndarray) -> None:
        if type(arr) is not np.ndarray or arr.dtype.kind not in "biuf":
            arr = numbers(arr)
        check_shape(arr, mem)
        mem[...] = arr

    def copy_to(self, src: Any, dest: Any) -> None:
        self.do(dest.__setitem__, ..., src)

    def copy_to_if(self, src: Any, dest: Any, cond: Any) -> None:
        for src, dest, cond in pieces(src, dest, cond):
            self.do(np.copyto, dest, src, where=self._nonzero(cond))

    def fill(self, mem: Any, val: float) -> None:
        self.do(mem.fill, self.number(val))

    def fill_if(self, mem: Any, val: float, cond: Any) -> None:
        for mem, cond in pieces(mem, cond):
            self.do(np.copyto, mem, self.number(val), where=self._nonzero(cond))

    def _nonzero(self, cond: np.ndarray) -> np.ndarray:
        chosen = self._temporary(cond.shape, "bool", np.bool_)
        self.do(np.not_equal, cond, self._zero, chosen)
        return chosen

    def broadcast_t(self, a: Any, axis: int, out: Any) -> None:
        self.do(out.__setitem__, ..., a)

    def merge_tt(self, a: Any, b: Any, out: Any) -> None:
        self.do(np.concatenate, (a, b), -1, out)

    def split_add_tt(self, x: Any, out_a: Any, out_b: Any) -> None:
        cut = out_a.shape[-1]
        for part, out in ((x[..., :cut], out_a), (x[..., cut:], out_b)):
            for part, out in row_pieces(part, out):
                added = self.scratch(part.shape)
                self.do(added.__setitem__, ..., part)
                self.do(np.add, out, added, out)

    def is_fully_finite(self, a: Any) -> bool:
        for (part,) in pieces(a):
            finite = self._temporary(part.shape, "bool", np.bool_)
            np.isfinite(part, finite)
            if np.count_nonzero(finite) < finite.size:
                return False
        return True

    def _contiguous(self, m: np.ndarray) -> np.ndarray:
        if m.flags.c_contiguous:
            return m
        copy = self.scratch(m.shape, 1)
        self.do(copy.__setitem__, ..., m)
        return copy

    def _put(self, values: np.ndarray, out: np.ndarray, fresh: bool) -> None:
        """Copy or add values to `out`."""
        if fresh:
            np.copyto(out, values)
        else:
            np.add(out, self._dense(values, "total"), out)

    def _dense(self, array: np.ndarray, slot: str) -> np.ndarray:
        """The array itself if it is contiguous, else a copy in a temporary."""
        if array.flags.c_contiguous:
            return array
        copy = self.scratch(array.shape, slot)
        np.copyto(copy, array)
        return copy
