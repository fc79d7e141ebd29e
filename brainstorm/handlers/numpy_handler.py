"""The handler that needs nothing but NumPy, and the reference for all others."""

# Methods are documented in Handler.
# ruff: noqa: D102

from __future__ import annotations

import math
from typing import Any

import numpy as np

from brainstorm.handlers.base_handler import Handler
from brainstorm.handlers.numpy.activations import NumpyActivations
from brainstorm.handlers.numpy.arithmetic import NumpyArithmetic
from brainstorm.handlers.numpy.dropout import NumpyDropout
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
    NumpyDropout,
    NumpyLosses,
    NumpyImages,
    NumpyProducts,
    NumpyActivations,
    NumpyArithmetic,
    NumpyMemory,
    Handler,
):
    """Computes on the CPU with NumPy, in any floating point type.

    Temporaries live in memory that each thread keeps and reuses, so operations on
    contiguous arrays allocate nothing once they have run with arrays of that size.
    For strided ones NumPy itself buffers up to 8192 elements of each operand.

    Random masks and normal values come from a fast generator (SFC64) that is
    seeded from `rnd` when `rnd` is made, and again when `rnd` is set to a seed.

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
        self._generator: np.random.Generator | None = None
        self._generator_origin: Any = None

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

    def _draws(self) -> np.random.Generator:
        rnd = self.rnd
        origin = (rnd, rnd.generation)
        if self._generator is None or self._generator_origin != origin:
            seed = rnd.generate_seed()
            self._generator = np.random.Generator(np.random.SFC64(seed))
            self._generator_origin = origin
        return self._generator

    def get_random_state(self) -> dict[str, Any]:
        generator = _as_lists(self._draws().bit_generator.state)
        return {**super().get_random_state(), "generator": generator}

    def _apply_random_state(self, state: dict[str, Any]) -> None:
        generator = dict(state["generator"])
        words = np.array(generator["state"]["state"], np.uint64)
        if words.shape != (4,):
            raise ValueError(f"expected 4 words, got {words.shape}")
        self._draws().bit_generator.state = {**generator, "state": {"state": words}}
        super()._apply_random_state(state)

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


def _as_lists(state: Any) -> Any:
    if isinstance(state, dict):
        return {k: _as_lists(v) for k, v in state.items()}
    return state.tolist() if isinstance(state, np.ndarray) else state
