"""Elementwise arithmetic with oneDNN."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from brainstorm.handlers.numpy.arithmetic import UFUNCS, NumpyArithmetic
from brainstorm.handlers.onednn.binding import Memory
from brainstorm.handlers.onednn.definitions import (
    POST_OP,
    Algorithm,
    Arg,
    UnimplementedError,
)
from brainstorm.handlers.onednn.part import OneDnnPart
from brainstorm.handlers.onednn.recipes import Call, Recipe
from brainstorm.handlers.operations.contract import add_method


class OneDnnArithmetic(OneDnnPart, NumpyArithmetic):
    """Part of OneDnnHandler."""

    def mult_add_st(self, s: Any, t: Any, out: Any) -> None:
        call = t.size >= self._large and self._find(blend, (out, t))
        if call:
            self.do(call.values.__setitem__, 1, s)
            self.do(call)
        else:
            super().mult_add_st(s, t, out)


# Looking at the size here saves a call where arrays are small.


def _of_two(algorithm: Algorithm, ufunc: np.ufunc) -> Callable[..., None]:
    def method(self, a, b, out):
        is_small = a.size < self._large
        if is_small or not self._does(arithmetic, (a, b, out), algorithm):
            self.do(ufunc, a, b, out)

    return method


def _with_vector(algorithm: Algorithm, ufunc: np.ufunc) -> Callable[..., None]:
    def method(self, m, v, out):
        is_small = m.size < self._large
        if is_small or not self._does(arithmetic, (m, v, out), algorithm):
            self._with_vector(ufunc, m, v, out)

    return method


for _name, _algorithm in (
    ("add", Algorithm.ADD),
    ("mult", Algorithm.MULTIPLY),
    ("subtract", Algorithm.SUBTRACT),
    ("divide", Algorithm.DIVIDE),
):
    _both = _algorithm, UFUNCS[_name]
    add_method(OneDnnArithmetic, f"{_name}_mv", _with_vector(*_both))
    if _name != "divide":
        add_method(OneDnnArithmetic, f"{_name}_tt", _of_two(*_both))


def arithmetic(session: Any, a: Any, b: Any, out: Any, algorithm: Any) -> Call:
    """``out = a + b``, or another operation; `b` may be one row or one column."""
    recipe = Recipe(session, algorithm.name.lower(), (a, b, out))
    if b.shape == a.shape:
        a, b, out = flat(a, b, out)
    first, second, to = map(recipe.array, (a, b, out))
    add_binary(recipe, algorithm, first, second, to)
    return recipe.call()


def add_binary(
    recipe: Recipe,
    algorithm: Algorithm,
    a: Memory,
    b: Memory,
    out: Memory,
    then: tuple[tuple[Algorithm, Memory | None], ...] = (),
    add: bool = False,
) -> None:
    """Append ``out (+)= a + b``, or another operation.

    `b` may be one row or one column, and `out` may be `a`. What is `then` done with the
    result, after adding it, are operations and their second operands.
    """
    sums = (("sum",),) if add else ()
    after = [
        ("binary", other, memory.desc) if memory else ("eltwise", other, 0.0, 0.0)
        for other, memory in then
    ]
    primitive = recipe.primitive(
        "binary", algorithm, a.desc, b.desc, out.desc, post_ops=(*sums, *after)
    )
    memories: dict[int, Memory] = {Arg.SRC: a, Arg.SRC_1: b, Arg.DST: out}
    for number, (_, memory) in enumerate(then, len(sums) + 1):
        if memory:
            memories[POST_OP * number | Arg.SRC_1] = memory
    recipe.add(primitive, memories)


def blend(session: Any, out: Any, a: Any) -> Call:
    """``out = values[0] out + values[1] a``."""
    recipe = Recipe(session, "mult_add_st", (out, a))
    out, a = flat(out, a)
    factors = np.ones(2, np.float32)
    add_blend(recipe, recipe.array(out), recipe.array(a), factors)
    return recipe.call(factors)


def add_blend(recipe: Recipe, out: Memory, a: Memory, factors: np.ndarray) -> None:
    """Append ``out = factors[0] out + factors[1] a``."""
    factor, other = (recipe.kept_array(part) for part in (factors[:1], factors[1:]))
    primitive = recipe.primitive(
        *("binary", Algorithm.ADD, out.desc, a.desc, out.desc),
        scaled=(Arg.SRC, Arg.SRC_1),
    )
    recipe.add(
        primitive, src=out, src_1=a, dst=out, src_scale=factor, src_1_scale=other
    )


def flat(*arrays: np.ndarray) -> list[Any]:
    """The arrays as vectors."""
    if not all(array.flags.c_contiguous for array in arrays):
        raise UnimplementedError("expected contiguous arrays")
    return [array.reshape(math.prod(array.shape)) for array in arrays]
