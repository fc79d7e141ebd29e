"""Making arrays, moving what is in them, and random numbers."""

from __future__ import annotations

import math
import operator
import threading
from typing import Any, NamedTuple

import numpy as np

from brainstorm.handlers.operations.contract import expected, in_range, operation
from brainstorm.handlers.operations.part import Part
from brainstorm.literals import Overlap
from brainstorm.utils import HandlerError

__all__ = ["MemoryOperations", "Randomness"]

_MAX_VIEWS = 256


def _check_broadcast(handler: Any, args: dict[str, Any]) -> str | None:
    shape, out, axis = args["a"].shape, args["out"].shape, args["axis"]
    if axis not in range(len(shape)):
        return expected("axis", f"one of {list(range(len(shape)))}", repr(axis))
    if shape[axis] != 1:
        return expected("a", f"size 1 along axis {axis}", f"shape {shape}")
    if len(out) != len(shape) or any(
        n != m for i, (n, m) in enumerate(zip(shape, out, strict=True)) if i != axis
    ):
        return expected("out", f"shape {shape} but for axis {axis}", f"shape {out}")
    return None


def _check_arrays(handler: Any, args: dict[str, Any]) -> str | None:
    dtype = np.dtype(handler.dtype)
    wanted = f"arrays of type {handler.array_type.__name__} and dtype {dtype}"
    for array in args["arrays"]:
        if not isinstance(array, handler.array_type):
            return expected("arrays", wanted, f"a {type(array).__name__}")
        if array.dtype != dtype:
            return expected("arrays", wanted, f"dtype {array.dtype}")
    return None


class MemoryOperations(Part):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    def allocate(self, shape: tuple[int, ...]) -> Any:
        """A new array of the given shape, filled with zeros.

        DebugHandler alone fills it with NaN: count on what you have written.
        """
        raise NotImplementedError

    def ones(self, shape: tuple[int, ...]) -> Any:
        """A new array of the given shape, filled with ones."""
        raise NotImplementedError

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """A new array of the given shape, filled with zeros."""
        raise NotImplementedError

    def scratch(self, shape: tuple[int, ...], slot: Any = 0) -> Any:
        """A temporary array with arbitrary content.

        It stays valid until the same slot is asked for again, also with another
        shape. Primitive operations use slots 0 and 1 themselves, coarse ones 2
        and above; arrays of different slots never share memory. This version simply
        allocates; override it to reuse memory.
        """
        return self.allocate(shape)

    def overlap(self, a: Any, b: Any) -> Overlap:
        """How two arrays share memory.

        This version knows NumPy's arrays; others, for it, share memory if they are one
        object.

        Returns:
            'none'; 'same' if they have the same elements in the same places;
            'part' if they share elements in any other way.
        """
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            if not np.shares_memory(a, b):
                return "none"
            return "same" if _places(a) == _places(b) else "part"
        return "same" if a is b else "none"

    def create_from_numpy(self, arr: np.ndarray) -> Any:
        """A new array with the shape and the values of a NumPy array.

        Args:
            arr: Array of booleans, integers or floats; converted to `dtype`.

        Raises:
            HandlerError: `arr` holds something else.
        """
        raise NotImplementedError

    @operation("mem:*S", finite=False)
    def get_numpy_copy(self, mem: Any) -> np.ndarray:
        """A new NumPy array with the shape, values and `dtype` of `mem`."""
        raise NotImplementedError

    @operation(write="mem:*S", finite=False)
    def set_from_numpy(self, mem: Any, arr: np.ndarray) -> None:
        """Copy a NumPy array of booleans, integers or floats into `mem`.

        Raises:
            HandlerError: The shapes differ, or `arr` holds something else.
        """
        raise NotImplementedError

    @operation("src:*S", "dest:*S", alias="*")
    def copy_to(self, src: Any, dest: Any) -> None:
        """``dest = src``, elementwise."""
        raise NotImplementedError

    @operation("src:*S cond:*S", add="dest:*S", alias="*")
    def copy_to_if(self, src: Any, dest: Any, cond: Any) -> None:
        """``dest = src`` where `cond` is not zero, elementwise."""
        raise NotImplementedError

    @operation(write="mem:*S", finite=False)
    def fill(self, mem: Any, val: float) -> None:
        """Set all elements of `mem` to `val`."""
        raise NotImplementedError

    @operation(check=_check_arrays)
    def clear(self, *arrays: Any) -> None:
        """Fill all of these arrays, of any shapes, with zeros."""
        for array in arrays:
            self.fill(array, 0.0)

    @operation("cond:*S", add="mem:*S", alias="*")
    def fill_if(self, mem: Any, val: float, cond: Any) -> None:
        """``mem = val`` where `cond`, which may be `mem`, is not zero, elementwise."""
        raise NotImplementedError

    @operation(write="out:*S", check=in_range("std", 0, float("inf")))
    def fill_gaussian(self, mean: float, std: float, out: Any) -> None:
        """Fill `out` with values from a normal distribution of that mean and deviation.

        They are reproducible: the generator is seeded from `rnd`.
        """
        raise NotImplementedError

    @operation(write="mask:*S", check=in_range("probability", 0, 1))
    def generate_probability_mask(self, mask: Any, probability: float) -> None:
        """Fill `mask` with ones, with a probability in [0, 1], and zeros.

        They are reproducible: the generator is seeded from `rnd`.
        """
        raise NotImplementedError

    @operation("a:*S", finite=False)
    def is_fully_finite(self, a: Any) -> bool:
        """Whether an array has neither NaN nor infinity in it."""
        raise NotImplementedError

    @operation("a:*S", "out:*R", check=_check_broadcast)
    def broadcast_t(self, a: Any, axis: int, out: Any) -> None:
        """Repeat the elements of `a`, which has size 1 along an axis, along that."""
        raise NotImplementedError

    @operation("a:*L,A b:*L,B", "out:*L,A+B")
    def merge_tt(self, a: Any, b: Any, out: Any) -> None:
        """Join two arrays along their last axis."""
        raise NotImplementedError

    @operation(add="out_a:*L,A out_b:*L,B", read="x:*L,A+B")
    def split_add_tt(self, x: Any, out_a: Any, out_b: Any) -> None:
        """Split `x` along its last axis and add each part to an array."""
        raise NotImplementedError

    def _rows(self, array: Any, slot: int, filled: bool = True) -> Any:
        """An array (T, B, N) as a matrix (M, N).

        It is a view, or where strides allow none a temporary, with the values of the
        array if it is to be `filled`.
        """
        shape = (array.shape[0] * array.shape[1], array.shape[2])
        if _folds(array):
            return array.reshape(shape)
        rows = self.scratch(shape, slot)
        if filled:
            self.copy_to(array, rows.reshape(array.shape))
        return rows

    def _put_rows(self, rows: Any, array: Any) -> None:
        """Let an array have what was written into its `_rows`."""
        if not _folds(array):
            self.copy_to(rows.reshape(array.shape), array)

    def _pieces(self, *arrays: Any) -> Any:
        """Arrays of one shape, cut alike into pieces to work on one after the other."""
        return (arrays,)


class Randomness(NamedTuple):
    """Where the random numbers of one operation come from.

    Together with the place of an element it is all that its number depends on.

    Attributes:
        seed: Drawn from the handler's `rnd`, in [0, 2**32).
        call: How many operations drew with that seed before, below 2**64.
    """

    seed: int = 0
    call: int = 0

    def following(self) -> Randomness:
        """That of the next operation."""
        return Randomness(self.seed, self.call + 1)

    def state(self) -> dict[str, Any]:
        """It as a JSON-serializable dict."""
        return self._asdict()

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Randomness:
        """What `state` gave, checked."""
        seed, call = map(operator.index, (state["seed"], state["call"]))
        if len(state) > 2 or not (0 <= seed < 2**32 and 0 <= call < 2**64):
            raise ValueError(f"expected a seed and a number of calls, got {state}")
        return cls(seed, call)


class Workspace(threading.local):
    """Reusable memory for temporaries, for each thread its own.

    Attributes:
        buffers (dict): The memory for each slot.
        views (dict): Arrays in it, by slot and shape.
    """

    def __init__(self) -> None:
        self.buffers: dict[Any, Any] = {}
        self.views: dict[tuple[Any, tuple[int, ...]], Any] = {}

    def grow(self, slot: Any, shape: tuple[int, ...], allocate: Any) -> Any:
        """Make the view for a slot and a shape that has none yet."""
        size = math.prod(shape)
        buffer = self.buffers.pop(slot, None)
        if buffer is None or buffer.size < size:
            self.views = {k: v for k, v in self.views.items() if k[0] != slot}
            buffer = None  # free it before there is more
            buffer = allocate((size,))
        self.buffers[slot] = buffer
        if len(self.views) >= _MAX_VIEWS:
            self.views.clear()
        view = self.views[slot, shape] = buffer[:size].reshape(shape)
        return view


def numbers(arr: Any) -> np.ndarray:
    """A NumPy array of booleans, integers or floats, or an error."""
    arr = np.asarray(arr)
    if arr.dtype.kind not in "biuf":
        raise HandlerError(
            "expected an array of booleans, integers or floats, got one of dtype"
            f" {arr.dtype}"
        )
    return arr


def check_shape(arr: np.ndarray, mem: Any) -> None:
    """Refuse to copy between arrays of different shapes."""
    if mem.shape != arr.shape:
        raise HandlerError(
            f"set_from_numpy: can not copy an array of shape {arr.shape} into one of"
            f" shape {mem.shape}"
        )


def _places(a: np.ndarray) -> tuple[Any, ...]:
    """Where the elements of an array lie."""
    steps = [step for size, step in zip(a.shape, a.strides, strict=True) if size > 1]
    return a.__array_interface__["data"][0], a.shape, steps


def _folds(array: Any) -> bool:
    """Whether the rows of all steps (T, B, N) are the rows of one matrix."""
    steps, batch, _ = array.shape
    strides = getattr(array, "strides", None)
    if strides is None or steps < 2 or batch < 2:
        return True
    return strides[0] == batch * strides[1]
