"""The base class of all handlers."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from brainstorm.describable import Describable
from brainstorm.handlers.operations.activations import (
    ACTIVATIONS,
    FROM_INPUT,
    OTHER_NAMES,
    ActivationOperations,
)
from brainstorm.handlers.operations.affine import AffineOperations
from brainstorm.handlers.operations.arithmetic import ArithmeticOperations
from brainstorm.handlers.operations.attention import AttentionOperations
from brainstorm.handlers.operations.contract import contracts_of
from brainstorm.handlers.operations.ctc import CtcOperations
from brainstorm.handlers.operations.dropout import DropoutOperations
from brainstorm.handlers.operations.embedding import EmbeddingOperations
from brainstorm.handlers.operations.gru import GruOperations
from brainstorm.handlers.operations.images import ImageOperations
from brainstorm.handlers.operations.leaky import LeakyOperations
from brainstorm.handlers.operations.losses import LossOperations
from brainstorm.handlers.operations.lstm import LstmOperations
from brainstorm.handlers.operations.memory import MemoryOperations
from brainstorm.handlers.operations.normalisation import NormalisationOperations
from brainstorm.handlers.operations.nvar import NvarOperations
from brainstorm.handlers.operations.products import ProductOperations
from brainstorm.handlers.operations.recurrent import RecurrentOperations
from brainstorm.handlers.operations.sequences import SequenceOperations
from brainstorm.handlers.operations.spiking import SpikingOperations
from brainstorm.handlers.operations.updates import UpdateOperations
from brainstorm.handlers.original_interface import adapt
from brainstorm.handlers.programs import Program
from brainstorm.randomness import RandomState, global_rnd
from brainstorm.utils import (
    HandlerError,
    UnknownNameError,
    ValidationError,
    choices,
)

__all__ = ["OPERATIONS", "Handler"]


class _Activations(dict[str, Any]):
    """Operations by the name of the activation function."""

    def __missing__(self, name: object) -> Callable:
        if name in OTHER_NAMES:
            return self[OTHER_NAMES[name]]
        raise UnknownNameError(
            f"unknown activation function {name!r}; {choices(name, self)}"
        )


class Handler(
    UpdateOperations,
    SpikingOperations,
    LeakyOperations,
    GruOperations,
    LstmOperations,
    RecurrentOperations,
    CtcOperations,
    SequenceOperations,
    NvarOperations,
    AttentionOperations,
    EmbeddingOperations,
    NormalisationOperations,
    DropoutOperations,
    LossOperations,
    ImageOperations,
    AffineOperations,
    ActivationOperations,
    ProductOperations,
    ArithmeticOperations,
    MemoryOperations,
    Describable,
):
    """Abstract base class for all handlers.

    A handler allocates arrays and computes with them. A new one implements the
    primitive operations, see :mod:`brainstorm.handlers.operations`. Layers prefer the
    coarser ones, which are composed from primitives and may be overridden by faster
    versions.

    Attributes:
        dtype: Data type of all arrays (a NumPy scalar type).
        context: Whatever the handler needs to operate, or None.
        EMPTY: An array without elements.
        array_type: The type of the arrays.
        act_func: Activation functions by name: ``act_func['tanh'](x, y)`` puts
            tanh(x) into y. y may be x. The names are those of `ACTIVATIONS`.
        act_func_deriv: Their derivatives: ``act_func_deriv['tanh'](x, y, dy, dx)``
            puts dy * tanh'(x) into dx. dx may be dy. It is computed from y alone, but
            from x alone for those in `FROM_INPUT`.
        inplace_act_func: ``inplace_act_func['tanh'](x)``: x = tanh(x).
        inplace_act_func_deriv: ``inplace_act_func_deriv['tanh'](y, dy)``:
            dy = dy * tanh'(x), where y = tanh(x). Not for those in
            `FROM_INPUT`.

    Args:
        seed: Seed of `rnd`. With None, `rnd` comes from ``global_rnd``, and anew
            each time that ``global_rnd`` is seeded.
    """

    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {
        "dtype",
        "context",
        "EMPTY",
        "array_type",
        "act_func",
        "act_func_deriv",
        "inplace_act_func",
        "inplace_act_func_deriv",
    }
    __default_values__: ClassVar[dict[str, Any]] = {"seed": None}

    dtype: Any = np.float32
    context: Any = None
    EMPTY: Any = None
    array_type: type = object
    act_func: dict[str, Any]
    act_func_deriv: dict[str, Any]
    inplace_act_func: dict[str, Any]
    inplace_act_func_deriv: dict[str, Any]
    seed: int | None
    _rnd: RandomState
    _rnd_origin: int | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        adapt(cls)

    def __new__(cls, *args: Any, **kwargs: Any) -> Handler:
        """Make a handler that works though its `__init__` is not called."""
        self = super().__new__(cls)
        self.seed = None
        self._rnd_origin = None
        self._bind_activations()
        return self

    def _bind_activations(self) -> None:
        names = [name for name in ACTIVATIONS if name != "linear"]
        self.act_func = _Activations(linear=self._linear)
        self.act_func_deriv = _Activations(linear=self._linear_deriv)
        self.act_func.update({n: getattr(self, n) for n in names})
        self.act_func_deriv.update({n: getattr(self, n + "_deriv") for n in names})
        self.inplace_act_func = _Activations(
            {n: _in_place(f) for n, f in self.act_func.items()}
        )
        self.inplace_act_func_deriv = _Activations(
            {
                n: _in_place_deriv(f)
                for n, f in self.act_func_deriv.items()
                if n not in FROM_INPUT
            }
        )

    def __init__(self, seed: int | None = None):
        self.seed = seed
        if seed is not None:
            self._rnd = RandomState(seed)

    def _linear(self, x: Any, y: Any) -> None:
        if x is not y:
            self.copy_to(x, y)

    def _linear_deriv(self, x: Any, y: Any, dy: Any, dx: Any) -> None:
        if dy is not dx:
            self.copy_to(dy, dx)

    # -- recording -----------------------------------------------------------

    def record(self, run: Callable[[Handler], None], program: Program) -> None:
        """Run operations, and record the leaf calls that they make.

        Args:
            run: Called with the handler to use, one that does the same as this one.
            program: What to append the leaf calls to.
        """
        recorder = object.__new__(type(self))
        recorder.__dict__.update(
            self.__dict__,
            _plain=self,
            do=program.do,
            number=functools.partial(program.number, self.dtype),
        )
        cls: Any = type(self)
        by_leaves = vars(cls).get("records_leaves", False)
        for name in operations_of(cls):
            operation = getattr(self, name)
            if by_leaves and not getattr(operation, "is_whole", False):
                operation = getattr(recorder, name)
            else:
                operation = functools.partial(program.do, operation)
            recorder.__dict__[name] = program.noted(name, operation)
        for name in ("get_numpy_copy", "is_fully_finite"):
            recorder.__dict__[name] = _refuse_to_look
        recorder._bind_activations()
        try:
            run(recorder)
        finally:
            recorder.__dict__.clear()  # it refers to itself

    def __reduce__(self) -> tuple[Any, ...]:
        description = self.__describe__()
        return _recreate, (type(self), description), self.get_random_state()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.set_random_state(state)

    def complete(self, array: Any) -> None:
        """Compute what an operation has left out of the content of an array.

        Operations that are free to leave something out until it is read document it.
        `get_numpy_copy` and `is_fully_finite` complete what they read by themselves.
        """

    # -- reserves ------------------------------------------------------------

    def release(self) -> None:
        """Free all memory that is kept only because it may be of use again.

        Arrays are not touched. What operations need is made anew when they next run.
        A handler does this by itself when its last network is gone. This one keeps
        nothing.
        """

    def release_after(self, array: Any) -> None:
        """Note that memory of a network needs the handler, which releases after all.

        That is, once all such arrays are gone.
        """
        users, key = self.__dict__.setdefault("_users", set()), object()
        users.add(key)

        def leave() -> None:
            users.discard(key)
            if not users:
                self.release()

        weakref.finalize(array, leave).atexit = False

    def message_of(self, array: Any, on_device: bool = False) -> Any:
        """What other processes are sent for an array, and what theirs is added to.

        It is the array itself where MPI can read it, else a copy in the host's memory.

        Args:
            array: An array of this handler.
            on_device: Whether MPI reads the memory of GPUs.
        """
        is_plain = isinstance(array, np.ndarray) and array.flags.c_contiguous
        if is_plain and array.dtype != np.float16:  # which no MPI adds
            return array
        copy = self.get_numpy_copy(array)
        return copy.astype(np.promote_types(copy.dtype, np.float32))

    def share_cores(self, threads: int | None) -> None:
        """Use so many threads unless told otherwise, as other processes want cores too.

        None is for as many as without them. This one leaves it to NumPy.
        """

    # -- randomness ----------------------------------------------------------

    @property
    def rnd(self) -> RandomState:
        """The random state from which all random operations derive.

        It can be set to another RandomState, whose seed is then that of the handler.
        """
        if self.seed is None and self._rnd_origin != global_rnd.generation:
            self._rnd = global_rnd.create_random_state()
            self._rnd_origin = global_rnd.generation
        return self._rnd

    @rnd.setter
    def rnd(self, rnd: RandomState) -> None:
        if not isinstance(rnd, RandomState):
            raise ValidationError(
                "expected a brainstorm.randomness.RandomState as 'rnd', got a"
                f" {type(rnd).__name__}"
            )
        self.seed, self._rnd = rnd.get_seed(), rnd

    def get_random_state(self) -> dict[str, Any]:
        """The state of all random operations, as a JSON-serializable dict."""
        state: Any = self.rnd.get_state()
        name, key, position, has_gauss, gauss = state
        numbers = int(position), int(has_gauss), float(gauss)
        return {"rnd": [name, key.tolist(), *numbers]}

    def set_random_state(self, state: dict[str, Any]) -> None:
        """Continue the random operations from what `get_random_state` gave.

        Raises:
            HandlerError: It is no state of this kind of handler. The handler
                keeps its own then.
        """
        before = self.get_random_state()
        try:
            self._apply_random_state(state)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            self._apply_random_state(before)
            raise HandlerError(
                f"not a random state of a {type(self).__name__}: {error!r}"
            ) from error

    def _apply_random_state(self, state: dict[str, Any]) -> None:
        self.rnd.set_state(tuple(state["rnd"]))


OPERATIONS = contracts_of(Handler)
"""What each operation expects of its arguments."""

# What a recorder answers itself, instead of having each replay do it again.
_ANSWERED = {
    *("allocate", "ones", "zeros", "scratch", "overlap", "create_from_numpy"),
    *("get_numpy_copy", "is_fully_finite", "get_random_state", "set_random_state"),
    *("do", "home", "number", "record", "release", "release_after", "share_cores"),
}


@functools.cache
def operations_of(cls: type) -> list[str]:
    """Names of the methods that do something to arrays."""
    return [
        name
        for name in dir(cls)
        if name[0] != "_"
        and name not in _ANSWERED
        and inspect.isfunction(inspect.getattr_static(cls, name))
    ]


def _refuse_to_look(array: Any) -> Any:
    raise TypeError("operations that look at values have to be marked as whole")


def _in_place(function: Callable) -> Callable:
    return lambda x: function(x, x)


def _in_place_deriv(function: Callable) -> Callable:
    return lambda y, dy: function(y, y, dy, dy)


def _recreate(cls: type[Handler], description: dict[str, Any]) -> Any:
    return cls.__new_from_description__(description)
