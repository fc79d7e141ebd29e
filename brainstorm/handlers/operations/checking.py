"""Checking the arguments of an operation against its contract."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from brainstorm.handlers.operations.contract import (
    Check,
    Operation,
    expected,
    flattened,
    fresh_flag,
)
from brainstorm.utils import HandlerError

__all__ = ["ArgumentCheck"]


class ArgumentCheck:
    """The checks of one call of an operation."""

    def __init__(self, handler: Any, name: str, arguments: dict[str, Any]):
        self.handler = handler
        self.name = name
        self.arguments: dict[str, Any] = {**arguments, **flattened(arguments)}

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
            self._type(name, self.arguments.get(name))
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
            if not self._is_left_out(op, name)
        }

    def _is_left_out(self, op: Operation, name: str) -> bool:
        """Whether an optional array is None, or the record that it is in."""
        wholes = op.optional & {name, name.partition(".")[0]}
        return any(self.arguments.get(whole) is None for whole in wholes)

    def _is_read(self, op: Operation, name: str) -> bool:
        fresh = self.arguments.get(fresh_flag(name), False)
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
