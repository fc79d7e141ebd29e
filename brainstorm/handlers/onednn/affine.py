"""Affine maps with oneDNN."""

from __future__ import annotations

import numpy as np

from brainstorm.handlers.onednn.products import add_product, add_sum_of_rows
from brainstorm.handlers.onednn.recipes import Call, Recipe
from brainstorm.handlers.onednn.session import Session


class OneDnnAffine:
    """Part of OneDnnHandler."""

    def affine(self, x, W, bias, h, y, activation):
        call = self._find(affine, (x, W, bias, y if h is None else h))
        if not call:
            super().affine(x, W, bias, h, y, activation)
            return
        self.do(call)
        if h is not None:
            self.act_func[activation](h, y)

    def _affine_gradients(self, x, W, dh, dx, dW, dbias, *fresh):
        arrays = x, W, dh, dx, dW, dbias
        call = self._find(affine_backward, arrays, *fresh)
        if call:
            self.do(call)
        else:
            super()._affine_gradients(*arrays, *fresh)


def affine(
    session: Session,
    x: np.ndarray,
    W: np.ndarray,
    bias: np.ndarray | None,
    h: np.ndarray,
) -> Call:
    """``h = x W^T + bias``."""
    recipe = Recipe(session, "affine", (x, W, bias, h), x.size * len(W))
    add_product(recipe, x, W.T, h, bias)
    return recipe.call()


def affine_backward(
    session: Session,
    x: np.ndarray,
    W: np.ndarray,
    dh: np.ndarray,
    dx: np.ndarray | None,
    dW: np.ndarray,
    dbias: np.ndarray | None,
    fresh_dx: bool,
    fresh_gradients: bool,
) -> Call:
    """Gradients of `affine`."""
    arrays = (x, W, dh, dx, dW, dbias)
    recipe = Recipe(session, "affine_backward", arrays, x.size * len(W))
    add_product(recipe, dh.T, x, dW, add=not fresh_gradients)
    if dbias is not None:
        add_sum_of_rows(recipe, dh, dbias, fresh_gradients)
    if dx is not None:
        add_product(recipe, dh, W, dx, add=not fresh_dx)
    return recipe.call()
