"""Activation functions and their derivatives for NumpyHandler.

NumPy allocates buffers where a ufunc mixes types, which takes longer than copying
what a comparison gave beforehand.
"""

# Operations are documented in `operations`. Inside the loops over pieces, the names of
# the arguments stand for their pieces.
# ruff: noqa: D102, B020

from __future__ import annotations

from typing import Any

import numpy as np

from brainstorm.handlers.numpy.pieces import pieces

__all__ = ["NumpyActivations"]


class NumpyActivations:
    """Part of NumpyHandler."""

    def _set_constants(self, dtype: Any) -> None:
        # As arrays, constants cost half as much as Python's numbers.
        self._zero, self._one, self._minus_one = (
            np.array(value, dtype) for value in (0.0, 1.0, -1.0)
        )
        # Beyond these the sigmoid is 0 or 1 in that type.
        far = 1.6 * np.log(np.finfo(dtype).max)
        self._lowest, self._highest = np.array(-far, dtype), np.array(far, dtype)

    def rel(self, x, y):
        self.do(np.maximum, x, self._zero, out=y)

    def rel_deriv(self, x, y, dy, dx):
        for y, dy, dx in pieces(y, dy, dx):
            positive = self._temporary(y.shape, "bool", np.bool_)
            slope = self.scratch(y.shape)
            self.do(np.greater, y, self._zero, positive)
            # Mixing types in one call is much slower.
            self.do(slope.__setitem__, ..., positive)
            self.do(np.multiply, dy, slope, dx)

    def tanh(self, x, y):
        self.do(np.tanh, x, y)

    def tanh_deriv(self, x, y, dy, dx):
        for y, dy, dx in pieces(y, dy, dx):
            slope = self.scratch(y.shape)
            self.do(np.multiply, y, y, slope)
            self.do(np.subtract, self._one, slope, slope)
            self.do(np.multiply, dy, slope, dx)

    def sigmoid(self, x, y):
        # With e = exp(-|x|) it is 1 / (1 + e), or e / (1 + e) for negative x: nothing
        # overflows and nothing cancels.
        for x, y in pieces(x, y):
            e = self.scratch(x.shape)
            self.do(np.abs, x, e)
            self.do(np.multiply, e, self._minus_one, e)
            self.do(np.exp, e, e)
            self.do(np.sign, x, y)
            self.do(np.maximum, y, e, out=y)
            self.do(np.add, e, self._one, e)
            self.do(np.divide, y, e, y)

    def sigmoid_deriv(self, x, y, dy, dx):
        for y, dy, dx in pieces(y, dy, dx):
            slope = self.scratch(y.shape)
            self.do(np.subtract, self._one, y, slope)
            self.do(np.multiply, y, slope, slope)
            self.do(np.multiply, dy, slope, dx)

    def el(self, x, y):
        # exp(x) - 1 is above x for negative x, and 0 after cutting off the others.
        for x, y in pieces(x, y):
            negative = self.scratch(x.shape)
            self.do(np.minimum, x, self._zero, out=negative)
            self.do(np.expm1, negative, negative)
            self.do(np.maximum, x, negative, out=y)

    def el_deriv(self, x, y, dy, dx):
        for y, dy, dx in pieces(y, dy, dx):
            slope = self.scratch(y.shape)
            self.do(np.minimum, y, self._zero, out=slope)
            self.do(np.add, slope, self._one, slope)
            self.do(np.multiply, dy, slope, dx)

    def softplus(self, x, y):
        # log(1 + exp(-|x|)) + max(x, 0) can not overflow.
        for x, y in pieces(x, y):
            small = self.scratch(x.shape)
            self.do(np.abs, x, small)
            self.do(np.multiply, small, self._minus_one, small)
            self.do(np.exp, small, small)
            self.do(np.log1p, small, small)
            self.do(np.maximum, x, self._zero, out=y)
            self.do(np.add, y, small, y)

    def softplus_deriv(self, x, y, dy, dx):
        for y, dy, dx in pieces(y, dy, dx):
            slope = self.scratch(y.shape)
            self.do(np.multiply, y, self._minus_one, slope)
            self.do(np.expm1, slope, slope)
            self.do(np.multiply, slope, self._minus_one, slope)
            self.do(np.multiply, dy, slope, dx)

    def leaky_rel(self, x, y):
        for x, y in pieces(x, y):
            leak = self.scratch(x.shape)
            self.do(np.multiply, x, 0.01, leak)
            self.do(np.maximum, x, leak, out=y)

    def leaky_rel_deriv(self, x, y, dy, dx):
        for y, dy, dx in pieces(y, dy, dx):
            positive = self._temporary(y.shape, "bool", np.bool_)
            slope = self.scratch(y.shape)
            self.do(np.greater, y, self._zero, positive)
            self.do(slope.__setitem__, ..., positive)
            self.do(np.maximum, slope, 0.01, out=slope)
            self.do(np.multiply, dy, slope, dx)

    def _gated(self, x, y, a: float, b: float) -> None:
        """``y = x sigmoid(a x + b x^3)``."""
        for x, y in pieces(x, y):
            # So nothing overflows, and infinity does not become NaN.
            limited = self.scratch(x.shape, "limited")
            self.do(np.maximum, x, self._lowest, out=limited)
            gate = self.scratch(x.shape, "gate")
            self.do(np.minimum, limited, self._highest, out=gate)
            self._apply_gate(gate, a, b)
            self.do(np.multiply, limited, gate, y)

    def _apply_gate(self, x: np.ndarray, a: float, b: float) -> None:
        """``x = sigmoid(a x + b x^3)``."""
        slope = self.scratch(x.shape, 1)
        self.do(np.multiply, x, x, slope)
        self.do(np.multiply, slope, b, slope)
        self.do(np.add, slope, a, slope)
        self.do(np.multiply, x, slope, x)
        self.sigmoid(x, x)

    def _gated_deriv(self, x, dy, dx, a: float, b: float) -> None:
        """``dx = dy s (1 + x (a + 3 b x^2) (1 - s))``, s being the sigmoid above."""
        for x, dy, dx in pieces(x, dy, dx):
            limited = self.scratch(x.shape, "limited")
            self.do(np.maximum, x, self._lowest, out=limited)
            self.do(np.minimum, limited, self._highest, out=limited)
            gate, slope = self.scratch(x.shape, "gate"), self.scratch(x.shape, "slope")
            self.do(gate.__setitem__, ..., limited)
            self._apply_gate(gate, a, b)
            self.do(np.multiply, limited, limited, slope)
            self.do(np.multiply, slope, 3 * b, slope)
            self.do(np.add, slope, a, slope)
            self.do(np.multiply, slope, limited, slope)
            self.do(np.subtract, self._one, gate, limited)
            self.do(np.multiply, slope, limited, slope)
            self.do(np.add, slope, self._one, slope)
            self.do(np.multiply, slope, gate, slope)
            self.do(np.multiply, dy, slope, dx)

    def act_backward(self, x, y, dy, dx, activation, fresh_dx=False):
        for x, y, dy, dx in pieces(x, y, dy, dx):
            super().act_backward(x, y, dy, dx, activation, fresh_dx)
