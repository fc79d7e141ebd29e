"""Arguments of layers.

Their names and defaults are those of the function that wires the layer, and stand
nowhere else; what values are good is said by checks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import get_args

from brainstorm.checks import (
    COUNT,
    FINITE,
    FLAG,
    NOT_NEGATIVE,
    POSITIVE,
    Argument,
    Check,
    is_finite,
)
from brainstorm.handlers.operations.activations import ACTIVATIONS, OTHER_NAMES
from brainstorm.literals import InitialState
from brainstorm.utils import listing

__all__ = ["COUNT", "FINITE", "FLAG", "POSITIVE", "Argument", "Check"]
__all__ += ["NUMBERS", "arguments_of", "is_finite", "one_of"]

NUMBERS = Check(
    lambda value: (
        value is None
        or (
            isinstance(value, (list, tuple))
            and all(map(NOT_NEGATIVE.accept, value))
            and sum(value) > 0
        )
    ),
    "a list of numbers of at least 0, not all of them 0,",
)
"""Weights, or None."""


def one_of(*names: str) -> Check:
    """A check that the value is one of these."""
    return Check(lambda value: value in names, " or ".join(map(repr, names)))


_COMMON = {
    "activation": Check(
        lambda name: name in (*ACTIVATIONS, *OTHER_NAMES),
        f"one of {listing(ACTIVATIONS)}",
        lambda name: OTHER_NAMES.get(name, name),
    ),
    "bias": FLAG,
    "initial_state": one_of(*get_args(InitialState)),
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
