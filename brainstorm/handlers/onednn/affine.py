"""Affine maps with oneDNN."""

from __future__ import annotations

from typing import Any

import numpy as np

from brainstorm.handlers.onednn.arithmetic import add_binary
from brainstorm.handlers.onednn.definitions import Algorithm, Layout
from brainstorm.handlers.onednn.part import OneDnnPart
from brainstorm.handlers.onednn.products import (
    IN_PARTS,
    add_product,
    add_sum_of_rows,
)
from brainstorm.handlers.onednn.recipes import Call, Recipe, layout
from brainstorm.handlers.operations.affine import AffineOperations

# The library is slow with few rows and many weights, unless these are cut.
_FEW_ROWS = 8
# From so many rows on it may cut these.
_MANY_ROWS = 48
# So many units at a time it has a thread compute.
_BLOCK = 64


class OneDnnAffine(OneDnnPart, AffineOperations):
    """Part of OneDnnHandler."""

    def affine(
        self, x: Any, W: Any, bias: Any, h: Any, y: Any, activation: str
    ) -> None:
        out, is_kept = (y, False) if h is None else (h, True)
        if not self._does(affine, (x, W, bias, out), is_kept):
            super().affine(x, W, bias, h, y, activation)
        elif h is not None:
            self.act_func[activation](h, y)

    def _affine_gradients(self, x, W, dh, dx, dW, dbias, *fresh) -> None:
        arrays = x, W, dh, dx, dW, dbias
        if not self._does(affine_backward, arrays, *fresh):
            super()._affine_gradients(*arrays, *fresh)


def affine(session: Any, x: Any, W: Any, bias: Any, h: Any, is_kept: Any) -> Call:
    """``h = x W^T + bias``; h is kept for a backward pass, or not."""
    recipe = Recipe(session, "affine", (x, W, bias, h), x.size * len(W))
    count = _parts(session, x, W, is_kept)
    if count == 1:
        add_product(recipe, x, W.T, h, bias)
        return recipe.call()
    add_product(recipe, x[np.newaxis], _rows(W, count).swapaxes(1, 2), _cols(h, count))
    if bias is not None:
        out = recipe.array(h)
        row = recipe.array(bias.reshape(1, -1))
        add_binary(recipe, Algorithm.ADD, out, row, out)
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
        count = _owned_parts(session, x, W)
        if count == 1:
            add_product(recipe, dh, W, dx, add=not fresh_dx)
        else:
            _add_sum_of_products(
                recipe, _cols(dh, count), _rows(W, count), dx, fresh_dx
            )
    return recipe.call()


def _parts(session: Any, x: Any, W: Any, is_kept: bool) -> int:
    """In how many parts of its units a layer of many weights is computed."""
    if len(x) <= _FEW_ROWS:
        count = max(2, session.threads)
        return count if _can_be_cut(session, W, count) else 1
    # Where blocks do not come out even, the library has all threads read all, which
    # it then cuts by rows of x.
    is_shared = len(x) >= _MANY_ROWS and -(-len(W) // _BLOCK) % session.threads
    return _owned_parts(session, x, W) if is_kept and is_shared else 1


def _owned_parts(session: Any, x: Any, W: Any) -> int:
    """The same, such that each thread has one if there are few rows.

    It reads its part here, and writes it in updates of parameters: what several cores
    have read takes long to write.
    """
    count = session.threads
    is_worth_it = len(x) * count <= len(W)
    return count if is_worth_it and _can_be_cut(session, W, count) else 1


def _can_be_cut(session: Any, W: Any, count: int) -> bool:
    is_large = W.size >= IN_PARTS and session.math_mode == "f32"
    return is_large and not len(W) % count


def _rows(m: Any, count: int) -> Any:
    return m.reshape(count, len(m) // count, m.shape[1])


def _cols(m: Any, count: int) -> Any:
    return m.reshape(len(m), count, m.shape[1] // count).swapaxes(0, 1)


def _add_sum_of_products(recipe: Recipe, a: Any, b: Any, out: Any, fresh: bool) -> None:
    """Append ``out (+)= `` the sum of all ``a[k] b[k]``."""
    (rows, columns), size = out.shape, out.size
    one = Layout((rows, columns), (columns, 1))
    all_ = Layout((len(a), rows, columns), (size, columns, 1))
    primitive = recipe.primitive("matmul", layout(a), layout(b), None, all_)
    products = recipe.temporary("products", all_)
    recipe.add(primitive, src=recipe.array(a), weights=recipe.array(b), dst=products)
    first, *others = [
        recipe.temporary("products", one, k * size * out.itemsize)
        for k in range(len(a))
    ]
    total = recipe.array(out)
    for other in others:
        add_binary(recipe, Algorithm.ADD, first, other, total, add=not fresh)
        first, fresh = total, True
