"""Steppers that adapt the step size of each parameter to its gradients."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np

from brainstorm.checks import checked_array
from brainstorm.structure.layout import create_layout
from brainstorm.structure.network import Network
from brainstorm.structure.trainable import trained_parameters
from brainstorm.training.declared import NOT_NEGATIVE, POSITIVE, SHARE, Range
from brainstorm.training.steppers import TrainingStepper
from brainstorm.training.updates import Part
from brainstorm.utils import ValidationError, choices

__all__ = [
    "AdaDeltaStepper",
    "AdaGradStepper",
    "AdamStepper",
    "AdamWStepper",
    "LionStepper",
    "MuonStepper",
    "RmsPropStepper",
]

COUNT = "update_count"


class _AdaptiveStepper(TrainingStepper):
    ranges: ClassVar[dict[str, Range]] = {
        "learning_rate": NOT_NEGATIVE,
        "beta1": SHARE,
        "beta2": SHARE,
        "decay": SHARE,
        "epsilon": POSITIVE,
        "weight_decay": NOT_NEGATIVE,
    }


@dataclass(eq=False, repr=False)
class AdamStepper(_AdaptiveStepper):
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

    learning_rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    slots: ClassVar[tuple[str, ...]] = ("mean", "variance")
    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {COUNT}
    update_count = 0
    _fixed_decay: ClassVar[tuple[float, ...]] = (0.0,)  # of weights
    _operation = "adam_update"

    def start(self, net: Network) -> None:
        begins = net is not self.net and not self._restored
        super().start(net)
        if begins:
            self.update_count = 0

    def get_state(self) -> dict[str, np.ndarray]:
        state = super().get_state()
        return {**state, COUNT: np.array([self.update_count])} if state else {}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        slots, count = state, np.zeros(1)
        if isinstance(state, Mapping) and COUNT in state:
            what = f"{type(self).__name__}: {COUNT}"
            slots = {n: array for n, array in state.items() if n != COUNT}
            count = checked_array(state[COUNT], what)
            if count.size != 1 or not (count.item().is_integer() and count.item() >= 0):
                raise ValidationError(f"{what} has to be a whole number, got {count}")
        super().set_state(slots)
        self.update_count = int(count.item())

    def _update(self, operation: str, *numbers: float, **options: Any) -> None:
        count = self.update_count + 1
        super()._update(operation, *numbers, *self._fixed_decay, count, **options)
        self.update_count = count


@dataclass(eq=False, repr=False)
class AdamWStepper(AdamStepper):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Before the step of :class:`AdamStepper` all parameters shrink:
    ``p -= learning_rate * weight_decay * p``.

    Args:
        learning_rate, beta1, beta2, epsilon: See :class:`.AdamStepper`.
        weight_decay: Strength of the decay, not negative.
    """

    weight_decay: float = 0.01

    _fixed_decay: ClassVar[tuple[float, ...]] = ()


@dataclass(eq=False, repr=False)
class LionStepper(_AdaptiveStepper):
    """Lion (Chen et al. 2023): steps of one size, by the sign of a running mean.

    With the gradients g::

        step = sign(beta1 * mean + (1 - beta1) * g)
        p -= learning_rate * (step + weight_decay * p)
        mean = beta2 * mean + (1 - beta2) * g

    Learning rates that are good are a third to a tenth of those of Adam, decays as much
    larger.

    Args:
        learning_rate: Step size of each parameter, not negative.
        beta1: Share of the mean in the step, in [0, 1).
        beta2: Share of the mean that is kept, in [0, 1).
        weight_decay: Strength of the decay, not negative.
    """

    learning_rate: float = 0.0001
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0

    slots: ClassVar[tuple[str, ...]] = ("mean",)
    _operation = "lion_update"


@dataclass(eq=False, repr=False)
class MuonStepper(AdamStepper):
    """Muon (Jordan et al. 2024): steps of matrices that go all ways alike.

    With the gradient G of a matrix of weights W of M rows and N columns, and
    ``orthogonal``, which brings all singular values of a matrix near 1::

        mean = momentum * mean + (1 - momentum) * G
        step = orthogonal(momentum * mean + (1 - momentum) * G)
        W -= learning_rate * weight_decay * W
        W -= learning_rate * sqrt(max(1, M / N)) * step

    That is for all parameters with two or more dimensions, kernels of convolutions as
    matrices of a row for each; but not for those of `Embedding` layers, nor of the
    layers in `adam_layers`, among which the last one, before the loss, should be. What
    is left, biases for example, goes by :class:`AdamStepper`, with `beta1`, `beta2`,
    `epsilon` and a learning rate of ``adam_share * learning_rate``; so schedules change
    both.

    Args:
        learning_rate: Step size, not negative.
        beta1, beta2, epsilon: See :class:`.AdamStepper`.
        momentum: Share of the mean that is kept, in [0, 1).
        weight_decay: Strength of the decay of the matrices, not negative.
        adam_share: Learning rate of Adam, as a share of `learning_rate`; not negative.
        adam_layers: Names of layers whose weights go by Adam, such as
            ``['Output_projection']``; ``*`` stands for any letters.

    Raises:
        ValidationError: At the start, if there is no layer of such a name.
    """

    learning_rate: float = 0.02
    momentum: float = 0.95
    weight_decay: float = 0.0
    adam_share: float = 0.05
    adam_layers: Sequence[str] = ()

    ranges: ClassVar[dict[str, Range]] = {
        **_AdaptiveStepper.ranges,
        "momentum": SHARE,
        "adam_share": NOT_NEGATIVE,
    }
    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {COUNT}
    mean: ClassVar[Any]
    _matrices = cast(Sequence[Part], ())
    _others = cast(Sequence[Part], ())

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.adam_layers
        if isinstance(names, str) or not all(isinstance(n, str) for n in names):
            raise ValidationError(
                "MuonStepper: adam_layers has to be a list of names of layers, not"
                f" {names!r}"
            )

    def start(self, net: Network) -> None:
        super().start(net)
        matrices: list[Part] = []
        others: list[Part] = []
        hubs, _ = create_layout(net.layers)
        for name, where, shape in trained_parameters(net.layers, hubs[0]):
            if self._goes_by_adam(net, name) or len(shape) < 2:
                others.append(where)
            else:
                matrices.append((where, (shape[0], math.prod(shape[1:]))))
        for name in self.adam_layers:
            if not fnmatch.filter(net.layers, name):
                raise ValidationError(
                    f"MuonStepper: adam_layers: there is no layer {name!r};"
                    f" {choices(name, net.layers)}"
                )
        if (matrices, others) != (self._matrices, self._others):
            self.__dict__.update(_matrices=matrices, _others=others)

    def _goes_by_adam(self, net: Network, name: str) -> bool:
        is_embedding = type(net.layers[name]).__name__ == "EmbeddingLayerImpl"
        return is_embedding or any(
            fnmatch.fnmatchcase(name, pattern) for pattern in self.adam_layers
        )

    def update(self) -> None:
        net, rate = self._started_net(), self.adam_share * self.learning_rate
        adam = rate, self.beta1, self.beta2, self.epsilon
        self._update("adam_update", *adam, parts=self._others)
        updates: Any = self._updates
        arrays = net.buffer.parameters, net.buffer.gradients, self.mean
        numbers = self.learning_rate, self.momentum, self.weight_decay
        updates.run(net.handler, "muon_update", arrays, self._matrices, numbers)


@dataclass(eq=False, repr=False)
class RmsPropStepper(_AdaptiveStepper):
    """RMSProp (Tieleman and Hinton 2012): steps relative to the recent gradients.

    With the gradients g::

        mean_square = decay * mean_square + (1 - decay) * g**2
        p -= learning_rate * g / (sqrt(mean_square) + epsilon)

    Args:
        learning_rate: Step size, not negative.
        decay: Share of the mean square that is kept, in [0, 1).
        epsilon: Added to the divisor, above 0.
    """

    learning_rate: float = 0.001
    decay: float = 0.9
    epsilon: float = 1e-8

    slots: ClassVar[tuple[str, ...]] = ("mean_square",)
    _operation = "rms_prop_update"


@dataclass(eq=False, repr=False)
class AdaDeltaStepper(_AdaptiveStepper):
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

    learning_rate: float = 1.0
    decay: float = 0.95
    epsilon: float = 1e-6

    slots: ClassVar[tuple[str, ...]] = ("mean_square", "mean_square_step")
    _operation = "ada_delta_update"


@dataclass(eq=False, repr=False)
class AdaGradStepper(_AdaptiveStepper):
    """AdaGrad (Duchi et al. 2011): steps relative to all gradients so far.

    With the gradients g::

        sum_of_squares += g**2
        p -= learning_rate * g / (sqrt(sum_of_squares) + epsilon)

    Args:
        learning_rate: Step size, not negative.
        epsilon: Added to the divisor, above 0.
    """

    learning_rate: float = 0.01
    epsilon: float = 1e-8

    slots: ClassVar[tuple[str, ...]] = ("sum_of_squares",)
    _operation = "ada_grad_update"
