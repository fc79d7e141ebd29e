"""The handler that needs nothing but NumPy, and the reference for all others."""

# Methods are documented in Handler.
# ruff: noqa: D102

from __future__ import annotations

import math
from typing import Any

import numpy as np

from brainstorm.handlers.draws import CountedDraws
from brainstorm.handlers.numpy.activations import NumpyActivations
from brainstorm.handlers.numpy.arithmetic import NumpyArithmetic
from brainstorm.handlers.numpy.draws import OldStream, Stream
from brainstorm.handlers.numpy.embedding import NumpyEmbedding
from brainstorm.handlers.numpy.images import NumpyImages
from brainstorm.handlers.numpy.losses import NumpyLosses
from brainstorm.handlers.numpy.memory import NumpyMemory
from brainstorm.handlers.numpy.nvar import NumpyNvar
from brainstorm.handlers.numpy.products import ROWS_AT_ONCE, NumpyProducts
from brainstorm.handlers.numpy.recurrent import NumpyRecurrent
from brainstorm.handlers.numpy.sequences import NumpySequences
from brainstorm.handlers.numpy.spiking import NumpySpiking
from brainstorm.handlers.numpy.updates import NumpyUpdates
from brainstorm.handlers.operations.losses import SMALLEST_PROBABILITY
from brainstorm.handlers.operations.memory import Workspace
from brainstorm.utils import ValidationError, listing

__all__ = ["NumpyHandler"]


class NumpyHandler(
    NumpyUpdates,
    NumpySpiking,
    NumpySequences,
    NumpyRecurrent,
    NumpyNvar,
    NumpyEmbedding,
    NumpyLosses,
    NumpyImages,
    NumpyProducts,
    NumpyActivations,
    NumpyArithmetic,
    NumpyMemory,
    CountedDraws,
):
    """Computes on the CPU with NumPy, in any floating point type.

    Temporaries live in memory that each thread keeps and reuses, so operations on
    contiguous arrays allocate nothing once they have run with arrays of that size.
    For strided ones NumPy itself buffers up to 8192 elements of each operand.

    Random masks and normal values come from a counter-based generator (Philox) that is
    seeded from `rnd` when `rnd` is made, and again when `rnd` is set to a seed. What an
    element gets depends on that seed, on how many operations drew before, and on its
    place in the array alone: not on strides, nor on the number of threads.

    Args:
        dtype: Data type of all arrays: a NumPy float type or its name.
        seed: Seed of `rnd`; None derives it from ``global_rnd``.

    Raises:
        ValidationError: `dtype` is no floating point type.
    """

    array_type: type = np.ndarray
    records_leaves = True
    _described = ("dtype", "seed")

    def __init__(self, dtype: Any = np.float32, seed: int | None = None):
        super().__init__(seed)
        self.dtype: Any = _float_type(dtype)
        self.EMPTY = np.zeros(0, self.dtype)
        self._set_constants(self.dtype)
        self._set_limits(self.dtype)
        self._ones = np.ones(4 * ROWS_AT_ONCE, self.dtype)
        self._range = np.arange(1)
        self._numbers = np.zeros((0, 0), self.dtype)
        self._largest_loss = np.array(-math.log(SMALLEST_PROBABILITY), self.dtype)
        self._largest_indices: dict[int, np.ndarray] = {}
        self._starts = 0, np.empty((0, 1), np.intp)
        self._workspace = Workspace()
        self._stream = Stream()
        self._drawn_dtype = np.float64 if self.dtype is np.float64 else np.float32

    def __describe__(self) -> dict[str, Any]:
        description = super().__describe__()
        if "dtype" in self._described:
            description["dtype"] = np.dtype(self.dtype).name
        return description

    @classmethod
    def __new_from_description__(cls, description: dict[str, Any]) -> NumpyHandler:
        arguments = {k: v for k, v in description.items() if k != "@type"}
        if not arguments.keys() <= set(cls._described):
            wanted = " and ".join(map(repr, cls._described))
            raise ValidationError(
                f"the description of a {cls.__name__} has {wanted}, got"
                f" {listing(arguments)}"
            )
        return cls(**arguments)

    # -- randomness ----------------------------------------------------------

    def _randomness_of(self, state: dict[str, Any]) -> Any:
        if "bit_generator" in state:
            return OldStream(state, self._drawn_dtype)
        return super()._randomness_of(state)

    # -- memory --------------------------------------------------------------

    def release(self) -> None:
        self._workspace = Workspace()  # of all threads


def _float_type(dtype: Any) -> type:
    try:
        given = np.dtype(dtype)
    except TypeError:
        given = None
    if given is None or given.kind != "f":
        raise ValidationError(
            f"the dtype of a handler is a floating point type, not {dtype!r}"
        )
    return given.type
