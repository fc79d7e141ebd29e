"""Updates by the gradients of several batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from brainstorm.checks import check_integer, checked_array
from brainstorm.structure.network import Network
from brainstorm.training.steppers import TrainingStepper
from brainstorm.utils import ValidationError

__all__ = ["GradientAccumulation"]

COUNTS, PREFIX = "counts", "stepper."


@dataclass(eq=False, repr=False)
class GradientAccumulation(TrainingStepper):
    """Let another stepper do an update each n batches, as if these were one.

    The gradients of the batches are averaged, weighted by their numbers of sequences;
    so an update is that of the joined batch, up to rounding, with the memory of a small
    one. What else is computed over batches stays that of each: statistics of
    `BatchNorm`, and modifiers of gradients. Where the batches of an epoch are no
    multiple of n, those that are left go on in the next one.

    Numbers of the stepper, such as ``learning_rate``, are members of this one as well,
    for schedules to change.

    Args:
        stepper: Does the updates.
        n: Number of batches, at least 1.

    Raises:
        ValidationError: An argument is not as above; or the stepper takes gradients
            elsewhere than where the parameters are, as `NesterovStepper` does.
    """

    stepper: TrainingStepper
    n: int

    slots: ClassVar[tuple[str, ...]] = ("total",)
    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {"batch_count", "sequences"}
    batch_count = 0
    sequences = 0

    def __post_init__(self) -> None:
        if not getattr(self.stepper, "has_update", False):
            raise ValidationError(
                "GradientAccumulation: stepper has to be one with an update by"
                " gradients that others may compute, not"
                f" {type(self.stepper).__name__}"
            )
        check_integer(self, "n", self.n, low=1)
        if self.n is True:
            raise ValidationError("GradientAccumulation: n has to be a number")

    # -- numbers of the stepper ----------------------------------------------

    def _is_of_stepper(self, name: str) -> bool:
        stepper = self.__dict__.get("stepper")
        return isinstance(stepper, TrainingStepper) and name in stepper.ranges

    def __getattr__(self, name: str) -> Any:
        """A number of the stepper."""
        if self._is_of_stepper(name):
            return getattr(self.stepper, name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if self._is_of_stepper(name):
            setattr(self.stepper, name, value)
        else:
            super().__setattr__(name, value)

    def checked(self, name: str, value: Any) -> Any:
        return self.stepper.checked(name, value)

    # -- training ------------------------------------------------------------

    def start(self, net: Network) -> None:
        begins = net is not self.net and not self._restored
        self.stepper.start(net)
        super().start(net)
        if begins:
            self.batch_count = self.sequences = 0

    def run(self) -> None:
        net = self._compute_gradients()
        handler, gradients, size = net.handler, net.buffer.gradients, net.batch_size
        if net.backpropagation.exchange is not None:  # they are those of all ranks
            size = net.backpropagation.exchange.piece.total
        add = handler.mult_add_st if self.batch_count else handler.mult_st
        add(size, gradients, self.total)
        self.batch_count += 1
        self.sequences += size
        if self.batch_count >= self.n:
            handler.mult_st(1.0 / self.sequences, self.total, gradients)
            self.batch_count = self.sequences = 0
            self.stepper.update()

    def get_state(self) -> dict[str, np.ndarray]:
        state = super().get_state()
        if not state:
            return {}
        theirs = self.stepper.get_state().items()
        counts = np.array([self.batch_count, self.sequences])
        return {**state, COUNTS: counts, **{PREFIX + n: a for n, a in theirs}}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        counts, own, theirs = np.zeros(2), state, {}
        if isinstance(state, Mapping) and COUNTS in state:
            what = f"{type(self).__name__}: {COUNTS}"
            counts = checked_array(state[COUNTS], what)
            if counts.shape != (2,) or not np.all(counts == np.floor(abs(counts))):
                raise ValidationError(f"{what} have to be two numbers, got {counts}")
            own = {"total": state["total"]} if "total" in state else {}
            theirs = {
                n.removeprefix(PREFIX): a
                for n, a in state.items()
                if n.startswith(PREFIX)
            }
        super().set_state(own)
        self.stepper.set_state(theirs)
        self.batch_count, self.sequences = map(int, counts)
