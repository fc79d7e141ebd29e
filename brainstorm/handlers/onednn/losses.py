"""Softmax and losses with oneDNN."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from brainstorm.handlers.numpy.losses import NumpyLosses
from brainstorm.handlers.onednn.arithmetic import add_binary
from brainstorm.handlers.onednn.definitions import Algorithm, Prop
from brainstorm.handlers.onednn.part import OneDnnPart
from brainstorm.handlers.onednn.recipes import Call, Recipe, layout


class OneDnnLosses(OneDnnPart, NumpyLosses):
    """Part of OneDnnHandler."""

    def softmax_m(self, m: Any, out: Any) -> None:
        if m.size < self._large:
            super().softmax_m(m, out)
        else:
            self.do(self.plain._softmax_large, m, out)

    def _softmax_large(self, m: np.ndarray, out: np.ndarray) -> None:
        # The library's softmax of rows with NaN or infinity is wrong.
        is_safe = np.maximum.reduce(m, None) < math.inf
        if not (is_safe and self._does(softmax, (m, out))):
            super().softmax_m(m, out)

    def softmax_ce_backward(
        self,
        targets: Any,
        predictions: Any,
        dloss: Any,
        t_bin: Any,
        dx: Any,
        fresh_dx: bool = False,
    ) -> None:
        if dx is not None and fresh_dx and dx.size >= self._large:
            arrays = predictions, t_bin, dloss, dx
            call = self._find(difference_mv, arrays)
            if call:
                self.binarize_v(targets, t_bin)
                self.do(call)
                return
        super().softmax_ce_backward(targets, predictions, dloss, t_bin, dx, fresh_dx)


def difference_mv(session: Any, a: Any, b: Any, v: Any, out: Any) -> Call:
    """``out = (a - b) v``, for matrices and a row or a column `v`."""
    recipe = Recipe(session, "difference_mv", (a, b, v, out))
    first, second, to, factor = map(recipe.array, (a, b, out, v))
    scaled = ((Algorithm.MULTIPLY, factor),)
    add_binary(recipe, Algorithm.SUBTRACT, first, second, to, scaled)
    return recipe.call()


def softmax(session: Any, m: Any, out: Any) -> Call:
    """Softmax over the rows, which have to be finite."""
    recipe = Recipe(session, "softmax_m", (m, out))
    kind = "softmax_forward", Prop.FORWARD_TRAINING, Algorithm.SOFTMAX
    primitive = recipe.primitive(*kind, layout(m), layout(out), 1)
    recipe.add(primitive, src=recipe.array(m), dst=recipe.array(out))
    return recipe.call()
