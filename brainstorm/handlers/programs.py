"""Recording what operations do to fixed memory, to do it again without their Python.

An operation of a handler is a Python function that decides, from the shapes of its
arrays, which *leaf calls* to make: of a ufunc of NumPy, a primitive of oneDNN, a kernel
of a GPU. For the same arrays it decides the same each time. So the leaf calls are
recorded once, with their arguments bound, and replayed from then on.

What is not the same each time has one of two forms. A number that changes, such as a
learning rate, is a :class:`Variable`. An operation that looks at the values in its
arrays is marked as :func:`whole`, and becomes a leaf call itself.
"""

from __future__ import annotations

import bisect
import functools
import inspect
import itertools
import math
import operator
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from brainstorm.utils import HandlerError

__all__ = ["Program", "Step", "Variable", "sqrt", "whole"]

Function = Callable[..., Any]

if sys.version_info >= (3, 11):
    call: Function = operator.call  # needs no frame of its own
else:

    def call(function: Function, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function."""
        return function(*args, **kwargs)


def whole(operation: Function) -> Function:
    """Mark an operation that looks at values, to be recorded as one leaf call."""
    operation.is_whole = True  # type: ignore[attr-defined]
    return operation


def _signature_of(operation: Function) -> inspect.Signature:
    while isinstance(operation, functools.partial):  # a leaf call itself
        operation = operation.args[0]
    function = getattr(operation, "__func__", operation)
    signature = _signature(function)
    if function is operation:
        return signature
    _, *parameters = signature.parameters.values()
    return signature.replace(parameters=parameters)


_signature = functools.cache(inspect.signature)


class Variable:
    """A number other than 0 that is looked up anew each time that a program runs.

    >>> rate = 0.1
    >>> step = -Variable(lambda: rate)
    >>> step.now()
    -0.1
    >>> rate = 0.2
    >>> step.now()
    -0.2

    Args:
        now: Returns the number.
    """

    __slots__ = ("now",)

    def __init__(self, now: Callable[[], float]):
        self.now: Callable[[], float] = now

    def sqrt(self) -> Variable:
        """Its square root."""
        return Variable(lambda: math.sqrt(self.now()))

    def __neg__(self) -> Variable:
        return Variable(lambda: -self.now())

    def __float__(self, other: Any = None) -> float:
        raise TypeError("what a program does can not depend on a number that changes")

    __lt__ = __gt__ = __float__


def _arithmetic(function: Callable[[Any, Any], Any]) -> tuple[Function, Function]:
    def forward(self: Variable, other: Any) -> Variable:
        return Variable(lambda: function(self.now(), _now(other)))

    def reflected(self: Variable, other: Any) -> Variable:
        return Variable(lambda: function(_now(other), self.now()))

    return forward, reflected


for _name in ("add", "sub", "mul", "truediv", "pow"):
    _forward, _reflected = _arithmetic(getattr(operator, _name))
    setattr(Variable, f"__{_name}__", _forward)
    setattr(Variable, f"__r{_name}__", _reflected)


def _now(value: Any) -> Any:
    return value.now() if isinstance(value, Variable) else value


def sqrt(value: Any) -> Any:
    """The square root of a number, which may be a variable."""
    return value.sqrt() if isinstance(value, Variable) else math.sqrt(value)


def _set(array: np.ndarray, variable: Variable) -> None:
    array[()] = variable.now()


def _evaluated(function: Function, args: tuple[Any, ...], kwargs: dict) -> Any:
    return function(*map(_now, args), **{k: _now(v) for k, v in kwargs.items()})


class Step(NamedTuple):
    """An operation within a program.

    Attributes:
        layer: Name of the layer that called it, or ''.
        operation: Name of the operation.
        arguments: What it was called with, by name.
        start: Number of the leaf calls before it.
    """

    layer: str
    operation: str
    arguments: dict[str, Any]
    start: int


class Program:
    """Leaf calls on fixed memory; calling it makes them one after the other.

    It belongs to the thread that recorded it, since temporary memory does, and is right
    for as long as the arrays are used for the same.

    Attributes:
        steps (list[Step]): The operations that the leaf calls belong to.
        layer (str): Name of the layer that is being recorded, or ''.
        failed (Step | None): Where the last replay failed, if it did.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.layer = ""
        self.failed: Step | None = None
        self._calls: list[Function] = []
        self._made = self._calls  # by replays
        self._starts: list[int] = []  # of these among the leaf calls, once joined
        self._kept: list[Any] = []
        self._depth = 0

    def __len__(self) -> int:
        """Number of leaf calls."""
        return len(self._calls)

    def __call__(self) -> None:
        """Make all calls.

        Raises:
            HandlerError: One of them failed.
        """
        calls = iter(self._made)
        try:
            for leaf in calls:
                status = leaf()
                if status.__class__ is int and status:
                    raise HandlerError(f"it failed with the status {status}")
        except HandlerError:
            number = len(self._made) - operator.length_hint(calls) - 1
            self.failed = self._step_of(
                self._starts[number] if self._starts else number
            )
            raise

    def timed(self, wait: Callable[[], Any] | None = None) -> list[float]:
        """Make all calls, and measure the time of each step.

        Args:
            wait: Waits until a device has done what it was told, if need be.

        Returns:
            Seconds, in the order of `steps`.

        Raises:
            HandlerError: One of the calls failed.
        """
        seconds = []
        for step, calls in zip(self.steps, self.calls_by_step(), strict=True):
            part = Program()
            part.steps, part._made = [step._replace(start=0)], calls
            began = time.perf_counter()
            try:
                part()
                if wait is not None:
                    wait()
            except HandlerError:
                self.failed = step
                raise
            seconds.append(time.perf_counter() - began)
        return seconds

    def calls_by_step(self) -> list[list[Function]]:
        """The leaf calls of each step; none where there is nothing to do."""
        starts = [step.start for step in self.steps]
        stops = [*starts[1:], len(self)]
        return [self._calls[a:b] for a, b in zip(starts, stops, strict=False)]

    def join(
        self, joined: Callable[[list[Function]], Iterable[tuple[int, Function]]]
    ) -> None:
        """Have replays make other calls, some of which stand for several leaf calls.

        Args:
            joined: Gets the leaf calls, and gives those to be made instead, in order,
                each with the number of leaf calls that it stands for.
        """
        pairs = list(joined(self._calls))
        self._made = [call for _, call in pairs]
        self._starts = [0, *itertools.accumulate(count for count, _ in pairs)]

    def _step_of(self, number: int) -> Step | None:
        """The operation that a leaf call belongs to."""
        starts = [step.start for step in self.steps]
        index = bisect.bisect_right(starts, number) - 1
        return self.steps[index] if index >= 0 else None

    # -- recording -----------------------------------------------------------

    def do(self, function: Function, /, *args: Any, **kwargs: Any) -> Any:
        """Make a leaf call, and have it made again by each replay.

        Args:
            function: What to call; its attribute `leaves`, if any, stands for it in
                replays.
            *args: Its arguments.
            **kwargs: Likewise.
        """
        if function is not _set and any(
            isinstance(arg, Variable) for arg in (*args, *kwargs.values())
        ):
            args, kwargs = (function, args, kwargs), {}
            function = _evaluated
        result = function(*args, **kwargs)
        leaves = getattr(function, "leaves", None)
        if leaves is None:
            self._calls.append(functools.partial(function, *args, **kwargs))
        else:
            self._kept.append(function)
            self._calls += leaves
        return result

    def number(self, dtype: Any, value: Any) -> Any:
        """A scalar argument of leaf calls; one that changes is read by each replay."""
        if isinstance(value, np.ndarray):
            return value
        if not isinstance(value, Variable):
            return float(value)
        array = np.zeros((), dtype)
        self.do(_set, array, value)
        return array

    def noted(self, name: str, operation: Function) -> Function:
        """An operation that becomes a step, unless it is a part of another one."""

        def noted(*args: Any, **kwargs: Any) -> Any:
            if not self._depth:
                arguments = _signature_of(operation).bind(*args, **kwargs).arguments
                self.steps.append(Step(self.layer, name, arguments, len(self)))
            self._depth += 1
            try:
                return operation(*args, **kwargs)
            finally:
                self._depth -= 1

        return noted
