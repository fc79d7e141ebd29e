"""Updates of parameters with oneDNN."""

from __future__ import annotations

import math

import numpy as np

from brainstorm.handlers.onednn.arithmetic import add_binary, add_blend, flat
from brainstorm.handlers.onednn.definitions import Algorithm
from brainstorm.handlers.onednn.recipes import Call, Recipe
from brainstorm.handlers.onednn.session import Session
from brainstorm.handlers.programs import whole

__all__ = ["OneDnnUpdates", "momentum_step"]

# Of more rows than this, the library's sums in batch normalisation lose digits.
# From so many columns on, einsum loses digits.
_LONG_ROW = 2048


class OneDnnUpdates:
    """Part of OneDnnHandler."""

    def momentum_update(self, parameters, gradients, velocity, learning_rate, momentum):
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
    def constrain_rows(self, m, limit, norms):
        is_long = len(m) == 1 or m.shape[1] > _LONG_ROW
        if is_long or limit < self._smallest_limit or m.dtype != self.dtype:
            super().constrain_rows(m, limit, norms)
            return
        # einsum needs no temporary for the squares.
        with np.errstate(over="ignore", under="ignore"):
            np.einsum("ij,ij->i", m, m, out=norms[:, 0])
        if not np.maximum.reduce(norms, None, initial=0.0) < math.inf:
            super().constrain_rows(m, limit, norms)
            return
        np.sqrt(norms, norms)
        np.multiply(norms, 1.0 / limit, norms)
        np.maximum(norms, self._one, out=norms)
        np.divide(m, norms, m)


def momentum_step(
    session: Session,
    parameters: np.ndarray,
    gradients: np.ndarray,
    velocity: np.ndarray,
) -> Call:
    """``v = values[0] v + values[1] g``, then ``p += v``."""
    recipe = Recipe(session, "momentum_update", (parameters, gradients, velocity))
    p, g, v = map(recipe.array, flat(parameters, gradients, velocity))
    factors = np.ones(2, np.float32)
    add_blend(recipe, v, g, factors)
    add_binary(recipe, Algorithm.ADD, p, v, p)
    return recipe.call(factors)
