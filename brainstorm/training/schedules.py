"""Schedules: how a value, mostly the learning rate, changes during training.

They are used by :class:`brainstorm.hooks.ModifyStepperAttribute`. A schedule
computes its value from the counts alone, so a resumed training goes on as if it
had never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from brainstorm.checks import check_number
from brainstorm.literals import Timescale
from brainstorm.structure.network import Network
from brainstorm.training.declared import ANY, POSITIVE, SHARE, Declared, Range
from brainstorm.training.steppers import TrainingStepper
from brainstorm.utils import ValidationError

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


class Schedule(Declared):
    """Base class of all schedules; any function with these arguments works too.

    Where k stands below, it is the number of the epoch or update divided by the
    interval, rounded down.
    """

    ranges: ClassVar[dict[str, Range]] = {
        "initial_value": ANY,
        "final_value": ANY,
        "peak_value": ANY,
        "factor": ANY,
        "num_changes": (1, math.inf),
        "rise": SHARE,
        "T": POSITIVE,
    }

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        timescale: Timescale,
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
        return self._at(_calls(epoch_nr, update_nr, timescale, interval))

    def _at(self, k: int) -> float:
        """The value at call k, of schedules that need to know no more."""
        raise NotImplementedError


@dataclass(eq=False, repr=False)
class Linear(Schedule):
    """Go from one value to another in equal changes, one per call, and stay there.

    The value is ``initial + (final - initial) * min(k / num_changes, 1)``.

    >>> linear = Linear(1.0, 0.5, num_changes=2)
    >>> [linear(k, 0, 'epoch', 1, None, None, {}) for k in range(4)]
    [1.0, 0.75, 0.5, 0.5]

    Args:
        initial_value: The value before the first change.
        final_value: The value after the last change.
        num_changes: Number of changes, at least 1.
    """

    initial_value: float
    final_value: float
    num_changes: int

    def _at(self, k: int) -> float:
        if k >= self.num_changes:
            return self.final_value
        change = (self.final_value - self.initial_value) / self.num_changes
        return self.initial_value + change * k


@dataclass(eq=False, repr=False)
class Exponential(Schedule):
    """Multiply the value by a factor at each call.

    The value is ``initial * factor ** k`` clipped to [`minimum`, `maximum`].

    >>> exponential = Exponential(1.0, 0.5, minimum=0.2)
    >>> [exponential(k, 0, 'epoch', 1, None, None, {}) for k in range(4)]
    [1.0, 0.5, 0.25, 0.2]

    Args:
        initial_value: The value before the first change.
        factor: What the value is multiplied by.
        minimum: The value never falls below this.
        maximum: The value never rises above this.
    """

    initial_value: float
    factor: float
    minimum: float = -math.inf
    maximum: float = math.inf

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.minimum <= self.maximum:
            raise ValidationError(
                "Exponential: minimum has to be at most maximum, not"
                f" {self.minimum!r} and {self.maximum!r}"
            )

    def _at(self, k: int) -> float:
        try:
            value = self.initial_value * float(self.factor) ** k
        except OverflowError:
            sign = -1 if self.factor < 0 and k % 2 else 1
            value = math.copysign(math.inf, self.initial_value * sign)
        return min(max(value, self.minimum), self.maximum)


@dataclass(eq=False, repr=False)
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

    initial_value: float
    steps: Sequence[int]
    values: Sequence[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        steps: Any = [check_number(self, "each of steps", s, low=0) for s in self.steps]
        self.steps = steps
        self.values = [check_number(self, "each of values", v) for v in self.values]
        if len(self.steps) != len(self.values):
            raise ValidationError(
                "MultiStep: expected as many steps as values, not"
                f" {len(self.steps)} and {len(self.values)}"
            )
        if any(a >= b for a, b in zip(self.steps, self.steps[1:], strict=False)):
            raise ValidationError(
                f"MultiStep: steps have to be in ascending order, not {self.steps}"
            )

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        timescale: Timescale,
        interval: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> float:
        count = _calls(epoch_nr, update_nr, timescale)
        passed = sum(step <= count for step in self.steps)
        return self.values[passed - 1] if passed else self.initial_value


@dataclass(eq=False, repr=False)
class Cosine(Schedule):
    """Go from one value to another along half a cosine, and stay there.

    The value is ``final + (initial - final) * (1 + cos(pi * s)) / 2`` with
    ``s = min(k / num_changes, 1)``. Loshchilov and Hutter, *SGDR: stochastic
    gradient descent with warm restarts*, 2017; without the restarts.

    >>> cosine = Cosine(1.0, 0.0, num_changes=4)
    >>> [round(cosine(k, 0, 'epoch', 1, None, None, {}), 3) for k in range(6)]
    [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]

    Args:
        initial_value, final_value, num_changes: See :class:`Linear`.
    """

    initial_value: float
    final_value: float
    num_changes: int

    def _at(self, k: int) -> float:
        return _half_cosine(self.initial_value, self.final_value, k / self.num_changes)


@dataclass(eq=False, repr=False)
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

    peak_value: float
    num_changes: int
    rise: float = 0.3
    initial_value: float | None = None
    final_value: float | None = None

    def checked(self, name: str, value: Any) -> Any:
        """Return a value if it is good; None stands for those below the peak."""
        is_left_out = value is None and name in ("initial_value", "final_value")
        return value if is_left_out else super().checked(name, value)

    def _at(self, k: int) -> float:
        first, peak, last = self.initial_value, self.peak_value, self.final_value
        peak_at = self.rise * self.num_changes
        if k < peak_at:
            return _half_cosine(
                peak / 25 if first is None else first, peak, k / peak_at
            )
        done = (k - peak_at) / (self.num_changes - peak_at)
        return _half_cosine(peak, peak / 250_000 if last is None else last, done)


@dataclass(eq=False, repr=False)
class Warmup(Schedule):
    """Rise in equal changes to the values of another schedule.

    They are multiplied by ``min((k + 1) / (num_changes + 1), 1)``. The other
    schedule runs along from the start. Goyal et al., *Accurate, large minibatch SGD*,
    2017.

    >>> warmup = Warmup(0.1, num_changes=4)
    >>> [round(warmup(k, 0, 'epoch', 1, None, None, {}), 3) for k in range(6)]
    [0.02, 0.04, 0.06, 0.08, 0.1, 0.1]

    Args:
        schedule: The schedule to follow, or a constant value.
        num_changes: Number of changes before it is followed, at least 1.
    """

    schedule: Callable[..., float] | float
    num_changes: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.schedule):
            check_number(self, "schedule, if it is no schedule,", self.schedule)

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        timescale: Timescale,
        interval: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> float:
        value = self.schedule
        if callable(value):
            value = value(epoch_nr, update_nr, timescale, interval, net, stepper, logs)
            check_number(self, "what schedule returns", value)
        calls = _calls(epoch_nr, update_nr, timescale, interval)
        return value * min((calls + 1) / (self.num_changes + 1), 1)


@dataclass(eq=False, repr=False)
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

    initial_value: float
    T: float

    def __call__(
        self,
        epoch_nr: int,
        update_nr: int,
        timescale: Timescale,
        interval: int,
        net: Network,
        stepper: TrainingStepper,
        logs: dict[str, Any],
    ) -> float:
        return self.initial_value * self.T / max(self.T, epoch_nr + 1)


def _calls(
    epoch_nr: int, update_nr: int, timescale: Timescale, interval: int = 1
) -> int:
    """How often the schedule has been asked since the start of the training."""
    return (epoch_nr if timescale == "epoch" else update_nr) // interval


def _half_cosine(first: float, last: float, done: float) -> float:
    """Between two values along half a cosine, `done` from 0 to 1."""
    if done >= 1:
        return last
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2
