"""Initializers of matrices with some structure, and of those that have parts."""

# ruff: noqa: D102 -- every __call__ does what Initializer.__call__ says

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from brainstorm.checks import checked_integer, checked_number
from brainstorm.initializers.base import (
    Initializer,
    Shape,
    checked_source,
    evaluate_initializer,
)
from brainstorm.literals import WalkActivation
from brainstorm.utils import InitializationError, ValidationError, listing

__all__ = [
    "EchoState",
    "Identity",
    "LstmOptInit",
    "Orthogonal",
    "RandomWalk",
    "Sparse",
    "SparseInputs",
    "SparseOutputs",
]

# Of few units with few connections there may be none at all.
_MOST_DRAWS = 100


class EchoState(Initializer):
    """Random square matrix with a given spectral radius.

    First the values are drawn, then all but a share of them become 0, then all are
    scaled. For recurrent weights; below 1 the network has the echo state property.

    Args:
        spectral_radius: Largest absolute value of the eigenvalues, at least 0.
        connectivity: Probability of each connection, above 0 and up to 1.
        values: Gives the values. Anything that :func:`evaluate_initializer` accepts.
            Default: uniform over [-0.5, 0.5).
    """

    __default_values__: ClassVar[dict[str, Any]] = {"connectivity": 1.0, "values": None}

    def __init__(
        self,
        spectral_radius: float = 1.0,
        connectivity: float = 1.0,
        values: Any = None,
    ):
        super().__init__()
        self.spectral_radius: float = checked_number(
            spectral_radius, "EchoState: spectral_radius", minimum=0
        )
        self.connectivity: float = _checked_share(
            connectivity, "EchoState: connectivity"
        )
        if values is not None:
            checked_source(values, "EchoState: values")
        self.values = values

    def __call__(self, shape: Shape) -> np.ndarray:
        self._require_square(shape)
        for _ in range(_MOST_DRAWS):
            weights = self._draw(shape)
            radius = np.abs(np.linalg.eigvals(weights)).max()
            if radius > 0:
                return weights / radius * self.spectral_radius
        raise InitializationError(
            f"EchoState: the matrices {tuple(shape)} that were drawn have only 0 as"
            f" eigenvalues; expected a connectivity above {self.connectivity}, or other"
            " values"
        )

    def _draw(self, shape: Shape) -> np.ndarray:
        if self.values is None:
            weights = self.rnd.uniform(-0.5, 0.5, size=shape)
        else:
            weights = evaluate_initializer(self.values, shape)
        if self.connectivity < 1:
            weights = weights * (self.rnd.random_sample(shape) < self.connectivity)
        return weights


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
        self.scale: float = checked_number(scale, "Identity: scale")
        self.std: float = checked_number(std, "Identity: std", minimum=0)
        self.enforce_square: bool = bool(enforce_square)

    def __call__(self, shape: Shape) -> np.ndarray:
        self._require(len(shape) == 2, "a matrix", shape)
        if self.enforce_square:
            self._require_square(shape)
        identity = np.eye(shape[0], shape[1])
        return identity * self.scale + self.rnd.randn(*shape) * self.std


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
        self.scale: float = checked_number(scale, "Orthogonal: scale")

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

    GAINS: ClassVar[dict[str, Callable[[int], float]]] = {
        "linear": lambda n: math.exp(1 / (2 * n)),
        "rel": lambda n: math.sqrt(2) * math.exp(1.2 / (max(n, 6) - 2.4)),
    }

    def __init__(self, act_func: WalkActivation = "linear", scale: float | None = None):
        super().__init__()
        if not isinstance(act_func, str) or act_func not in self.GAINS:
            raise ValidationError(
                f"RandomWalk: act_func {act_func!r} is not known;"
                f" choices are {listing(self.GAINS)}"
            )
        self.act_func = act_func
        self.scale: float | None = (
            None if scale is None else checked_number(scale, "RandomWalk: scale")
        )

    def __call__(self, shape: Shape) -> np.ndarray:
        self._require_square(shape)
        n = shape[1]
        scale = self.GAINS[self.act_func](n) if self.scale is None else self.scale
        return scale * self.rnd.randn(*shape) / n


# -- made of others ----------------------------------------------------------


class _SparseLines(Initializer):
    """Lets only some values in each line of a matrix differ from 0."""

    LINE: str

    def __init__(self, sub_initializer: Any, connections: int = 15):
        super().__init__()
        name = type(self).__name__
        self.sub_initializer: Any = checked_source(
            sub_initializer, f"{name}: sub_initializer"
        )
        self.connections: int = checked_integer(connections, f"{name}: connections", 1)

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


class Sparse(Initializer):
    """Lets each value differ from 0 with the same probability.

    Args:
        sub_initializer: Gives the values. Anything that
            :func:`evaluate_initializer` accepts.
        density: That probability, above 0 and up to 1.
    """

    def __init__(self, sub_initializer: Any, density: float = 0.1):
        super().__init__()
        self.sub_initializer: Any = checked_source(
            sub_initializer, "Sparse: sub_initializer"
        )
        self.density: float = _checked_share(density, "Sparse: density")

    def __call__(self, shape: Shape) -> np.ndarray:
        values = evaluate_initializer(self.sub_initializer, shape)
        return values * (self.rnd.random_sample(shape) < self.density)


class SparseInputs(_SparseLines):
    """Lets only some values in each column of a matrix differ from 0.

    Args:
        sub_initializer: Gives these values. Anything that
            :func:`evaluate_initializer` accepts.
        connections: How many there are in each column, at least 1.
    """

    LINE: str = "column"


class SparseOutputs(_SparseLines):
    """Lets only some values in each row of a matrix differ from 0.

    Args:
        sub_initializer: Gives these values. Anything that
            :func:`evaluate_initializer` accepts.
        connections: How many there are in each row, at least 1.
    """

    LINE: str = "row"


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
        self.input_block: Any = checked_source(input_block, "LstmOptInit: input_block")
        self.input_gate: Any = checked_source(input_gate, "LstmOptInit: input_gate")
        self.forget_gate: Any = checked_source(forget_gate, "LstmOptInit: forget_gate")
        self.output_gate: Any = checked_source(output_gate, "LstmOptInit: output_gate")

    def __call__(self, shape: Shape) -> np.ndarray:
        four_blocks = len(shape) > 0 and shape[0] % 4 == 0
        self._require(four_blocks, "a first dimension divisible by 4", shape)
        block_shape = (shape[0] // 4, *shape[1:])
        parts = self.input_block, self.input_gate, self.forget_gate, self.output_gate
        return np.concatenate([evaluate_initializer(p, block_shape) for p in parts])


def _checked_share(value: Any, what: str) -> float:
    share = checked_number(value, what)
    if not 0 < share <= 1:
        raise ValidationError(f"{what} has to be above 0 and up to 1, not {value!r}")
    return share
