"""Activation functions and their derivatives.

A new one is an entry of `FUNCTIONS`, composed of primitive operations, and one of the
list of kernels in ``cuda/kernels/activations.cu``. NumpyHandler and OneDnnHandler may
have a faster version of it in their own tables.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from brainstorm.handlers.operations.arithmetic import ArithmeticOperations
from brainstorm.handlers.operations.contract import add_method, missing, operation

__all__ = [
    "ACTIVATIONS",
    "FROM_INPUT",
    "FUNCTIONS",
    "GELU",
    "OTHER_NAMES",
    "Activation",
    "ActivationOperations",
    "give_methods",
]

# The sigmoid of a x + b x^3 is (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2.
GELU = (2 * math.sqrt(2 / math.pi), 2 * math.sqrt(2 / math.pi) * 0.044715)
_LEAK = 0.01
_Function = Callable[[Any, Any], None]
_Derivative = Callable[[Any, Any, Any, Any], None]
# Beyond this the sigmoid is 0 or 1 in any type; so infinity does not become NaN.
_FAR = 750.0
# Slots of `scratch` that no other operation uses.
_WORK, _GATE, _SLOPE = 13, 14, 15


class Activation(NamedTuple):
    """An activation function.

    Attributes:
        text: What it is, and who proposed it.
        apply: ``apply(handler, x, y)``: y = f(x), or None if it is a primitive.
        derive: ``derive(handler, y, dy, dx)``: dx = dy f'(x), or None likewise.
        from_input: Whether the derivative needs x: `derive` gets that in place of y.
    """

    text: str
    apply: Callable[..., None] | None = None
    derive: Callable[..., None] | None = None
    from_input: bool = False


def _softplus(h: Any, x: Any, y: Any) -> None:
    # log(1 + exp(-|x|)) + max(x, 0) can not overflow.
    work = h.scratch(x.shape, _WORK)
    h.abs_t(x, work)
    h.mult_st(-1.0, work, work)
    h.el(work, work)
    h.add_st(2.0, work, work)
    h.log_t(work, work)
    h.rel(x, y)
    h.add_tt(work, y, y)


def _softplus_deriv(h: Any, y: Any, dy: Any, dx: Any) -> None:
    slope = h.scratch(y.shape, _WORK)
    h.mult_st(-1.0, y, slope)
    h.el(slope, slope)
    h.mult_st(-1.0, slope, slope)
    h.mult_tt(dy, slope, dx)


def _leaky_rel(h: Any, x: Any, y: Any) -> None:
    work = h.scratch(x.shape, _WORK)
    h.rel(x, work)
    h.mult_st(_LEAK, x, y)
    h.mult_add_st(1.0 - _LEAK, work, y)


def _leaky_rel_deriv(h: Any, y: Any, dy: Any, dx: Any) -> None:
    work = h.scratch(y.shape, _WORK)
    h.rel_deriv(y, y, dy, work)
    h.mult_st(_LEAK, dy, dx)
    h.mult_add_st(1.0 - _LEAK, work, dx)


def _times(h: Any, x: Any, gate: Any, y: Any) -> None:
    """``y = x gate``, where a gate of 0 makes 0 of minus infinity, too."""
    limited = h.scratch(x.shape, _WORK)
    h.clip_t(x, -_FAR, float("inf"), limited)
    h.mult_tt(limited, gate, y)


def _gated(h: Any, x: Any, y: Any, a: float, b: float) -> None:
    """``y = x sigmoid(a x + b x^3)``."""
    limited, gate = h.scratch(x.shape, _WORK), h.scratch(x.shape, _GATE)
    _gate(h, x, limited, gate, a, b)
    _times(h, x, gate, y)


def _gate(h: Any, x: Any, limited: Any, gate: Any, a: float, b: float) -> None:
    """``gate = sigmoid(a x + b x^3)``; `limited` receives x within limits."""
    h.clip_t(x, -_FAR, _FAR, limited)
    h.mult_tt(limited, limited, gate)
    h.mult_st(b, gate, gate)
    h.add_st(a, gate, gate)
    h.mult_tt(limited, gate, gate)
    h.sigmoid(gate, gate)


def _gated_deriv(h: Any, x: Any, dy: Any, dx: Any, a: float, b: float) -> None:
    """``dx = dy s (1 + x (a + 3 b x^2) (1 - s))``, s being the sigmoid above."""
    limited, gate = h.scratch(x.shape, _WORK), h.scratch(x.shape, _GATE)
    slope = h.scratch(x.shape, _SLOPE)
    _gate(h, x, limited, gate, a, b)
    h.mult_tt(limited, limited, slope)
    h.mult_st(3 * b, slope, slope)
    h.add_st(a, slope, slope)
    h.mult_tt(limited, slope, slope)
    h.mult_st(-1.0, gate, limited)
    h.add_st(1.0, limited, limited)
    h.mult_tt(limited, slope, slope)
    h.add_st(1.0, slope, slope)
    h.mult_tt(gate, slope, slope)
    h.mult_tt(dy, slope, dx)


def _hard_sigmoid(h: Any, x: Any, y: Any) -> None:
    h.mult_st(1 / 6, x, y)
    h.add_st(0.5, y, y)
    h.clip_t(y, 0.0, 1.0, y)


def _between(h: Any, y: Any, low: float, high: float, out: Any) -> None:
    """1 where y, which is nowhere outside, is neither `low` nor `high`, else 0."""
    below = h.scratch(y.shape, _WORK)
    h.add_st(-high, y, below)
    h.sign_t(below, below)
    h.add_st(-low, y, out)
    h.sign_t(out, out)
    h.mult_tt(out, below, out)
    h.mult_st(-1.0, out, out)


def _hard_sigmoid_deriv(h: Any, y: Any, dy: Any, dx: Any) -> None:
    slope = h.scratch(y.shape, _SLOPE)
    _between(h, y, 0.0, 1.0, slope)
    h.mult_st(1 / 6, slope, slope)
    h.mult_tt(dy, slope, dx)


def _hard_swish(h: Any, x: Any, y: Any) -> None:
    gate = h.scratch(x.shape, _GATE)
    _hard_sigmoid(h, x, gate)
    _times(h, x, gate, y)


def _hard_swish_deriv(h: Any, x: Any, dy: Any, dx: Any) -> None:
    limited, gate = h.scratch(x.shape, _WORK), h.scratch(x.shape, _GATE)
    slope = h.scratch(x.shape, _SLOPE)
    _hard_sigmoid(h, x, gate)
    _between(h, gate, 0.0, 1.0, slope)
    h.clip_t(x, -_FAR, _FAR, limited)
    h.mult_tt(limited, slope, slope)
    h.mult_st(1 / 6, slope, slope)
    h.add_tt(gate, slope, slope)
    h.mult_tt(dy, slope, dx)


def _mish(h: Any, x: Any, y: Any) -> None:
    gate = h.scratch(x.shape, _GATE)
    h.softplus(x, gate)
    h.tanh(gate, gate)
    _times(h, x, gate, y)


def _mish_deriv(h: Any, x: Any, dy: Any, dx: Any) -> None:
    # With t = tanh(softplus(x)) it is t + x (1 - t^2) sigmoid(x).
    limited, gate = h.scratch(x.shape, _WORK), h.scratch(x.shape, _GATE)
    slope = h.scratch(x.shape, _SLOPE)
    h.softplus(x, gate)
    h.tanh(gate, gate)
    h.clip_t(x, -_FAR, _FAR, limited)
    h.sigmoid(limited, slope)
    h.mult_tt(limited, slope, slope)
    h.mult_tt(gate, gate, limited)
    h.mult_st(-1.0, limited, limited)
    h.add_st(1.0, limited, limited)
    h.mult_tt(limited, slope, slope)
    h.add_tt(gate, slope, slope)
    h.mult_tt(dy, slope, dx)


def _relu6(h: Any, x: Any, y: Any) -> None:
    h.clip_t(x, 0.0, 6.0, y)


def _relu6_deriv(h: Any, y: Any, dy: Any, dx: Any) -> None:
    slope = h.scratch(y.shape, _SLOPE)
    _between(h, y, 0.0, 6.0, slope)
    h.mult_tt(dy, slope, dx)


def _softsign(h: Any, x: Any, y: Any) -> None:
    largest, size = float(np.finfo(h.dtype).max), h.scratch(x.shape, _WORK)
    h.clip_t(x, -largest, largest, y)  # infinity divided by itself would be NaN
    h.abs_t(y, size)
    h.add_st(1.0, size, size)
    h.divide_tt(y, size, y)


def _softsign_deriv(h: Any, y: Any, dy: Any, dx: Any) -> None:
    slope = h.scratch(y.shape, _WORK)
    h.abs_t(y, slope)
    h.mult_st(-1.0, slope, slope)
    h.add_st(1.0, slope, slope)
    h.mult_tt(slope, slope, slope)
    h.mult_tt(dy, slope, dx)


def _by_gate(text: str, a: float, b: float) -> Activation:
    """The function ``x sigmoid(a x + b x^3)``."""
    apply = functools.partial(_gated, a=a, b=b)
    derive = functools.partial(_gated_deriv, a=a, b=b)
    return Activation(text, apply, derive, from_input=True)


FUNCTIONS: dict[str, Activation] = {
    "rel": Activation("``max(0, x)``"),
    "tanh": Activation("``tanh(x)``"),
    "sigmoid": Activation("``1 / (1 + exp(-x))``"),
    "el": Activation(
        "Exponential linear: ``x`` where x >= 0, else ``exp(x) - 1``. Clevert et al.,"
        " *Fast and accurate deep network learning by exponential linear units*, 2015,"
        " with alpha = 1."
    ),
    "softplus": Activation(
        "``log(1 + exp(x))``. Dugas et al., *Incorporating second-order functional"
        " knowledge for better option pricing*, 2000.",
        _softplus,
        _softplus_deriv,
    ),
    "leaky_rel": Activation(
        "``x`` where x > 0, else ``0.01 x``. Maas et al., *Rectifier nonlinearities"
        " improve neural network acoustic models*, 2013.",
        _leaky_rel,
        _leaky_rel_deriv,
    ),
    "gelu": _by_gate(
        "Gaussian error linear: ``x (1 + tanh(sqrt(2/pi) (x + a x^3))) / 2``. With"
        " a = 0.044715 it is within 0.0005 of x times the normal distribution function."
        " Hendrycks and Gimpel, *Gaussian error linear units*, 2016.",
        *GELU,
    ),
    "swish": _by_gate(
        "``x / (1 + exp(-x))``. Ramachandran et al., *Searching for activation"
        " functions*, 2017, with beta = 1; also known as SiLU.",
        1.0,
        0.0,
    ),
    "hard_swish": Activation(
        "``x min(max(x + 3, 0), 6) / 6``. Howard et al., *Searching for MobileNetV3*,"
        " 2019.",
        _hard_swish,
        _hard_swish_deriv,
        from_input=True,
    ),
    "mish": Activation(
        "``x tanh(log(1 + exp(x)))``. Misra, *Mish: a self regularized non-monotonic"
        " activation function*, 2019.",
        _mish,
        _mish_deriv,
        from_input=True,
    ),
    "hard_sigmoid": Activation(
        "``min(max(x + 3, 0), 6) / 6``. Howard et al., *Searching for MobileNetV3*,"
        " 2019.",
        _hard_sigmoid,
        _hard_sigmoid_deriv,
    ),
    "relu6": Activation(
        "``min(max(x, 0), 6)``. Howard et al., *MobileNets*, 2017.",
        _relu6,
        _relu6_deriv,
    ),
    "softsign": Activation(
        "``x / (1 + |x|)``. Glorot and Bengio, *Understanding the difficulty of"
        " training deep feedforward neural networks*, 2010.",
        _softsign,
        _softsign_deriv,
    ),
}

ACTIVATIONS = ("linear", *FUNCTIONS)
"""Names of the activation functions. The kernels for GPUs count on their order."""

FROM_INPUT = frozenset(name for name, f in FUNCTIONS.items() if f.from_input)
"""Those whose derivative needs the input of the function, not only its output."""

OTHER_NAMES = {"relu": "rel"}
"""Names that layers take for other names."""


class ActivationOperations(ArithmeticOperations):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`.

    For each name in `FUNCTIONS` it has ``name(x, y)`` and ``name_deriv(x, y, dy, dx)``,
    elementwise, for arrays of any one shape; `dx` may be `dy`.
    """

    # For type checkers; what they do is in the table.
    rel: _Function
    rel_deriv: _Derivative
    tanh: _Function
    tanh_deriv: _Derivative
    sigmoid: _Function
    sigmoid_deriv: _Derivative
    softplus: _Function
    act_func: Mapping[str, _Function]
    act_func_deriv: Mapping[str, _Derivative]

    @operation("x:*S y:*S dy:*S", add="dx:*S", alias="dy")
    def act_backward(
        self, x: Any, y: Any, dy: Any, dx: Any, activation: str, fresh_dx: bool = False
    ) -> None:
        """``dx (+)= dy act'(x)`` for ``y = act(x)``; with `fresh_dx` it may be `dy`."""
        self._deriv(activation, x, y, dy, dx, fresh_dx)

    def _deriv(
        self, activation: str, x: Any, y: Any, dy: Any, dx: Any, fresh: bool
    ) -> None:
        deltas = dx if fresh else self.scratch(dx.shape, 2)
        self.act_func_deriv[activation](x, y, dy, deltas)
        if not fresh:
            self.add_tt(deltas, dx, dx)


def give_methods(
    cls: type, name: str, apply: Callable[..., None], derive: Callable[..., None]
) -> None:
    """Give a class the two methods of an activation; see :class:`Activation`."""

    def forward(self: Any, x: Any, y: Any) -> None:
        apply(self, x, y)

    if name in FROM_INPUT:

        def deriv(self: Any, x: Any, y: Any, dy: Any, dx: Any) -> None:
            derive(self, x, dy, dx)

    else:

        def deriv(self: Any, x: Any, y: Any, dy: Any, dx: Any) -> None:
            derive(self, y, dy, dx)

    forward.__doc__ = FUNCTIONS[name].text
    deriv.__doc__ = f"The derivative of :meth:`{name}`: `dx` gets `dy` times it."
    source = "x" if name in FROM_INPUT else "y"
    operation("x:*S", "y:*S", alias="*")(add_method(cls, name, forward))
    declared = operation(f"{source}:*S dy:*S", "dx:*S", alias="*")
    declared(add_method(cls, f"{name}_deriv", deriv))


for _name, _f in FUNCTIONS.items():
    give_methods(ActivationOperations, _name, _f.apply or missing, _f.derive or missing)
