"""What all parts of handlers count on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from brainstorm.handlers.programs import call


class Part:
    """Base class of the parts that make up a handler.

    A part derives from those whose operations it composes, so that type checkers know
    them.
    """

    dtype: Any

    records_leaves = False
    """Whether operations that are not marked as :func:`~.programs.whole` make all their
    leaf calls by `do`. It counts for the very class that says so: others, which may
    override operations, have each operation recorded as one leaf call."""

    updates_by_threads = True
    """Whether threads may share the work of updates. If so, each large parameter is
    updated for itself."""

    do: Callable[..., Any] = staticmethod(call)
    """``do(function, *args)`` makes a leaf call; while recording, it is noted down."""

    def _leaf(self, name: str, *args: Any) -> None:
        """Make a leaf call of a method that does what handlers do differently."""
        self.do(getattr(self.plain, name), *args)

    number: Callable[[Any], Any] = float
    """``number(s)`` is a scalar argument as leaf calls take it."""

    @property
    def plain(self) -> Any:
        """The handler itself: of a recorder the one whose operations it records."""
        return vars(self).get("_plain", self)

    home: Callable[[], Any] = staticmethod(threading.get_ident)
    """``home()`` is what temporary memory belongs to: programs are right for one."""
