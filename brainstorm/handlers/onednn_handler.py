"""The fast handler for CPUs: NumPy's arrays, oneDNN's arithmetic."""

# Methods are documented in Handler.

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np

from brainstorm.handlers.base_handler import Handler
from brainstorm.handlers.numpy_handler import NumpyHandler
from brainstorm.handlers.onednn.activations import OneDnnActivations
from brainstorm.handlers.onednn.affine import OneDnnAffine
from brainstorm.handlers.onednn.arithmetic import OneDnnArithmetic
from brainstorm.handlers.onednn.attention import OneDnnAttention
from brainstorm.handlers.onednn.bfloat16 import conversions_of
from brainstorm.handlers.onednn.binding import load_library
from brainstorm.handlers.onednn.definitions import MATH_MODES
from brainstorm.handlers.onednn.gru import OneDnnGru
from brainstorm.handlers.onednn.images import OneDnnImages
from brainstorm.handlers.onednn.losses import OneDnnLosses
from brainstorm.handlers.onednn.lstm import OneDnnLstm
from brainstorm.handlers.onednn.memory import OneDnnMemory
from brainstorm.handlers.onednn.normalisation import OneDnnNormalisation
from brainstorm.handlers.onednn.products import OneDnnProducts
from brainstorm.handlers.onednn.recipes import Call
from brainstorm.handlers.onednn.session import Build, OwnCalls, Session
from brainstorm.handlers.onednn.tuning import tuning_of
from brainstorm.handlers.onednn.updates import OneDnnUpdates
from brainstorm.handlers.programs import Program
from brainstorm.literals import MathMode
from brainstorm.utils import ValidationError, listing

__all__ = ["OneDnnHandler"]


class _Local(threading.local):
    session: Session | None = None


class OneDnnHandler(
    OneDnnUpdates,
    OneDnnGru,
    OneDnnLstm,
    OneDnnNormalisation,
    OneDnnAttention,
    OneDnnMemory,
    OneDnnLosses,
    OneDnnAffine,
    OneDnnImages,
    OneDnnProducts,
    OneDnnActivations,
    OneDnnArithmetic,
    NumpyHandler,
):
    """Computes on the CPU with Intel's oneDNN, in float32.

    Its arrays are NumPy's. All matrix products, convolutions, pooling, recurrent
    passes and large elementwise operations are oneDNN's; what that can not do, and
    what is too small to gain, is done as in :class:`NumpyHandler`.

    What an operation needs besides its arrays is prepared when it first sees arrays
    of their layouts, and kept until `release`, which the last network brings about. So
    do not change the shape of an array in place.

    Deltas of the internals of an LSTM or a GRU are only computed when they are read,
    which has to be before the next forward pass; see `complete`.

    The environment variable ``BRAINSTORM_TUNING`` says which implementations of
    convolutions are used: 'on' tries out what is new and keeps what is fastest, '' uses
    what was kept, and 'off' what oneDNN proposes.

    Needs the package onednn-cpu-gomp, or any other oneDNN of version 3 that the system
    finds, and a CPU with AVX2.

    Args:
        seed: Seed of `rnd`; None derives it from ``global_rnd``.
        math_mode: 'f32', or 'bf16' to let matrix products, convolutions and recurrent
            passes round their factors to bfloat16 (8 bits of precision), where the
            CPU can multiply these faster. Arrays and sums stay float32. Where it
            changes nothing `describe` says so.
        threads: Number of threads; None leaves it to OpenMP (``OMP_NUM_THREADS``, or
            else all cores). Not described: it is a matter of the machine. Operations
            leave OpenMP's number as it was. A forked process uses one thread.

    Raises:
        ImportError: oneDNN is missing or can not be used.
        ValidationError: `math_mode`, `threads` or the variable are not as above.
    """

    # From this number of elements on, two threads gain. It is above the size of the
    # pieces into which NumpyHandler cuts its work.
    _large: int = 20000

    records_leaves = True

    __default_values__: ClassVar[dict[str, Any]] = {"math_mode": "f32"}
    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {"threads"}
    _described = ("math_mode", "seed")

    def __init__(
        self,
        seed: int | None = None,
        math_mode: MathMode = "f32",
        threads: int | None = None,
    ):
        super().__init__(np.float32, seed)
        if math_mode not in MATH_MODES:
            raise ValidationError(
                f"expected {listing(MATH_MODES)} as 'math_mode', got {math_mode!r}"
            )
        if threads is not None and not (isinstance(threads, int) and threads > 0):
            raise ValidationError(
                f"expected a positive number of 'threads' or None, got {threads!r}"
            )
        self.math_mode = math_mode
        self.threads = threads
        self._library = load_library()
        self._conversions = conversions_of(math_mode, self._library.instruction_set)
        self._tuning = tuning_of(self._library)
        self._get_threads = self._library.get_threads
        self._fixed_threads = 1 if _forked else threads
        self._local = _Local()
        self._has_prepared = False
        _handlers.add(self)

    def describe(self) -> str:
        """What computes, in one line."""
        library = self._library
        mode: str = self.math_mode
        if mode == "bf16" and not self._conversions.operations:
            mode = "bf16, which changes nothing on this CPU"
        return (
            f"OneDnnHandler: oneDNN {library.version}, {library.instruction_set},"
            f" {self.current_session().threads} threads, {mode}"
        )

    def share_cores(self, threads: int | None) -> None:
        """Use so many threads where neither `threads` nor the environment says more."""
        if self.threads is None and "OMP_NUM_THREADS" not in os.environ:
            self._fixed_threads = 1 if _forked else threads

    def release(self) -> None:
        """Free what was prepared for arrays, and temporary memory, of all threads."""
        self._start_anew()
        if self._lstm_records.by_cells:
            self._release_lstms()
            self._start_anew()
        if self._has_prepared:
            self._has_prepared = False
            self._library.release_unused()

    def _start_anew(self) -> None:
        # In place of what there is, which operations may be using.
        super().release()
        self._local = _Local()

    # -- finding what was prepared -------------------------------------------

    def current_session(self) -> Session:
        """This thread's session, for the number of threads that it is to use now."""
        session, fixed = self._local.session, self._fixed_threads
        threads = fixed or self._get_threads()
        if session is None or session.threads != threads:
            how = self.math_mode, threads, fixed is not None, self._conversions
            session = Session(self._library, *how, self._tuning)
            self._local.session = session
            self._has_prepared = True
        return session

    def _find(
        self, build: Build, arrays: tuple[Any, ...], *options: Any
    ) -> Call | Literal[False]:
        """The prepared call of an operation, or False if oneDNN can not do it."""
        session, fixed = self._local.session, self._fixed_threads
        if session is None or session.threads != (fixed or self._get_threads()):
            session = self.current_session()
        key = (build, options, *map(id, arrays))
        known = session.known.values.get(key)
        if known is None:
            return session.find(key, build, arrays, options)
        call, addresses = known
        if not call:
            return False
        if call.addresses is not addresses and not call.move(addresses):
            session.known.forget(key)
            return session.find(key, build, arrays, options)
        for number in call.written:
            if not arrays[number].flags.writeable:
                return False
        return call

    def _does(self, build: Build, arrays: tuple[Any, ...], *options: Any) -> bool:
        """Whether oneDNN can do an operation; it is done then."""
        call = self._find(build, arrays, *options)
        if call:
            self.do(call)
        return bool(call)

    # -- recording -----------------------------------------------------------

    def record(self, run: Callable[[Handler], None], program: Program) -> None:
        """Run operations, and record the primitives that they execute."""

        def with_own_calls(recorder: Any) -> None:
            session = self.current_session()
            recorder._find = OwnCalls(session).find
            run(recorder)
            waiting = self._library.waiting
            if session.has_started_threads and waiting.is_of_use:
                recorder.do(waiting.look)

        super().record(with_own_calls, program)

    # Temporary memory, and what is prepared, belongs to a session.
    home = current_session


# -- forked processes --------------------------------------------------------

_handlers: weakref.WeakSet[OneDnnHandler] = weakref.WeakSet()
_forked = False


def _after_fork() -> None:
    """OpenMP's threads are gone, and would be waited for."""
    global _forked
    _forked = True
    for handler in _handlers:
        handler._local = _Local()
        handler._fixed_threads = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
