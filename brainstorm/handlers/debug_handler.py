"""A handler that checks what other handlers take for granted."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from brainstorm.handlers.base_handler import Handler
from brainstorm.handlers.operations.checking import ArgumentCheck
from brainstorm.handlers.operations.contract import Operation, expected
from brainstorm.handlers.programs import call
from brainstorm.randomness import RandomState
from brainstorm.utils import HandlerError, ValidationError

__all__ = ["DebugHandler"]


class DebugHandler(Handler):
    """Wraps a handler and checks every call of an operation.

    Its arrays are those of the wrapped handler. For each operation it checks the
    type, dtype and shape of all arrays, that outputs overlap nothing that they
    must not, and that no input or output holds NaN or infinity. Operations that
    only move data in and out, and `fill`, let these pass. New arrays are filled
    with NaN, so reading what was never written is noticed. Coarse operations are
    checked as a whole; inside, they run unchecked.

    Args:
        handler: The handler to wrap.

    Raises:
        ValidationError: `handler` is no handler.
        HandlerError: An operation's arguments or results are wrong. The text
            names operation and argument, what was expected and what came.
    """

    def __init__(self, handler: Handler):
        if not isinstance(handler, Handler):
            raise ValidationError(
                f"DebugHandler wraps a Handler, not a {type(handler).__name__}"
            )
        self.handler = handler
        super().__init__()
        self.dtype: Any = handler.dtype
        self.context: Any = handler.context
        self.EMPTY = handler.EMPTY
        self.array_type: type = handler.array_type

    @property
    def rnd(self) -> RandomState:
        """The random state of the wrapped handler."""
        return self.handler.rnd

    @rnd.setter
    def rnd(self, rnd: RandomState) -> None:
        self.handler.rnd = rnd

    def allocate(self, shape: tuple[int, ...]) -> Any:
        """A new array of the given shape, filled with NaN."""
        mem = self.handler.allocate(_checked_shape("allocate", shape))
        self.handler.fill(mem, float("nan"))
        return mem

    # Programs call its own operations, which check, and belong where the others' do.
    record, do = Handler.record, staticmethod(call)

    def __getattr__(self, name: str) -> Any:
        # Operations that only the wrapped handler has.
        if name.startswith("_") or name == "handler":
            raise AttributeError(name)
        operation = getattr(self.handler, name)
        if isinstance(getattr(operation, "contract", None), Operation):
            function = getattr(type(self.handler), name)
            return types.MethodType(_checked(name, function), self)
        return operation


def _add_operations() -> None:
    for name in ("ones", "zeros", "scratch"):
        setattr(DebugHandler, name, _delegated(name, has_shape=True))
    for name in ("create_from_numpy", "overlap", "home"):
        setattr(DebugHandler, name, _delegated(name))
    for name in ("get_random_state", "set_random_state", "share_cores"):
        setattr(DebugHandler, name, _delegated(name))
    for name in dir(Handler):
        function = getattr(Handler, name)
        if not (
            name.startswith("_")
            or name in vars(DebugHandler)
            or not inspect.isfunction(function)
        ):
            setattr(DebugHandler, name, _checked(name, function))


def _delegated(name: str, has_shape: bool = False) -> Callable:
    """A method of the wrapped handler, whose first argument may be a shape."""

    @functools.wraps(getattr(Handler, name))
    def method(self: DebugHandler, *args: Any, **kwargs: Any) -> Any:
        if has_shape:
            _checked_shape(name, kwargs["shape"] if "shape" in kwargs else args[0])
        return getattr(self.handler, name)(*args, **kwargs)

    return method


def _checked(name: str, function: Callable) -> Callable:
    spec = getattr(function, "contract", None)
    signature = inspect.signature(function)

    @functools.wraps(function)
    def method(self: DebugHandler, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        arguments = dict(list(bound.arguments.items())[1:])
        check = ArgumentCheck(self.handler, name, arguments)
        if spec is None:
            check.types()
        else:
            check.before(spec)
        with np.errstate(all="ignore"):  # results are checked below
            result = getattr(self.handler, name)(*args, **kwargs)
        if spec is not None:
            check.after(spec)
        return result

    return method


def _checked_shape(name: str, shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or any(
        not hasattr(n, "__index__") or n < 0 for n in shape
    ):
        raise HandlerError(
            f"{name}: {expected('shape', 'a tuple of sizes', repr(shape))}"
        )
    return shape


_add_operations()
