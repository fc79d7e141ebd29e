"""How OpenMP's threads wait for each other.

They spin, for some milliseconds: where the cores are theirs, no other way starts the
next work as soon. Where other processes share the cores, a thread spins away the time
that the one it waits for would need. GNU's OpenMP lets its threads sleep at once if it
has more of them than there are cores; so that is what it gets then.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from pathlib import Path
from typing import Any

# Seconds from one look to the next.
_INTERVAL = 0.02
# Of the time between two looks, this much was spent waiting for a core.
_MUCH, _LITTLE = 0.05, 0.01
# So many looks in a row have to find little of it, until threads spin again.
_CALM = 50
_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


class Waiting:
    """Lets the threads of an OpenMP library spin or sleep.

    Whether the cores are shared is what Linux tells of each thread: how long it was
    ready to run and did not. Elsewhere, where the user has set how to wait, and with
    other libraries than GNU's, nothing is done.

    Args:
        functions: The library, or one that has loaded it.

    Attributes:
        is_asleep: Whether threads sleep that have nothing to do.
    """

    def __init__(self, functions: ctypes.CDLL):
        self.is_asleep: bool = False
        self._functions = functions
        self._local = _Looks()
        self._lock = threading.Lock()
        self._end: threading.Event | None = None
        self.is_of_use: bool = (
            hasattr(functions, "GOMP_parallel")
            and not any(name in os.environ for name in _SETTINGS)
            and seconds_without_core() is not None
        )

    def look(self) -> None:
        """Find out, now and then, whether the cores are shared."""
        local = self._local
        now = time.monotonic()
        passed = now - local.time
        if passed < _INTERVAL:
            return
        without = seconds_without_core() or 0.0
        share = (without - local.without) / passed
        local.time, local.without = now, without
        local.calm = local.calm + 1 if share < _LITTLE else 0
        if share > _MUCH and not self.is_asleep:
            self.sleep()
        elif local.calm > _CALM and self.is_asleep:
            self.spin()

    def sleep(self) -> None:
        """Let threads sleep that have nothing to do."""
        with self._lock:
            if self._end is not None:
                return
            self._end, begun = threading.Event(), threading.Event()
            args = begun, self._end
            threading.Thread(
                target=self._own, args=args, name="brainstorm waiting", daemon=True
            ).start()
            begun.wait()
            self.is_asleep = True

    def spin(self) -> None:
        """Let them wait for work awake."""
        with self._lock:
            if self._end is not None:
                self._end.set()
                self._end = None
            self.is_asleep = False

    def _own(self, begun: threading.Event, end: threading.Event) -> None:
        """Own so many threads, all asleep, that there are more than cores."""
        functions = self._functions
        number = max(2, functions.omp_get_num_procs() + 1)
        nothing: Any = functions.omp_get_max_threads
        functions.GOMP_parallel(nothing, None, ctypes.c_uint(number), 0)
        begun.set()
        end.wait()


class _Looks(threading.local):
    """When a thread last looked, what it saw, and for how many looks it was calm."""

    def __init__(self) -> None:
        self.time = time.monotonic()
        self.without = seconds_without_core() or 0.0
        self.calm = 0


def seconds_without_core() -> float | None:
    """How long this thread was ready to run, but had no core; None if unknown."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path("/proc/thread-self/schedstat").read_text()
        return int(text.split()[1]) * 1e-9
    return None
