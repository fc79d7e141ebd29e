"""Changes applied to parameters or gradients again and again during training.

A :class:`ValueModifier` changes one array and can be installed as weight
modifier, run after each update, or as gradient modifier, run after each
backward pass. A :class:`GradientModifier` changes a gradient knowing the
parameter, and can be installed as gradient modifier only.

>>> from brainstorm.value_modifiers import *
>>> modifiers = {'Hidden*': {'W': [ConstrainL2Norm(2.0), ClipValues(-1, 1)]}}

A modifier whose `whole_network` is true gets all trained parameters, or all their
gradients, at once. It is given for the whole network, after those that are not:

>>> modifiers = {'Hidden*': {'W': L2Decay(0.1)}, 'default': ClipGlobalNorm(5.0)}

The arrays that a modifier needs besides those that it is given are made at
its first call with some handler and kept.
"""

# ruff: noqa: D102 -- every __call__ does what that of its base class says

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from brainstorm.checks import checked_array, checked_number, checked_positive
from brainstorm.randomness import RandomState, Seedable
from brainstorm.utils import ValidationError, hinting

__all__ = [
    "ClipGlobalNorm",
    "ClipValues",
    "ConstrainL2Norm",
    "FreezeValues",
    "GradientModifier",
    "L1Decay",
    "L2Decay",
    "MaskValues",
    "ValueModifier",
]


class _Modifier(Seedable):
    """Keeps arrays of the handler for the next call.

    They are not described, and a copy of a modifier begins without them. Random numbers
    come from ``self.rnd``, which a network seeds anew for each of its copies.
    """

    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {"layer_name", "view_name"}

    whole_network = False
    """Whether it is called once, with the flat array of all layers."""
    layer_name: str | None = None
    """The layer that a network uses it for; None if it is for the whole network."""
    view_name: str | None = None
    """The parameter that a network uses it for."""

    _handler: Any = None

    def _scratch(self, handler: Any, shape: tuple[int, ...]) -> Any:
        """An array with any content."""
        kept = self._kept_for(handler)
        if shape not in kept:
            kept[shape] = handler.allocate(shape)
        return kept[shape]

    def _on_device(self, handler: Any, values: np.ndarray) -> Any:
        """The one NumPy array that this modifier needs, as the handler's."""
        kept = self._kept_for(handler)
        if "values" not in kept:
            kept["values"] = handler.create_from_numpy(values)
        return kept["values"]

    def _kept_for(self, handler: Any) -> dict[Any, Any]:
        if self._handler is not handler:
            self._handler = handler
            self._kept: dict[Any, Any] = {}
        return self._kept

    def get_state(self) -> dict[str, Any]:
        """What changes during a training, for :meth:`set_state`."""
        seed = self.rnd.get_seed()
        drawn: Any = self.rnd.get_state()
        fresh: Any = RandomState(seed).get_state()
        unused = drawn[2:] == fresh[2:] and np.array_equal(drawn[1], fresh[1])
        return {"seed": seed} if unused else {"seed": seed, "drawn": drawn}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`get_state` returned."""
        if "seed" in state:
            self.rnd = RandomState(state["seed"])
        if "drawn" in state:
            self.rnd.set_state(state["drawn"])

    def __getstate__(self) -> dict[str, Any]:
        state = vars(self).copy()
        state.pop("_handler", None)
        state.pop("_kept", None)
        return state


class ValueModifier(_Modifier):
    """Base class of what changes parameters, or gradients, in place."""

    def start(self, handler: Any, view: Any) -> None:
        """Look at the values before a training; nothing by default.

        Args:
            handler: The handler that the array belongs to.
            view: The array of one parameter.
        """

    def __call__(self, handler: Any, view: Any) -> None:
        """Change the values.

        Args:
            handler: The handler that the array belongs to.
            view: The array of one parameter or gradient.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement __call__")


class GradientModifier(_Modifier):
    """Base class of what changes gradients in place, given the parameters."""

    def __call__(self, handler: Any, parameters: Any, gradients: Any) -> None:
        """Change the gradients.

        Args:
            handler: The handler that the arrays belong to.
            parameters: The array of one parameter.
            gradients: The array of its gradient, of the same shape.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement __call__")


class ConstrainL2Norm(ValueModifier):
    """Limits the Euclidean norm of the incoming weights of each unit.

    The weights of a unit whose norm is above the limit are divided by
    norm / limit; all others stay as they are. The first dimension of an array
    counts the units. One-dimensional arrays, the biases, are left alone.

    Args:
        limit: The largest norm allowed, above 0.
    """

    def __init__(self, limit: float):
        super().__init__()
        self.limit: float = checked_positive(limit, "ConstrainL2Norm: limit")

    def __call__(self, handler: Any, view: Any) -> None:
        shape = view.shape
        if len(shape) < 2:
            return
        if len(shape) > 2:
            view = view.reshape((shape[0], math.prod(shape[1:])))
        norms = self._scratch(handler, (shape[0], 1))
        handler.constrain_rows(view, self.limit, norms)


class ClipValues(ValueModifier):
    """Limits the values to the interval [`low`, `high`].

    Args:
        low: Smallest value allowed; may be minus infinity.
        high: Largest value allowed; may be infinity.
    """

    def __init__(self, low: float = -1.0, high: float = 1.0):
        super().__init__()
        self.low: float = _checked_bound(low, "ClipValues: low")
        self.high: float = _checked_bound(high, "ClipValues: high")
        if self.low > self.high:
            raise ValidationError(f"ClipValues: low is {low}, above high, {high}")

    def __call__(self, handler: Any, view: Any) -> None:
        handler.clip_t(view, self.low, self.high, view)


class ClipGlobalNorm(ValueModifier):
    """Limits the Euclidean norm of all gradients taken together.

    Where the norm is above the limit, all gradients are divided by norm / limit, so
    that their direction stays. Pascanu, Mikolov and Bengio, *On the difficulty of
    training recurrent neural networks*, 2013.

    It is installed for the whole network, and runs after the modifiers of single
    gradients: ``net.set_gradient_modifiers(ClipGlobalNorm(5.0))``.

    Args:
        limit: The largest norm allowed, above 0.
    """

    whole_network = True

    def __init__(self, limit: float):
        super().__init__()
        self.limit: float = checked_positive(limit, "ClipGlobalNorm: limit")

    def __call__(self, handler: Any, view: Any) -> None:
        norm = self._scratch(handler, (1, 1))
        handler.constrain_rows(view.reshape((1, view.shape[0])), self.limit, norm)


class MaskValues(ValueModifier):
    """Multiplies the values element by element with a mask.

    Args:
        mask: Array or nested list of the shape of the parameter. Zeros hold
            these values at 0.

    Raises:
        ValidationError: When called with an array of another shape.
    """

    def __init__(self, mask: Any):
        super().__init__()
        self.mask: np.ndarray = checked_array(mask, "MaskValues: mask")

    def __call__(self, handler: Any, view: Any) -> None:
        _check_shape(self, "mask", self.mask, view)
        handler.mult_tt(view, self._on_device(handler, self.mask), view)


class FreezeValues(ValueModifier):
    """Sets the values back to the same ones every time.

    Args:
        weights: Array or nested list of the shape of the parameter. None takes
            the values found when a training starts, or at the first call.

    Raises:
        ValidationError: When called with an array of another shape.
    """

    def __init__(self, weights: Any = None):
        super().__init__()
        if weights is not None:
            weights = checked_array(weights, "FreezeValues: weights")
        self.weights = weights
        self._first_seen: np.ndarray | None = None

    def start(self, handler: Any, view: Any) -> None:
        if self.weights is None:
            self._see(handler.get_numpy_copy(view))

    def __call__(self, handler: Any, view: Any) -> None:
        if self.weights is None and self._first_seen is None:
            self.start(handler, view)
        weights: Any = self._first_seen if self.weights is None else self.weights
        _check_shape(self, "weights", weights, view)
        handler.copy_to(self._on_device(handler, weights), view)

    def _see(self, values: np.ndarray | None) -> None:
        self._first_seen = values
        self._handler = None  # The array that was made of other values goes.

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "first_seen": self._first_seen}

    def set_state(self, state: Mapping[str, Any]) -> None:
        super().set_state(state)
        values = state["first_seen"]
        self._see(values if values is None else np.array(values))


class _Decay(GradientModifier):
    def __init__(self, factor: float):
        super().__init__()
        name = type(self).__name__
        self.factor: float = checked_number(factor, f"{name}: factor", minimum=0)


class L1Decay(_Decay):
    """Adds ``factor * sign(parameters)`` to the gradients.

    Args:
        factor: Strength of the decay, at least 0.
    """

    def __call__(self, handler: Any, parameters: Any, gradients: Any) -> None:
        signs = self._scratch(handler, parameters.shape)
        handler.sign_t(parameters, signs)
        handler.mult_add_st(self.factor, signs, gradients)


class L2Decay(_Decay):
    """Adds ``factor * parameters`` to the gradients.

    Args:
        factor: Strength of the decay, at least 0.
    """

    def __call__(self, handler: Any, parameters: Any, gradients: Any) -> None:
        handler.mult_add_st(self.factor, parameters, gradients)


def _checked_bound(value: float, what: str) -> float:
    """A number that may also be infinite."""
    infinite = isinstance(value, Real) and math.isinf(value)
    return float(value) if infinite else checked_number(value, what)


def _check_shape(
    owner: ValueModifier, argument: str, values: np.ndarray, view: Any
) -> None:
    if values.shape != tuple(view.shape):
        raise ValidationError(
            f"{type(owner).__name__}: expected {argument} of shape"
            f" {tuple(view.shape)}, got {values.shape}"
        )


__getattr__: Callable[[str], Any] = hinting(__name__, __all__)
