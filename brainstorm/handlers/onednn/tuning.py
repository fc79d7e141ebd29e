"""Which of the library's ways to do something is the fastest, found out by trying.

The library has several implementations of a convolution, and formats of images that it
likes better than ours. What it proposes is nearly always the best. Where something else
takes clearly less time, that is chosen from then on: choices are kept in a file, since
ways differ in rounding, and what is computed twice shall be the same. What can not be
kept is not chosen.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainstorm.files import alone, atomic_path, cache_folder
from brainstorm.handlers.onednn.definitions import LastReachedError, UnimplementedError
from brainstorm.handlers.onednn.keeping import address_of, extent_of, layout_of
from brainstorm.handlers.onednn.machine import processor
from brainstorm.utils import BrainstormError, HandlerError, ValidationError, listing

VARIABLE = "BRAINSTORM_TUNING"
MODES = ("kept", "on", "off")
FILE = "tuning-1.json"
"""The number is that of its format, and of what numbers of implementations mean."""

_FORMAT = {"format": "brainstorm tuning", "version": 1}
_LARGEST_FILE = 2**24
_MOST_CHOICES = 10_000
_MOST_IMPLEMENTATIONS = 20
# From so many multiplications on, it is worth the while.
_MIN_WORK = 2**20
# A way has to take less than this part of the time, at best and in the middle of all
# rounds. One that takes more at first is dropped.
_CLEARLY = 0.9
_ROUNDS = 9
_FIRST_ROUNDS = 3
# So much longer than the shortest of them, times tell nothing: others use the cores.
_BUSY = 1.3


class Way(NamedTuple):
    """How a primitive is chosen.

    Attributes:
        number: Which of the library's implementations, from its first choice on.
        blocked: Whether the library chooses the formats of images.
    """

    number: int = 0
    blocked: bool = False


Call = Callable[[], None]
Clock = Callable[[], float]

FIRST = Way()
"""What the library proposes."""

Ways = Mapping[str, Way]
"""Ways by what they are for; what is missing is `FIRST`."""

FIRST_CHOICE: Ways = {}


class Tuning:
    """The choices for one library on one machine.

    Args:
        mode: 'kept' to use the choices that are in the file, 'on' to try out what is
            not in it, 'off' for the library's first choices.
        machine: What choices depend on besides operation and arrays.
        path: The file.
    """

    def __init__(self, mode: str = "off", machine: str = "", path: Path | None = None):
        self.mode: str = mode
        self._machine = machine
        self._path = path
        self._choices: dict[str, Ways] | None = None
        self._is_writable: bool | None = None
        self._failed: set[str] = set()

    def find(self, key: str) -> Ways | None:
        """The choice that is kept, or None."""
        if self.mode == "off" or self._path is None:
            return None
        if self._choices is None:
            self._choices = _read(self._path)
        return self._choices.get(key)

    def tries(self, key: str) -> bool:
        """Whether to try out ways: it is asked for, and choices can be kept."""
        if self.mode != "on" or key in self._failed:
            return False
        if self._is_writable is None:
            self._is_writable = self._keep() is not None
        return self._is_writable

    def keep(self, key: str, ways: Ways | None) -> Ways:
        """Keep a choice, unless another process was faster; returns that which counts.

        None stands for none that could be made: this process does not try again. Then,
        and if choices can not be kept, the library's first choice counts.
        """
        if ways is None:
            self._failed.add(key)
            return FIRST_CHOICE
        return (self._keep({key: ways}) or {}).get(key, FIRST_CHOICE)

    def _keep(self, more: Mapping[str, Ways] | None = None) -> dict[str, Ways] | None:
        """All choices after adding some, or None if they can not be written."""
        try:
            if self._path is None:
                raise OSError("there is no folder for it")
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with alone(self._path):
                kept = _read(self._path)
                self._choices = kept | {
                    k: w for k, w in (more or {}).items() if k not in kept
                }
                _write(self._path, self._choices)
        except (OSError, BrainstormError) as error:
            warnings.warn(
                f"{VARIABLE} is 'on', but choices can not be kept, so none are made:"
                f" {error}",
                stacklevel=2,
            )
            self._is_writable = False
            return None
        return self._choices

    def key_of(
        self, session: Any, build: Callable, arrays: Sequence, options: tuple
    ) -> str:
        """What a choice is for, in a form that is the same in all processes."""
        how = session.threads, session.math_mode, bool(session.conversions.operations)
        layouts = [
            None if a is None else (a.shape, a.strides, a.dtype.name, layout_of(a)[-1])
            for a in arrays
        ]
        what = build.__name__.strip("_"), layouts, options
        return "; ".join([self._machine, *map(str, how), *map(str, what)])


NO_TUNING = Tuning()


def tuning_of(library: Any) -> Tuning:
    """The choices for a library, as the environment variable wants them.

    Raises:
        ValidationError: The variable is set to something else than `MODES`.
    """
    mode = os.environ.get(VARIABLE) or "kept"
    if mode not in MODES:
        raise ValidationError(
            f"the environment variable {VARIABLE} is {mode!r}; choices are:"
            f" {listing(MODES)}"
        )
    machine = f"oneDNN {library.version}; {processor()}; {library.instruction_set}"
    path = None
    with contextlib.suppress(RuntimeError):  # there is no home
        path = cache_folder() / FILE
    return Tuning(mode, machine, path)


# -- trying out --------------------------------------------------------------


def tuned(
    session: Any,
    build: Callable[..., Any],
    arrays: Sequence[Any],
    options: tuple[Any, ...],
    written: Mapping[int, str],
    work: float,
) -> Any:
    """The call ``build(session, *arrays, *options, ways)``, in the ways that are kept.

    Where there are none, they are tried out if that is asked for.

    Args:
        session: The session.
        build: Prepares the call.
        arrays: Its arrays. None of them is changed.
        options: What else it depends on.
        written: The numbers of the arrays that it writes into, and for which of the
            `ways` each is a result, or ''.
        work: Number of multiplications. If they are few, nothing is tried.
    """
    tuning, ways = session.tuning, FIRST_CHOICE
    if tuning.mode != "off":
        key = tuning.key_of(session, build, arrays, options)
        kept = tuning.find(key)
        if kept is None and work >= _MIN_WORK and tuning.tries(key):
            how = session.apart(), build, arrays, options, written
            kept = tuning.keep(key, _fastest(*how))
        names = set(written.values()) - {""}
        ways = {name: way for name, way in (kept or {}).items() if name in names}
    if ways:
        # Those of a file may be none that there are, or need more memory than there is.
        with contextlib.suppress(HandlerError, MemoryError):
            return build(session, *arrays, *options, ways)
    return build(session, *arrays, *options, FIRST_CHOICE)


def _fastest(
    session: Any,
    build: Callable[..., Any],
    arrays: Sequence[Any],
    options: tuple[Any, ...],
    written: Mapping[int, str],
) -> Ways | None:
    """The fastest ways; None if that can not be found out, as for want of memory."""

    def prepare(ways: Ways) -> Any:
        return build(session, *given, *options, ways)

    names = [name for k, name in written.items() if name and arrays[k] is not None]
    best = FIRST_CHOICE
    # One thread's own time is the same beside others.
    clock = time.thread_time if session.threads == 1 else time.perf_counter
    try:
        given = [_like(a) if k in written else a for k, a in enumerate(arrays)]
        call = prepare(best)
        call()
        for name in names:
            for ways, other in _others(prepare, best, name):
                if _is_clearly_faster(other, call, clock):
                    best, call = ways, other
    except (HandlerError, MemoryError):
        return None
    return best


def _others(
    prepare: Callable[[Ways], Any], ways: Ways, name: str
) -> Iterator[tuple[Ways, Any]]:
    """All other ways to do one thing, and their calls."""
    for blocked in (False, True):
        for number in range(_MOST_IMPLEMENTATIONS):
            other = {**ways, name: Way(number, blocked)}
            if other[name] == FIRST:
                continue
            try:
                call = prepare(other)
            except LastReachedError:
                break
            except UnimplementedError:
                continue
            yield other, call


def _like(array: np.ndarray | None) -> np.ndarray | None:
    """An array of the same layout in memory of its own."""
    if array is None:
        return None
    first, last = extent_of(array)
    memory = np.ones(last - first, np.uint8)
    start = address_of(array) - first
    return np.ndarray(array.shape, array.dtype, memory, start, array.strides)


def _is_clearly_faster(call: Call, other: Call, clock: Clock) -> bool:
    """Whether a call takes less time than another one, by much.

    Raises:
        HandlerError: Times differ too much from round to round.
    """
    call()
    ours, others = [], []
    for rounds in range(1, _ROUNDS + 1):
        ours.append(_seconds(call, clock))
        others.append(_seconds(other, clock))
        if rounds == _FIRST_ROUNDS and min(ours) >= _CLEARLY * min(others):
            return False
    middle = statistics.median(others)
    if middle > _BUSY * min(others):
        raise HandlerError("the cores are busy")
    at_best = min(ours) < _CLEARLY * min(others)
    return at_best and statistics.median(ours) < _CLEARLY * middle


def _seconds(call: Call, clock: Clock) -> float:
    start = clock()
    call()
    return clock() - start


# -- the file ----------------------------------------------------------------


def _read(path: Path) -> dict[str, Ways]:
    """The choices in a file; of what is damaged, or another kind of file, none."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        about = path.stat()
        if stat.S_ISREG(about.st_mode) and about.st_size <= _LARGEST_FILE:
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and _FORMAT.items() <= content.items():
                return _choices_of(content.get("choices"))
    return {}


def _choices_of(content: Any) -> dict[str, Ways]:
    """What is left of the content of a file without that which is no choice."""
    found: dict[str, Ways] = {}
    for key, ways in content.items() if isinstance(content, dict) else ():
        with contextlib.suppress(AttributeError, TypeError, ValueError):
            found[key] = {name: _way_of(*way) for name, way in ways.items()}
    return found


def _way_of(number: Any, blocked: Any) -> Way:
    if (
        type(number) is not int
        or type(blocked) is not bool
        or not (0 <= number < _MOST_IMPLEMENTATIONS)
    ):
        raise ValueError("expected the number of an implementation, and a bool")
    return Way(number, blocked)


def _write(path: Path, choices: Mapping[str, Ways]) -> None:
    """Write a file, without the oldest choices if there are too many."""
    latest = dict(list(choices.items())[-_MOST_CHOICES:])
    content = json.dumps({**_FORMAT, "choices": latest}, indent=1)
    with atomic_path(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
