"""The logs of a trainer: nested dicts of lists."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

from brainstorm.training.utils import report
from brainstorm.utils import ValidationError

ROLLING = "rolling_training"
"""The log of the losses and scores of the training batches."""


def add_log(logs: dict[str, Any], name: str, value: Any, verbose: bool) -> None:
    """Append what a hook has returned: a value, or a dict of values or further dicts.

    Refuses all of a dict where there are values already, and the other way round.
    """
    _check(logs, name, value, name)
    _append(logs, name, value)
    if verbose:
        print_log(name, value)


def _check(logs: Mapping[str, Any], name: str, value: Any, path: str) -> None:
    if name not in logs:
        return
    if isinstance(value, Mapping) != isinstance(logs[name], Mapping):
        kinds = ("a dict", "a single value")
        before, now = kinds if isinstance(logs[name], Mapping) else kinds[::-1]
        raise ValidationError(
            f"the log {path!r} has got {before} before, and can not get {now} now:"
            f" {value!r}"
        )
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check(logs[name], key, item, f"{path}.{key}")


def _append(logs: dict[str, Any], name: str, value: Any) -> None:
    if isinstance(value, Mapping):
        node = logs.setdefault(name, {})
        for key, item in value.items():
            _append(node, key, item)
    else:
        logs.setdefault(name, []).append(value)


def print_log(name: str, value: Any) -> None:
    """Print what a hook has returned."""
    report("\n".join(_lines(name, value)))


def _lines(name: str, value: Any, indent: int = 0) -> list[str]:
    """A value under its name, nested ones in lines of their own below it."""
    label = " " * indent + str(name)
    if isinstance(value, Mapping):
        lines = [label]
        for key, item in value.items():
            lines += _lines(key, item, indent + 2)
        return lines
    shown = f"{value:.6g}" if isinstance(value, numbers.Real) else str(value)
    return [f"{label:<32}: {shown}"]
