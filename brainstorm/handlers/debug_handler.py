"""A handler that checks what other handlers take for granted."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from brainstorm.handlers.base_handler import Handler
from brainstorm.handlers.operation_specs import (
    FRESH_FLAGS,
    OPERATIONS,
    Check,
    Operation,
    expected,
)
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
        self.dtype = handler.dtype
        self.context = handler.context
        self.EMPTY = handler.EMPTY
        self.array_type = handler.array_type

    @property
    def rnd(self) -> RandomState:
        """The random state of the wrapped handler."""
        return self.handler.rnd

    @rnd.setter
    def rnd(self, rnd: RandomState) -> None:
        self.handler.rnd = rnd

    def get_random_state(self) -> dict[str, Any]:
        """The state of the wrapped handler's random operations."""
        return self.handler.get_random_state()

    def set_random_state(self, state: dict[str, Any]) -> None:
        """Set the state of the wrapped handler's random operations."""
        self.handler.set_random_state(state)

    def allocate(self, shape: tuple[int, ...]) -> Any:
        """A new array of the given shape, filled with NaN."""
        mem = self.handler.allocate(_checked_shape("allocate", shape))
        self.handler.fill(mem, float("nan"))
        return mem

    def ones(self, shape: tuple[int, ...]) -> Any:
        """A new array of the given shape, filled with ones."""
        return self.handler.ones(_checked_shape("ones", shape))

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """A new array of the given shape, filled with zeros."""
        return self.handler.zeros(_checked_shape("zeros", shape))

    def scratch(self, shape: tuple[int, ...], slot: int = 0) -> Any:
        """A temporary array of the wrapped handler."""
        return self.handler.scratch(_checked_shape("scratch", shape), slot)

    def create_from_numpy(self, arr: Any) -> Any:
        """A new array of the wrapped handler from a NumPy array."""
        return self.handler.create_from_numpy(arr)

    def overlap(self, a: Any, b: Any) -> str:
        """How two arrays share memory."""
        return self.handler.overlap(a, b)

    def __getattr__(self, name: str) -> Any:
        # Operations that only the wrapped handler has.
        if name.startswith("_") or name == "handler":
            raise AttributeError(name)
        return getattr(self.handler, name)


def _add_checked_operations() -> None:
    for name in dir(Handler):
        function = getattr(Handler, name)
        if not (
            name.startswith("_")
            or name in vars(DebugHandler)
            or not inspect.isfunction(function)
        ):
            setattr(DebugHandler, name, _checked(name, function))


def _checked(name: str, function: Callable) -> Callable:
    spec = OPERATIONS.get(name)
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


class ArgumentCheck:
    """The checks of one call of an operation."""

    def __init__(self, handler: Handler, name: str, arguments: dict[str, Any]):
        self.handler = handler
        self.name = name
        self.arguments = arguments

    def types(self) -> None:
        """Check that all arrays are the handler's, for lack of more knowledge."""
        for name, value in self.arguments.items():
            if isinstance(value, self.handler.array_type):
                self._type(name, value)

    def before(self, op: Operation) -> None:
        """Check all that is known before the operation runs."""
        self.shapes(op)
        if op.check_values is not None:
            self._ask(op.check_values)
        outputs = self._present(op, {**op.write, **op.add})
        reads = self._present(op, op.read)
        self._aliasing(op, list(reads), list(outputs))
        if op.finite:
            self._numbers()
            self._finite([*reads, *(n for n in outputs if self._is_read(op, n))])

    def shapes(self, op: Operation) -> None:
        """Check what can be told without looking into the arrays."""
        shapes = self._present(op, {**op.read, **op.write, **op.add})
        sizes: dict[str, Any] = {}
        # A sum is checked when both of its parts are known.
        for name, shape in sorted(shapes.items(), key=lambda item: "+" in item[1]):
            self._type(name, self.arguments[name])
            self._shape(name, shape, sizes)
        if op.check is not None:
            self._ask(op.check)

    def after(self, op: Operation) -> None:
        """Check what the operation wrote."""
        if op.finite:
            self._finite(self._present(op, {**op.write, **op.add}), "finite results")

    def _ask(self, check: Check) -> None:
        problem = check(self.handler, self.arguments)
        if problem:
            self._fail(problem)

    def _present(self, op: Operation, shapes: dict[str, str]) -> dict[str, str]:
        return {
            name: shape
            for name, shape in shapes.items()
            if not (name in op.optional and self.arguments[name] is None)
        }

    def _is_read(self, op: Operation, name: str) -> bool:
        fresh = self.arguments.get(FRESH_FLAGS.get(name), False)
        return name in op.add and not fresh

    def _type(self, name: str, value: Any) -> None:
        handler = self.handler
        if not isinstance(value, handler.array_type):
            wanted = f"an array of type {handler.array_type.__name__}"
            self._fail(expected(name, wanted, f"a {type(value).__name__}"))
        if value.dtype != handler.dtype:
            wanted = f"dtype {np.dtype(handler.dtype).name}"
            self._fail(expected(name, wanted, f"dtype {value.dtype}"))

    def _shape(self, name: str, shape: str, sizes: dict[str, Any]) -> None:
        got = tuple(self.arguments[name].shape)
        for alternative in shape.split("|"):
            found = _match(alternative.split(","), got, sizes)
            if found is not None:
                sizes.update(found)
                return
        wanted = " or ".join(
            _resolved(alternative.split(","), sizes) for alternative in shape.split("|")
        )
        self._fail(expected(name, f"shape {wanted}", f"shape {got}"))

    def _aliasing(self, op: Operation, reads: list[str], outputs: list[str]) -> None:
        for i, output in enumerate(outputs):
            for other in reads + outputs[:i]:
                shared = self.handler.overlap(
                    self.arguments[output], self.arguments[other]
                )
                allowed = ("none", "same") if other in op.alias else ("none",)
                if shared not in allowed:
                    self._fail(
                        f"argument {output!r} must not overlap {other!r}"
                        + (" in part" if other in op.alias else "")
                    )

    def _numbers(self) -> None:
        for name, value in self.arguments.items():
            if isinstance(value, (float, np.floating)) and math.isnan(value):
                self._fail(expected(name, "a number", "nan"))

    def _finite(self, names: Any, what: str = "finite numbers") -> None:
        for name in names:
            if not self.handler.is_fully_finite(self.arguments[name]):
                self._fail(expected(name, what, "NaN or infinity in it"))

    def _fail(self, problem: str) -> None:
        raise HandlerError(f"{self.name}: {problem}")


def _match(
    pattern: list[str], shape: tuple[int, ...], sizes: dict[str, Any]
) -> dict[str, Any] | None:
    """The sizes that make a pattern fit a shape, or None if it does not."""
    found: dict[str, Any] = {}
    if pattern[0].startswith("*"):
        cut = len(shape) - len(pattern) + 1
        if cut < 0:
            return None
        found[pattern[0]] = shape[:cut]
        pattern, shape = pattern[1:], shape[cut:]
    if len(pattern) != len(shape):
        return None
    for part, size in zip(pattern, shape, strict=True):
        if "+" in part:
            left, right = part.split("+")
            if size != sizes[left] + sizes[right]:
                return None
        elif part.isdigit():
            if size != int(part):
                return None
        elif found.setdefault(part, size) != size:
            return None
    if any(sizes.get(part, size) != size for part, size in found.items()):
        return None
    return found


def _resolved(pattern: list[str], sizes: dict[str, Any]) -> str:
    """A pattern as text, with the sizes that are known filled in."""
    parts: list[str] = []
    for part in pattern:
        addends = [sizes.get(name, name) for name in part.split("+")]
        known = addends[0] if len(addends) == 1 else sum(addends)
        parts += map(str, known) if isinstance(known, tuple) else [str(known)]
    return "(" + ", ".join(parts) + ("," if len(parts) == 1 else "") + ")"


def _checked_shape(name: str, shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or any(
        not hasattr(n, "__index__") or n < 0 for n in shape
    ):
        raise HandlerError(
            f"{name}: {expected('shape', 'a tuple of sizes', repr(shape))}"
        )
    return shape


_add_checked_operations()
