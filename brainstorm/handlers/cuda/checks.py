"""Checking arguments once for each combination of types and shapes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from brainstorm.handlers.cuda.arrays import CudaArray, OperationError
from brainstorm.handlers.debug_handler import ArgumentCheck
from brainstorm.handlers.operation_specs import OPERATIONS
from brainstorm.utils import HandlerError

__all__ = ["checked", "named"]

MAX_PASSED = 8192
LARGEST = 2**31 - 1

# Values of these types are part of a combination, other values only by their type.
_KEPT = frozenset({bool, int, str, tuple, type(None)})


def checked(name: str, function: Callable) -> Callable:
    """An operation that refuses arrays of other kinds and shapes than it expects.

    What has passed is remembered: kernels trust their arguments, and in training the
    same shapes come in each step.

    Raises:
        HandlerError: Arguments are wrong, or the GPU failed. The text names the
            operation and, for arguments, what was expected and what came.
    """
    signature = inspect.signature(function)
    spec = OPERATIONS[name]
    passed: set[Any] = set()

    def check(self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        arguments = dict(list(bound.arguments.items())[1:])
        ArgumentCheck(self, name, arguments).shapes(spec)
        if "activation" in arguments:
            self.act_func[arguments["activation"]]  # a KeyError lists the choices
        for argument, value in arguments.items():
            if isinstance(value, CudaArray):
                numbers = (*value.shape, *value.strides)
                if max(numbers, default=0) > LARGEST:
                    raise HandlerError(
                        f"{name}: argument {argument!r}: sizes and strides of at most"
                        f" {LARGEST} are possible, got {value!r}"
                    )

    @functools.wraps(function)
    def operation(self: Any, *args: Any, **kwargs: Any) -> Any:
        key: Any = [_mark(value) for value in args]
        if kwargs:
            key += [(k, _mark(value)) for k, value in kwargs.items()]
        key = tuple(key)
        if key not in passed:
            check(self, args, kwargs)
            if len(passed) >= MAX_PASSED:
                passed.clear()
            passed.add(key)
        try:
            return function(self, *args, **kwargs)
        except OperationError as error:
            raise HandlerError(f"{name}: {error}") from error

    return operation


def named(name: str, function: Callable) -> Callable:
    """An operation that takes no arrays, and whose errors name it."""

    @functools.wraps(function)
    def operation(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return function(self, *args, **kwargs)
        except OperationError as error:
            raise HandlerError(f"{name}: {error}") from error

    return operation


def _mark(value: Any) -> Any:
    kind = value.__class__
    if kind is CudaArray:
        return value.layout
    return value if kind in _KEPT else kind
