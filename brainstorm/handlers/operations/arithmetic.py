"""Elementwise arithmetic."""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.operations.contract import expected, operation

__all__ = ["ArithmeticOperations"]


def _check_clip(handler: Any, args: dict[str, Any]) -> str | None:
    low, high = args["a_min"], args["a_max"]
    if not low <= high:
        return expected("a_max", f"at least a_min = {low!r}", repr(high))
    return None


class ArithmeticOperations:
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation("a:*S", "out:*S", alias="*")
    def abs_t(self, a: Any, out: Any) -> None:
        """``out = |a|``, elementwise, for arrays of any one shape."""
        raise NotImplementedError

    @operation("t:*S", "out:*S", alias="*")
    def add_st(self, s: float, t: Any, out: Any) -> None:
        """``out = s + t``, elementwise, for a scalar and arrays of any one shape."""
        raise NotImplementedError

    @operation("a:*S b:*S", "out:*S", alias="*")
    def add_tt(self, a: Any, b: Any, out: Any) -> None:
        """``out = a + b``, elementwise, for arrays of any one shape."""
        raise NotImplementedError

    @operation("a:*S cond:*S", add="out:*S", alias="*")
    def add_into_if(self, a: Any, out: Any, cond: Any) -> None:
        """``out += a`` where `cond` is not zero, elementwise.

        Args:
            a: Array of any shape.
            out: Array of the same shape, which is added to.
            cond: Array of the same shape. May be `a` or `out`.
        """
        raise NotImplementedError

    @operation("a:*S", "out:*S", alias="*", check=_check_clip)
    def clip_t(self, a: Any, a_min: float, a_max: float, out: Any) -> None:
        """``out = a`` limited to ``[a_min, a_max]``, elementwise. NaN stays NaN.

        Args:
            a: Array of any shape.
            a_min: Smallest value of the output; may be -inf.
            a_max: Largest value of the output; may be inf.
            out: Array of the same shape; may be `a`.
        """
        raise NotImplementedError

    @operation("a:*S b:*S", "out:*S", alias="*")
    def divide_tt(self, a: Any, b: Any, out: Any) -> None:
        """``out = a / b``, elementwise, for arrays of any one shape."""
        raise NotImplementedError

    @operation("a:*S", "out:*S", alias="*")
    def log_t(self, a: Any, out: Any) -> None:
        """``out = log(a)``, natural, elementwise. log(0) is -inf, log(-1) NaN."""
        raise NotImplementedError

    @operation("a:*S b:*S", "out:*S", alias="*")
    def modulo_tt(self, a: Any, b: Any, out: Any) -> None:
        """``out = a % b``, elementwise; the result has the sign of `b`.

        Args:
            a: Dividend, of any shape.
            b: Divisor, of the same shape.
            out: Array of the same shape; may be `a` or `b`.
        """
        raise NotImplementedError

    @operation("t:*S", add="out:*S", alias="*")
    def mult_add_st(self, s: float, t: Any, out: Any) -> None:
        """``out += s * t``, elementwise, for a scalar and arrays of any one shape."""
        raise NotImplementedError

    @operation("a:*S b:*S", add="out:*S", alias="*")
    def mult_add_tt(self, a: Any, b: Any, out: Any) -> None:
        """``out += a * b``, elementwise, for arrays of any one shape."""
        raise NotImplementedError

    @operation("t:*S", "out:*S", alias="*")
    def mult_st(self, s: float, t: Any, out: Any) -> None:
        """``out = s * t``, elementwise, for a scalar and arrays of any one shape."""
        raise NotImplementedError

    @operation("a:*S b:*S", "out:*S", alias="*")
    def mult_tt(self, a: Any, b: Any, out: Any) -> None:
        """``out = a * b``, elementwise, for arrays of any one shape."""
        raise NotImplementedError

    @operation("a:*S", "out:*S", alias="*")
    def sign_t(self, a: Any, out: Any) -> None:
        """``out`` = 1 where a > 0, -1 where a < 0, 0 where a = 0, elementwise."""
        raise NotImplementedError

    @operation("a:*S", "out:*S", alias="*")
    def sqrt_t(self, a: Any, out: Any) -> None:
        """``out`` = the positive square root of `a`, elementwise. NaN below 0."""
        raise NotImplementedError

    @operation("a:*S b:*S", "out:*S", alias="*")
    def subtract_tt(self, a: Any, b: Any, out: Any) -> None:
        """``out = a - b``, elementwise, for arrays of any one shape."""
        raise NotImplementedError

    @operation("m:M,N v:1,N|M,1", "out:M,N", alias="*")
    def add_mv(self, m: Any, v: Any, out: Any) -> None:
        """``out = m + v`` with broadcasting.

        Args:
            m: Matrix (M, N).
            v: Vector (1, N) or (M, 1).
            out: Matrix (M, N); may be `m`.
        """
        raise NotImplementedError

    @operation("m:M,N v:1,N|M,1", "out:M,N", alias="*")
    def divide_mv(self, m: Any, v: Any, out: Any) -> None:
        """``out = m / v`` with broadcasting.

        Args:
            m: Matrix (M, N).
            v: Vector (1, N) or (M, 1).
            out: Matrix (M, N); may be `m`.
        """
        raise NotImplementedError

    @operation("m:M,N v:1,N|M,1|M,N", "out:M,N", alias="*")
    def mult_mv(self, m: Any, v: Any, out: Any) -> None:
        """``out = m * v`` with broadcasting.

        Args:
            m: Matrix (M, N).
            v: Vector (1, N) or (M, 1), or matrix (M, N).
            out: Matrix (M, N); may be `m`.
        """
        raise NotImplementedError

    @operation("m:M,N v:1,N|M,1|M,N", add="out:M,N", alias="*")
    def mult_add_mv(self, m: Any, v: Any, out: Any) -> None:
        """``out += m * v`` with broadcasting.

        Args:
            m: Matrix (M, N).
            v: Vector (1, N) or (M, 1), or matrix (M, N).
            out: Matrix (M, N), which is added to; may be `m`.
        """
        raise NotImplementedError

    @operation("m:M,N v:1,N|M,1", "out:M,N", alias="*")
    def subtract_mv(self, m: Any, v: Any, out: Any) -> None:
        """``out = m - v`` with broadcasting.

        Args:
            m: Matrix (M, N).
            v: Vector (1, N) or (M, 1).
            out: Matrix (M, N); may be `m`.
        """
        raise NotImplementedError
