"""Finding, for the arrays of an operation, what was prepared for them before.

To run a primitive takes a descriptor and a memory object for each array, a primitive
that may have to be compiled, and a block of arguments. All of this is prepared once for
arrays of the same layouts and kept as a `Call`, which then moves from arrays to arrays.
Arrays that come again and again, as those of a network do, are known by identity.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from brainstorm.handlers.onednn.bfloat16 import NO_CONVERSIONS, Conversions
from brainstorm.handlers.onednn.binding import Library
from brainstorm.handlers.onednn.definitions import UnimplementedError
from brainstorm.handlers.onednn.keeping import Kept, KnownArrays, address_of, layout_of
from brainstorm.handlers.onednn.recipes import STEP_BYTES, Arenas, Call, Moving
from brainstorm.handlers.onednn.tuning import NO_TUNING, Tuning
from brainstorm.utils import HandlerError

# What calls are kept for layouts that come again, in bytes; their primitives, which
# take most of it, are estimated.
_MAX_BYTES = 2**29
_MAX_KNOWN = 2**14
# So many calls of one kind a program has for itself.
_MAX_OWN = 16

Build = Callable[..., Call]
"""``build(session, *arrays, *options)``; the arrays are those of NumPy, or None."""


class Session:
    """What one thread prepared for one handler, to compute with so many threads.

    Attributes:
        sets_threads: Whether OpenMP has to be told their number.
        conversions: Which factors are converted to bfloat16.
        tuning: Which of the library's ways are chosen.
        arenas: Temporary memory of all calls.
        has_started_threads: Whether anything of it computes in several threads.
        known: For arrays that came before, the call of an operation and the addresses
            where it finds them; a call of False is what the library can not do.
    """

    library: Library
    math_mode: str
    threads: int
    sets_threads: bool

    def __init__(
        self,
        library: Library,
        math_mode: str,
        threads: int,
        sets_threads: bool = False,
        conversions: Conversions = NO_CONVERSIONS,
        tuning: Tuning = NO_TUNING,
    ):
        self.library, self.math_mode = library, math_mode
        self.threads, self.sets_threads = threads, sets_threads
        self.conversions: Conversions = conversions
        self.tuning: Tuning = tuning
        self.arenas: Arenas = Arenas(library)
        self.has_started_threads: bool = False
        self.known: KnownArrays = KnownArrays(_MAX_KNOWN)
        self._calls = Kept(_MAX_BYTES, _give_up)
        self._ones = np.ones((1, 1), np.float32)

    @functools.cached_property
    def parts(self) -> list[Session]:
        """Sessions to use at the same time, in `run`: one for each thread."""
        if self.threads == 1 or not self.library.runs_in_parallel:
            return [self]
        self.has_started_threads = True
        how = self.library, self.math_mode, 1, False, self.conversions
        return [Session(*how) for _ in range(self.threads)]

    def apart(self) -> Session:
        """One that computes the same in memory of its own, in the first ways."""
        how = self.library, self.math_mode, self.threads, self.sets_threads
        return Session(*how, self.conversions)

    def run(self, calls: Sequence[Call]) -> None:
        """Execute one call of this session, or one of each of its `parts`."""
        if len(calls) == 1:
            calls[0]()
        else:
            self.library.in_parallel(calls)

    def ones(self, count: int) -> np.ndarray:
        """A matrix (1, count) of ones."""
        if self._ones.shape[1] < count:
            self._ones = np.ones((1, count), np.float32)
        return self._ones[:, :count]

    def find(
        self,
        key: tuple[Any, ...],
        build: Build,
        arrays: Sequence[Any],
        options: tuple[Any, ...],
    ) -> Call | Literal[False]:
        """Find or prepare a call, for arrays that are not known by their `key`.

        ``build(session, *arrays, *options)`` prepares it for any arrays of these
        layouts; it is moved to these. What the library can not do is False.
        """
        kind = (build, options, *map(layout_of, arrays))
        call = self._calls.get(kind)
        if call is None:
            call = self.prepare_moving(build, arrays, options)
            self._calls.put(kind, call, call.size if call else STEP_BYTES)
        addresses = tuple(map(address_of, arrays)) if call else ()
        if call and call.addresses != addresses:
            call.move(addresses)
        self.known.note(key, arrays, (call, addresses))
        return call

    def prepare(
        self, build: Build, arrays: Sequence[Any], options: tuple[Any, ...]
    ) -> Call | Literal[False]:
        """A new call, or False if oneDNN can not do it."""
        with named_errors(build.__name__, arrays):
            call = self._try(build, arrays, options)
            if call or not self.conversions.operations:
                return call
            conversions, self.conversions = self.conversions, NO_CONVERSIONS
            try:
                return self._try(build, arrays, options)
            finally:
                self.conversions = conversions

    def _try(
        self, build: Build, arrays: Sequence[Any], options: tuple[Any, ...]
    ) -> Call | Literal[False]:
        try:
            return build(self, *arrays, *options)
        except UnimplementedError:
            return False

    def prepare_moving(
        self, build: Build, arrays: Sequence[Any], options: tuple[Any, ...]
    ) -> Call | Literal[False]:
        """The same for all arrays of these layouts, see `Call.move`."""
        moving = [Moving.of(array, number) for number, array in enumerate(arrays)]
        return self.prepare(build, moving, options)


class OwnCalls:
    """Finds the calls of a program, whose arrays stay where they are.

    A few calls of a kind are prepared for their arrays. All others, those of further
    time steps, are one call that is moved from step to step: what is prepared does not
    grow with their number, nor does the time that each one takes.
    """

    def __init__(self, session: Session):
        self._session = session
        self._counts: dict[Any, int] = {}
        self._moving: dict[Any, Call | Literal[False]] = {}

    def find(
        self, build: Build, arrays: tuple[Any, ...], *options: Any
    ) -> Call | _Moved | Literal[False]:
        """The call of an operation, or False if oneDNN can not do it."""
        kind = (build, options, *map(layout_of, arrays))
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        if count > _MAX_OWN:
            if kind not in self._moving:
                self._moving[kind] = self._session.prepare_moving(
                    build, arrays, options
                )
            call = self._moving[kind]
            if not call:
                return False
            if call.values is None:
                return _Moved(call, tuple(map(address_of, arrays)), arrays)
        call = self._session.prepare(build, arrays, options)
        if call:
            call.hold(arrays)
        return call


class _Moved(NamedTuple):
    """A call that others use too, for their arrays, which stay alive with it."""

    call: Call
    addresses: tuple[int, ...]
    arrays: tuple[Any, ...]

    @property
    def leaves(self) -> list[Callable[[], Any]]:
        """What replays of programs call instead."""
        return self.call.moves(self.addresses) + self.call.leaves

    def __call__(self) -> None:
        self.call.move(self.addresses)
        self.call()


def _give_up(call: Call | Literal[False]) -> None:
    if call:
        call.give_up()


@contextlib.contextmanager
def named_errors(operation: str, arrays: Sequence[Any]) -> Iterator[None]:
    """Let errors name the operation and the shapes of its arrays."""
    try:
        yield
    except UnimplementedError:
        raise
    except (HandlerError, MemoryError) as error:
        shapes = [None if array is None else array.shape for array in arrays]
        reason = "out of memory" if isinstance(error, MemoryError) else error
        raise HandlerError(
            f"{operation} of arrays of the shapes {shapes}: {reason}"
        ) from error
