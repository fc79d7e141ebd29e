"""The base class of hooks that hand all logs on to other programs."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from brainstorm.hooks.base_hook import Hook
from brainstorm.structure.network import Network
from brainstorm.training.declared import arguments_of
from brainstorm.training.steppers import TrainingStepper
from brainstorm.training.utils import leaves

__all__ = ["Tracker"]


class Entry(NamedTuple):
    """An entry of a log.

    Attributes:
        name: Name of the hook and of the log, such as ``'validation/Accuracy'``.
        step: Number of the epoch, or of the update for logs of updates.
        value: What was logged.
    """

    name: str
    step: int
    value: Any


class Tracker(Hook):
    """Base class of hooks that hand each entry of all logs on, once.

    A training that goes on, also from a checkpoint, goes on where it was. Entries that
    were there before the hook was added are left out. A subclass overrides
    :meth:`write`.
    """

    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {
        "seen",
        "has_begun",
        "filename",
    }
    initial_state: ClassVar[dict[str, Any]] = {"seen": {}, "has_begun": False}
    seen: dict[str, int]
    has_begun: bool

    saves = "the logs"
    only_reports = True
    filename: str | None = None

    _net: Network | None = None
    _stepper: TrainingStepper | None = None
    _is_restored = False

    def write(self, entries: list[Entry]) -> None:
        """Hand entries on."""
        raise NotImplementedError

    def start(
        self,
        net: Network,
        stepper: TrainingStepper,
        verbose: bool | int,
        named_data_iters: Mapping[str, Any],
    ) -> None:
        super().start(net, stepper, verbose, named_data_iters)
        self._net, self._stepper = net, stepper

    def finish_round(self, trainer: Any) -> None:
        """Hand on what is new; called when all hooks have been called."""
        # Entries of an earlier training have steps that nobody knows.
        is_late = not self.has_begun and trainer.current_update_nr > 0
        self.has_begun = True
        entries = [*self._new_entries(trainer)]
        if entries and not is_late:
            self.write(entries)

    def set_state(self, state: Mapping[str, Any]) -> None:
        super().set_state(state)
        self._is_restored = True

    def reset(self) -> None:
        super().reset()
        self._is_restored = False

    def settings(self) -> dict[str, Any]:
        """The class of the stepper, and its arguments by name."""
        settings = {"stepper": type(self._stepper).__name__}
        for name, value in arguments_of(self._stepper).items():
            is_plain = isinstance(value, bool | int | float | str)
            settings[name] = value if is_plain else repr(value)
        return settings

    def _new_entries(self, trainer: Any) -> Iterator[Entry]:
        for hook_name, log in trainer.logs.items():
            hook = trainer.hooks.get(hook_name)
            by_update = getattr(hook, "timescale", "epoch") == "update"
            step = trainer.current_update_nr if by_update else trainer.current_epoch_nr
            for path, values in leaves(hook_name, log):
                name = "/".join(filter(None, path))
                new = values[self.seen.get(name, 0) :]
                self.seen[name] = len(values)
                for value in new:
                    yield Entry(name, step, value)


def number_of(value: Any) -> float | None:
    """A value as a number, None if it is none."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    try:
        is_number = isinstance(value, numbers.Real | np.bool_)
        return float(value) if is_number else None
    except OverflowError:
        return math.inf if value > 0 else -math.inf
