"""How threads take turns with a network."""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakSet

from brainstorm.utils import NetworkValidationError

__all__ = ["HERE", "Turns"]


class _Here(threading.local):
    """Has another mark in each thread."""

    def __init__(self) -> None:
        self.mark: object = object()


HERE = _Here()


class Turns:
    """A lock that a thread may acquire again while it has it.

    Threads get it in the order in which they come, and one that keeps it long can let
    them go first with `give_way`.

    It also knows whose data a network holds: a thread that does without the lock is
    told when those of another one have taken the place of its own.

    A forked process has the thread alone that forked, so nobody else's turn lasts.

    Attributes:
        steps: The lock for single steps, which are too short to wait in a queue.
        has_displaced: Whether there is anything to `check`.
        mark: That of the thread whose data the network holds, see `HERE`.
    """

    def __init__(self) -> None:
        self._begin()
        _all.add(self)
        self._owner: threading.Thread | None = None
        self._displaced: WeakSet[threading.Thread] = WeakSet()
        self.mark: object = None
        self.has_displaced: bool = False

    def _begin(self) -> None:
        self._lock: Any = threading.RLock()
        self.steps: Any = self._lock
        self._depth = 0
        # Locked while somebody waits, whom newcomers must not overtake.
        self._queue = threading.Lock()

    def _after_fork(self) -> None:
        if self._lock._is_owned():
            self._queue = threading.Lock()
        else:
            self._begin()

    def __enter__(self) -> None:
        """Wait for one's turn."""
        others_wait = self._queue.locked() and not self._lock._is_owned()
        if others_wait or not self._lock.acquire(False):
            with self._queue:
                self._lock.acquire()
        self._depth += 1

    def __exit__(self, *error: Any) -> None:
        """Let the next one have its turn."""
        self._depth -= 1
        self._lock.release()

    def give_way(self) -> None:
        """Let those go first who wait, unless the lock has been acquired repeatedly."""
        if self._queue.locked() and self._depth == 1:
            self.__exit__()
            try:
                self.__enter__()
            except BaseException:
                # Ctrl-C while waiting: whoever handles it still has to let go.
                self._lock.acquire()
                self._depth += 1
                raise

    def take_over(self) -> None:
        """Take note that the network holds the data of this thread."""
        thread = threading.current_thread()
        if thread is self._owner:
            return
        if self._owner is not None:
            self._displaced.add(self._owner)
            self.has_displaced = True
        self._owner, self.mark = thread, HERE.mark
        self._displaced.discard(thread)

    def check(self) -> None:
        """Check that the data of this thread are still there, if it has given some.

        Raises:
            NetworkValidationError: Another thread, which may do so again at any time,
                has given other data.
        """
        if threading.current_thread() not in self._displaced:
            return
        if self._owner is None or not self._owner.is_alive():
            return
        raise NetworkValidationError(
            f"the thread {self._owner.name!r} has given the network other data"
            " meanwhile. Use 'with net.lock:' from provide_external_data to the last"
            " look at its results; or use predict, evaluate or extract, which do so"
        )


_all: WeakSet[Turns] = WeakSet()


def _after_fork() -> None:
    for turns in _all:
        turns._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
