"""Elementwise arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from brainstorm.handlers.operations.contract import add_method, expected, operation
from brainstorm.handlers.operations.memory import MemoryOperations

__all__ = ["FORMULAS", "ArithmeticOperations"]

FORMULAS = {
    "abs_t": "``out = |a|``",
    "log_t": "``out = log(a)``, the natural one: log(0) is -inf, log(-1) NaN",
    "sign_t": "``out = 1`` where a > 0, -1 where a < 0, 0 where a = 0",
    "sqrt_t": "``out = sqrt(a)``, NaN below 0",
    "add_st": "``out = s + t``",
    "mult_st": "``out = s * t``",
    "mult_add_st": "``out += s * t``",
    "add_tt": "``out = a + b``",
    "divide_tt": "``out = a / b``",
    "modulo_tt": "``out = a % b``, which has the sign of b",
    "mult_tt": "``out = a * b``",
    "mult_add_tt": "``out += a * b``",
    "subtract_tt": "``out = a - b``",
    "add_mv": "``out = m + v``",
    "divide_mv": "``out = m / v``",
    "mult_mv": "``out = m * v``, where v may be a matrix (M, N), too",
    "mult_add_mv": "``out += m * v``, where v may be a matrix (M, N), too",
    "subtract_mv": "``out = m - v``",
}
"""What each operation computes. Its ending tells what it is given: ``(a, out)``, or
``_st`` a scalar, ``(s, t, out)``, ``_tt`` two arrays, ``(a, b, out)``, and ``_mv`` a
matrix and a vector that is repeated to its size, ``(m, v, out)``."""


def _check_clip(handler: Any, args: dict[str, Any]) -> str | None:
    low, high = args["a_min"], args["a_max"]
    if not low <= high:
        return expected("a_max", f"at least a_min = {low!r}", repr(high))
    return None


def _of_one(self: Any, a: Any, out: Any) -> None:
    raise NotImplementedError


def _with_scalar(self: Any, s: float, t: Any, out: Any) -> None:
    raise NotImplementedError


def _of_two(self: Any, a: Any, b: Any, out: Any) -> None:
    raise NotImplementedError


def _with_vector(self: Any, m: Any, v: Any, out: Any) -> None:
    raise NotImplementedError


class ArithmeticOperations(MemoryOperations):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`.

    It has the operations in `FORMULAS`, too.
    """

    # For type checkers; what they do is in the table.
    abs_t: Callable[..., None]
    log_t: Callable[..., None]
    sign_t: Callable[..., None]
    sqrt_t: Callable[..., None]
    add_st: Callable[..., None]
    mult_st: Callable[..., None]
    mult_add_st: Callable[..., None]
    add_tt: Callable[..., None]
    divide_tt: Callable[..., None]
    modulo_tt: Callable[..., None]
    mult_tt: Callable[..., None]
    mult_add_tt: Callable[..., None]
    subtract_tt: Callable[..., None]
    add_mv: Callable[..., None]
    divide_mv: Callable[..., None]
    mult_mv: Callable[..., None]
    mult_add_mv: Callable[..., None]
    subtract_mv: Callable[..., None]

    @operation("a:*S cond:*S", add="out:*S", alias="*")
    def add_into_if(self, a: Any, out: Any, cond: Any) -> None:
        """``out += a`` where `cond`, which may be `a` or `out`, is not zero."""
        raise NotImplementedError

    @operation("a:*S", "out:*S", alias="*", check=_check_clip)
    def clip_t(self, a: Any, a_min: float, a_max: float, out: Any) -> None:
        """``out = a`` limited to ``[a_min, a_max]``, which may be -inf and inf.

        NaN stays NaN.
        """
        raise NotImplementedError


_KINDS: dict[str, tuple[Any, str, str, str]] = {
    "_t": (_of_one, "a:*S", "*S", "arrays of any one shape"),
    "st": (_with_scalar, "t:*S", "*S", "a scalar and arrays of any one shape"),
    "tt": (_of_two, "a:*S b:*S", "*S", "arrays of any one shape"),
    "mv": (_with_vector, "m:M,N v:", "M,N", "matrices and a vector (1, N) or (M, 1)"),
}

for _name, _formula in FORMULAS.items():
    _function, _reads, _shape, _what = _KINDS[_name[-2:]]
    if _name.endswith("_mv"):
        _reads += "1,N|M,1|M,N" if _name.startswith("mult") else "1,N|M,1"
    _written: Any = {"add" if "_add_" in _name else "write": f"out:{_shape}"}
    _method = add_method(ArithmeticOperations, _name, _function)
    _method.__doc__ = f"{_formula}; elementwise, for {_what}."
    operation(_reads, alias="*", **_written)(_method)
