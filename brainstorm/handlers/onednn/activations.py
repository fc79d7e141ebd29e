"""Activation functions with oneDNN."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from brainstorm.handlers.onednn.arithmetic import add_binary, flat
from brainstorm.handlers.onednn.binding import Memory, Primitive
from brainstorm.handlers.onednn.definitions import Algorithm, Prop, UnimplementedError
from brainstorm.handlers.onednn.part import OneDnnPart
from brainstorm.handlers.onednn.recipes import Call, Recipe
from brainstorm.handlers.operations.activations import (
    FROM_INPUT,
    ActivationOperations,
    give_methods,
)
from brainstorm.handlers.programs import whole

# Activation functions that oneDNN computes wrongly for NaN or minus infinity.
_UNSAFE = frozenset({"rel", "gelu", "swish"})


class Activation(NamedTuple):
    """How the library computes an activation function.

    Attributes:
        forward: The function.
        backward: Its derivative; from its output, but for those in `FROM_INPUT`. None
            is that of two straight lines: 1 where it is positive, else `alpha`.
        alpha: A constant in it.
    """

    forward: Algorithm
    backward: Algorithm | None
    alpha: float = 0.0


_ACTIVATIONS = {
    "rel": Activation(Algorithm.RELU, None),
    "tanh": Activation(Algorithm.TANH, Algorithm.TANH_FROM_OUTPUT),
    "sigmoid": Activation(Algorithm.LOGISTIC, Algorithm.LOGISTIC_FROM_OUTPUT),
    "el": Activation(Algorithm.ELU, Algorithm.ELU_FROM_OUTPUT, 1.0),
    "leaky_rel": Activation(Algorithm.RELU, None, 0.01),
    "gelu": Activation(Algorithm.GELU_TANH, Algorithm.GELU_TANH),
    "swish": Activation(Algorithm.SWISH, Algorithm.SWISH, 1.0),
}

# The library does not derive these as NumpyHandler does where there is NaN, nor those
# in `FROM_INPUT` beyond some limit, where their powers overflow.
_UNSAFE_DERIV = FROM_INPUT | {"el"}
_HUGE = 1e10
# The library's `el` loses the digits of small negative numbers.
_LOSING_DIGITS = frozenset({"el"})


class OneDnnActivations(OneDnnPart, ActivationOperations):
    """Part of OneDnnHandler."""

    def _act(self, name, x, y) -> None:
        """Apply an activation function to a large array."""
        # The library makes 0 out of NaN or NaN out of minus infinity.
        is_safe = name not in _UNSAFE or np.minimum.reduce(x, None) > -math.inf
        if not (is_safe and self._does(act, (x, y), name)):
            getattr(super(), name)(x, y)

    def _act_deriv(self, name, source, dy, dx, fresh: bool = True) -> bool:
        """Apply a derivative, and return whether it could be done."""
        arrays = source, dy, dx
        return derives_safely(name, source) and self._does(
            act_deriv, arrays, name, fresh
        )

    @whole
    def act_backward(
        self, x: Any, y: Any, dy: Any, dx: Any, activation: str, fresh_dx: bool = False
    ) -> None:
        source = x if activation in FROM_INPUT else y
        is_fast = source.size >= self._large and activation != "linear"
        if not (is_fast and self._act_deriv(activation, source, dy, dx, fresh_dx)):
            super().act_backward(x, y, dy, dx, activation, fresh_dx)

    def _derive(self, name, source, dy, dx) -> None:
        """Apply the derivative of an activation function to a large array."""
        if not self._act_deriv(name, source, dy, dx):
            getattr(super(), f"{name}_deriv")(source, source, dy, dx)


def activation(name: str) -> Activation:
    """How the library computes an activation function, if it does."""
    if name not in _ACTIVATIONS:
        raise UnimplementedError(f"no activation {name!r}")
    return _ACTIVATIONS[name]


def act(session: Any, x: Any, y: Any, name: Any) -> Call:
    """``y = act(x)``; a rectifier makes 0 out of NaN."""
    recipe = Recipe(session, name, (x, y))
    source, out = map(recipe.array, flat(x, y))
    add_act(recipe, source, out, name)
    return recipe.call()


def add_act(recipe: Recipe, x: Memory, y: Memory, name: str) -> None:
    """Append ``y = act(x)``."""
    recipe.add(_forward(recipe, x, y, name), src=x, dst=y)


def _forward(recipe: Recipe, x: Memory, y: Memory, name: str) -> Primitive:
    algorithm, _, alpha = activation(name)
    kind = "eltwise_forward", Prop.FORWARD_TRAINING, algorithm
    return recipe.primitive(*kind, x.desc, y.desc, alpha, 0.0)


def act_deriv(
    session: Any, source: Any, dy: Any, dx: Any, name: Any, fresh: Any
) -> Call:
    """``dx (+)= dy act'(x)``, computed from y, or from x for those in `FROM_INPUT`."""
    recipe = Recipe(session, f"{name}_deriv", (source, dy, dx))
    source, dy, dx = map(recipe.array, flat(source, dy, dx))
    with recipe.result(dx, fresh, "deltas") as deltas:
        add_act_deriv(recipe, source, dy, deltas, name)
    return recipe.call()


def add_act_deriv(
    recipe: Recipe, source: Memory, dy: Memory, dx: Memory, name: str
) -> None:
    """Append ``dx = dy act'(x)``."""
    _, algorithm, alpha = activation(name)
    if algorithm is None:
        _add_slope(recipe, source, dy, dx, alpha)
        return
    hint = _forward(recipe, source, source, name)
    descs = dx.desc, dy.desc, source.desc
    primitive = recipe.primitive(
        "eltwise_backward", algorithm, *descs, alpha, 0.0, hint
    )
    source_arg = "src" if name in FROM_INPUT else "dst"
    recipe.add(primitive, **{source_arg: source}, diff_dst=dy, diff_src=dx)


def _add_slope(recipe: Recipe, y: Memory, dy: Memory, dx: Memory, low: float) -> None:
    """Append ``dx = dy (1 if y > 0 else low)``.

    The library's own derivative takes NaN for positive, and nearly twice as long. Its
    maximum with 0 makes 0 of NaN.
    """
    one = (1,) * len(y.desc.shape)
    zero, *rest = (
        recipe.kept_array(np.full(one, value, np.float32))
        for value in dict.fromkeys((0.0, low))
    )
    then = [(Algorithm.GREATER, zero), *((Algorithm.MAXIMUM, m) for m in rest)]
    add_binary(
        *(recipe, Algorithm.MAXIMUM, y, zero, dx),
        then=(*then, (Algorithm.MULTIPLY, dy)),
    )


def derives_safely(name: Any, source: Any) -> bool:
    """Whether the library has the right derivative at all these y, or x."""
    if name not in _UNSAFE_DERIV or not source.size:
        return True
    largest = np.maximum.reduce(source, None)
    if name not in FROM_INPUT:
        return not math.isnan(largest)
    return largest < _HUGE and np.minimum.reduce(source, None) > -_HUGE


def _give_methods(name: str) -> None:
    """Let the library apply a function to large arrays."""

    def apply(h: OneDnnActivations, x: np.ndarray, y: np.ndarray) -> None:
        if x.size < h._large or name in _LOSING_DIGITS:
            getattr(super(OneDnnActivations, h), name)(x, y)
        else:
            h.do(h.plain._act, name, x, y)

    def derive(
        h: OneDnnActivations, source: np.ndarray, dy: np.ndarray, dx: np.ndarray
    ) -> None:
        if source.size < h._large:
            getattr(super(OneDnnActivations, h), f"{name}_deriv")(
                source, source, dy, dx
            )
        else:
            h.do(h.plain._derive, name, source, dy, dx)

    give_methods(OneDnnActivations, name, apply, derive)


for _name in _ACTIVATIONS:
    _give_methods(_name)
