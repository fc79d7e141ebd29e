"""Initializers whose values do not depend on each other."""

# ruff: noqa: D102 -- every __call__ does what Initializer.__call__ says

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from brainstorm.checks import checked_array, checked_number, checked_positive
from brainstorm.handlers.operations.activations import OTHER_NAMES
from brainstorm.initializers.base import Initializer, Shape
from brainstorm.literals import Distribution, Fan, ScaledActivation
from brainstorm.randomness import RandomState
from brainstorm.utils import ValidationError, listing

__all__ = [
    "ArrayInitializer",
    "DenseSqrtFanIn",
    "DenseSqrtFanInOut",
    "Gaussian",
    "KaimingNormal",
    "KaimingUniform",
    "LecunNormal",
    "LecunUniform",
    "TruncatedNormal",
    "Uniform",
    "VarianceScaling",
    "XavierNormal",
    "XavierUniform",
]


class ArrayInitializer(Initializer):
    """Takes the values of an array.

    Args:
        array: Array or nested list of the shape of the parameter.
    """

    def __init__(self, array: Any):
        super().__init__()
        self.array: np.ndarray = checked_array(array, "ArrayInitializer: array")

    def __call__(self, shape: Shape) -> np.ndarray:
        mine = self.array.shape
        self._require(mine == tuple(shape), f"shape {mine}", shape)
        return self.array.copy()


# -- independent values ------------------------------------------------------


class Gaussian(Initializer):
    """Normal distribution.

    Args:
        std: Standard deviation, at least 0.
        mean: Mean.
    """

    __default_values__: ClassVar[dict[str, Any]] = {"mean": 0.0}

    def __init__(self, std: float = 0.1, mean: float = 0.0):
        super().__init__()
        self.std: float = checked_number(std, "Gaussian: std", minimum=0)
        self.mean: float = checked_number(mean, "Gaussian: mean")

    def __call__(self, shape: Shape) -> np.ndarray:
        return self.rnd.randn(*shape) * self.std + self.mean


class TruncatedNormal(Initializer):
    """Normal distribution without its tails: values there are drawn again.

    Args:
        std: Standard deviation before that, at least 0.
        mean: Mean before that.
        low: Least value, in standard deviations from the mean.
        high: Largest value, likewise.
    """

    __omit_defaults__ = True

    def __init__(
        self, std: float = 0.1, mean: float = 0.0, low: float = -2.0, high: float = 2.0
    ):
        super().__init__()
        self.std: float = checked_number(std, "TruncatedNormal: std", minimum=0)
        self.mean: float = checked_number(mean, "TruncatedNormal: mean")
        self.low: float = checked_number(low, "TruncatedNormal: low")
        self.high: float = checked_number(high, "TruncatedNormal: high")
        # Beyond these bounds hardly any value that is drawn could stay.
        if not self.high - self.low >= 0.1 or self.low > 3 or self.high < -3:
            raise ValidationError(
                "TruncatedNormal: expected low and high at least 0.1 apart, not both"
                f" beyond 3 standard deviations, got {low} and {high}"
            )

    def __call__(self, shape: Shape) -> np.ndarray:
        values = _truncated_normal(self.rnd, shape, self.low, self.high)
        return values * self.std + self.mean


def _truncated_normal(
    rnd: RandomState, shape: Shape, low: float, high: float
) -> np.ndarray:
    values = np.asarray(rnd.randn(*shape))
    while (outside := (values < low) | (values > high)).any():
        values[outside] = rnd.randn(int(np.count_nonzero(outside)))
    return values


class Uniform(Initializer):
    """Uniform distribution over [`low`, `high`).

    Args:
        low: Lower bound.
        high: Upper bound. None makes the interval symmetric: from minus the
            size of `low` to plus the size of `low`.
    """

    def __init__(self, low: float = 0.1, high: float | None = None):
        super().__init__()
        self.low: float = checked_number(low, "Uniform: low")
        self.high: float | None = (
            None if high is None else checked_number(high, "Uniform: high")
        )
        if self.high is not None and self.low > self.high:
            raise ValidationError(f"Uniform: low is {low}, above high, {high}")

    def __call__(self, shape: Shape) -> np.ndarray:
        low, high = self.low, self.high
        if high is None:
            low, high = -abs(low), abs(low)
        return self.rnd.rand(*shape) * (high - low) + low


def _scales(square: int) -> dict[str, float]:
    """The scales by activation function, given the square of that of tanh."""
    rel, tanh = math.sqrt(2 * square), math.sqrt(square)
    return {"rel": rel, "tanh": tanh, "sigmoid": 4 * tanh, "linear": 1.0}


class _DenseSqrt(Initializer):
    """Uniform distribution over plus and minus scale / sqrt(fan)."""

    SCALES: dict[str, float]
    COUNTS_UNITS: bool

    def __init__(self, scale: float | ScaledActivation = "rel"):
        super().__init__()
        name = type(self).__name__
        if not isinstance(scale, str):
            scale = checked_number(scale, f"{name}: scale", minimum=0)
        elif OTHER_NAMES.get(scale, scale) not in self.SCALES:
            raise ValidationError(
                f"{name}: scale {scale!r} is not known;"
                f" choices are numbers and {listing(self.SCALES)}"
            )
        self.scale: float | str = (
            OTHER_NAMES.get(scale, scale) if isinstance(scale, str) else scale
        )

    def __call__(self, shape: Shape) -> np.ndarray:
        self._assert_atleast2d(shape)
        given = self.scale
        scale = self.SCALES[given] if isinstance(given, str) else given
        fan = math.prod(shape[1:]) + self.COUNTS_UNITS * shape[0]
        return scale * (2 * self.rnd.rand(*shape) - 1) / np.sqrt(fan)


class DenseSqrtFanIn(_DenseSqrt):
    r"""Uniform distribution over :math:`\pm scale / \sqrt{n_{in}}`.

    :math:`n_{in}` is the number of inputs of each unit: the product of all
    dimensions but the first. For arrays of two or more dimensions.

    ============  ====================
    activation    scale
    ============  ====================
    ``rel``       :math:`\sqrt 6`
    ``tanh``      :math:`\sqrt 3`
    ``sigmoid``   :math:`4 \sqrt 3`
    ``linear``    1
    ============  ====================

    Args:
        scale: A number, or the name of the layer's activation function.
    """

    SCALES: dict[str, float] = _scales(3)
    COUNTS_UNITS: bool = False


class DenseSqrtFanInOut(_DenseSqrt):
    r"""Uniform distribution over :math:`\pm scale / \sqrt{n_{in} + n_{out}}`.

    :math:`n_{out}` is the number of units, the first dimension, and
    :math:`n_{in}` the product of all others. For arrays of two or more
    dimensions.

    ============  ====================
    activation    scale
    ============  ====================
    ``rel``       :math:`\sqrt{12}`
    ``tanh``      :math:`\sqrt 6`
    ``sigmoid``   :math:`4 \sqrt 6`
    ``linear``    1
    ============  ====================

    Reference: X. Glorot, Y. Bengio: Understanding the difficulty of training
    deep feedforward neural networks. AISTATS 2010.

    Args:
        scale: A number, or the name of the layer's activation function.
    """

    SCALES: dict[str, float] = _scales(6)
    COUNTS_UNITS: bool = True


# What a standard normal distribution that is cut at -2 and 2 has as deviation.
_CUT_STD = 0.87962566103423978


class VarianceScaling(Initializer):
    """Random values whose variance is ``scale`` by the number of connections.

    That number is of the inputs of each unit, the product of all dimensions but the
    first; or of the units, the first dimension; or the mean of both. Of vectors all are
    their length.

    =================== ===== ======= ============================================
    name                scale mode    reference
    =================== ===== ======= ============================================
    ``Kaiming...``      2     fan_in  He et al., ICCV 2015, for ``rel``
    ``Xavier...``       1     fan_avg Glorot, Bengio, AISTATS 2010, for ``tanh``
    ``Lecun...``        1     fan_in  LeCun et al., Efficient BackProp, 1998
    =================== ===== ======= ============================================

    ``KaimingNormal()`` and ``KaimingUniform()`` and so on make one of these, truncated
    unless their `distribution` is ``'normal'``.

    Args:
        scale: Factor of the variance, above 0.
        mode: ``'fan_in'``, ``'fan_out'`` or ``'fan_avg'``.
        distribution: ``'truncated_normal'``, of values within two standard deviations,
            ``'normal'`` or ``'uniform'``.
    """

    FANS: dict[str, Callable[[int, int], float]] = {
        "fan_in": lambda inputs, units: inputs,
        "fan_out": lambda inputs, units: units,
        "fan_avg": lambda inputs, units: (inputs + units) / 2,
    }
    DISTRIBUTIONS: dict[str, Callable[[RandomState, Shape], np.ndarray]] = {
        "truncated_normal": lambda rnd, shape: (
            _truncated_normal(rnd, shape, -2, 2) / _CUT_STD
        ),
        "normal": lambda rnd, shape: rnd.randn(*shape),
        "uniform": lambda rnd, shape: math.sqrt(3) * (2 * rnd.rand(*shape) - 1),
    }

    def __init__(
        self,
        scale: float = 1.0,
        mode: Fan = "fan_in",
        distribution: Distribution = "truncated_normal",
    ):
        super().__init__()
        self.scale: float = checked_positive(scale, "VarianceScaling: scale")
        for name, value, choices in (
            ("mode", mode, self.FANS),
            ("distribution", distribution, self.DISTRIBUTIONS),
        ):
            if not isinstance(value, str) or value not in choices:
                raise ValidationError(
                    f"VarianceScaling: {name} {value!r} is not known; choices are"
                    f" {listing(choices)}"
                )
        self.mode = mode
        self.distribution = distribution

    def __call__(self, shape: Shape) -> np.ndarray:
        self._require(len(shape) > 0, "at least one dimension", shape)
        units, inputs = shape[0], math.prod(shape[1:] or shape)
        std = math.sqrt(self.scale / self.FANS[self.mode](inputs, units))
        return std * self.DISTRIBUTIONS[self.distribution](self.rnd, shape)


def KaimingNormal(distribution: Distribution = "truncated_normal") -> VarianceScaling:
    """See :class:`VarianceScaling`."""
    return VarianceScaling(2.0, "fan_in", distribution)


def KaimingUniform() -> VarianceScaling:
    """See :class:`VarianceScaling`."""
    return VarianceScaling(2.0, "fan_in", "uniform")


def XavierNormal(distribution: Distribution = "truncated_normal") -> VarianceScaling:
    """See :class:`VarianceScaling`."""
    return VarianceScaling(1.0, "fan_avg", distribution)


def XavierUniform() -> VarianceScaling:
    """See :class:`VarianceScaling`."""
    return VarianceScaling(1.0, "fan_avg", "uniform")


def LecunNormal(distribution: Distribution = "truncated_normal") -> VarianceScaling:
    """See :class:`VarianceScaling`."""
    return VarianceScaling(1.0, "fan_in", distribution)


def LecunUniform() -> VarianceScaling:
    """See :class:`VarianceScaling`."""
    return VarianceScaling(1.0, "fan_in", "uniform")
