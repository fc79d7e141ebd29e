"""Checking arguments once for each combination of types and shapes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from brainstorm.handlers.cuda.arrays import CudaArray, OperationError
from brainstorm.handlers.operations.checking import ArgumentCheck
from brainstorm.handlers.operations.contract import Operation, flattened
from brainstorm.utils import HandlerError

MAX_PASSED = 2**15
# Kernels count with 32 bits, and go beyond the end by less than a block.
LARGEST = 2**31 - 2**10
# Values of these types are part of a combination, other values only by their type.
_KEPT = frozenset({bool, int, str, type(None)})


def checked(name: str, function: Callable, spec: Operation) -> Callable:
    """An operation that refuses arrays of other kinds and shapes than it expects.

    What has passed is remembered: kernels trust their arguments, and in training the
    same shapes come in each step. Numbers are remembered where they are checked. Views
    that the kernels do not take are copied, and what was written is copied back.

    Raises:
        HandlerError: Arguments are wrong, or the GPU failed. The text names the
            operation and, for arguments, what was expected and what came.
    """
    signature = inspect.signature(function)
    layouts = {**spec.read, **spec.write, **spec.add}
    # The names of those arguments that have to be copied.
    passed: dict[Any, tuple[str, ...]] = {}

    def arguments_of(self: Any, args: tuple[Any, ...], kwargs: Any) -> dict[str, Any]:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        return dict(list(bound.arguments.items())[1:])

    def check(self: Any, arguments: dict[str, Any]) -> tuple[str, ...]:
        ArgumentCheck(self, name, arguments).shapes(spec)
        if "activation" in arguments:
            self.act_func[arguments["activation"]]  # a KeyError lists the choices
        flat = flattened(arguments)
        arrays = {k: a for k, a in flat.items() if isinstance(a, CudaArray)}
        for argument, array in arrays.items():
            sizes = [*array.shape, *array.strides]
            if layouts.get(argument, "").startswith("T,B"):  # the rows of one matrix
                sizes.append(array.shape[0] * array.shape[1])
            if max(sizes, default=0) > LARGEST:
                raise HandlerError(
                    f"{name}: argument {argument!r}: sizes and strides of at most"
                    f" {LARGEST} are possible, got {array!r}"
                )
        return tuple(
            [
                k
                for k, a in arrays.items()
                if not _is_taken(name, k, layouts.get(k, "*"), a)
            ]
        )

    def on_copies(self: Any, arguments: dict[str, Any], cut: tuple[str, ...]) -> Any:
        arrays, arguments = flattened(arguments), dict(arguments)
        copies = {
            name: self.scratch(arrays[name].shape, ("dense", name)) for name in cut
        }
        for name, copy in copies.items():
            self._elementwise("copy_to", (arrays[name], copy))
            argument, _, field = name.partition(".")
            if field:
                copy = arguments[argument]._replace(**{field: copy})
            arguments[argument] = copy
        result = function(self, **arguments)
        for name, copy in copies.items():
            if name not in spec.read:
                self._elementwise("copy_to", (copy, arrays[name]))
        return result

    @functools.wraps(function)
    def operation(self: Any, *args: Any, **kwargs: Any) -> Any:
        key: Any = [_mark(value, spec.check) for value in args]
        if kwargs:
            key += [(k, _mark(value, spec.check)) for k, value in kwargs.items()]
        key = tuple(key)
        try:
            cut = passed.get(key)
        except TypeError:  # what can not be remembered is checked each time
            key = cut = None
        try:
            if cut is None:
                cut = check(self, arguments_of(self, args, kwargs))
                if len(passed) >= MAX_PASSED:
                    passed.clear()
                if key is not None:
                    passed[key] = cut
            if cut:
                return on_copies(self, arguments_of(self, args, kwargs), cut)
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


def _mark(value: Any, numbers_matter: Any) -> Any:
    kind = value.__class__
    if kind is CudaArray:
        return value.layout
    if isinstance(value, tuple):
        return kind, *[_mark(part, numbers_matter) for part in value]
    if numbers_matter or kind in _KEPT or isinstance(value, np.integer):
        return value
    return kind


def _is_taken(name: str, argument: str, layout: str, array: CudaArray) -> bool:
    """Whether an operation's kernels find their way through an array.

    Elementwise ones do so through any. Others want the last axis to be dense, and
    parameters to be dense as a whole.
    """
    if array.contiguous or layout.startswith("*") or name.endswith("_mv"):
        return True
    if array.ndim == 1 or argument.endswith(".peepholes"):
        return False
    return array.shape[-1] == 1 or array.strides[-1] == 1
