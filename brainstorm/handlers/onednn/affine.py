"""Affine maps with oneDNN."""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.onednn.part import OneDnnPart
from brainstorm.handlers.onednn.products import add_product, add_sum_of_rows
from brainstorm.handlers.onednn.recipes import Call, Recipe
from brainstorm.handlers.operations.affine import AffineOperations


class OneDnnAffine(OneDnnPart, AffineOperations):
    """Part of OneDnnHandler."""

    def affine(
        self, x: Any, W: Any, bias: Any, h: Any, y: Any, activation: str
    ) -> None:
        if not self._does(affine, (x, W, bias, y if h is None else h)):
            super().affine(x, W, bias, h, y, activation)
        elif h is not None:
            self.act_func[activation](h, y)

    def _affine_gradients(self, x, W, dh, dx, dW, dbias, *fresh) -> None:
        arrays = x, W, dh, dx, dW, dbias
        if not self._does(affine_backward, arrays, *fresh):
            super()._affine_gradients(*arrays, *fresh)


def affine(session: Any, x: Any, W: Any, bias: Any, h: Any) -> Call:
    """``h = x W^T + bias``."""
    recipe = Recipe(session, "affine", (x, W, bias, h), x.size * len(W))
    add_product(recipe, x, W.T, h, bias)
    return recipe.call()


def affine_backward(
    session: Any,
    x: Any,
    W: Any,
    dh: Any,
    dx: Any,
    dW: Any,
    dbias: Any,
    fresh_dx: Any,
    fresh_gradients: Any,
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
