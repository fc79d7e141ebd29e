"""Checks of arguments that the whole package shares.

What is not as they say raises a ValidationError, whose message begins with `what`, or
names the owner's class.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from brainstorm.utils import ValidationError


def checked_number(value: Any, what: str, minimum: float = -math.inf) -> float:
    """The value as a float, which has to be finite and at least `minimum`."""
    if is_finite(value) and value >= minimum:
        return float(value)
    bound = "" if minimum == -math.inf else f" >= {minimum}"
    raise ValidationError(f"{what} has to be a finite number{bound}, not {value!r}")


def checked_integer(value: Any, what: str, minimum: int) -> int:
    """The value as an int, which has to be at least `minimum`."""
    if is_whole(value, minimum):
        return int(value)
    raise ValidationError(
        f"{what} has to be a whole number of at least {minimum}, got {value!r}"
    )


def checked_sizes(
    net: Any, time_size: int | None, batch_size: int | None
) -> tuple[int, int]:
    """A time and a batch size; those of the network's data where they are None."""
    T = net.time_size if time_size is None else time_size
    B = net.batch_size if batch_size is None else batch_size
    return checked_integer(T, "time_size", 1), checked_integer(B, "batch_size", 1)


def is_finite(value: Any) -> bool:
    """Whether the value is a finite number, and no larger than a float can be."""
    try:
        return isinstance(value, Real) and math.isfinite(value)
    except OverflowError:
        return False


def checked_array(values: Any, what: str) -> np.ndarray:
    """A float64 copy of an array, a nested list or a number, which are to be real."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise ValidationError(f"{what} does not form an array: {error}") from error
    if array.dtype.kind not in "biuf":
        raise ValidationError(
            f"{what} has to consist of real numbers, not of {array.dtype}"
        )
    return np.array(array, dtype=np.float64)


def checked_positive(value: Any, what: str) -> float:
    """The value as a float, which has to be finite and above 0."""
    number = checked_number(value, what, minimum=0)
    if number == 0:
        raise ValidationError(f"{what} has to be above 0")
    return number


def check_number(
    owner: object,
    name: str,
    value: float,
    low: float = -math.inf,
    below: float = math.inf,
) -> float:
    """Return an argument that has to be a finite number in ``[low, below)``."""
    good = is_finite(value) and not isinstance(value, bool) and low <= value < below
    if not good:
        raise ValidationError(
            f"{type(owner).__name__}: {name} has to be a finite number in"
            f" [{low}, {below}), not {value!r}"
        )
    return value


def check_integer(owner: object, name: str, value: int, low: int) -> int:
    """Return an argument that has to be an integer of at least `low`."""
    if not isinstance(value, Integral) or value < low:
        raise ValidationError(
            f"{type(owner).__name__}: {name} has to be an integer of at least {low},"
            f" not {value!r}"
        )
    return value


def check_network(net: Any) -> None:
    """Check that this is a network."""
    if not (hasattr(net, "provide_external_data") or hasattr(net, "forward_pass")):
        raise ValidationError(f"net: expected a Network, got {type(net).__name__}")


class Check(NamedTuple):
    """Which values of an argument are good.

    Attributes:
        accept: Tells whether a value is good.
        expected: What to tell the user who gave a bad one.
        convert: What layers get instead of a good value.
    """

    accept: Callable[[Any], bool]
    expected: str
    convert: Callable[[Any], Any] = lambda value: value


class Argument(NamedTuple):
    """An argument of a layer.

    Attributes:
        default: The value where it is not given.
        check: Which other values are good.
        is_newer: Whether version 0.5 does not know it.
    """

    default: Any
    check: Check
    is_newer: bool

    def may_be_left_out(self, value: Any) -> bool:
        """Whether architectures do without this value, so that 0.5 can read them."""
        same = type(value) is type(self.default) and value == self.default
        return same and self.is_newer


def is_whole(number: Any, minimum: int) -> bool:
    """Whether this is an integer of at least `minimum`."""
    return (
        isinstance(number, Integral)
        and not isinstance(number, bool)
        and int(number) >= minimum
    )


COUNT = Check(lambda n: is_whole(n, 1), "a positive integer", int)
FINITE = Check(is_finite, "a finite number")
FLAG = Check(lambda value: isinstance(value, bool), "True or False")
NOT_NEGATIVE = Check(lambda x: is_finite(x) and x >= 0, "a number of at least 0")
POSITIVE = Check(lambda x: is_finite(x) and x > 0, "a positive number")
