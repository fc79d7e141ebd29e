"""Arrays in the memory of a GPU, and views of them."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from brainstorm.utils import HandlerError

ITEM = np.dtype(np.float32)
# Kernels and libraries count with 32 bits.
MOST = 2**31 - 1


class OperationError(HandlerError):
    """An operation failed; `checked` adds its name to the text."""


class _Places:
    """Lets NumPy calculate with addresses that it must never look at."""

    def __init__(self, pointer: int, shape: tuple[int, ...]):
        self.__array_interface__ = {
            "version": 3,
            "data": (pointer, False),
            "shape": shape,
            "typestr": ITEM.str,
        }


class CudaArray:
    """A float32 array on the GPU, or a view of one, as NumPy's arrays are views.

    Indexing with integers, slices without steps and ``...``, `swapaxes` and `reshape`
    give views of the same memory; `reshape` copies where no view can have that shape.
    For all else there are the handler's operations. Other libraries (PyTorch, CuPy)
    can use the memory through ``__cuda_array_interface__``.

    Attributes:
        shape (tuple[int, ...]): The sizes.
        strides (tuple[int, ...]): Distances between neighbours, in elements.
        size (int): Number of elements.
        ndim (int): Number of dimensions.
        dtype (numpy.dtype): float32.
        pointer (int): Address of the first element.
        memory: Owner of the memory; its method ``copy(array)`` gives a dense copy.
        contiguous (bool): Whether the elements lie side by side, in C order.
        layout (tuple): Shape and strides.
    """

    __slots__ = (
        "__weakref__",
        "_places",
        "contiguous",
        "layout",
        "memory",
        "pointer",
        "shape",
        "size",
        "strides",
    )
    dtype = ITEM

    def __init__(self, memory: Any, places: np.ndarray):
        self.memory: Any = memory
        self._places = places
        self.pointer: int = places.__array_interface__["data"][0]
        self.shape: tuple[int, ...] = places.shape
        self.size: int = places.size
        self.strides: tuple[int, ...] = tuple(
            [s // ITEM.itemsize for s in places.strides]
        )
        self.contiguous: bool = places.flags.c_contiguous
        self.layout: tuple[tuple[int, ...], ...] = (self.shape, self.strides)

    @classmethod
    def on(cls, memory: Any, pointer: int, shape: tuple[int, ...]) -> CudaArray:
        """A dense array at an address."""
        return cls(memory, np.asarray(_Places(pointer, shape)))

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "data": (self.pointer if self.size else 0, False),
            "shape": self.shape,
            "strides": self._places.strides,
            "typestr": ITEM.str,
            "stream": 1,  # the default stream
        }

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError(
            "an array on the GPU is not converted to a NumPy array on its own; use"
            " handler.get_numpy_copy(array), or net.get(path)"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> CudaArray:
        return self.memory.copy(self)

    def __reduce__(self) -> Any:
        raise TypeError(
            "an array on the GPU can not be pickled; pickle a copy by"
            " handler.get_numpy_copy(array), or net.get(path)"
        )

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f"CudaArray(shape={self.shape}, strides={self.strides})"

    def __getitem__(self, item: Any) -> CudaArray:
        items = item if isinstance(item, tuple) else (item,)
        items = tuple([part if part is ... else _index(part) for part in items])
        if not any(part is ... for part in items):
            items = (*items, ...)  # a single element, too, is a view then
        return CudaArray(self.memory, self._places[items])

    def swapaxes(self, axis1: int, axis2: int) -> CudaArray:
        """A view with two axes interchanged."""
        return CudaArray(self.memory, self._places.swapaxes(axis1, axis2))

    def reshape(self, *shape: Any) -> CudaArray:
        """An array of the same elements, in C order, with another shape.

        Args:
            *shape: The sizes, or a tuple of them. One may be -1: what remains.

        Raises:
            ValueError: The number of elements differs.
        """
        if len(shape) == 1 and not hasattr(shape[0], "__index__"):
            shape = tuple(shape[0])
        if self.contiguous:
            return CudaArray(self.memory, self._places.reshape(shape))
        shape = np.empty(self.shape, np.void(0).dtype).reshape(shape).shape
        try:
            return CudaArray(self.memory, _view(self._places, shape))
        except (AttributeError, ValueError):
            return self.memory.copy(self).reshape(shape)


def _index(part: Any) -> Any:
    if isinstance(part, slice):
        if part.step not in (None, 1):
            raise IndexError(f"views on the GPU have no steps, got {part}")
        return part
    try:
        return operator.index(part)
    except TypeError:
        raise IndexError(
            "arrays on the GPU are indexed with integers, slices and '...', not with"
            f" {part!r}"
        ) from None


if np.lib.NumpyVersion(np.__version__) >= "2.1.0":

    def _view(places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """A view with another shape, or an error."""
        reshape: Any = places.reshape  # the hints of older versions know no copy
        return reshape(shape, copy=False)

else:

    def _view(places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """A view with another shape, or an error."""
        view = places[...]
        view.shape = shape
        return view


def place_of(array: CudaArray) -> tuple[int, ...]:
    """An array as kernels take it: address, and distances along the first axes.

    The last one has to be dense.
    """
    if array.shape[-1] > 1 and array.strides[-1] != 1:
        raise OperationError(f"the last axis has to be dense, got {array!r}")
    return (array.pointer, *array.strides[:-1])


def vector(array: CudaArray) -> int:
    """Address of a parameter, or of something like it.

    Raises:
        OperationError: Its elements do not lie side by side.
    """
    if not array.contiguous:
        raise OperationError(f"parameters have to be dense, got {array!r}")
    return array.pointer


def sequence(array: CudaArray | None) -> tuple[int, ...]:
    """The kernels' struct Sequence."""
    return (0, 0, 0) if array is None else place_of(array)
