"""Surrogate gradients: what stands for the derivative of a spike.

A spike is 1 from its threshold on, and 0 below: its derivative is zero wherever there
is one. So that errors get through, backward passes take that of a function that looks
similar from afar. A new one is a line of `SURROGATES`.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

__all__ = ["SURROGATES", "Values", "find_surrogate", "integral_of", "slopes"]

_SLOTS = (27, 26, 25, 24)  # of `scratch`, that no other operation uses


class Values:
    """An array of a handler in a formula, whose operators are operations.

    Results go where their operands were, but never into the array that the formula
    begins with. So a formula may use each of its intermediate results only once.

    Args:
        handler: Makes the operations.
        array: The array.
        free: What makes arrays for results.
        is_result: Whether this is a result itself.
    """

    handler: Any
    array: Any

    def __init__(
        self,
        handler: Any,
        array: Any,
        free: list[Callable[[], Any]],
        is_result: bool = False,
    ):
        self.handler, self.array = handler, array
        self._free, self._is_result = free, is_result

    def apply(self, operation: str, *args: Any, before: tuple[Any, ...] = ()) -> Values:
        """The result of an operation on it: ``operation(*before, array, *args, out)``.

        Args:
            operation: Name of the operation.
            *args: Further arguments; of these, values are used up.
            before: Arguments that come first.
        """
        results = [v for v in (self, *args) if isinstance(v, Values) and v._is_result]
        out, *done = results or [self._new()]
        arrays = (v.array if isinstance(v, Values) else v for v in args)
        getattr(self.handler, operation)(*before, self.array, *arrays, out.array)
        for values in done:
            self._free.append(functools.partial(_same, values.array))
        return out

    def _new(self) -> Values:
        return Values(self.handler, self._free.pop()(), self._free, True)

    def _constant(self, value: float) -> Values:
        constant = self._new()
        self.handler.fill(constant.array, float(value))
        return constant

    def __add__(self, other: Any) -> Values:
        if isinstance(other, Values):
            return self.apply("add_tt", other)
        return self.apply("add_st", before=(float(other),))

    def __mul__(self, other: Any) -> Values:
        if isinstance(other, Values):
            return self.apply("mult_tt", other)
        return self.apply("mult_st", before=(float(other),))

    __radd__: ClassVar[Callable[[Values, Any], Values]] = __add__
    __rmul__: ClassVar[Callable[[Values, Any], Values]] = __mul__

    def __neg__(self) -> Values:
        return self * -1.0

    def __sub__(self, other: Any) -> Values:
        return self + -other

    def __rsub__(self, other: float) -> Values:
        return -self + other

    def __rtruediv__(self, other: Any) -> Values:
        return self.apply("_divide_st", before=(float(other),))

    def __abs__(self) -> Values:
        return self.apply("abs_t")

    def squared(self) -> Values:
        """Its square."""
        out = self if self._is_result else self._new()
        self.handler.mult_tt(self.array, self.array, out.array)
        return out


def _same(array: Any) -> Any:
    return array


# -- functions in formulas ---------------------------------------------------


def positive(x: Values) -> Values:
    """X where it is above 0, else 0."""
    return x.apply("rel")


def step(x: Values) -> Values:
    """1 where x is at least 0, else 0."""
    return x.apply("step_t", 0.0)


def exp(x: Values) -> Values:
    """E to the power of x, which is nowhere above 0."""
    return x.apply("el") + 1


def bell(x: Values) -> Values:
    """The derivative of the sigmoid."""
    y = x.apply("sigmoid")
    rest = y._constant(1.0)
    rest.handler.subtract_tt(rest.array, y.array, rest.array)
    return y * rest


def normal(x: Values, mean: float, sigma: float) -> Values:
    """The density of the normal distribution."""
    z = (x - mean).squared() * (-0.5 / sigma**2)
    return exp(z) * (1 / (math.sqrt(2 * math.pi) * sigma))


def cosine(x: Values, period: float) -> Values:
    """The cosine of 2 pi x / period, by its series around the middle of a period."""
    turns = (x * (1 / period)).apply("modulo_tt", x._constant(1.0))
    square = ((turns - 0.5) * (2 * math.pi)).squared()
    terms = [-((-1.0) ** k) / math.factorial(2 * k) for k in range(15)]
    total = square._constant(terms.pop())
    while terms:
        square.handler.mult_tt(total.array, square.array, total.array)
        total = total + terms.pop()
    square._free.append(functools.partial(_same, square.array))
    return total


def waves(x: Values, n: float, period: float) -> Values:
    """The sum of n cosines of 1, 3, 5, ... periods."""
    if not (n >= 1 and n == int(n)):
        raise ValueError(f"n: expected a whole number of at least 1, got {n}")
    first, *others = [cosine(x, period / i) for i in range(1, 2 * int(n), 2)]
    return sum(others, first)


# Each is d s / d x at x = u - threshold; 1 / 2 / (...) is written 0.5 / (...).
SURROGATES: dict[str, Callable[..., Values]] = {
    "inv_square": lambda x, alpha=100.0: 1 / (alpha * abs(x) + 1).squared(),
    "sigmoid": lambda x, alpha=4.0: alpha * bell(alpha * x),
    "arctan": lambda x, alpha=1.0: (
        (alpha / 2) / ((math.pi / 2 * alpha * x).squared() + 1)
    ),
    "relu": lambda x, alpha=0.3, width=1.0: alpha * positive(width - abs(x)),
    "gaussian": lambda x, sigma=0.5, alpha=0.5: alpha * normal(x, 0, sigma),
    "soft_sign": lambda x, alpha=1.0: (alpha / 2) / (1 + abs(alpha * x)).squared(),
    "piecewise_quadratic": lambda x, alpha=1.0: alpha * positive(1 - alpha * abs(x)),
    "piecewise_exp": lambda x, alpha=1.0: alpha / 2 * exp(-alpha * abs(x)),
    "nonzero_sign_log": lambda x, alpha=1.0: 1 / (1 / alpha + abs(x)),
    "erf": lambda x, alpha=1.0: (
        (alpha / math.sqrt(math.pi)) * exp(-(alpha * x).squared())
    ),
    "piecewise_leaky_relu": lambda x, c=0.01, w=1.0: (
        c + (0.5 / w - c) * step(w - abs(x))
    ),
    "squarewave_fourier_series": lambda x, n=2, t_period=8.0: (
        (4 / t_period) * waves(x, n, t_period)
    ),
    "s2nn": lambda x, alpha=4.0, beta=1.0: (
        step(x) * (beta / (positive(x) + 1)) + (1 - step(x)) * (alpha * bell(alpha * x))
    ),
    "q_pseudo_spike": lambda x, alpha=2.0: exp(
        -alpha * (1 + 2 / (alpha + 1) * abs(x)).apply("log_t")
    ),
    "leaky_relu": lambda x, alpha=0.1, beta=1.0: alpha + (beta - alpha) * step(x),
    "log_tailed_relu": lambda x, alpha=0.0: (
        alpha * step(-x) + (1 - step(-x)) * (1 / (positive(x - 1) + 1))
    ),
    "multi_gaussian": lambda x, h=0.15, s=6.0, sigma=0.5, scale=0.5: (
        scale
        * (
            (1 + h) * normal(x, 0, sigma)
            + -h * (normal(x, sigma, s * sigma) + normal(x, -sigma, s * sigma))
        )
    ),
    "slayer": lambda x, alpha=1.0: exp(-alpha * abs(x)),
}
"""Derivatives of spikes by name, with their parameters and what these are by default.

They are BrainPy's; a name may have the ending ``_grad`` that it has there."""


def find_surrogate(name: Any) -> tuple[str, dict[str, float]]:
    """The name of a surrogate as it stands in the table, and its parameters.

    Raises:
        KeyError: There is none of that name.
    """
    if isinstance(name, str) and name not in SURROGATES:
        name = name.removesuffix("_grad")
    _, *parameters = inspect.signature(SURROGATES[name]).parameters.values()
    return name, {parameter.name: parameter.default for parameter in parameters}


def slopes(
    handler: Any, x: Any, name: str, parameters: tuple[float, ...], out: Any
) -> None:
    """``out`` = the surrogate for the derivative of ``x >= 0``."""
    free: list[Callable[[], Any]] = [
        functools.partial(handler.scratch, tuple(x.shape), s) for s in _SLOTS
    ]
    free.append(functools.partial(_same, out))
    result = SURROGATES[name](Values(handler, x, free), *parameters)
    if result.array is not out:
        handler.copy_to(result.array, out)


def integral_of(
    function: Callable[[np.ndarray], np.ndarray], x: np.ndarray, width: float = 1 / 16
) -> np.ndarray:
    """The integral of a function from 0 to each of `x`.

    It adds up cells of a fixed width, so differences of it give the function back.

    Args:
        function: Applied elementwise.
        x: Array of any shape.
        width: That of the cells; kinks of the function should lie between them.
    """
    nodes, weights = np.polynomial.legendre.leggauss(16)

    def within(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        half = (stop - start) / 2
        points = (start + half)[..., np.newaxis] + half[..., np.newaxis] * nodes
        return half * (function(points) @ weights)

    cells = np.floor(x / width).astype(int)
    first, last = min(cells.min(initial=0), 0), max(cells.max(initial=0), 0)
    edges = np.arange(first, last + 1) * width
    sums = np.append(0.0, np.cumsum(within(edges[:-1], edges[1:])))
    return sums[cells - first] - sums[-first] + within(cells * width, x)
