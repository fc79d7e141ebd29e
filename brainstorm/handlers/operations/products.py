"""Products of matrices, and sums."""

from __future__ import annotations

import math
from typing import Any

from brainstorm.handlers.operations.arithmetic import ArithmeticOperations
from brainstorm.handlers.operations.contract import expected, operation

__all__ = ["ProductOperations"]


def _check_product(handler: Any, args: dict[str, Any]) -> str | None:
    a, b = args["a"].shape, args["b"].shape
    m, k = reversed(a) if args["transa"] else a
    k2, n = reversed(b) if args["transb"] else b
    if k != k2:
        return f"can not multiply matrices of shapes {(m, k)} and {(k2, n)}"
    if args["out"].shape != (m, n):
        return expected("out", f"shape {(m, n)}", f"shape {args['out'].shape}")
    return None


def _check_batch(handler: Any, args: dict[str, Any]) -> str | None:
    a, b = args["a"].shape[1:], args["b"].shape[1:]
    m, k = reversed(a) if args["transa"] else a
    k2, n = reversed(b) if args["transb"] else b
    if k != k2:
        return f"can not multiply matrices of shapes {(m, k)} and {(k2, n)}"
    if args["out"].shape[1:] != (m, n):
        wanted = (args["out"].shape[0], m, n)
        return expected("out", f"shape {wanted}", f"shape {args['out'].shape}")
    return None


def _check_sum(handler: Any, args: dict[str, Any]) -> str | None:
    shape, out, axis = args["a"].shape, args["out"].shape, args["axis"]
    if len(shape) not in (1, 2):
        return expected("a", "1 or 2 dimensions", f"shape {shape}")
    if axis is None:
        if math.prod(out) != 1:
            return expected("out", "a single element", f"shape {out}")
        return None
    if axis not in range(len(shape)):
        return expected("axis", f"one of {list(range(len(shape)))}", repr(axis))
    kept = (*shape[:axis], 1, *shape[axis + 1 :])
    dropped = shape[:axis] + shape[axis + 1 :]
    if out not in (kept, dropped):
        return expected("out", f"shape {kept} or {dropped}", f"shape {out}")
    return None


class ProductOperations(ArithmeticOperations):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation("a:P,Q b:R,S", "out:M,N", check=_check_product)
    def dot_mm(
        self, a: Any, b: Any, out: Any, transa: bool = False, transb: bool = False
    ) -> None:
        """``out = a b``, the product of two matrices, of which each may be transposed.

        `a` is (M, K), or (K, M) if `transa`; `b` is (K, N), or (N, K) if `transb`.
        """
        raise NotImplementedError

    @operation("a:P,Q b:R,S", add="out:M,N", check=_check_product)
    def dot_add_mm(
        self, a: Any, b: Any, out: Any, transa: bool = False, transb: bool = False
    ) -> None:
        """``out += a b``; the arguments are those of :meth:`dot_mm`."""
        raise NotImplementedError

    @operation("a:B,P,Q b:B,R,S", "out:B,M,N", check=_check_batch)
    def batch_dot_mm(
        self, a: Any, b: Any, out: Any, transa: bool = False, transb: bool = False
    ) -> None:
        """``out[i] = a[i] b[i]``, products of matrices, of which each is transposed
        as in :meth:`dot_mm`.

        The matrices may lie anywhere, at the same distance from each other: so views
        with swapped axes are good.
        """
        for i in range(out.shape[0]):
            self.dot_mm(a[i], b[i], out[i], transa, transb)

    @operation("a:B,P,Q b:B,R,S", add="out:B,M,N", check=_check_batch)
    def batch_dot_add_mm(
        self, a: Any, b: Any, out: Any, transa: bool = False, transb: bool = False
    ) -> None:
        """``out[i] += a[i] b[i]``; the arguments are those of :meth:`batch_dot_mm`."""
        for i in range(out.shape[0]):
            self.dot_add_mm(a[i], b[i], out[i], transa, transb)

    @operation("a:*S", "out:*R", check=_check_sum)
    def sum_t(self, a: Any, axis: int | None, out: Any) -> None:
        """Sum a vector or a matrix over one axis, or over all elements if that is None.

        `out` has a's shape without that axis, or with size 1 there; for all elements it
        is an array of one.
        """
        raise NotImplementedError

    def _multiply(self, a, b, out, transa=False, transb=False, add=False) -> None:
        """``out (+)= a b``."""
        dot = self.dot_add_mm if add else self.dot_mm
        dot(a, b, out, transa, transb)

    def _pack(self, b, a, out, times, transb=False, add=False, slot=0) -> Any:
        """Prepare a matrix to be multiplied with again and again, by `_dot_packed`.

        Args:
            b: The matrix, which stays the same in between.
            a: What is going to be multiplied with it, or a matrix with that layout.
            out: What is going to receive the products, likewise.
            times: How many products there are going to be.
            transb: Whether to transpose `b`.
            add: Whether products are going to be added to `out`.
            slot: Tells matrices apart that are prepared at the same time.
        """
        return b, transb, add

    def _dot_packed(self, a: Any, packed: Any, out: Any) -> None:
        """``out (+)= a b`` with a matrix as `_pack` returned it."""
        b, transb, add = packed
        self._multiply(a, b, out, transb=transb, add=add)

    def _sum_rows(self, m: Any, out: Any, fresh: bool) -> None:
        """Sum (M, N) over its rows into the vector (N,)."""
        out = out.reshape((1, out.shape[0]))
        if fresh:
            self.sum_t(m, 0, out)
        else:
            sums = self.scratch(out.shape, 2)
            self.sum_t(m, 0, sums)
            self.add_tt(sums, out, out)
