"""Buffers as rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import Any, NamedTuple

from brainstorm.structure.buffer_views import BufferView
from brainstorm.utils import HandlerError, flatten_features, flatten_time_and_features

__all__ = ["Rows", "as_column", "by_sequences"]


class _Found(NamedTuple):
    """Rows, and pairs of array and copy."""

    rows: list[Any]
    to_load: list[tuple[Any, Any]]
    to_store: list[tuple[Any, Any]]


class Rows:
    """Buffers of a layer in the shape that its passes need; by default as rows.

    ``rows(buffers)`` gives views of all of them, and remembers these until the network
    is resized. A layer has it as an attribute of its class::

        rows = Rows("inputs.default", writes=["outputs.default"])

    Where an output with several feature dimensions is joined with others into one
    input, its features lie apart, and there may be no such view. A layer for which that
    is possible calls `load` and `store` instead: they give copies there, and move the
    values.

    Args:
        *paths: Buffers that are only read, such as ``'inputs.default'``. For one that
            the layer does not have there is None.
        writes: Buffers that are written to; they come last.
        shape: Gives such a view of an array, or else raises a HandlerError.
    """

    def __init__(
        self,
        *paths: str,
        writes: Sequence[str] = (),
        shape: Callable[[Any], Any] = flatten_time_and_features,
    ):
        self._paths = (*paths, *writes)
        self._writes = frozenset(writes)
        self._shape = shape
        self._key = " ".join(("_rows", shape.__qualname__, *paths, "->", *writes))
        self._key_of_copies = f"{self._key} copied"

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, layer: Any, owner: type | None = None) -> Rows:
        """The rows of a layer; other ones if its buffers have no time."""
        if layer is None or not layer.time_is_optional or layer.has_time:
            return self
        rows = layer.__dict__[self._name] = copy(self)
        if self._shape in (flatten_features, flatten_time_and_features):
            rows._shape = by_sequences
        return rows

    def __call__(self, buffers: BufferView) -> list[Any]:
        """Views of all buffers.

        Raises:
            HandlerError: There is no such view.
        """
        found = buffers.__dict__.get(self._key)
        if found is None:
            found = buffers.__dict__[self._key] = [
                None if array is None else self._shape(array)
                for array in self._arrays(buffers)
            ]
        return found

    def load(self, handler: Any, buffers: BufferView) -> list[Any]:
        """Views of all buffers, or copies that have their values."""
        found = buffers.__dict__.get(self._key_of_copies) or self._copy(buffers)
        for array, copied in found.to_load:
            handler.copy_to(array, copied)
        return found.rows

    def store(self, handler: Any, buffers: BufferView) -> None:
        """Let written buffers have the values of what `load` gave."""
        for array, copied in buffers.__dict__[self._key_of_copies].to_store:
            handler.copy_to(copied, array)

    def _arrays(self, buffers: BufferView) -> Iterator[Any]:
        for path in self._paths:
            category, name = path.split(".")
            yield buffers[path] if name in buffers[category] else None

    def _copy(self, buffers: BufferView) -> _Found:
        """Find the rows, and copy what has no such view."""
        found = buffers.__dict__[self._key_of_copies] = _Found([], [], [])
        for path, array in zip(self._paths, self._arrays(buffers), strict=True):
            try:
                found.rows.append(None if array is None else self._shape(array))
            except HandlerError:
                # What has no such view has no flat one: this copies.
                flat = array.reshape((math.prod(array.shape),))
                pair = array, flat.reshape(array.shape)
                found.rows.append(self._shape(pair[1]))
                found.to_load.append(pair)
                if path in self._writes:
                    found.to_store.append(pair)
        return found


def by_sequences(array: Any) -> Any:
    """View ``(B, ...)`` as the matrix ``(B, F)``."""
    return flatten_features(array, 1)


def as_column(array: Any) -> Any:
    """View an array as the matrix ``(N, 1)``."""
    flat = flatten_features(array, 0)
    return flat.reshape((*flat.shape, 1))
