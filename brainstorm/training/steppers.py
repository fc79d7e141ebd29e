"""Steppers: one parameter update of a network, by some method of optimization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from brainstorm.checks import check_network, checked_array
from brainstorm.describable import of_library
from brainstorm.handlers import Handler
from brainstorm.structure.network import Network
from brainstorm.training.declared import NOT_NEGATIVE, SHARE, Declared, Range
from brainstorm.training.updates import Part, Updates
from brainstorm.utils import ValidationError, listing

__all__ = [
    "ForwardStepper",
    "MomentumStepper",
    "NesterovStepper",
    "SgdStepper",
    "TrainingStepper",
]


class TrainingStepper(Declared):
    """Base class of all steppers.

    Forward passes of training go on from `context`, a state of the network, unless it
    is None. They give `arguments` to the layers that read these, see
    `Network.forward_pass`. A subclass overrides :meth:`run`, and names in `slots` the
    state that it keeps for each parameter. Each slot is a member that holds a flat
    array of the network's handler, as long as ``net.buffer.parameters`` and zero at
    first, unless it overrides `_shape_of_slots` and `_create_slot`.
    """

    needs_loss = True
    """Whether it is of no use without a loss in the network."""

    slots: ClassVar[tuple[str, ...]] = ()
    """Names of the members that hold an array of the size of the parameters."""

    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {
        "net",
        "context",
        "arguments",
    }

    # Members, so that subclasses need no constructor, or one of their own.
    net: Network | None = None
    context: dict[str, np.ndarray] | None = None
    arguments: Mapping[str, Any] | None = None
    _handler: Handler | None = None
    _restored: Mapping[str, np.ndarray] = {}
    _updates: Updates | None = None

    has_update: ClassVar[bool] = False
    """Whether it does an :meth:`update` by gradients that it takes where the parameters
    are. Not if a subclass overrides :meth:`run`, which may do otherwise."""

    _knows_update: ClassVar[bool] = False
    _operation = ""
    """The operation of the handler that does the update; the arguments of the
    constructor, and what :meth:`_update` adds, are its numbers."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls).get("__undescribed__", set())
        if isinstance(own, set):
            cls.__undescribed__ = own | set(cls.slots)
        is_usual = cls.run is TrainingStepper.run
        has_own = cls.update is not TrainingStepper.update
        cls._knows_update = bool(has_own or cls._operation)
        cls.has_update = is_usual and cls._knows_update
        for name in set(cls.slots).difference(dir(cls)):
            setattr(cls, name, None)

    def start(self, net: Network) -> None:
        """Get ready to train a network.

        Called again with the same network, also after a change of its handler,
        the state is kept; with another network it starts from zero, unless it
        has just been set by :meth:`set_state`.

        Raises:
            ValidationError: A state that was set does not fit the network, or this is
                none.
        """
        check_network(net)
        if self.needs_loss and of_library(type(self)) and not net.loss_layers:
            raise ValidationError(
                f"{type(self).__name__}: the network has no Loss layer, so there is"
                " nothing to train for; wire the output 'loss' of a layer such as"
                " SoftmaxCE into a Loss layer: output - 'loss' >> Loss()"
            )
        state = self._restored
        if not state and net is self.net:
            if net.handler is self._handler and self._fits(net):
                return
            state = self.get_state() if self._fits(net) else {}
        shape = self._shape_of_slots(net)
        for name in self.slots:
            values = state.get(name)
            if values is not None and values.shape != shape:
                raise ValidationError(
                    f"{type(self).__name__}: expected a {name} of shape {shape}, to fit"
                    f" the parameters, got {values.shape}"
                )
            setattr(self, name, self._create_slot(net, values))
        self._restored = {}
        self.net = net
        self._handler = net.handler
        cls: Any = type(self)
        self._numbers = [f.name for f in fields(cls)] if self._operation else []

    def run(self) -> None:
        """Do one update with the data that has been provided to the network."""
        if not self._knows_update:
            raise NotImplementedError
        self._compute_gradients()
        self.update()

    def update(self) -> None:
        """Do one update by the gradients that the network has."""
        self._update(self._operation, *map(self.__getattribute__, self._numbers))

    def get_state(self) -> dict[str, np.ndarray]:
        """NumPy copies of all slots; empty before the first :meth:`start`."""
        if self._restored or self.net is None:
            return dict(self._restored)
        return {n: self._copy(getattr(self, n)) for n in self.slots}

    def _copy(self, slot: Any) -> np.ndarray:
        if isinstance(slot, np.ndarray) or self._handler is None:
            return slot.copy()
        return self._handler.get_numpy_copy(slot)

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from a state that :meth:`get_state` returned.

        It takes effect with the next :meth:`start`.

        Raises:
            ValidationError: The names of the arrays are not those of the slots, or
                these are no arrays of numbers.
        """
        kind = type(self).__name__
        if not isinstance(state, Mapping):
            raise ValidationError(f"the state of a {kind} is a dict, not {state!r}")
        if state and sorted(state) != sorted(self.slots):
            raise ValidationError(
                f"the state of a {kind} consists of {listing(self.slots)}, not of"
                f" {listing(state)}"
            )
        self._restored = {
            name: checked_array(array, f"{kind}: {name}")
            for name, array in state.items()
        }

    def _create_slot(self, net: Network, values: np.ndarray | None) -> Any:
        """A slot with these values, or to begin with."""
        if values is None:
            return net.handler.zeros(self._shape_of_slots(net))
        return net.handler.create_from_numpy(values)

    def _shape_of_slots(self, net: Network) -> tuple[int, ...]:
        return tuple(net.buffer.parameters.shape)

    def _fits(self, net: Network) -> bool:
        shape = self._shape_of_slots(net)
        return all(tuple(getattr(self, name).shape) == shape for name in self.slots)

    def _started_net(self) -> Network:
        if self.net is None:
            kind = type(self).__name__
            raise ValidationError(f"{kind}: call start(net) before run()")
        return self.net

    def _update(
        self,
        operation: str,
        *numbers: float,
        has_gradients: bool = True,
        parts: Sequence[Part] | None = None,
    ) -> None:
        """Run an operation on what is trained: parameters, gradients and slots.

        Args:
            operation: Name of an operation of the handler.
            *numbers: Its further arguments.
            has_gradients: Whether it gets the gradients, too.
            parts: Parts of the flat arrays; by default all that is trained.
        """
        net = self._started_net()
        buffer = net.buffer
        gradients = (buffer.gradients,) if has_gradients else ()
        slots = [getattr(self, name) for name in self.slots]
        arrays = (buffer.parameters, *gradients, *slots)
        if self._updates is None:
            self._updates = Updates()
        if parts is None and net.handler.updates_by_threads:
            parts = net.modifiers.updated_slices
        elif parts is None:
            parts = net.trained_slices
        self._updates.run(net.handler, operation, arrays, parts, numbers)

    def _run_forward(
        self, training_pass: bool = True, keeps_internals: bool = True
    ) -> Network:
        """Run a forward pass, from the context and with the arguments."""
        net = self._started_net()
        net.forward_pass(
            training_pass,
            self.context,
            arguments=self.arguments,
            keeps_internals=keeps_internals,
        )
        return net

    def _compute_gradients(self) -> Network:
        net = self._run_forward()
        net.backward_pass(all_deltas=False)
        return net


@dataclass(eq=False, repr=False)
class ForwardStepper(TrainingStepper):
    """Do only forward passes, so that the network stays as it is.

    For observing a network during an "epoch" with the hooks of a trainer.

    Args:
        use_training_pass: Whether to run the passes as in training, with dropout
            for example.
    """

    needs_loss = False

    use_training_pass: bool = False

    def run(self) -> None:
        self._run_forward(self.use_training_pass, keeps_internals=False)


@dataclass(eq=False, repr=False)
class SgdStepper(TrainingStepper):
    """Stochastic gradient descent: ``p -= learning_rate * g``.

    Args:
        learning_rate: Step size, not negative.
    """

    learning_rate: float = 0.1

    ranges: ClassVar[dict[str, Range]] = {"learning_rate": NOT_NEGATIVE}
    _operation = "sgd_update"


@dataclass(eq=False, repr=False)
class MomentumStepper(TrainingStepper):
    """Stochastic gradient descent with momentum (Polyak 1964).

    The velocity decays and is pushed along the gradient, the parameters move with
    it: ``v = momentum * v - rate * g``, then ``p += v``. Here ``rate`` is
    ``learning_rate * (1 - momentum)`` when scaled, so that the length of the steps
    does not depend on the momentum, and `learning_rate` otherwise.

    Args:
        learning_rate: Step size, not negative.
        momentum: Share of the velocity that is kept, in [0, 1).
        scale_learning_rate: Whether to multiply the learning rate by
            ``1 - momentum``.
    """

    learning_rate: float = 0.1
    momentum: float = 0.0
    scale_learning_rate: bool = True

    slots: ClassVar[tuple[str, ...]] = ("velocity",)
    ranges: ClassVar[dict[str, Range]] = {
        "learning_rate": NOT_NEGATIVE,
        "momentum": SHARE,
    }

    def update(self) -> None:
        self._update("momentum_update", self._rate, self.momentum)

    @property
    def _rate(self) -> float:
        if self.scale_learning_rate:
            return self.learning_rate * (1 - self.momentum)
        return self.learning_rate


class NesterovStepper(MomentumStepper):
    """Stochastic gradient descent with Nesterov's momentum (Sutskever et al. 2013).

    Like :class:`MomentumStepper`, but the gradient is taken where the velocity
    leads: ``v = momentum * v``, ``p += v``, the gradient g there, then
    ``v -= rate * g`` and ``p -= rate * g``. If that fails, on data that do not fit for
    example, parameters and velocity are again what they were.

    Args:
        learning_rate, momentum, scale_learning_rate: See :class:`MomentumStepper`.
    """

    _before: tuple[Any, Any] | None = None

    def start(self, net: Network) -> None:
        super().start(net)
        shape = tuple(vars(self)["velocity"].shape)
        self._before = net.handler.zeros(shape), net.handler.zeros(shape)

    def run(self) -> None:
        net = self._started_net()
        handler, moved = net.handler, (net.buffer.parameters, vars(self)["velocity"])
        kept: Any = self._before
        for array, before in zip(moved, kept, strict=True):
            handler.copy_to(array, before)
        try:
            self._update("nesterov_ahead", self.momentum, has_gradients=False)
            self._compute_gradients()
        except BaseException:
            for array, before in zip(moved, kept, strict=True):
                handler.copy_to(before, array)
            raise
        self._update("nesterov_correct", self._rate)
