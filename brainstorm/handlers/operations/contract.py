"""What an operation expects of its arguments, declared where the operation is."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import numpy as np

from brainstorm.utils import HandlerError

__all__ = [
    "Operation",
    "add_method",
    "check_indices",
    "contracts_of",
    "each",
    "expected",
    "flattened",
    "fresh_flag",
    "in_range",
    "indices_within",
    "missing",
    "operation",
]

_FRESH_FLAGS = {
    "out": "fresh_out",
    "dx": "fresh_dx",
    "dW": "fresh_gradients",
    "dbias": "fresh_gradients",
    "dR": "fresh_gradients",
    "dlogit": "fresh_gradients",
    "dgamma": "fresh_gradients",
    "dbeta": "fresh_gradients",
    "in_deltas": "fresh_in_deltas",
    "weight_deltas": "fresh_gradients",
    "bias_deltas": "fresh_gradients",
    "gradients": "fresh_gradients",
}
Function = TypeVar("Function", bound=Callable[..., Any])
Check = Callable[[Any, dict[str, Any]], "str | None"]


@dataclass(frozen=True)
class Operation:
    """What an operation expects of its arguments; see :func:`operation`."""

    read: dict[str, str]
    write: dict[str, str]
    add: dict[str, str]
    alias: frozenset[str]
    optional: frozenset[str]
    finite: bool
    check: Check | None
    check_values: Check | None


def operation(
    read: str = "",
    write: str = "",
    add: str = "",
    alias: str = "",
    optional: str = "",
    finite: bool = True,
    check: Check | None = None,
    check_values: Check | None = None,
) -> Callable[[Function], Function]:
    """Declare what an operation expects of the arrays given to it.

    Arrays are written as ``name:shape``, separated by spaces. A shape consists of
    numbers and letters separated by commas; a letter stands for the same size
    each time. ``*S`` stands for any number of dimensions, ``A+B`` for a sum, and
    ``|`` separates alternatives. ``cells.Za`` is an array in a record, a NamedTuple.
    Arrays that the operation's documentation does not describe are added to it.

    >>> @operation("x:M,N", "y:M,N", alias="x")
    ... def negate(self, x, y):
    ...     self.mult_st(-1.0, x, y)
    >>> negate.contract.read
    {'x': 'M,N'}

    Args:
        read: Arrays that are only read.
        write: Arrays that are overwritten; what they hold does not matter.
        add: Arrays that are read and modified. If the operation has a flag such
            as ``fresh_dx`` and it is set, they count as overwritten.
        alias: Names in `read` that an output may be identical with; ``*`` for all.
        optional: Names of arrays, and of records, that may be None.
        finite: Whether NaN and infinity are refused.
        check: Called with the handler and a dict of all arguments; returns what
            is wrong with them, or None.
        check_values: The same for checks that look into the arrays.
    """
    reads = _shapes(read)
    contract = Operation(
        reads,
        _shapes(write),
        _shapes(add),
        frozenset(reads if alias == "*" else alias.split()),
        frozenset(optional.split()),
        finite,
        check,
        check_values,
    )

    def declare(function: Function) -> Function:
        function.contract = contract  # type: ignore[attr-defined]
        function.__doc__ = _documented(function, contract)
        return function

    return declare


def _documented(function: Callable[..., Any], contract: Operation) -> str:
    """The documentation of an operation, with all arrays that it says nothing about."""
    text = inspect.cleandoc(function.__doc__ or "")
    names = inspect.signature(function).parameters
    lines = "Args:"
    shapes = {**contract.read, **contract.write, **contract.add}
    for name in names:
        shape, member = shapes.get(name), f"{name}."
        if f"\n    {name}: " in text:
            continue
        if record := [n for n in shapes if n.startswith(member)]:
            arrays = [
                f"{n.removeprefix(member)} {_in_words(shapes[n])}" for n in record
            ]
            lines += f"\n    {name}: {', '.join(arrays)}."
        if shape is None:
            continue
        lines += f"\n    {name}: {_in_words(shape)}"
        if name in contract.optional:
            lines += ", or None"
        if name in contract.write:
            lines += "; overwritten"
            same = [f"`{other}`" for other in names if other in contract.alias]
            lines += f"; may be {' or '.join(same)}" if same else ""
        if name in contract.add:
            flag = fresh_flag(name)
            fresh = f"; added to, or with `{flag}` overwritten"
            lines += fresh if flag in names else "; modified"
        lines += "."
    if lines == "Args:":
        return text
    if "\nArgs:" in text:
        return text.replace("Args:", lines, 1)
    before, raises, errors = text.partition("Raises:")
    return f"{before.rstrip()}\n\n{lines}\n\n{raises}{errors}".rstrip()


def _in_words(shape: str) -> str:
    """Sizes in the notation of Python."""
    if shape.startswith("*") and "," not in shape:
        return "any shape"
    kinds = [kind.replace("*L", "...").split(",") for kind in shape.split("|")]
    return " or ".join(
        "(" + ", ".join(kind) + ("," if len(kind) == 1 else "") + ")" for kind in kinds
    )


def _shapes(text: str) -> dict[str, str]:
    return dict(item.split(":") for item in text.split())


def add_method(cls: type, name: str, function: Callable[..., None]) -> Any:
    """Give a class a copy of a function, as if it had been defined there."""
    assert isinstance(function, types.FunctionType)
    method = types.FunctionType(
        function.__code__, function.__globals__, name, None, function.__closure__
    )
    method.__annotations__, method.__module__ = function.__annotations__, cls.__module__
    method.__doc__ = function.__doc__
    method.__qualname__ = f"{cls.__qualname__}.{name}"
    setattr(cls, name, method)
    return method


def missing(handler: Any, *arguments: Any) -> NoReturn:
    """Stands for what each handler has to have."""
    raise NotImplementedError


def each(record: str, fields: Iterable[str], shape: str) -> str:
    """Declare arrays in a record that have the same shape.

    >>> each("cells", ("Ra", "Za"), "T,B,N")
    'cells.Ra:T,B,N cells.Za:T,B,N'
    """
    return " ".join([f"{record}.{field}:{shape}" for field in fields])


def flattened(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name; those in a record have names such as ``cells.Za``."""
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        if hasattr(value, "_fields"):
            found |= {f"{name}.{field}": v for field, v in value._asdict().items()}
        else:
            found[name] = value
    return found


def fresh_flag(name: str) -> str:
    """The flag that lets a destination count as overwritten, or ''."""
    return _FRESH_FLAGS.get(name.partition(".")[0], "")


def contracts_of(cls: type) -> dict[str, Operation]:
    """What each operation expects that a class of handlers declares or inherits."""
    contracts = {n: getattr(getattr(cls, n, None), "contract", None) for n in dir(cls)}
    return {n: c for n, c in contracts.items() if isinstance(c, Operation)}


# -- checks that several operations make -------------------------------------


def expected(name: str, wanted: str, got: str) -> str:
    """The text for an argument that is not what it has to be."""
    return f"argument {name!r}: expected {wanted}, got {got}"


def indices_within(name: str, matrix: str, axis: int = 1) -> Check:
    """A check that an argument has numbers of columns, or rows, of another one."""

    def check(handler: Any, args: dict[str, Any]) -> str | None:
        try:
            check_indices(
                handler.get_numpy_copy(args[name]),
                args[matrix].shape[axis],
                f"argument {name!r}: indices",
            )
        except HandlerError as error:
            return str(error)
        return None

    return check


def in_range(name: str, low: float, high: float) -> Check:
    """A check that an argument is a number within limits."""

    def check(handler: Any, args: dict[str, Any]) -> str | None:
        if not low <= args[name] <= high:
            return expected(name, f"a number in [{low}, {high}]", repr(args[name]))
        return None

    return check


def check_indices(indices: np.ndarray, count: int, what: str) -> None:
    """Raise a HandlerError if an index is no integer in [0, count).

    Args:
        indices: Array of numbers.
        count: How many there are to choose from.
        what: What they are, for the text of the error.
    """
    bad = ~((indices >= 0) & (indices < count) & (indices == np.floor(indices)))
    if bad.any():
        raise HandlerError(
            f"{what} have to be integers from 0 to {count - 1},"
            f" got {float(indices[bad][0])!r}"
            if count
            else f"{what}: there is nothing to choose from, got"
            f" {float(indices[bad][0])!r}"
        )
