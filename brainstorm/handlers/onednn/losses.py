"""Softmax and losses with oneDNN."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from brainstorm.handlers.numpy.losses import NumpyLosses
from brainstorm.handlers.onednn.arithmetic import add_binary
from brainstorm.handlers.onednn.definitions import Algorithm, Prop, UnimplementedError
from brainstorm.handlers.onednn.part import OneDnnPart
from brainstorm.handlers.onednn.recipes import Call, Recipe, layout

_LOWEST = float(np.finfo(np.float32).min)
# The sum of the exponentials, which is at least 1, from the largest of a softmax.
_INVERTED = (
    ("eltwise", Algorithm.POW, 1.0, -1.0),
    ("eltwise", Algorithm.CLIP, 1.0, math.inf),
)


class OneDnnLosses(OneDnnPart, NumpyLosses):
    """Part of OneDnnHandler."""

    def softmax_m(self, m: Any, out: Any) -> None:
        if m.size < self._large:
            super().softmax_m(m, out)
        else:
            self.do(self.plain._softmax_large, m, out)

    def _softmax_large(self, m: np.ndarray, out: np.ndarray) -> None:
        if not (is_safe(m) and self._does(softmax, (m, out))):
            super().softmax_m(m, out)

    def _softmax(
        self, m: np.ndarray, out: np.ndarray, maxima: np.ndarray, sums: np.ndarray
    ) -> None:
        if m.size < self._large:
            super()._softmax(m, out, maxima, sums)
        else:
            self.do(self.plain._softmax_with_sums, m, out, maxima, sums)

    def _softmax_with_sums(self, m, out, maxima, sums) -> None:
        arrays = m, out, maxima, sums
        done = is_safe(m) and self._does(softmax_with_sums, arrays)
        # The largest of nothing but minus infinity is wrong, too.
        if not (done and np.minimum.reduce(maxima, None) > _LOWEST):
            super()._softmax(*arrays)

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


def is_safe(m: np.ndarray) -> bool:
    """The library's softmax of rows with NaN or infinity is wrong."""
    return bool(np.maximum.reduce(m, None) < math.inf)


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
    _add_softmax(recipe, m, out)
    return recipe.call()


def softmax_with_sums(session: Any, m: Any, out: Any, maxima: Any, sums: Any) -> Call:
    """The same, with the largest of each row, and the sums of exp(m - maxima)."""
    recipe = Recipe(session, "softmax with sums", (m, out, maxima, sums))
    _add_maxima(recipe, m, maxima)
    _add_softmax(recipe, m, out)
    _add_maxima(recipe, out, sums, _INVERTED)
    return recipe.call()


def _add_softmax(recipe: Recipe, m: Any, out: Any) -> None:
    kind = "softmax_forward", Prop.FORWARD_TRAINING, Algorithm.SOFTMAX
    primitive = recipe.primitive(*kind, layout(m), layout(out), 1)
    recipe.add(primitive, src=recipe.array(m), dst=recipe.array(out))


def _add_maxima(recipe: Recipe, m: Any, maxima: Any, post_ops: Any = ()) -> None:
    if m.shape[1] < 2:
        raise UnimplementedError("there is nothing to choose from")
    kind = "reduction", Algorithm.REDUCTION_MAX, layout(m), layout(maxima), 0.0, 0.0
    primitive = recipe.primitive(*kind, post_ops=post_ops)
    recipe.add(primitive, src=recipe.array(m), dst=recipe.array(maxima))
