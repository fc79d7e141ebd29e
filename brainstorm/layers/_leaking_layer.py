"""What layers with states that leak have in common."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import numpy as np

from brainstorm.checks import NOT_NEGATIVE, is_finite
from brainstorm.handlers import NumpyHandler
from brainstorm.handlers.operations.spiking import Neuron, SpikingCells
from brainstorm.handlers.operations.surrogates import SURROGATES, find_surrogate
from brainstorm.layers.arguments import (
    FINITE,
    FLAG,
    POSITIVE,
    Argument,
    Check,
    arguments_of,
    one_of,
)
from brainstorm.layers.base_layer import Layer, once_per_resize
from brainstorm.literals import Reset, Surrogate
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.utils import listing


def _are_positive(value: Any) -> bool:
    values = value if isinstance(value, (list, tuple)) else [value]
    return len(values) > 0 and all(map(POSITIVE.accept, values))


def leaking_arguments(function: Callable, **checks: Check) -> dict[str, Argument]:
    """`arguments_of` with checks for those of a `LeakingLayer`."""
    tau = Check(_are_positive, "a positive number, or a list with one for each unit")
    shared = {"rest": FINITE, "resistance": FINITE, "learn_tau": FLAG}
    return arguments_of(function, tau=tau, dt=POSITIVE, **shared, **checks)


class LeakingLayer(Layer):
    """Base of layers with states of which ``a = exp(-dt / tau)`` is left in a step.

    Arguments of all are `tau`, `dt` and `learn_tau`.
    """

    tau: float | Sequence[float]
    dt: float
    learn_tau: bool
    honours_fresh = True
    can_be_stepped = True  # what is carried is in outputs, or gets no deltas

    def decay_structures(
        self, units: int
    ) -> tuple[dict[str, BufferStructure], dict[str, BufferStructure]]:
        """Parameters and internals that `decay` needs for some number of units."""
        taus, several = (
            np.asarray(self.tau, np.float64),
            isinstance(self.tau, (list, tuple)),
        )
        if several and len(taus) != units:
            raise self.error(
                f"expected {units} numbers as 'tau', one for each unit, got {len(taus)}"
            )
        if not taus.min() > self.dt / 2:
            raise self.error(
                f"expected 'tau' above dt / 2 = {self.dt / 2:g}, got {taus.min():g}"
            )
        self._units, steps = units, self.dt / taus
        if not self.learn_tau:
            self._decays = np.exp(-steps)
            return {}, {}
        self._decays = -np.log(np.expm1(steps))  # their logits
        self.first_values: Mapping[str, Any] = {"decay": 0.0}
        return {"decay": BufferStructure(units)}, {"a": BufferStructure(units)}

    @once_per_resize
    def given_decays(self, buffers: Any) -> Any:
        """What `tau` makes of the numbers a; their logits if these are learned."""
        decays = np.broadcast_to(self._decays, self._units)
        return self.handler.create_from_numpy(decays)

    def decay(self, buffers: Any) -> Any:
        """What is left of the state of each unit, as the last forward pass had it."""
        return buffers.internals.a if self.learn_tau else self.given_decays(buffers)

    def new_decay(self, buffers: Any) -> Any:
        """The same, computed for a forward pass."""
        a = self.decay(buffers)
        if self.learn_tau:
            given = self.given_decays(buffers)
            self.handler.add_tt(buffers.parameters.decay, given, a)
            self.handler.sigmoid(a, a)
        return a

    def decay_gradient(self, buffers: Any) -> Any:
        """Where to put the gradient of the logit of the decay, or None."""
        return buffers.gradients.decay if self.learn_tau else None


def _is_surrogate(name: Any) -> bool:
    try:
        find_surrogate(name)
    except (KeyError, TypeError):
        return False
    return True


def spiking_arguments(function: Callable, **checks: Check) -> dict[str, Argument]:
    """`leaking_arguments` with checks for those of a `SpikingLayer`."""
    return leaking_arguments(
        function,
        threshold=FINITE,
        reset_to=FINITE,
        reset=one_of(*get_args(Reset)),
        detach_reset=FLAG,
        refractory=NOT_NEGATIVE,
        surrogate=Check(_is_surrogate, f"one of {listing(SURROGATES)}"),
        surrogate_args=Check(lambda v: isinstance(v, Mapping | None), "a dict or None"),
        **checks,
    )


def _is_usable(surrogate: str, parameters: tuple[float, ...]) -> bool:
    """Whether a surrogate is finite with these parameters."""
    h = NumpyHandler(np.float64)
    x = h.create_from_numpy(np.linspace(-2.0, 2.0, 9))
    slopes = h.zeros(x.shape)
    try:
        with np.errstate(all="ignore"):
            h.surrogate_t(x, surrogate, parameters, slopes)
    except (ArithmeticError, ValueError):
        return False
    return h.is_fully_finite(slopes)


class SpikingLayer(LeakingLayer):
    """Base of layers of neurons that leak, integrate and fire."""

    threshold: float
    rest: float
    resistance: float
    reset_to: float
    reset: Reset
    detach_reset: bool
    refractory: float
    surrogate: Surrogate
    surrogate_args: Mapping[str, float] | None
    has_surrogate_gradients = True

    def spiking_structures(
        self, *shape: int
    ) -> tuple[dict[str, BufferStructure], dict[str, BufferStructure]]:
        """Outputs and internals for neurons of some shape; sets `neuron`."""
        if not self.reset_to < self.threshold:
            raise self.error(
                f"expected 'reset_to' below the threshold {self.threshold:g}, got"
                f" {self.reset_to:g}"
            )
        surrogate, parameters = find_surrogate(self.surrogate)
        self.neuron: Neuron = Neuron(
            self.threshold,
            self.rest,
            self.resistance,
            self.reset_to,
            self.reset == "hard",
            self.detach_reset,
            int(np.floor(self.refractory / self.dt + 1e-9)),
            surrogate,
            self._surrogate_parameters(surrogate, parameters),
        )
        units = int(np.prod(shape))
        outputs = {
            "default": BufferStructure("T", "B", *shape),
            "membrane": BufferStructure("T", "B", *shape, context_size=1),
        }
        internals = {
            "u": BufferStructure("T", "B", units),
            "du": BufferStructure("T", "B", units, is_backward_only=True),
        }
        if self.neuron.frozen_steps:
            internals["left"] = BufferStructure("T", "B", units, context_size=1)
        return outputs, internals

    def _surrogate_parameters(
        self, surrogate: str, defaults: dict[str, float]
    ) -> tuple[float, ...]:
        given = dict(self.surrogate_args or {})
        if not given.keys() <= defaults.keys():
            raise self.error(
                f"expected {listing(defaults)} in 'surrogate_args' for the surrogate"
                f" {surrogate!r}, got {listing(sorted(map(str, given)))}"
            )
        parameters = tuple({**defaults, **given}.values())
        if not all(map(is_finite, parameters)) or not _is_usable(surrogate, parameters):
            raise self.error(
                f"expected numbers in 'surrogate_args' that give the surrogate"
                f" {surrogate!r} finite values, got {given!r}"
            )
        return parameters

    def cells(self, buffers: Any, v: Any, y: Any) -> SpikingCells:
        """The internals with the outputs: potentials v and spikes y."""
        left = buffers.internals.left if self.neuron.frozen_steps else None
        return SpikingCells(buffers.internals.u, v, y, left)

    def neuron_now(self) -> Neuron:
        """The constants, for tests those of neurons with smooth spikes."""
        return self.neuron._replace(smooth=True) if self.smooth else self.neuron
