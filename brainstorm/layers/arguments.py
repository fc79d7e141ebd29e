"""Arguments of layers.

Their names and defaults are those of the function that wires the layer, and stand
nowhere else; what values are good is said by checks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple

from brainstorm.checks import is_finite
from brainstorm.handlers.operations.activations import ACTIVATIONS, OTHER_NAMES
from brainstorm.utils import listing

__all__ = ["COUNT", "FINITE", "FLAG", "POSITIVE", "Argument", "Check", "arguments_of"]


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
        and number >= minimum
    )


COUNT = Check(lambda n: is_whole(n, 1), "a positive integer", int)
FINITE = Check(is_finite, "a finite number")
FLAG = Check(lambda value: isinstance(value, bool), "True or False")
POSITIVE = Check(lambda x: is_finite(x) and x > 0, "a positive number")

_COMMON = {
    "activation": Check(
        lambda name: name in (*ACTIVATIONS, *OTHER_NAMES),
        f"one of {listing(ACTIVATIONS)}",
        lambda name: OTHER_NAMES.get(name, name),
    ),
    "bias": FLAG,
    "initial_state": Check(
        lambda value: value in ("zeros", "learned"), "'zeros' or 'learned'"
    ),
    "size": COUNT,
}


def arguments_of(function: Callable, **checks: Check) -> dict[str, Argument]:
    """The arguments of a layer by name.

    Args:
        function: What wires the layer. Its parameters are the arguments, save `name`
            and `trainable`; those that are newer than 0.5 are keyword-only, or None.
        **checks: A check for each argument. `activation`, `bias`,
            `initial_state` and `size` have one.
    """
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in ("name", "trainable"):
            is_required = parameter.default is parameter.empty
            default = None if is_required else parameter.default
            is_newer = parameter.kind is parameter.KEYWORD_ONLY or default is None
            found[name] = Argument(default, {**_COMMON, **checks}[name], is_newer)
    return found
