"""Named access to buffers: ``view.parameters.W`` and ``view['parameters.W']``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from brainstorm.utils import UnknownNameError, choices

__all__ = ["BufferView"]


class BufferView(list[Any]):
    """A list of buffers (arrays or further views) that also have names.

    >>> view = BufferView(['W', 'bias'], [[1, 2], [3]])
    >>> view.W, view['bias'], 'W' in view
    ([1, 2], [3], True)
    >>> W, bias = view

    Any name is good. Where it is one of those below, the attribute is the child, and
    the method is reached by ``BufferView.keys(view)``.

    Copies, and pickled views, hold buffers of their own, which share no memory.
    ``copy.copy`` gives another view of the same buffers. Views are equal if they have
    the same names and the same values, those on a GPU if they are of the same arrays.

    Args:
        buffer_names: Names of the children.
        buffers: The children, in the same order.
        full_buffer: One array that holds all children side by side, where
            they are contiguous. Available as ``_full_buffer``.
        complete: Called once, when something is asked for that is not there
            yet; it has to `fill` this view. A network's backward buffers are
            only allocated when somebody wants them.
        left_out: Names of the children that are not there yet, if they are known:
            ``in`` does without them then.
    """

    # Children live in __dict__, so that layers reach them at the speed of plain
    # attributes; __getattr__ only sees names that are not there. What is a view's own
    # has slots, which no name of a child can hide.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_buffer_names",
        "_complete",
        "_full_buffer",
        "_left_out",
    )

    def __init__(
        self,
        buffer_names: Sequence[str],
        buffers: Iterable[Any],
        full_buffer: Any = None,
        complete: Callable[[], None] | None = None,
        left_out: Sequence[str] = (),
    ):
        super().__init__()
        self._buffer_names: tuple[str, ...] = ()
        BufferView.fill(self, buffer_names, buffers, full_buffer, complete, left_out)

    def adjust(self, *args: Any, **kwargs: Any) -> BufferView:
        """`fill` this view, but forget the children before. Returns it."""
        self.__dict__ = {}
        BufferView.fill(self, *args, **kwargs)
        return self

    def fill(
        self,
        buffer_names: Sequence[str],
        buffers: Iterable[Any],
        full_buffer: Any = None,
        complete: Callable[[], None] | None = None,
        left_out: Sequence[str] = (),
    ) -> None:
        """Set children beside those that are there.

        What layers keep with this view (see `once_per_resize`) stays.
        """
        names, children = tuple(buffer_names), list(buffers)
        if len(names) != len(children):
            raise ValueError(f"got {len(children)} buffers for {len(names)} names")
        self[:] = children
        self._buffer_names = names
        self._full_buffer = full_buffer
        self._complete = complete
        self._left_out: tuple[str, ...] = tuple(left_out)
        self.__dict__.update(zip(names, children, strict=True))

    def _get_state(self) -> tuple[Any, ...]:
        """All that is in this view; it may not be changed from now on."""
        own = self._buffer_names, self._full_buffer, self._complete, self._left_out
        return (list(list.__iter__(self)), *own, self.__dict__)

    def _set_state(self, state: tuple[Any, ...]) -> None:
        """Go back to what `_get_state` returned."""
        self[:], self._buffer_names, self._full_buffer, *others, children = state
        self._complete, self._left_out = others
        self.__dict__ = children

    def _ensure_complete(self) -> None:
        if self._complete is not None:
            self._complete()

    def __getattr__(self, name: str) -> Any:
        if name in BufferView.__slots__ or name.startswith("__"):
            raise AttributeError(name)  # in the midst of being made or copied
        BufferView._ensure_complete(self)
        if name in self._buffer_names:
            return self.__dict__[name]
        raise AttributeError(f"no buffer {name!r}; {choices(name, self._buffer_names)}")

    def __getitem__(self, item: Any) -> Any:
        if not isinstance(item, str):
            BufferView._ensure_complete(self)
            return list.__getitem__(self, item)
        node: Any = self
        for name in item.split("."):
            if not isinstance(node, BufferView) or name not in node:
                is_view = isinstance(node, BufferView)
                names = BufferView._asdict(node) if is_view else ()
                raise UnknownNameError(
                    f"no buffer {name!r} in path {item!r}; {choices(name, names)}"
                )
            if name not in node.__dict__:
                BufferView._ensure_complete(node)
            node = node.__dict__[name]
        return node

    def __contains__(self, item: object) -> bool:
        if not self._left_out and item not in self._buffer_names:
            BufferView._ensure_complete(self)
        return item in self._buffer_names or item in self._left_out

    def __iter__(self) -> Iterator[Any]:
        BufferView._ensure_complete(self)
        return list.__iter__(self)

    def __len__(self) -> int:
        BufferView._ensure_complete(self)
        return list.__len__(self)

    def _asdict(self) -> dict[str, Any]:
        """The children by name."""
        BufferView._ensure_complete(self)
        return dict(zip(self._buffer_names, list.__iter__(self), strict=True))

    def keys(self) -> set[str]:
        """Names of the children; `items` gives them in their order."""
        return set(BufferView._asdict(self))

    def values(self) -> list[Any]:
        """The children."""
        return list(self)

    def items(self) -> list[tuple[str, Any]]:
        """Pairs of name and child."""
        return list(BufferView._asdict(self).items())

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, BufferView):
            return self is other
        pairs = zip(self, other, strict=False)  # completes both
        return self._buffer_names == other._buffer_names and all(
            _same(a, b) for a, b in pairs
        )

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __reduce__(self) -> tuple[Any, ...]:
        BufferView._ensure_complete(self)
        return BufferView, (self._buffer_names, list(self), self._full_buffer)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return BufferView.__reduce__(self)

    def __repr__(self) -> str:
        return f"BufferView({', '.join(self._buffer_names)})"


def _same(a: Any, b: Any) -> bool:
    """Whether two children are equal: views, or arrays of the same shape."""
    if isinstance(a, BufferView) or isinstance(b, BufferView):
        return a == b
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    return a is b or bool(np.all(a == b))
