"""Schedules: how a value, mostly the learning rate, changes during training.

They are used by :class:`brainstorm.hooks.ModifyStepperAttribute`. A schedule
computes its value from the counts alone, so a resumed training goes on as if it
had never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from brainstorm.checks import check_number
from brainstorm.describable import Describable
from brainstorm.utils import ValidationError

if TYPE_CHECKING:
    from brainstorm.structure.network import Network
    from brainstorm.training.steppers import TrainingStepper

__all__ = [
    "Cosine",
    "DecreaseAfterEpoch",
    "Exponential",
    "Linear",
    "MultiStep",
    "OneCycle",
    "Schedule",
    "Warmup",
]


class Schedule(Describable):
    """Base class of all schedules; any function with these arguments works too."""

    __omit_defaults__ = True

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


class Cosine(Schedule):
    """Go from one value to another along half a cosine, and stay there.

    The value is ``final + (initial - final) * (1 + cos(pi * s)) / 2`` with
    ``s = min(k / num_changes, 1)``, where k is the number of the epoch or update
    divided by the interval, rounded down. Loshchilov and Hutter, *SGDR: stochastic
    gradient descent with warm restarts*, 2017; without the restarts.

    >>> cosine = Cosine(1.0, 0.0, num_changes=4)
    >>> [round(cosine(k, 0, 'epoch', 1, None, None, {}), 3) for k in range(6)]
    [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]

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
        done = _calls(epoch_nr, update_nr, timescale, interval) / self.num_changes
        return _half_cosine(self.initial_value, self.final_value, done)


class OneCycle(Schedule):
    """Rise to a peak and fall far below the start, along halves of a cosine.

    Smith and Topin, *Super-convergence: very fast training of neural networks using
    large learning rates*, 2018.

    >>> cycle = OneCycle(1.0, 4, rise=0.5, initial_value=0.0, final_value=0.0)
    >>> [round(cycle(0, k, 'update', 1, None, None, {}), 3) for k in range(6)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]

    Args:
        peak_value: The value at the peak.
        num_changes: Number of changes up to the end, at least 1.
        rise: Share of the changes before the peak, in [0, 1).
        initial_value: The value before the first change. Default: a 25th of the peak.
        final_value: The value after the last change. Default: a 250000th of the peak.
    """

    def __init__(
        self,
        peak_value: float,
        num_changes: int,
        rise: float = 0.3,
        initial_value: float | None = None,
        final_value: float | None = None,
    ):
        self.peak_value = check_number(self, "peak_value", peak_value)
        self.num_changes = check_number(self, "num_changes", num_changes, low=1)
        self.rise = check_number(self, "rise", rise, low=0, below=1)
        for name, value in (("initial", initial_value), ("final", final_value)):
            if value is not None:
                check_number(self, f"{name}_value", value)
        self.initial_value = initial_value
        self.final_value = final_value

    def __call__(self, epoch_nr, update_nr, timescale, interval, net, stepper, logs):
        """The value to use from now on."""
        calls = _calls(epoch_nr, update_nr, timescale, interval)
        peak_at = self.rise * self.num_changes
        if calls < peak_at:
            first = self.initial_value
            first = self.peak_value / 25 if first is None else first
            return _half_cosine(first, self.peak_value, calls / peak_at)
        last = self.final_value
        last = self.peak_value / 250_000 if last is None else last
        done = (calls - peak_at) / (self.num_changes - peak_at)
        return _half_cosine(self.peak_value, last, done)


class Warmup(Schedule):
    """Rise in equal changes to the values of another schedule.

    They are multiplied by ``min((k + 1) / (num_changes + 1), 1)``, where k is the
    number of the epoch or update divided by the interval, rounded down. The other
    schedule runs along from the start. Goyal et al., *Accurate, large minibatch SGD*,
    2017.

    >>> warmup = Warmup(0.1, num_changes=4)
    >>> [round(warmup(k, 0, 'epoch', 1, None, None, {}), 3) for k in range(6)]
    [0.02, 0.04, 0.06, 0.08, 0.1, 0.1]

    Args:
        schedule: The schedule to follow, or a constant value.
        num_changes: Number of changes before it is followed, at least 1.
    """

    def __init__(self, schedule: Callable[..., float] | float, num_changes: int):
        if not callable(schedule):
            check_number(self, "schedule, if it is no schedule,", schedule)
        self.schedule = schedule
        self.num_changes = check_number(self, "num_changes", num_changes, low=1)

    def __call__(self, epoch_nr, update_nr, timescale, interval, net, stepper, logs):
        """The value to use from now on."""
        value = self.schedule
        if callable(value):
            value = value(epoch_nr, update_nr, timescale, interval, net, stepper, logs)
            check_number(self, "what schedule returns", value)
        calls = _calls(epoch_nr, update_nr, timescale, interval)
        return value * min((calls + 1) / (self.num_changes + 1), 1)


class DecreaseAfterEpoch(Schedule):
    """Keep the value for `T` epochs, then decrease it with the inverse of the epoch.

    The value is ``initial * T / max(T, epoch + 1)``: the hook that uses it is called at
    the end of an epoch and sets the value of the next one. So the first T epochs have
    the initial value, epoch 2 T has a half of it.

    >>> decrease = DecreaseAfterEpoch(1.0, T=2)
    >>> [decrease(k, 0, 'epoch', 1, None, None, {}) for k in range(5)]
    [1.0, 1.0, 0.6666666666666666, 0.5, 0.4]

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
        return self.initial_value * self.T / max(self.T, epoch_nr + 1)


def _calls(epoch_nr: int, update_nr: int, timescale: str, interval: int) -> int:
    """How often the schedule has been asked since the start of the training."""
    return (epoch_nr if timescale == "epoch" else update_nr) // interval


def _half_cosine(first: float, last: float, done: float) -> float:
    """Between two values along half a cosine, `done` from 0 to 1."""
    if done >= 1:
        return last
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2
