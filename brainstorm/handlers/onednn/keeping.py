"""Keys for what is prepared for arrays, and how long it is kept.

An address alone tells nothing: memory that was freed comes back as something else. So
whatever is prepared for memory is kept under all arrays that it touches, each with its
address and layout, or by the identity of arrays that are alive.
"""

from __future__ import annotations

import ctypes
import random
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from brainstorm.handlers.numpy.memory import Pages
from brainstorm.handlers.onednn.definitions import UnimplementedError
from brainstorm.utils import HandlerError

_ALIGNED_AND_WRITABLE = 0x100 | 0x400
_pointer_at = ctypes.c_size_t.from_address
_HEAD = object.__basicsize__


def _public_address_of(array: np.ndarray | None) -> int:
    return 0 if array is None else array.__array_interface__["data"][0]


def address_of(array: np.ndarray | None) -> int:
    """Where the first element of an array lies; 0 for None."""
    # The first field of an array, behind the head that all objects have. Asking for it
    # in public takes ten times as long.
    return 0 if array is None else _pointer_at(id(array) + _HEAD).value


def _check() -> None:
    array = np.zeros(3)[1:]
    if address_of(array) != _public_address_of(array):
        globals()["address_of"] = _public_address_of


_check()


def layout_of(array: np.ndarray | None) -> Any:
    """All that matters about an array but its address and content."""
    if array is None:
        return None
    flags = array.flags.num & _ALIGNED_AND_WRITABLE
    return array.shape, array.strides, array.dtype, flags


def place_of(array: np.ndarray | None) -> Any:
    """What two arrays have in common that can share what is prepared for memory."""
    return None if array is None else (address_of(array), layout_of(array))


def owner_of(array: np.ndarray) -> np.ndarray | None:
    """The array whose memory this is a view of; None if that belongs to no array."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array if array.base is None or type(array.base) is Pages else None


class KnownArrays:
    """Values by the identity of arrays, which are forgotten when one of these dies.

    So no key ever holds the ``id`` of an array that is gone. When there are `limit`
    values no more are noted until some die.
    """

    def __init__(self, limit: int):
        self.values: dict[tuple[Any, ...], Any] = {}
        self._limit = limit
        self._references: dict[tuple[Any, ...], list[weakref.ref]] = {}
        self._met: dict[tuple[Any, ...], list[weakref.ref]] = {}

    def note(self, key: tuple[Any, ...], arrays: Sequence[Any], value: Any) -> None:
        """Note a value, if these very arrays, whose ids the key has, come once more.

        Most arrays that are views of single time steps are met only once. None stands
        for a missing one.
        """
        present = [array for array in arrays if array is not None]
        met = self._met.pop(key, None)
        if met is None or any(r() is not a for r, a in zip(met, present, strict=True)):
            if len(self._met) >= self._limit:
                self._met.clear()
            self._met[key] = [weakref.ref(array) for array in present]
            return
        if len(self.values) >= self._limit:
            return
        # No reference to `self`: it goes with its owner, not with the arrays.
        values, references = self.values, self._references

        def forget(_: weakref.ref) -> None:
            values.pop(key, None)
            references.pop(key, None)

        references[key] = [weakref.ref(array, forget) for array in present]
        values[key] = value

    def forget(self, key: tuple[Any, ...]) -> None:
        """Forget a value."""
        self.values.pop(key, None)
        self._references.pop(key, None)


class Kept:
    """Values by key, whose sizes sum up to no more than a limit, but for the last one.

    Beyond that any one is dropped, and `dropped` called with it. (Dropping the oldest
    one, or that which was not used for longest, would never find one again where they
    come in turn.)
    """

    def __init__(self, limit: float, dropped: Callable[[Any], None] | None = None):
        self._limit = limit
        self._dropped = dropped
        self._total = 0.0
        self._values: dict[Hashable, Any] = {}
        self._sizes: dict[Hashable, float] = {}
        self._choose = random.Random(0)
        self.get: Callable[..., Any] = self._values.get

    def __len__(self) -> int:
        return len(self._values)

    def put(self, key: Hashable, value: Any, size: float = 1.0) -> None:
        """Keep a value under a new key."""
        while self._values and self._total + size > self._limit:
            victim = self._choose.choice(list(self._values))
            self._total -= self._sizes.pop(victim)
            dropped = self._values.pop(victim)
            if self._dropped is not None:
                self._dropped(dropped)
        self._values[key], self._sizes[key] = value, size
        self._total += size


class Region:
    """The place of an array, by which it is found as long as its memory lives.

    Args:
        array: The array. No reference to it is kept.
        computed: This many of its last rows are no part of what `overlaps` asks for.

    Attributes:
        owner: A reference to the array that owns the memory.

    Raises:
        UnimplementedError: The memory belongs to no array.
    """

    def __init__(self, array: np.ndarray, computed: int = 0):
        owner = owner_of(array)
        if owner is None:
            raise UnimplementedError("expected memory of an array")
        self.owner: weakref.ref[np.ndarray] = weakref.ref(owner)
        self._interface = {
            "version": 3,
            "data": (address_of(array), False),
            "shape": array.shape,
            "strides": array.strides,
            "typestr": array.dtype.str,
        }
        self._extent = extent_of(array[: len(array) - computed])

    def overlaps(self, array: np.ndarray) -> bool:
        """Whether an array lies between the same addresses, at least in part."""
        (start, stop), (first, last) = self._extent, extent_of(array)
        return start < last and first < stop

    def array(self) -> np.ndarray:
        """The array once more, if its memory is still there."""
        owner = self.owner()
        if owner is None:
            raise HandlerError("expected the memory of all cells to be there still")
        return np.asarray(_Buffer(owner, self._interface))


class _Buffer:
    """Keeps the owner of memory alive for an array that is made of it."""

    def __init__(self, owner: np.ndarray, interface: dict[str, Any]):
        self._owner = owner
        self.__array_interface__ = interface


def extent_of(array: np.ndarray) -> tuple[int, int]:
    """The addresses between which an array lies."""
    start = address_of(array)
    if not array.size:
        return start, start
    ends = [
        (size - 1) * stride
        for size, stride in zip(array.shape, array.strides, strict=True)
    ]
    first = start + sum(end for end in ends if end < 0)
    last = start + sum(end for end in ends if end > 0)
    return first, last + array.itemsize
