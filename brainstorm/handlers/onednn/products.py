"""Products of matrices, and what goes along with them, prepared for oneDNN."""

from __future__ import annotations

import numpy as np

from brainstorm.handlers.onednn.binding import Algorithm, Arg, Prop
from brainstorm.handlers.onednn.elementwise import add_act_deriv
from brainstorm.handlers.onednn.session import Call, Recipe, Session, layout

__all__ = ["affine", "affine_backward", "dot", "softmax", "sum_rows"]


def dot(
    session: Session,
    a: np.ndarray,
    b: np.ndarray,
    out: np.ndarray,
    transa: bool,
    transb: bool,
    add: bool,
) -> Call:
    """``out (+)= a b``."""
    work = a.size * out.shape[1]
    recipe = Recipe(session, "dot_mm", (a, b, out), work)
    add_product(recipe, a.T if transa else a, b.T if transb else b, out, add=add)
    return recipe.call()


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
    y: np.ndarray | None,
    dy: np.ndarray | None,
    dh: np.ndarray,
    dx: np.ndarray | None,
    dW: np.ndarray,
    dbias: np.ndarray | None,
    activation: str,
    fresh_dx: bool,
    fresh_gradients: bool,
) -> Call:
    """Gradients of `affine`, and before that, if `y` is given, ``dh = dy act'(h)``."""
    arrays = (x, W, y, dy, dh, dx, dW, dbias)
    recipe = Recipe(session, "affine_backward", arrays, x.size * len(W))
    if y is not None:
        add_act_deriv(
            recipe,
            recipe.array(y),
            recipe.array(dy),
            recipe.array(dh),
            activation,
        )
    add_product(recipe, dh.T, x, dW, add=not fresh_gradients)
    if dbias is not None:
        add_sum_of_rows(recipe, dh, dbias, fresh_gradients)
    if dx is not None:
        add_product(recipe, dh, W, dx, add=not fresh_dx)
    return recipe.call()


def sum_rows(session: Session, m: np.ndarray, out: np.ndarray, fresh: bool) -> Call:
    """``out (+)= `` the sum of the rows of `m`."""
    recipe = Recipe(session, "sum_t", (m, out), m.size)
    add_sum_of_rows(recipe, m, out, fresh)
    return recipe.call()


def softmax(session: Session, m: np.ndarray, out: np.ndarray) -> Call:
    """Softmax over the rows, which have to be finite."""
    recipe = Recipe(session, "softmax_m", (m, out))
    primitive = recipe.primitive(
        "softmax_forward",
        Prop.FORWARD_TRAINING,
        Algorithm.SOFTMAX,
        layout(m),
        layout(out),
        1,
    )
    recipe.add(primitive, {Arg.SRC: recipe.array(m), Arg.DST: recipe.array(out)})
    return recipe.call()


def add_product(
    recipe: Recipe,
    a: np.ndarray,
    b: np.ndarray,
    out: np.ndarray,
    bias: np.ndarray | None = None,
    add: bool = False,
) -> None:
    """Append ``out (+)= a b + bias``."""
    memories = {
        Arg.SRC: recipe.array(a),
        Arg.WEIGHTS: recipe.array(b),
        Arg.DST: recipe.array(out),
    }
    if bias is not None:
        memories[Arg.BIAS] = recipe.array(bias.reshape(1, -1))
    primitive = recipe.primitive(
        "matmul",
        layout(a),
        layout(b),
        None if bias is None else layout(bias.reshape(1, -1)),
        layout(out),
        post_ops=(("sum",),) if add else (),
    )
    recipe.add(primitive, memories)


def add_sum_of_rows(
    recipe: Recipe, m: np.ndarray, out: np.ndarray, fresh: bool
) -> None:
    """Append the sum of the rows of a matrix, as a product with ones."""
    ones = recipe.session.ones(m.shape[0])
    recipe.kept.append(ones)
    add_product(recipe, ones, m, out.reshape(1, -1), add=not fresh)
