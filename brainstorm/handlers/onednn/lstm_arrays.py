"""The arrays that the passes of an LSTM work on, whole or in parts."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from brainstorm.handlers.onednn.keeping import place_of
from brainstorm.handlers.operations.recurrent import Weights


def step_work(weights: Weights, y: np.ndarray) -> int:
    """Number of multiplications in one step."""
    return y[0].size * len(weights.R) + y.shape[1] * weights.W.size


@dataclass(frozen=True)
class LstmArrays:
    """What the forward pass of an LSTM works on, see `lstm_forward`; or of a GRU."""

    x: np.ndarray
    weights: Any
    cells: Any
    y: np.ndarray

    @property
    def given(self) -> tuple[Any, Any, Any, Any]:
        """All of it, in the order of the arguments."""
        return self.x, self.weights, self.cells, self.y

    @property
    def step_work(self) -> int:
        """Number of multiplications in one step."""
        return step_work(self.weights, self.y)

    @functools.cached_property
    def places(self) -> tuple[Any, ...]:
        """Of all arrays; that of the bias, which backward passes ignore, is last."""
        W, R, bias, peepholes = self.weights
        flat = (self.x, W, R, peepholes, *self.cells, self.y, bias)
        return tuple(map(place_of, flat))

    def of(self, sequences: slice) -> LstmArrays:
        """What belongs to some of the sequences."""
        cells = _of_sequences(self.cells, sequences)
        x, y = self.x[:, sequences], self.y[:, sequences]
        return LstmArrays(x, self.weights, cells, y)


@dataclass(frozen=True)
class LstmDeltas:
    """What the backward pass works on besides, see `lstm_backward`."""

    dy: np.ndarray
    cells: Any
    dx: np.ndarray | None
    gradients: Any
    fresh_dx: bool
    fresh_gradients: bool

    @property
    def flat(self) -> tuple[np.ndarray | None, ...]:
        """All arrays."""
        return self.dy, *self.cells, self.dx, *self.gradients

    @functools.cached_property
    def places(self) -> tuple[Any, ...]:
        """Of all arrays, and what else matters."""
        return self.fresh_dx, self.fresh_gradients, *map(place_of, self.flat)

    def of(self, sequences: slice) -> LstmDeltas:
        """What belongs to some of the sequences, but for the gradients."""
        dx = None if self.dx is None else self.dx[:, sequences]
        cells = _of_sequences(self.cells, sequences)
        return replace(self, dy=self.dy[:, sequences], cells=cells, dx=dx)


def _of_sequences(cells: Any, sequences: slice) -> Any:
    return type(cells)(*[array[:, sequences] for array in cells])
