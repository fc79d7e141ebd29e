"""What steppers and schedules have in common: numbers that have to be in a range."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from brainstorm.checks import check_number
from brainstorm.describable import Describable
from brainstorm.utils import ValidationError, choices

Range = tuple[float, float]

ABOVE_0 = math.ulp(0.0)
ANY, NOT_NEGATIVE, POSITIVE = ((low, math.inf) for low in (-math.inf, 0, ABOVE_0))
SHARE = (0, 1)


class Declared(Describable):
    """Base class of dataclasses: their arguments are checked, and are their members."""

    __omit_defaults__ = True

    ranges: ClassVar[dict[str, Range]] = {}
    """Members that have to be numbers within [low, high), with these two."""

    def __post_init__(self) -> None:
        for name in self.ranges.keys() & vars(self):
            self.checked(name, getattr(self, name))

    def checked(self, name: str, value: Any) -> Any:
        """Return a value if the member of this name may have it.

        Raises:
            ValidationError: It may not. Names the class, the member and the range.
        """
        if name not in self.ranges:
            return value
        low, high = self.ranges[name]
        if low == ABOVE_0 and value == 0:
            raise ValidationError(f"{type(self).__name__}: {name} has to be above 0")
        return check_number(self, name, value, low, high)


def arguments_of(part: Any) -> dict[str, Any]:
    """The arguments that make a describable object, by name; of others none."""
    if not isinstance(part, Describable):
        return {}
    names = inspect.signature(type(part)).parameters
    return {name: getattr(part, name) for name in names if hasattr(part, name)}


def with_arguments(part: Any, changes: Mapping[str, Any], prefix: str = "") -> Any:
    """A new object of the same class, with some arguments changed.

    Raises:
        ValidationError: There is no such argument, or it may not have this value.
    """
    arguments = arguments_of(part)
    for full_name, value in changes.items():
        name = full_name.removeprefix(prefix)
        if name not in arguments:
            raise ValidationError(
                f"{full_name}: {type(part).__name__} has no such argument;"
                f" {choices(name, arguments)}"
            )
        arguments[name] = value
    return type(part)(**arguments)
