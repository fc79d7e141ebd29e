"""Activation functions and their derivatives for NumpyHandler.

NumPy allocates buffers where a ufunc mixes types, which takes longer than copying
what a comparison gave beforehand.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from brainstorm.handlers.numpy.memory import NumpyMemory
from brainstorm.handlers.numpy.pieces import pieces
from brainstorm.handlers.operations.activations import (
    FUNCTIONS,
    GELU,
    ActivationOperations,
    give_methods,
)


def in_pieces(function: Callable[..., None]) -> Callable[..., None]:
    """Let a function work on large arrays piece by piece."""

    def function_in_pieces(h: Any, *arrays: np.ndarray) -> None:
        for parts in pieces(*arrays):
            function(h, *parts)

    return function_in_pieces


def _rel(h, x, y):
    h.do(np.maximum, x, h._zero, out=y)


@in_pieces
def _rel_deriv(h, y, dy, dx):
    positive = h._temporary(y.shape, "bool", np.bool_)
    slope = h.scratch(y.shape)
    h.do(np.greater, y, h._zero, positive)
    # Mixing types in one call is much slower.
    h.do(slope.__setitem__, ..., positive)
    h.do(np.multiply, dy, slope, dx)


def _tanh(h, x, y):
    h.do(np.tanh, x, y)


@in_pieces
def _tanh_deriv(h, y, dy, dx):
    slope = h.scratch(y.shape)
    h.do(np.multiply, y, y, slope)
    h.do(np.subtract, h._one, slope, slope)
    h.do(np.multiply, dy, slope, dx)


@in_pieces
def _sigmoid(h, x, y):
    # With e = exp(-|x|) it is 1 / (1 + e), or e / (1 + e) for negative x: nothing
    # overflows and nothing cancels.
    e = h.scratch(x.shape)
    h.do(np.abs, x, e)
    h.do(np.multiply, e, h._minus_one, e)
    h.do(np.exp, e, e)
    h.do(np.sign, x, y)
    h.do(np.maximum, y, e, out=y)
    h.do(np.add, e, h._one, e)
    h.do(np.divide, y, e, y)


@in_pieces
def _sigmoid_deriv(h, y, dy, dx):
    slope = h.scratch(y.shape)
    h.do(np.subtract, h._one, y, slope)
    h.do(np.multiply, y, slope, slope)
    h.do(np.multiply, dy, slope, dx)


@in_pieces
def _el(h, x, y):
    # exp(x) - 1 is above x for negative x, and 0 after cutting off the others.
    negative = h.scratch(x.shape)
    h.do(np.minimum, x, h._zero, out=negative)
    h.do(np.expm1, negative, negative)
    h.do(np.maximum, x, negative, out=y)


@in_pieces
def _el_deriv(h, y, dy, dx):
    slope = h.scratch(y.shape)
    h.do(np.minimum, y, h._zero, out=slope)
    h.do(np.add, slope, h._one, slope)
    h.do(np.multiply, dy, slope, dx)


@in_pieces
def _softplus(h, x, y):
    # log(1 + exp(-|x|)) + max(x, 0) can not overflow.
    small = h.scratch(x.shape)
    h.do(np.abs, x, small)
    h.do(np.multiply, small, h._minus_one, small)
    h.do(np.exp, small, small)
    h.do(np.log1p, small, small)
    h.do(np.maximum, x, h._zero, out=y)
    h.do(np.add, y, small, y)


@in_pieces
def _softplus_deriv(h, y, dy, dx):
    slope = h.scratch(y.shape)
    h.do(np.multiply, y, h._minus_one, slope)
    h.do(np.expm1, slope, slope)
    h.do(np.multiply, slope, h._minus_one, slope)
    h.do(np.multiply, dy, slope, dx)


@in_pieces
def _leaky_rel(h, x, y):
    leak = h.scratch(x.shape)
    h.do(np.multiply, x, 0.01, leak)
    h.do(np.maximum, x, leak, out=y)


@in_pieces
def _leaky_rel_deriv(h, y, dy, dx):
    positive = h._temporary(y.shape, "bool", np.bool_)
    slope = h.scratch(y.shape)
    h.do(np.greater, y, h._zero, positive)
    h.do(slope.__setitem__, ..., positive)
    h.do(np.maximum, slope, 0.01, out=slope)
    h.do(np.multiply, dy, slope, dx)


def _gated(h: Any, x: Any, y: Any, a: float, b: float) -> None:
    """``y = x sigmoid(a x + b x^3)``."""
    # So nothing overflows, and infinity does not become NaN.
    limited = h.scratch(x.shape, "limited")
    h.do(np.maximum, x, h._lowest, out=limited)
    gate = h.scratch(x.shape, "gate")
    h.do(np.minimum, limited, h._highest, out=gate)
    _apply_gate(h, gate, a, b)
    h.do(np.multiply, limited, gate, y)


def _apply_gate(h: Any, x: np.ndarray, a: float, b: float) -> None:
    """``x = sigmoid(a x + b x^3)``."""
    slope = h.scratch(x.shape, 1)
    h.do(np.multiply, x, x, slope)
    h.do(np.multiply, slope, b, slope)
    h.do(np.add, slope, a, slope)
    h.do(np.multiply, x, slope, x)
    h.sigmoid(x, x)


def _gated_deriv(h: Any, x: Any, dy: Any, dx: Any, a: float, b: float) -> None:
    """``dx = dy s (1 + x (a + 3 b x^2) (1 - s))``, s being the sigmoid above."""
    limited = h.scratch(x.shape, "limited")
    h.do(np.maximum, x, h._lowest, out=limited)
    h.do(np.minimum, limited, h._highest, out=limited)
    gate, slope = h.scratch(x.shape, "gate"), h.scratch(x.shape, "slope")
    h.do(gate.__setitem__, ..., limited)
    _apply_gate(h, gate, a, b)
    h.do(np.multiply, limited, limited, slope)
    h.do(np.multiply, slope, 3 * b, slope)
    h.do(np.add, slope, a, slope)
    h.do(np.multiply, slope, limited, slope)
    h.do(np.subtract, h._one, gate, limited)
    h.do(np.multiply, slope, limited, slope)
    h.do(np.add, slope, h._one, slope)
    h.do(np.multiply, slope, gate, slope)
    h.do(np.multiply, dy, slope, dx)


def _by_gate(a: float, b: float) -> tuple[Callable[..., None], Callable[..., None]]:
    """The function ``x sigmoid(a x + b x^3)``."""
    apply = functools.partial(_gated, a=a, b=b)
    derive = functools.partial(_gated_deriv, a=a, b=b)
    return in_pieces(apply), in_pieces(derive)


class NumpyActivations(NumpyMemory, ActivationOperations):
    """Part of NumpyHandler."""

    def _set_constants(self, dtype: Any) -> None:
        # As arrays, constants cost half as much as Python's numbers.
        self._zero, self._one, self._minus_one = (
            np.array(value, dtype) for value in (0.0, 1.0, -1.0)
        )
        # Beyond these the sigmoid is 0 or 1 in that type.
        far = 1.6 * np.log(np.finfo(dtype).max)
        self._lowest, self._highest = np.array(-far, dtype), np.array(far, dtype)

    def act_backward(
        self, x: Any, y: Any, dy: Any, dx: Any, activation: str, fresh_dx: bool = False
    ) -> None:
        for parts in pieces(x, y, dy, dx):
            x, y, dy, dx = parts
            super().act_backward(x, y, dy, dx, activation, fresh_dx)


_FASTER = {
    "rel": (_rel, _rel_deriv),
    "tanh": (_tanh, _tanh_deriv),
    "sigmoid": (_sigmoid, _sigmoid_deriv),
    "el": (_el, _el_deriv),
    "softplus": (_softplus, _softplus_deriv),
    "leaky_rel": (_leaky_rel, _leaky_rel_deriv),
    "gelu": _by_gate(*GELU),
    "swish": _by_gate(1.0, 0.0),
}

for _name, _f in FUNCTIONS.items():
    if _name in _FASTER:
        give_methods(NumpyActivations, _name, *_FASTER[_name])
    elif _f.apply is not None and _f.derive is not None:
        give_methods(NumpyActivations, _name, in_pieces(_f.apply), in_pieces(_f.derive))
