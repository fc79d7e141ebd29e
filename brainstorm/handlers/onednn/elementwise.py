"""Elementwise operations, prepared for oneDNN."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from brainstorm.handlers.onednn.binding import (
    POST_OP,
    Algorithm,
    Arg,
    Memory,
    Primitive,
    Prop,
    UnimplementedError,
)
from brainstorm.handlers.onednn.session import Call, Recipe, Session, layout
from brainstorm.handlers.primitive_operations import FROM_INPUT

__all__ = [
    "act",
    "act_deriv",
    "activation",
    "add_act",
    "add_act_deriv",
    "add_binary",
    "arithmetic",
    "blend",
    "derives_safely",
    "difference_mv",
    "momentum",
]


class Activation(NamedTuple):
    """How the library computes an activation function.

    Attributes:
        forward: The function.
        backward: Its derivative; from its output, but for those in `FROM_INPUT`.
        alpha: A constant in it.
    """

    forward: Algorithm
    backward: Algorithm
    alpha: float = 0.0


_ACTIVATIONS = {
    "rel": Activation(Algorithm.RELU, Algorithm.RELU_FROM_OUTPUT),
    "tanh": Activation(Algorithm.TANH, Algorithm.TANH_FROM_OUTPUT),
    "sigmoid": Activation(Algorithm.LOGISTIC, Algorithm.LOGISTIC_FROM_OUTPUT),
    "el": Activation(Algorithm.ELU, Algorithm.ELU_FROM_OUTPUT, 1.0),
    "leaky_rel": Activation(Algorithm.RELU, Algorithm.RELU_FROM_OUTPUT, 0.01),
    "gelu": Activation(Algorithm.GELU_TANH, Algorithm.GELU_TANH),
    "swish": Activation(Algorithm.SWISH, Algorithm.SWISH, 1.0),
}


# The library does not derive these as NumpyHandler does where there is NaN, nor those
# in `FROM_INPUT` beyond some limit, where their powers overflow.
_UNSAFE_DERIV = FROM_INPUT | {"rel", "leaky_rel", "el"}
_HUGE = 1e10


def activation(name: str) -> Activation:
    """How the library computes an activation function.

    Raises:
        UnimplementedError: It does not.
    """
    if name not in _ACTIVATIONS:
        raise UnimplementedError(f"no activation {name!r}")
    return _ACTIVATIONS[name]


def act(session: Session, x: np.ndarray, y: np.ndarray, name: str) -> Call:
    """``y = act(x)``; a rectifier makes 0 out of NaN."""
    recipe = Recipe(session, name, (x, y))
    add_act(recipe, *map(recipe.array, _flat(x, y)), name)
    return recipe.call()


def add_act(recipe: Recipe, x: Memory, y: Memory, name: str) -> None:
    """Append ``y = act(x)``."""
    algorithm, _, alpha = activation(name)
    primitive = recipe.primitive(
        "eltwise_forward",
        Prop.FORWARD_TRAINING,
        algorithm,
        x.desc,
        y.desc,
        alpha,
        0.0,
    )
    recipe.add(primitive, {Arg.SRC: x, Arg.DST: y})


def act_deriv(
    session: Session,
    source: np.ndarray,
    dy: np.ndarray,
    dx: np.ndarray,
    name: str,
    fresh: bool,
) -> Call:
    """``dx (+)= dy act'(x)``, computed from y, or from x for those in `FROM_INPUT`."""
    recipe = Recipe(session, f"{name}_deriv", (source, dy, dx))
    source, dy, dx = _flat(source, dy, dx)
    target = recipe.array(dx)
    deltas = target if fresh else recipe.temporary("deltas", layout(dx))
    add_act_deriv(recipe, recipe.array(source), recipe.array(dy), deltas, name)
    if not fresh:
        recipe.reorder(deltas, target, add=True)
    return recipe.call()


def add_act_deriv(
    recipe: Recipe, source: Memory, dy: Memory, dx: Memory, name: str
) -> None:
    """Append ``dx = dy act'(x)``."""
    _, algorithm, alpha = activation(name)
    hint = recipe.primitive(
        "eltwise_forward",
        Prop.FORWARD_TRAINING,
        algorithm,
        source.desc,
        source.desc,
        alpha,
        0.0,
    )
    primitive = recipe.primitive(
        "eltwise_backward", algorithm, dx.desc, dy.desc, source.desc, alpha, 0.0, hint
    )
    source_arg = Arg.SRC if name in FROM_INPUT else Arg.DST
    recipe.add(primitive, {source_arg: source, Arg.DIFF_DST: dy, Arg.DIFF_SRC: dx})


def derives_safely(name: str, source: np.ndarray) -> bool:
    """Whether the library has the right derivative at all these places.

    Args:
        name: The activation function.
        source: y, or x for those in `FROM_INPUT`.
    """
    if name not in _UNSAFE_DERIV or not source.size:
        return True
    largest = np.maximum.reduce(source, None)
    if name not in FROM_INPUT:
        return not math.isnan(largest)
    return largest < _HUGE and np.minimum.reduce(source, None) > -_HUGE


def arithmetic(
    session: Session,
    a: np.ndarray,
    b: np.ndarray,
    out: np.ndarray,
    algorithm: Algorithm,
) -> Call:
    """``out = a + b``, or another operation; `b` may be one row or one column."""
    recipe = Recipe(session, algorithm.name.lower(), (a, b, out))
    if b.shape == a.shape:
        a, b, out = _flat(a, b, out)
    add_binary(recipe, algorithm, *map(recipe.array, (a, b, out)))
    return recipe.call()


def difference_mv(
    session: Session, a: np.ndarray, b: np.ndarray, v: np.ndarray, out: np.ndarray
) -> Call:
    """``out = (a - b) v``, for matrices and a row or a column `v`."""
    recipe = Recipe(session, "difference_mv", (a, b, v, out))
    memories = [recipe.array(array) for array in (a, b, out)]
    scaled = ((Algorithm.MULTIPLY, recipe.array(v)),)
    add_binary(recipe, Algorithm.SUBTRACT, *memories, scaled)
    return recipe.call()


def add_binary(
    recipe: Recipe,
    algorithm: Algorithm,
    a: Memory,
    b: Memory,
    out: Memory,
    then: tuple[tuple[Algorithm, Memory], ...] = (),
    add: bool = False,
) -> None:
    """Append ``out (+)= a + b``, or another operation.

    Args:
        recipe: What to append to.
        algorithm: The operation.
        a: Its first operand.
        b: The second one; it may be one row or one column.
        out: Receives the result; may be `a`.
        then: Further operations on the result, and their second operands.
        add: Add to `out`, before these.
    """
    sums = (("sum",),) if add else ()
    post_ops = (*sums, *(("binary", other, memory.desc) for other, memory in then))
    primitive = recipe.primitive(
        "binary", algorithm, a.desc, b.desc, out.desc, post_ops=post_ops
    )
    memories = {Arg.SRC: a, Arg.SRC_1: b, Arg.DST: out}
    for number, (_, memory) in enumerate(then, len(sums) + 1):
        memories[POST_OP * number | Arg.SRC_1] = memory
    recipe.add(primitive, memories)


def blend(session: Session, out: np.ndarray, a: np.ndarray) -> Call:
    """``out = values[0] out + values[1] a``."""
    recipe = Recipe(session, "mult_add_st", (out, a))
    out, a = _flat(out, a)
    factors = np.ones(2, np.float32)
    _add_blend(recipe, recipe.array(out), recipe.array(a), factors)
    return recipe.call(factors)


def momentum(
    session: Session,
    parameters: np.ndarray,
    gradients: np.ndarray,
    velocity: np.ndarray,
) -> Call:
    """``v = values[0] v + values[1] g``, then ``p += v``."""
    recipe = Recipe(session, "momentum_update", (parameters, gradients, velocity))
    p, g, v = map(recipe.array, _flat(parameters, gradients, velocity))
    factors = np.ones(2, np.float32)
    _add_blend(recipe, v, g, factors)
    add_binary(recipe, Algorithm.ADD, p, v, p)
    return recipe.call(factors)


def _add_blend(recipe: Recipe, out: Memory, a: Memory, factors: np.ndarray) -> None:
    primitive: Primitive = recipe.primitive(
        "binary",
        Algorithm.ADD,
        out.desc,
        a.desc,
        out.desc,
        scaled=(Arg.SRC, Arg.SRC_1),
    )
    recipe.add(
        primitive,
        {
            Arg.SRC: out,
            Arg.SRC_1: a,
            Arg.DST: out,
            Arg.SRC_SCALE: recipe.kept_array(factors[:1]),
            Arg.SRC_1_SCALE: recipe.kept_array(factors[1:]),
        },
    )


def _flat(*arrays: np.ndarray) -> list[Any]:
    """The arrays as vectors."""
    if not all(array.flags.c_contiguous for array in arrays):
        raise UnimplementedError("expected contiguous arrays")
    return [array.reshape(math.prod(array.shape)) for array in arrays]
