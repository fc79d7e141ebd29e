"""Updates of parameters with oneDNN."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from brainstorm.handlers.numpy.updates import NumpyUpdates
from brainstorm.handlers.onednn.arithmetic import add_binary, add_blend, flat
from brainstorm.handlers.onednn.binding import Memory
from brainstorm.handlers.onednn.definitions import Algorithm
from brainstorm.handlers.onednn.part import OneDnnPart
from brainstorm.handlers.onednn.recipes import Call, Recipe, layout
from brainstorm.handlers.onednn.session import Build, Session
from brainstorm.handlers.operations.contract import add_method
from brainstorm.handlers.programs import whole

# Rows of more numbers are summed in pieces, which loses fewer digits.
_LONG_ROW = 2048
# Rows of so many numbers are summed by all threads.
_LARGE_MATRIX = 2**18
# An update works on so many elements at a time, for which it has temporary memory. Of
# most matrices of weights these are all: each thread always has the same part of one.
_PIECE = 2**22


class OneDnnUpdates(OneDnnPart, NumpyUpdates):
    """Part of OneDnnHandler."""

    def momentum_update(
        self,
        parameters: Any,
        gradients: Any,
        velocity: Any,
        learning_rate: float,
        momentum: float,
    ) -> None:
        call = parameters.size >= self._large and self._find(
            momentum_step, (parameters, gradients, velocity)
        )
        if call:
            self.do(call.values.__setitem__, 0, momentum)
            self.do(call.values.__setitem__, 1, -learning_rate)
            self.do(call)
        else:
            super().momentum_update(
                parameters, gradients, velocity, learning_rate, momentum
            )

    @whole
    def constrain_rows(self, m: Any, limit: float, norms: Any) -> None:
        is_long = len(m) == 1 or m.shape[1] > _LONG_ROW
        if is_long or limit < self._smallest_limit or m.dtype != self.dtype:
            super().constrain_rows(m, limit, norms)
            return
        self._sum_squares_by_rows(m, norms)
        if not np.maximum.reduce(norms, None, initial=0.0) < math.inf:
            super().constrain_rows(m, limit, norms)
            return
        np.sqrt(norms, norms)
        np.multiply(norms, 1.0 / limit, norms)
        np.maximum(norms, self._one, out=norms)
        if m.size < self._large:
            np.divide(m, norms, m)
        elif np.maximum.reduce(norms, None) > 1:
            self.divide_mv(m, norms, m)

    def _sum_squares_by_rows(self, m: np.ndarray, norms: np.ndarray) -> None:
        session = self.current_session()
        is_small = m.size < _LARGE_MATRIX or not self._library.runs_in_parallel
        count = 1 if is_small else session.threads
        if count == 1:
            _sum_squares(m, norms)
            return
        session.has_started_threads = True
        ends = [len(m) * k // count for k in range(count + 1)]
        self._library.in_parallel(
            [
                functools.partial(_sum_squares, m[start:stop], norms[start:stop])
                for start, stop in itertools.pairwise(ends)
            ]
        )


def _sum_squares(m: np.ndarray, norms: np.ndarray) -> None:
    # Products of single rows need no memory for squares, nor threads of OpenBLAS.
    with np.errstate(all="ignore"):
        np.matmul(m[:, np.newaxis], m[:, :, np.newaxis], out=norms[:, :, np.newaxis])


def momentum_step(session: Any, parameters: Any, gradients: Any, velocity: Any) -> Call:
    """``v = values[0] v + values[1] g``, then ``p += v``."""
    recipe = Recipe(session, "momentum_update", (parameters, gradients, velocity))
    p, g, v = map(recipe.array, flat(parameters, gradients, velocity))
    factors = np.ones(2, np.float32)
    add_blend(recipe, v, g, factors)
    add_binary(recipe, Algorithm.ADD, p, v, p)
    return recipe.call(factors)


def adam_step(
    session: Any, parameters: Any, gradients: Any, mean: Any, variance: Any, decays: Any
) -> Call:
    """What `_adam_step` does."""
    update = _Update(session, "adam_update", parameters, gradients, mean, variance)
    epsilon, rate, kept = update.factors(4, 5, 6)
    for p, g, m, v, work in update.pieces(1):
        add_blend(update, m, g, update.values[:2])
        update.add_squares(g, v, work, 2)
        update.root(v, epsilon, work)
        if decays:
            add_binary(update, Algorithm.MULTIPLY, p, kept, p)
        update.step(m, work, rate, p)
    return update.call(update.values)


def rms_prop_step(
    session: Any, parameters: Any, gradients: Any, mean_square: Any
) -> Call:
    """What `_rms_prop_step` does."""
    update = _Update(session, "rms_prop_update", parameters, gradients, mean_square)
    epsilon, rate = update.factors(2, 3)
    for p, g, squares, work in update.pieces(1):
        update.add_squares(g, squares, work, 0)
        update.root(squares, epsilon, work)
        update.step(g, work, rate, p)
    return update.call(update.values)


def ada_grad_step(
    session: Any, parameters: Any, gradients: Any, sum_of_squares: Any
) -> Call:
    """What `_ada_grad_step` does."""
    update = _Update(session, "ada_grad_update", parameters, gradients, sum_of_squares)
    epsilon, rate = update.factors(0, 1)
    for p, g, squares, work in update.pieces(1):
        add_binary(update, Algorithm.MULTIPLY, g, g, squares, add=True)
        update.root(squares, epsilon, work)
        update.step(g, work, rate, p)
    return update.call(update.values)


def ada_delta_step(
    session: Any, parameters: Any, gradients: Any, squares: Any, step_squares: Any
) -> Call:
    """What `_ada_delta_step` does."""
    arrays = parameters, gradients, squares, step_squares
    update = _Update(session, "ada_delta_update", *arrays)
    epsilon, rate = update.factors(2, 3)
    for p, g, squares, step_squares, work, step in update.pieces(2):
        update.add_squares(g, squares, work, 0)
        add_binary(update, Algorithm.ADD, squares, epsilon, work)
        ratio = ((Algorithm.DIVIDE, work), (Algorithm.SQRT, None))
        then = (*ratio, (Algorithm.MULTIPLY, g))
        add_binary(update, Algorithm.ADD, step_squares, epsilon, step, then)
        update.add_squares(step, step_squares, work, 0)
        add_binary(update, Algorithm.MULTIPLY, step, rate, p, ((Algorithm.ADD, p),))
    return update.call(update.values)


class _Update(Recipe):
    """A recipe of an update, which goes piece by piece.

    Attributes:
        values: The factors that the call takes, and a one.
    """

    def __init__(self, session: Session, name: str, *arrays: np.ndarray):
        self._arrays = flat(*arrays)
        super().__init__(session, name, self._arrays)
        self.values = np.ones(8, np.float32)
        (self._one,) = self.factors(7)

    def factors(self, *numbers: int) -> list[Memory]:
        """Some of the values."""
        return [self.kept_array(self.values[k : k + 1]) for k in numbers]

    def pieces(self, temporaries: int) -> Iterator[list[Memory]]:
        """Piece by piece, the arrays and so many temporary ones."""
        for start in range(0, len(self._arrays[0]), _PIECE):
            pieces = [array[start : start + _PIECE] for array in self._arrays]
            yield [
                *map(self.array, pieces),
                *(
                    self.temporary(f"work {k}", layout(pieces[0]))
                    for k in range(temporaries)
                ),
            ]

    def add_squares(self, a: Memory, mean: Memory, work: Memory, first: int) -> None:
        """Append ``mean = values[first] mean + values[first + 1] a^2``."""
        add_binary(self, Algorithm.MULTIPLY, a, a, work)
        add_blend(self, mean, work, self.values[first : first + 2])

    def root(self, squares: Memory, epsilon: Memory, out: Memory) -> None:
        """Append ``out = sqrt(squares) + epsilon``."""
        then = ((Algorithm.SQRT, None), (Algorithm.ADD, epsilon))
        add_binary(self, Algorithm.MULTIPLY, squares, self._one, out, then)

    def step(self, a: Memory, b: Memory, rate: Memory, out: Memory) -> None:
        """Append ``out += rate a / b``."""
        then = ((Algorithm.MULTIPLY, rate), (Algorithm.ADD, out))
        add_binary(self, Algorithm.DIVIDE, a, b, out, then)


def _by_library(name: str, build: Build) -> Callable[..., None]:
    def method(self, arrays, factors, *options):
        is_large = arrays[0].size >= self._large
        call = is_large and self._find(build, arrays, *options)
        if call:
            for number, factor in enumerate(factors):
                self.do(call.values.__setitem__, number, factor)
            self.do(call)
        else:
            getattr(super(OneDnnUpdates, self), name)(arrays, factors, *options)

    return method


for _build in (adam_step, rms_prop_step, ada_grad_step, ada_delta_step):
    _name = f"_{_build.__name__}"
    add_method(OneDnnUpdates, _name, _by_library(_name, _build))
