"""Schedules: how a value, mostly the learning rate, changes during training.

They are used by :class:`brainstorm.hooks.ModifyStepperAttribute`. A schedule
computes its value from the counts alone, so a resumed training goes on as if it
had never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from brainstorm.describable import Describable
from brainstorm.training.utils import check_number
from brainstorm.utils import ValidationError

if TYPE_CHECKING:
    from brainstorm.structure.network import Network
    from brainstorm.training.steppers import TrainingStepper

__all__ = ["DecreaseAfterEpoch", "Exponential", "Linear", "MultiStep", "Schedule"]


class Schedule(Describable):
    """Base class of all schedules; any function with these arguments works too."""

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        timescale: str,
        interval: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> float:
        """The value to use from now on.

        Args:
            epoch_nr: Number of the epoch, 0 before the training.
            update_nr: Number of updates so far.
            timescale: What the caller counts: ``'epoch'`` or ``'update'``.
            interval: The caller asks every `interval` epochs or updates.
            net: The network that is trained.
            stepper: The stepper that trains it.
            logs: The logs of the trainer.
        """
        raise NotImplementedError


class Linear(Schedule):
    """Go from one value to another in equal changes, one per call, and stay there.

    The value is ``initial + (final - initial) * min(k / num_changes, 1)``, where
    k is the number of the epoch or update divided by the interval, rounded down.

    >>> linear = Linear(1.0, 0.5, num_changes=2)
    >>> [linear(k, 0, 'epoch', 1, None, None, {}) for k in range(4)]
    [1.0, 0.75, 0.5, 0.5]

    Args:
        initial_value: The value before the first change.
        final_value: The value after the last change.
        num_changes: Number of changes, at least 1.
    """

    def __init__(self, initial_value: float, final_value: float, num_changes: int):
        self.initial_value = check_number(self, "initial_value", initial_value)
        self.final_value = check_number(self, "final_value", final_value)
        self.num_changes = check_number(self, "num_changes", num_changes, low=1)

    def __call__(self, epoch_nr, update_nr, timescale, interval, net, stepper, logs):
        """The value to use from now on."""
        done = min(_calls(epoch_nr, update_nr, timescale, interval), self.num_changes)
        change = (self.final_value - self.initial_value) / self.num_changes
        if done == self.num_changes:
            return self.final_value
        return self.initial_value + change * done


class Exponential(Schedule):
    """Multiply the value by a factor at each call.

    The value is ``initial * factor ** k`` clipped to [`minimum`, `maximum`], where
    k is the number of the epoch or update divided by the interval, rounded down.

    >>> exponential = Exponential(1.0, 0.5, minimum=0.2)
    >>> [exponential(k, 0, 'epoch', 1, None, None, {}) for k in range(4)]
    [1.0, 0.5, 0.25, 0.2]

    Args:
        initial_value: The value before the first change.
        factor: What the value is multiplied by.
        minimum: The value never falls below this.
        maximum: The value never rises above this.
    """

    __default_values__ = {"minimum": -math.inf, "maximum": math.inf}

    def __init__(
        self,
        initial_value: float,
        factor: float,
        minimum: float = -math.inf,
        maximum: float = math.inf,
    ):
        self.initial_value = check_number(self, "initial_value", initial_value)
        self.factor = check_number(self, "factor", factor)
        if not minimum <= maximum:
            raise ValidationError(
                f"Exponential: minimum has to be at most maximum, not {minimum!r}"
                f" and {maximum!r}"
            )
        self.minimum = minimum
        self.maximum = maximum

    def __call__(self, epoch_nr, update_nr, timescale, interval, net, stepper, logs):
        """The value to use from now on."""
        calls = _calls(epoch_nr, update_nr, timescale, interval)
        try:
            value = self.initial_value * float(self.factor) ** calls
        except OverflowError:
            sign = -1 if self.factor < 0 and calls % 2 else 1
            value = math.copysign(math.inf, self.initial_value * sign)
        return min(max(value, self.minimum), self.maximum)


class MultiStep(Schedule):
    """Take given values from given epochs or updates on.

    The timescale of the hook that uses it says which of the two `steps` means.

    >>> steps = MultiStep(0.1, [2, 3], [0.01, 0.001])
    >>> [steps(k, 0, 'epoch', 1, None, None, {}) for k in range(5)]
    [0.1, 0.1, 0.01, 0.001, 0.001]

    Args:
        initial_value: The value before the first step.
        steps: Numbers of epochs or updates, in ascending order.
        values: The value from each of these on.
    """

    def __init__(
        self, initial_value: float, steps: Sequence[int], values: Sequence[float]
    ):
        self.initial_value = check_number(self, "initial_value", initial_value)
        self.steps = [check_number(self, "each of steps", s, low=0) for s in steps]
        self.values = [check_number(self, "each of values", v) for v in values]
        if len(self.steps) != len(self.values):
            raise ValidationError(
                "MultiStep: expected as many steps as values, not"
                f" {len(self.steps)} and {len(self.values)}"
            )
        if any(a >= b for a, b in zip(self.steps, self.steps[1:], strict=False)):
            raise ValidationError(
                f"MultiStep: steps have to be in ascending order, not {self.steps}"
            )

    def __call__(self, epoch_nr, update_nr, timescale, interval, net, stepper, logs):
        """The value to use from now on."""
        count = epoch_nr if timescale == "epoch" else update_nr
        passed = sum(step <= count for step in self.steps)
        return self.values[passed - 1] if passed else self.initial_value


class DecreaseAfterEpoch(Schedule):
    """Keep the value for `T` epochs, then decrease it with the inverse of the epoch.

    The value is ``initial * T / max(T, epoch)``: still the initial one at epoch T, a
    half of it at 2 T.

    >>> decrease = DecreaseAfterEpoch(1.0, T=2)
    >>> [decrease(k, 0, 'epoch', 1, None, None, {}) for k in range(5)]
    [1.0, 1.0, 1.0, 0.6666666666666666, 0.5]

    Args:
        initial_value: The value of the first epochs.
        T: Number of epochs before the decrease, positive.
    """

    def __init__(self, initial_value: float, T: float):
        self.initial_value = check_number(self, "initial_value", initial_value)
        self.T = check_number(self, "T", T, low=0)
        if T == 0:
            raise ValidationError("DecreaseAfterEpoch: T has to be positive, not 0")

    def __call__(self, epoch_nr, update_nr, timescale, interval, net, stepper, logs):
        """The value to use from now on."""
        return self.initial_value * self.T / max(self.T, epoch_nr)


def _calls(epoch_nr: int, update_nr: int, timescale: str, interval: int) -> int:
    """How often the schedule has been asked since the start of the training."""
    return (epoch_nr if timescale == "epoch" else update_nr) // interval
