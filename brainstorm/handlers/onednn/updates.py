"""Updates of parameters with oneDNN."""

from __future__ import annotations

import math

import numpy as np

from brainstorm.handlers.onednn.arithmetic import add_binary, add_blend, flat
from brainstorm.handlers.onednn.definitions import Algorithm
from brainstorm.handlers.onednn.recipes import Call, Recipe, layout
from brainstorm.handlers.programs import whole

# From so many columns on, einsum loses digits.
_LONG_ROW = 2048
# Of so many elements at a time, what an update reads and writes stays in the caches.
_PIECE = 65536


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

    def _adam_step(self, arrays, factors, decays):
        is_large = arrays[0].size >= self._large
        call = is_large and self._find(adam_step, arrays, decays)
        if call:
            for number, factor in enumerate(factors):
                self.do(call.values.__setitem__, number, factor)
            self.do(call)
        else:
            super()._adam_step(arrays, factors, decays)

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


def momentum_step(session, parameters, gradients, velocity) -> Call:
    """``v = values[0] v + values[1] g``, then ``p += v``."""
    recipe = Recipe(session, "momentum_update", (parameters, gradients, velocity))
    p, g, v = map(recipe.array, flat(parameters, gradients, velocity))
    factors = np.ones(2, np.float32)
    add_blend(recipe, v, g, factors)
    add_binary(recipe, Algorithm.ADD, p, v, p)
    return recipe.call(factors)


def adam_step(session, parameters, gradients, mean, variance, decays) -> Call:
    """What `adam_update` does, with `values` as `_adam_factors` gives them."""
    arrays = flat(parameters, gradients, mean, variance)
    recipe = Recipe(session, "adam_update", arrays)
    factors = np.ones(8, np.float32)
    epsilon, rate, kept, one = (
        recipe.kept_array(factors[k : k + 1]) for k in range(4, 8)
    )
    for start in range(0, len(arrays[0]), _PIECE):
        pieces = [array[start : start + _PIECE] for array in arrays]
        work = recipe.temporary("work", layout(pieces[0]))
        p, g, m, v = map(recipe.array, pieces)
        add_blend(recipe, m, g, factors[:2])
        add_binary(recipe, Algorithm.MULTIPLY, g, g, work)
        add_blend(recipe, v, work, factors[2:4])
        root = ((Algorithm.SQRT, None), (Algorithm.ADD, epsilon))
        add_binary(recipe, Algorithm.MULTIPLY, v, one, work, root)
        if decays:
            add_binary(recipe, Algorithm.MULTIPLY, p, kept, p)
        step = ((Algorithm.MULTIPLY, rate), (Algorithm.ADD, p))
        add_binary(recipe, Algorithm.DIVIDE, m, work, p, step)
    return recipe.call(factors)
