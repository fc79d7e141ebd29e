"""Initial values of parameters.

An initializer is called with a shape and returns a float64 array of that
shape. Where weights are concerned the first dimension counts the units of the
layer, and all others their inputs.

:meth:`Network.initialize <brainstorm.structure.network.Network.initialize>`
takes an initializer, a number, an array or a function ``shape -> array``.
"""

# ruff: noqa: D102 -- every __call__ does what Initializer.__call__ says

from __future__ import annotations

import math
from typing import Any

import numpy as np

from brainstorm.checks import checked_array, checked_integer, checked_number
from brainstorm.handlers.operations.activations import OTHER_NAMES
from brainstorm.randomness import RandomState, Seedable
from brainstorm.utils import InitializationError, ValidationError, listing

__all__ = [
    "ArrayInitializer",
    "DenseSqrtFanIn",
    "DenseSqrtFanInOut",
    "EchoState",
    "Gaussian",
    "Identity",
    "Initializer",
    "LstmOptInit",
    "Orthogonal",
    "RandomWalk",
    "SparseInputs",
    "SparseOutputs",
    "Uniform",
    "evaluate_initializer",
]

Shape = tuple[int, ...]


class Initializer(Seedable):
    """Base class of all initializers.

    Subclasses call ``super().__init__()``, take all random numbers from
    ``self.rnd``, and raise :class:`~brainstorm.utils.InitializationError` for
    shapes that they can not fill.

    Args:
        seed: Seed of ``self.rnd``; None takes one from `global_rnd`. A network seeds
            it anew.
    """

    def set_seed(self, seed: int) -> None:
        """Seed this initializer and, each differently, those that it contains."""
        self.rnd.set_seed(seed)
        seeds = RandomState(seed)
        for member in vars(self).values():
            if isinstance(member, Initializer):
                member.set_seed(seeds.generate_seed())

    def __call__(self, shape: Shape) -> np.ndarray:
        """Make the initial values.

        Args:
            shape: The shape of the parameter.

        Returns:
            A new float64 array of that shape.

        Raises:
            InitializationError: The shape is not one that this can fill.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement __call__")

    def _assert_atleast2d(self, shape: Shape) -> None:
        self._require(len(shape) >= 2, "at least two dimensions", shape)

    def _require_square(self, shape: Shape) -> None:
        square = len(shape) == 2 and shape[0] == shape[1]
        self._require(square, "a square matrix", shape)

    def _require(self, condition: bool, need: str, shape: Shape) -> None:
        if not condition:
            raise InitializationError(
                f"{type(self).__name__} needs {need}, but the shape is {tuple(shape)}"
            )


def evaluate_initializer(
    initializer: Any,
    shape: Shape,
    fallback: Any = None,
    seed: int | None = None,
) -> np.ndarray:
    """Make initial values of a given shape.

    >>> evaluate_initializer(0.5, (2, 2)).tolist()
    [[0.5, 0.5], [0.5, 0.5]]

    Args:
        initializer: An :class:`Initializer`, a function ``shape -> array``, a
            number that fills the array, or an array or nested list of exactly
            that shape.
        shape: The shape to fill.
        fallback: To be used where `initializer` raises InitializationError.
        seed: Seed for the initializer or the fallback. None lets them continue
            their own random numbers.

    Returns:
        A new float64 array of that shape.

    Raises:
        InitializationError: Such values can not be made, also not by `fallback`.
        ValidationError: The values are not real numbers.
    """
    shape = tuple(shape)
    if seed is not None and isinstance(initializer, Initializer):
        initializer.set_seed(seed)
    try:
        return _evaluate(initializer, shape)
    except InitializationError:
        if fallback is None:
            raise
        return evaluate_initializer(fallback, shape, seed=seed)


def _evaluate(initializer: Any, shape: Shape) -> np.ndarray:
    made = initializer(shape) if callable(initializer) else initializer
    name = getattr(initializer, "__name__", type(initializer).__name__)
    values = checked_array(made, f"the initial value from {name!r}")
    if values.ndim == 0:
        return np.full(shape, values)
    if values.shape != shape:
        raise InitializationError(
            f"expected initial values of shape {shape}, but {name!r} gives"
            f" {values.shape}"
        )
    return values


# -- without randomness ------------------------------------------------------


class ArrayInitializer(Initializer):
    """Takes the values of an array.

    Args:
        array: Array or nested list of the shape of the parameter.
    """

    def __init__(self, array: Any):
        super().__init__()
        self.array = checked_array(array, "ArrayInitializer: array")

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

    __default_values__ = {"mean": 0.0}

    def __init__(self, std: float = 0.1, mean: float = 0.0):
        super().__init__()
        self.std = checked_number(std, "Gaussian: std", minimum=0)
        self.mean = checked_number(mean, "Gaussian: mean")

    def __call__(self, shape: Shape) -> np.ndarray:
        return self.rnd.randn(*shape) * self.std + self.mean


class Uniform(Initializer):
    """Uniform distribution over [`low`, `high`).

    Args:
        low: Lower bound.
        high: Upper bound. None makes the interval symmetric: from minus the
            size of `low` to plus the size of `low`.
    """

    def __init__(self, low: float = 0.1, high: float | None = None):
        super().__init__()
        self.low = checked_number(low, "Uniform: low")
        self.high = None if high is None else checked_number(high, "Uniform: high")
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

    def __init__(self, scale: float | str = "rel"):
        super().__init__()
        name = type(self).__name__
        if not isinstance(scale, str):
            scale = checked_number(scale, f"{name}: scale", minimum=0)
        elif OTHER_NAMES.get(scale, scale) not in self.SCALES:
            raise ValidationError(
                f"{name}: scale {scale!r} is not known;"
                f" choices are numbers and {listing(self.SCALES)}"
            )
        self.scale = OTHER_NAMES.get(scale, scale)

    def __call__(self, shape: Shape) -> np.ndarray:
        self._assert_atleast2d(shape)
        scale = self.SCALES.get(self.scale, self.scale)
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

    SCALES = _scales(3)
    COUNTS_UNITS = False


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

    SCALES = _scales(6)
    COUNTS_UNITS = True


# -- structured matrices -----------------------------------------------------


class EchoState(Initializer):
    """Random square matrix with a given spectral radius.

    The values are uniform over [-0.5, 0.5), then scaled. For recurrent weights;
    below 1 the network has the echo state property.

    Args:
        spectral_radius: Largest absolute value of the eigenvalues, at least 0.
    """

    def __init__(self, spectral_radius: float = 1.0):
        super().__init__()
        self.spectral_radius = checked_number(
            spectral_radius, "EchoState: spectral_radius", minimum=0
        )

    def __call__(self, shape: Shape) -> np.ndarray:
        self._require_square(shape)
        weights = self.rnd.uniform(-0.5, 0.5, size=shape)
        radius = np.abs(np.linalg.eigvals(weights)).max()
        return weights / radius * self.spectral_radius


class Identity(Initializer):
    """The scaled identity matrix plus Gaussian noise.

    Args:
        scale: Factor of the identity matrix.
        std: Standard deviation of the noise, at least 0.
        enforce_square: Whether to refuse matrices that are not square. If not,
            they get ones along their main diagonal.
    """

    def __init__(
        self, scale: float = 1.0, std: float = 0.01, enforce_square: bool = True
    ):
        super().__init__()
        self.scale = checked_number(scale, "Identity: scale")
        self.std = checked_number(std, "Identity: std", minimum=0)
        self.enforce_square = bool(enforce_square)

    def __call__(self, shape: Shape) -> np.ndarray:
        self._require(len(shape) == 2, "a matrix", shape)
        if self.enforce_square:
            self._require_square(shape)
        return np.eye(*shape) * self.scale + self.rnd.randn(*shape) * self.std


class Orthogonal(Initializer):
    """Random matrix with orthonormal rows or columns, whichever are fewer.

    Arrays of more than two dimensions are filled as the matrix of the first
    dimension by all others.

    Reference: A. M. Saxe, J. L. McClelland, S. Ganguli: Exact solutions to the
    nonlinear dynamics of learning in deep linear neural networks. arXiv:1312.6120.

    Args:
        scale: Factor of the matrix.
    """

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = checked_number(scale, "Orthogonal: scale")

    def __call__(self, shape: Shape) -> np.ndarray:
        self._assert_atleast2d(shape)
        flat_shape = (shape[0], math.prod(shape[1:]))
        u, _, v = np.linalg.svd(self.rnd.randn(*flat_shape), full_matrices=False)
        return (u if u.shape == flat_shape else v).reshape(shape) * self.scale


class RandomWalk(Initializer):
    r"""Square matrix of Gaussian values :math:`g \, N(0, 1) / N`.

    :math:`N` is the number of rows, and :math:`g` by default

    - ``linear``: :math:`\exp(1 / (2 N))`
    - ``rel``: :math:`\sqrt 2 \exp(1.2 / (\max(N, 6) - 2.4))`

    Reference: D. Sussillo, L. F. Abbott: Random walk initialization for training
    very deep feedforward networks. arXiv:1412.6558. The paper divides by
    :math:`\sqrt N`; dividing by :math:`N` is what brainstorm has always done.

    Args:
        act_func: The layer's activation function, ``'linear'`` or ``'rel'``.
        scale: Another value for :math:`g`.
    """

    GAINS = {
        "linear": lambda n: math.exp(1 / (2 * n)),
        "rel": lambda n: math.sqrt(2) * math.exp(1.2 / (max(n, 6) - 2.4)),
    }

    def __init__(self, act_func: str = "linear", scale: float | None = None):
        super().__init__()
        if not isinstance(act_func, str) or act_func not in self.GAINS:
            raise ValidationError(
                f"RandomWalk: act_func {act_func!r} is not known;"
                f" choices are {listing(self.GAINS)}"
            )
        self.act_func = act_func
        self.scale = (
            None if scale is None else checked_number(scale, "RandomWalk: scale")
        )

    def __call__(self, shape: Shape) -> np.ndarray:
        self._require_square(shape)
        n = shape[1]
        scale = self.GAINS[self.act_func](n) if self.scale is None else self.scale
        return scale * self.rnd.randn(*shape) / n


# -- made of others ----------------------------------------------------------


class _Sparse(Initializer):
    """Lets only some values in each line of a matrix differ from 0."""

    LINE: str

    def __init__(self, sub_initializer: Any, connections: int = 15):
        super().__init__()
        name = type(self).__name__
        self.sub_initializer = _checked_source(
            sub_initializer, f"{name}: sub_initializer"
        )
        self.connections = checked_integer(connections, f"{name}: connections", 1)

    def __call__(self, shape: Shape) -> np.ndarray:
        self._require(len(shape) == 2, "a matrix", shape)
        keep = np.zeros(shape)
        lines = keep.T if self.LINE == "column" else keep
        room = f"room for {self.connections} connections in each {self.LINE}"
        self._require(self.connections <= lines.shape[1], room, shape)
        values = evaluate_initializer(self.sub_initializer, shape)
        lines[:, : self.connections] = 1.0
        for line in lines:
            self.rnd.shuffle(line)
        return values * keep


class SparseInputs(_Sparse):
    """Lets only some values in each column of a matrix differ from 0.

    Args:
        sub_initializer: Gives these values. Anything that
            :func:`evaluate_initializer` accepts.
        connections: How many there are in each column, at least 1.
    """

    LINE = "column"


class SparseOutputs(_Sparse):
    """Lets only some values in each row of a matrix differ from 0.

    Args:
        sub_initializer: Gives these values. Anything that
            :func:`evaluate_initializer` accepts.
        connections: How many there are in each row, at least 1.
    """

    LINE = "row"


class LstmOptInit(Initializer):
    """Fills four blocks stacked along the first dimension one by one.

    For layers that keep the parameters of input block, input gate, forget gate
    and output gate, in this order, in one array. Each argument is anything that
    :func:`evaluate_initializer` accepts.

    Args:
        input_block: For the first quarter.
        input_gate: For the second.
        forget_gate: For the third.
        output_gate: For the last.
    """

    def __init__(
        self,
        input_block: Any = 0.0,
        input_gate: Any = 0.0,
        forget_gate: Any = 0.0,
        output_gate: Any = 0.0,
    ):
        super().__init__()
        self.input_block = _checked_source(input_block, "LstmOptInit: input_block")
        self.input_gate = _checked_source(input_gate, "LstmOptInit: input_gate")
        self.forget_gate = _checked_source(forget_gate, "LstmOptInit: forget_gate")
        self.output_gate = _checked_source(output_gate, "LstmOptInit: output_gate")

    def __call__(self, shape: Shape) -> np.ndarray:
        four_blocks = len(shape) > 0 and shape[0] % 4 == 0
        self._require(four_blocks, "a first dimension divisible by 4", shape)
        block_shape = (shape[0] // 4, *shape[1:])
        parts = self.input_block, self.input_gate, self.forget_gate, self.output_gate
        return np.concatenate([evaluate_initializer(p, block_shape) for p in parts])


def _checked_source(source: Any, what: str) -> Any:
    if not callable(source):
        checked_array(source, what)
    return source
