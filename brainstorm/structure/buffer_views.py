"""Named access to buffers: ``view.parameters.W`` and ``view['parameters.W']``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from brainstorm.utils import UnknownNameError, listing

__all__ = ["BufferView"]


class BufferView(list):
    """A list of buffers (arrays or further views) that also have names.

    >>> view = BufferView(['W', 'bias'], [[1, 2], [3]])
    >>> view.W, view['bias'], 'W' in view
    ([1, 2], [3], True)
    >>> W, bias = view

    Args:
        buffer_names: Names of the children.
        buffers: The children, in the same order.
        full_buffer: One array that holds all children side by side, where
            they are contiguous. Available as ``_full_buffer``.
        complete: Called once, when something is asked for that is not there
            yet; it has to `fill` this view. A network's backward buffers are
            only allocated when somebody wants them.
    """

    # Children live in __dict__ too, so that layers reach them at the speed of
    # plain attributes; __getattr__ only sees names that are not there.

    def __init__(
        self,
        buffer_names: Sequence[str],
        buffers: Iterable[Any],
        full_buffer: Any = None,
        complete: Callable[[], None] | None = None,
    ):
        super().__init__()
        self.fill(buffer_names, buffers, full_buffer)
        self._complete = complete

    def fill(
        self, buffer_names: Sequence[str], buffers: Iterable[Any], full_buffer: Any
    ) -> None:
        """Set all children; they are complete then."""
        self._complete = None
        self[:] = buffers
        self._buffer_names = tuple(buffer_names)
        if len(self._buffer_names) != list.__len__(self):
            raise ValueError(
                f"got {list.__len__(self)} buffers for {len(self._buffer_names)} names"
            )
        self._full_buffer = full_buffer
        self.__dict__.update(zip(self._buffer_names, list.__iter__(self), strict=True))

    def _ensure_complete(self) -> None:
        if self._complete is not None:
            self._complete()

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            self._ensure_complete()
            if name in self._buffer_names:
                return self.__dict__[name]
        raise AttributeError(
            f"no buffer {name!r}; choices are: {listing(self._buffer_names)}"
        )

    def __getitem__(self, item: Any) -> Any:
        if not isinstance(item, str):
            self._ensure_complete()
            return list.__getitem__(self, item)
        node: Any = self
        for name in item.split("."):
            if not isinstance(node, BufferView) or name not in node:
                choices = BufferView.keys(node) if isinstance(node, BufferView) else ()
                raise UnknownNameError(
                    f"no buffer {name!r} in path {item!r}; choices are:"
                    f" {listing(choices)}"
                )
            node = node.__dict__[name]
        return node

    def __contains__(self, item: object) -> bool:
        if item not in self._buffer_names:
            self._ensure_complete()
        return item in self._buffer_names

    def __iter__(self) -> Iterator[Any]:
        self._ensure_complete()
        return list.__iter__(self)

    def __len__(self) -> int:
        self._ensure_complete()
        return list.__len__(self)

    def keys(self) -> tuple[str, ...]:
        """Names of the children."""
        self._ensure_complete()
        return self._buffer_names

    def values(self) -> list[Any]:
        """The children."""
        return list(self)

    def items(self) -> list[tuple[str, Any]]:
        """Pairs of name and child."""
        return list(zip(BufferView.keys(self), self, strict=True))

    # Two views are the same only if they are one: comparing arrays is ambiguous.
    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"BufferView({', '.join(self._buffer_names)})"
