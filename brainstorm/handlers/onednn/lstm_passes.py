"""What a pass of an LSTM works on, and how its sequences are split."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from brainstorm.handlers.onednn.recipes import Arenas, Recipe
from brainstorm.handlers.onednn.session import Session
from brainstorm.handlers.operations.lstm import LstmCells

# Each thread has sequences of its own if it has this many at least, if all weights find
# room in its cache, and if there is enough to do. Measured with two threads.
_MIN_SEQUENCES = 4
_MAX_WEIGHTS = 2**18
_MIN_WORK = 2**24


class LstmArrays(NamedTuple):
    """What the forward pass of an LSTM works on, see `lstm_forward`."""

    x: np.ndarray
    W: np.ndarray
    R: np.ndarray
    peepholes: np.ndarray | None
    bias: np.ndarray
    cells: LstmCells
    y: np.ndarray

    @property
    def step_work(self) -> int:
        """Number of multiplications in one step."""
        return self.x[0].size * len(self.W) + self.y[0].size * len(self.R)

    def of(self, sequences: slice) -> LstmArrays:
        """What belongs to some of the sequences."""
        x, cells, y = _each((self.x, self.cells, self.y), sequences)
        return self._replace(x=x, cells=cells, y=y)


class LstmDeltas(NamedTuple):
    """What the backward pass works on besides, see `lstm_backward`."""

    dy: np.ndarray
    cells: LstmCells
    dx: np.ndarray | None
    gradients: Mapping[str, np.ndarray | None]  # of W, R, peepholes and bias

    def of(self, sequences: slice) -> LstmDeltas:
        """What belongs to some of the sequences, but for the gradients."""
        dy, cells, dx = _each((self.dy, self.cells, self.dx), sequences)
        return LstmDeltas(dy, cells, dx, {})


class Fresh(NamedTuple):
    """What the backward pass overwrites instead of adding to it."""

    dx: bool
    gradients: bool


class Part:
    """What the passes of a layer on a part of the sequences share.

    Args:
        session: Where they run.
        weights: Memory that the parts share. By default, `arenas`.

    Attributes:
        session: Likewise.
        arenas: Memory to keep between the forward and the backward pass.
        weights: Likewise, for weights in the library's formats.
    """

    def __init__(self, session: Session, weights: Arenas | None = None):
        self.session = session
        self.arenas = Arenas(session.library)
        self.weights = weights or self.arenas

    def recipe(self, name: str, arrays: LstmArrays, work: int) -> Recipe:
        """A recipe that uses its memory."""
        named = (arrays.x, arrays.W, arrays.y)
        recipe = Recipe(self.session, name, named, work)
        recipe.kept += [self.arenas, self.weights]
        return recipe


class LstmPass:
    """A forward pass on certain arrays, and its backward passes.

    Attributes:
        leaves_out_cells: Whether of the cells only the last state is computed. Their
            deltas are always left out, but for those of the carried state.
    """

    leaves_out_cells = True

    def forward(self) -> None:
        """Compute the outputs."""
        raise NotImplementedError

    def prepare_backward(
        self, arrays: LstmArrays, to: LstmDeltas, fresh: Fresh
    ) -> Callable[[], None]:
        """What computes all gradients and the deltas of the inputs."""
        raise NotImplementedError

    def used(self, session: Session) -> dict[str, np.ndarray]:
        """Copies of what the last pass used, to compute what was left out.

        Args:
            session: The session of this thread.
        """
        raise NotImplementedError


def _each(arrays: tuple[Any, ...], sequences: slice) -> tuple[Any, ...]:
    """The part of each array (T, B, ...), or of each in a tuple of arrays."""
    parts = []
    for array in arrays:
        if isinstance(array, LstmCells):
            parts.append(LstmCells(*_each(array, sequences)))
        else:
            parts.append(None if array is None else array[:, sequences])
    return tuple(parts)


def parts_of(arrays: LstmArrays, threads: int) -> list[slice]:
    """How to split the sequences."""
    steps, batch = arrays.x.shape[:2]
    worth_it = (
        arrays.W.size + arrays.R.size <= _MAX_WEIGHTS
        and steps * arrays.step_work >= _MIN_WORK
    )
    count = max(1, min(threads, batch // _MIN_SEQUENCES)) if worth_it else 1
    ends = [batch * k // count for k in range(count + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]
