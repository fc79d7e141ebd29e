"""Steppers that adapt the step size of each parameter to its gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from brainstorm.checks import checked_array
from brainstorm.training.steppers import NOT_NEGATIVE, POSITIVE, SHARE, TrainingStepper
from brainstorm.utils import ValidationError

if TYPE_CHECKING:
    from brainstorm.structure.network import Network

__all__ = [
    "AdaDeltaStepper",
    "AdaGradStepper",
    "AdamStepper",
    "AdamWStepper",
    "RmsPropStepper",
]

COUNT = "update_count"


class AdamStepper(TrainingStepper):
    """Adam (Kingma and Ba 2015): running means of the gradients and their squares.

    With the gradients g, in the update number t, counted from 1::

        mean = beta1 * mean + (1 - beta1) * g
        variance = beta2 * variance + (1 - beta2) * g**2
        m = mean / (1 - beta1**t)
        v = variance / (1 - beta2**t)
        p -= learning_rate * m / (sqrt(v) + epsilon)

    Args:
        learning_rate: Step size, not negative.
        beta1: Share of the mean that is kept, in [0, 1).
        beta2: Share of the variance that is kept, in [0, 1).
        epsilon: Added to the divisor, above 0.
    """

    slots = ("mean", "variance")
    ranges = {
        "learning_rate": NOT_NEGATIVE,
        "beta1": SHARE,
        "beta2": SHARE,
        "epsilon": POSITIVE,
    }
    __undescribed__ = {"mean", "variance", COUNT}

    _weight_decay = 0.0

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ):
        self.learning_rate = self.checked("learning_rate", learning_rate)
        self.beta1 = self.checked("beta1", beta1)
        self.beta2 = self.checked("beta2", beta2)
        self.epsilon = self.checked("epsilon", epsilon)
        self.mean: Any = None
        self.variance: Any = None
        self.update_count = 0

    def start(self, net: Network) -> None:
        """Get ready to train a network; see :meth:`TrainingStepper.start`."""
        begins = net is not self.net and not self._restored
        super().start(net)
        if begins:
            self.update_count = 0

    def get_state(self) -> dict[str, np.ndarray]:
        """NumPy copies of all slots, and the number of updates so far."""
        state = super().get_state()
        return {**state, COUNT: np.array([self.update_count])} if state else {}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from a state that :meth:`get_state` returned.

        It takes effect with the next :meth:`start`.

        Raises:
            ValidationError: The names of the arrays are not those of a state, or
                the number of updates is none.
        """
        slots, count = state, np.zeros(1)
        if isinstance(state, Mapping) and COUNT in state:
            what = f"{type(self).__name__}: {COUNT}"
            slots = {n: array for n, array in state.items() if n != COUNT}
            count = checked_array(state[COUNT], what)
            if count.size != 1 or not (count.item().is_integer() and count.item() >= 0):
                raise ValidationError(f"{what} has to be a whole number, got {count}")
        super().set_state(slots)
        self.update_count = int(count.item())

    def run(self) -> None:
        """Do one update with the data that has been provided to the network."""
        self._compute_gradients()
        count = self.update_count + 1
        self._update(
            "adam_update",
            self.learning_rate,
            self.beta1,
            self.beta2,
            self.epsilon,
            self._weight_decay,
            count,
        )
        self.update_count = count


class AdamWStepper(AdamStepper):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Before the step of :class:`AdamStepper` all parameters shrink:
    ``p -= learning_rate * weight_decay * p``.

    Args:
        learning_rate, beta1, beta2, epsilon: See :class:`.AdamStepper`.
        weight_decay: Strength of the decay, not negative.
    """

    ranges = {**AdamStepper.ranges, "weight_decay": NOT_NEGATIVE}

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        super().__init__(learning_rate, beta1, beta2, epsilon)
        self.weight_decay = self.checked("weight_decay", weight_decay)

    @property
    def _weight_decay(self) -> float:
        return self.weight_decay


class RmsPropStepper(TrainingStepper):
    """RMSProp (Tieleman and Hinton 2012): steps relative to the recent gradients.

    With the gradients g::

        mean_square = decay * mean_square + (1 - decay) * g**2
        p -= learning_rate * g / (sqrt(mean_square) + epsilon)

    Args:
        learning_rate: Step size, not negative.
        decay: Share of the mean square that is kept, in [0, 1).
        epsilon: Added to the divisor, above 0.
    """

    slots = ("mean_square",)
    ranges = {"learning_rate": NOT_NEGATIVE, "decay": SHARE, "epsilon": POSITIVE}
    __undescribed__ = {"mean_square"}

    def __init__(
        self, learning_rate: float = 0.001, decay: float = 0.9, epsilon: float = 1e-8
    ):
        self.learning_rate = self.checked("learning_rate", learning_rate)
        self.decay = self.checked("decay", decay)
        self.epsilon = self.checked("epsilon", epsilon)
        self.mean_square: Any = None

    def run(self) -> None:
        """Do one update with the data that has been provided to the network."""
        self._compute_gradients()
        self._update(
            "rms_prop_update",
            self.learning_rate,
            self.decay,
            self.epsilon,
        )


class AdaDeltaStepper(TrainingStepper):
    """AdaDelta (Zeiler 2012): steps as large as the recent steps.

    With the gradients g::

        mean_square = decay * mean_square + (1 - decay) * g**2
        step = g * sqrt(mean_square_step + epsilon) / sqrt(mean_square + epsilon)
        mean_square_step = decay * mean_square_step + (1 - decay) * step**2
        p -= learning_rate * step

    Args:
        learning_rate: Factor of the steps, not negative; 1 in the paper.
        decay: Share of the mean squares that is kept, in [0, 1).
        epsilon: Added to the mean squares, above 0.
    """

    slots = ("mean_square", "mean_square_step")
    ranges = {"learning_rate": NOT_NEGATIVE, "decay": SHARE, "epsilon": POSITIVE}
    __undescribed__ = {"mean_square", "mean_square_step"}

    def __init__(
        self, learning_rate: float = 1.0, decay: float = 0.95, epsilon: float = 1e-6
    ):
        self.learning_rate = self.checked("learning_rate", learning_rate)
        self.decay = self.checked("decay", decay)
        self.epsilon = self.checked("epsilon", epsilon)
        self.mean_square: Any = None
        self.mean_square_step: Any = None

    def run(self) -> None:
        """Do one update with the data that has been provided to the network."""
        self._compute_gradients()
        self._update(
            "ada_delta_update",
            self.learning_rate,
            self.decay,
            self.epsilon,
        )


class AdaGradStepper(TrainingStepper):
    """AdaGrad (Duchi et al. 2011): steps relative to all gradients so far.

    With the gradients g::

        sum_of_squares += g**2
        p -= learning_rate * g / (sqrt(sum_of_squares) + epsilon)

    Args:
        learning_rate: Step size, not negative.
        epsilon: Added to the divisor, above 0.
    """

    slots = ("sum_of_squares",)
    ranges = {"learning_rate": NOT_NEGATIVE, "epsilon": POSITIVE}
    __undescribed__ = {"sum_of_squares"}

    def __init__(self, learning_rate: float = 0.01, epsilon: float = 1e-8):
        self.learning_rate = self.checked("learning_rate", learning_rate)
        self.epsilon = self.checked("epsilon", epsilon)
        self.sum_of_squares: Any = None

    def run(self) -> None:
        """Do one update with the data that has been provided to the network."""
        self._compute_gradients()
        self._update(
            "ada_grad_update",
            self.learning_rate,
            self.epsilon,
        )
