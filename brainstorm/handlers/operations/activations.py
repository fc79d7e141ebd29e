"""Activation functions and their derivatives.

Those after `el` are composed of the ones before.
"""

from __future__ import annotations

import math
from typing import Any

from brainstorm.handlers.operations.contract import operation

__all__ = ["ACTIVATIONS", "FROM_INPUT", "GELU", "ActivationOperations"]

ACTIVATIONS = (
    *("linear", "rel", "tanh", "sigmoid", "el"),
    *("softplus", "leaky_rel", "gelu", "swish"),
)
"""Names of the activation functions. The kernels for GPUs count on their order."""


FROM_INPUT = frozenset({"gelu", "swish"})
"""Those whose derivative needs the input of the function, not only its output."""


# The sigmoid of a x + b x^3 is (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2.
GELU = (2 * math.sqrt(2 / math.pi), 2 * math.sqrt(2 / math.pi) * 0.044715)
_LEAK = 0.01
# Beyond this the sigmoid is 0 or 1 in any type; so infinity does not become NaN.
_FAR = 750.0
# Slots of `scratch` that no other operation uses.
_WORK, _GATE, _SLOPE = 13, 14, 15


class ActivationOperations:
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation("x:*S", "y:*S", alias="*")
    def rel(self, x: Any, y: Any) -> None:
        """``y = max(0, x)``, elementwise, for arrays of any one shape."""
        raise NotImplementedError

    @operation("y:*S dy:*S", "dx:*S", alias="*")
    def rel_deriv(self, x: Any, y: Any, dy: Any, dx: Any) -> None:
        """``dx = dy`` where y > 0, else 0. `x` is not used. `dx` may be `dy`."""
        raise NotImplementedError

    @operation("x:*S", "y:*S", alias="*")
    def tanh(self, x: Any, y: Any) -> None:
        """``y = tanh(x)``, elementwise, for arrays of any one shape."""
        raise NotImplementedError

    @operation("y:*S dy:*S", "dx:*S", alias="*")
    def tanh_deriv(self, x: Any, y: Any, dy: Any, dx: Any) -> None:
        """``dx = dy (1 - y^2)``. `x` is not used. `dx` may be `dy`."""
        raise NotImplementedError

    @operation("x:*S", "y:*S", alias="*")
    def sigmoid(self, x: Any, y: Any) -> None:
        """``y = 1 / (1 + exp(-x))``, elementwise, for arrays of any one shape."""
        raise NotImplementedError

    @operation("y:*S dy:*S", "dx:*S", alias="*")
    def sigmoid_deriv(self, x: Any, y: Any, dy: Any, dx: Any) -> None:
        """``dx = dy y (1 - y)``. `x` is not used. `dx` may be `dy`."""
        raise NotImplementedError

    @operation("x:*S", "y:*S", alias="*")
    def el(self, x: Any, y: Any) -> None:
        """Exponential linear: ``y = x`` where x >= 0, else ``exp(x) - 1``.

        Clevert et al., *Fast and accurate deep network learning by exponential
        linear units*, 2015, with alpha = 1.
        """
        raise NotImplementedError

    @operation("y:*S dy:*S", "dx:*S", alias="*")
    def el_deriv(self, x: Any, y: Any, dy: Any, dx: Any) -> None:
        """``dx = dy`` where y >= 0, else ``dy (y + 1)``. `dx` may be `dy`."""
        raise NotImplementedError

    @operation("x:*S", "y:*S", alias="*")
    def softplus(self, x: Any, y: Any) -> None:
        """``y = log(1 + exp(x))``, elementwise, for arrays of any one shape.

        Dugas et al., *Incorporating second-order functional knowledge for better
        option pricing*, 2000.
        """
        # log(1 + exp(-|x|)) + max(x, 0) can not overflow.
        work = self.scratch(x.shape, _WORK)
        self.abs_t(x, work)
        self.mult_st(-1.0, work, work)
        self.el(work, work)
        self.add_st(2.0, work, work)
        self.log_t(work, work)
        self.rel(x, y)
        self.add_tt(work, y, y)

    @operation("y:*S dy:*S", "dx:*S", alias="*")
    def softplus_deriv(self, x: Any, y: Any, dy: Any, dx: Any) -> None:
        """``dx = dy (1 - exp(-y))``. `x` is not used. `dx` may be `dy`."""
        slope = self.scratch(y.shape, _WORK)
        self.mult_st(-1.0, y, slope)
        self.el(slope, slope)
        self.mult_st(-1.0, slope, slope)
        self.mult_tt(dy, slope, dx)

    @operation("x:*S", "y:*S", alias="*")
    def leaky_rel(self, x: Any, y: Any) -> None:
        """``y = x`` where x > 0, else ``0.01 x``.

        Maas et al., *Rectifier nonlinearities improve neural network acoustic
        models*, 2013.
        """
        work = self.scratch(x.shape, _WORK)
        self.rel(x, work)
        self.mult_st(_LEAK, x, y)
        self.mult_add_st(1.0 - _LEAK, work, y)

    @operation("y:*S dy:*S", "dx:*S", alias="*")
    def leaky_rel_deriv(self, x: Any, y: Any, dy: Any, dx: Any) -> None:
        """``dx = dy`` where y > 0, else ``0.01 dy``. `dx` may be `dy`."""
        work = self.scratch(y.shape, _WORK)
        self.rel_deriv(x, y, dy, work)
        self.mult_st(_LEAK, dy, dx)
        self.mult_add_st(1.0 - _LEAK, work, dx)

    @operation("x:*S", "y:*S", alias="*")
    def gelu(self, x: Any, y: Any) -> None:
        """Gaussian error linear: ``y = x (1 + tanh(sqrt(2/pi) (x + a x^3))) / 2``.

        With a = 0.044715 it is within 0.0005 of x times the normal distribution
        function. Hendrycks and Gimpel, *Gaussian error linear units*, 2016.
        """
        self._gated(x, y, *GELU)

    @operation("x:*S dy:*S", "dx:*S", alias="*")
    def gelu_deriv(self, x: Any, y: Any, dy: Any, dx: Any) -> None:
        """``dx = dy gelu'(x)``. `y` is not used. `dx` may be `dy`."""
        self._gated_deriv(x, dy, dx, *GELU)

    @operation("x:*S", "y:*S", alias="*")
    def swish(self, x: Any, y: Any) -> None:
        """``y = x / (1 + exp(-x))``, elementwise, for arrays of any one shape.

        Ramachandran et al., *Searching for activation functions*, 2017, with
        beta = 1; also known as SiLU.
        """
        self._gated(x, y, 1.0, 0.0)

    @operation("x:*S dy:*S", "dx:*S", alias="*")
    def swish_deriv(self, x: Any, y: Any, dy: Any, dx: Any) -> None:
        """``dx = dy s (1 + x (1 - s))`` with ``s = sigmoid(x)``. `y` is not used."""
        self._gated_deriv(x, dy, dx, 1.0, 0.0)

    @operation("x:*S y:*S dy:*S", add="dx:*S", alias="dy")
    def act_backward(
        self, x: Any, y: Any, dy: Any, dx: Any, activation: str, fresh_dx: bool = False
    ) -> None:
        """``dx (+)= dy act'(x)`` for ``y = act(x)``.

        Args:
            x: Inputs of the function, of any shape.
            y: Its outputs.
            dy: Deltas of y.
            dx: Gets the deltas of x.
            activation: Name of the activation function.
            fresh_dx: Overwrite `dx`, which may then be `dy`.
        """
        if fresh_dx:
            self.act_func_deriv[activation](x, y, dy, dx)
        else:
            deltas = self.scratch(dx.shape, 2)
            self.act_func_deriv[activation](x, y, dy, deltas)
            self.add_tt(deltas, dx, dx)

    def _gated(self, x: Any, y: Any, a: float, b: float) -> None:
        """``y = x sigmoid(a x + b x^3)``."""
        limited, gate = self.scratch(x.shape, _WORK), self.scratch(x.shape, _GATE)
        self._gate(x, limited, gate, a, b)
        self.clip_t(x, -_FAR, float("inf"), limited)
        self.mult_tt(limited, gate, y)

    def _gate(self, x: Any, limited: Any, gate: Any, a: float, b: float) -> None:
        """``gate = sigmoid(a x + b x^3)``; `limited` receives x within limits."""
        self.clip_t(x, -_FAR, _FAR, limited)
        self.mult_tt(limited, limited, gate)
        self.mult_st(b, gate, gate)
        self.add_st(a, gate, gate)
        self.mult_tt(limited, gate, gate)
        self.sigmoid(gate, gate)

    def _gated_deriv(self, x: Any, dy: Any, dx: Any, a: float, b: float) -> None:
        """``dx = dy s (1 + x (a + 3 b x^2) (1 - s))``, s being the sigmoid above."""
        limited, gate = self.scratch(x.shape, _WORK), self.scratch(x.shape, _GATE)
        slope = self.scratch(x.shape, _SLOPE)
        self._gate(x, limited, gate, a, b)
        self.mult_tt(limited, limited, slope)
        self.mult_st(3 * b, slope, slope)
        self.add_st(a, slope, slope)
        self.mult_tt(limited, slope, slope)
        self.mult_st(-1.0, gate, limited)
        self.add_st(1.0, limited, limited)
        self.mult_tt(limited, slope, slope)
        self.add_st(1.0, slope, slope)
        self.mult_tt(gate, slope, slope)
        self.mult_tt(dy, slope, dx)
