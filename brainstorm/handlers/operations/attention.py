"""Scaled dot-product attention."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from brainstorm.handlers.operations.contract import expected, operation
from brainstorm.handlers.operations.losses import LossOperations
from brainstorm.handlers.operations.products import ProductOperations
from brainstorm.utils import HandlerError

__all__ = ["AttentionOperations"]

_MOST_TRIANGLES = 16

# Slots of temporaries.
_SCALED, _DENSE_K, _DENSE_V, _DENSE_DY = 2, 3, 4, 5
_DENSE_DQ, _DENSE_DK, _DENSE_DV = 6, 7, 8
_WEIGHTS, _VISIBLE, _HIDDEN, _SQUARE, _KNOWN, _DELTAS, _SUMS = range(9, 16)


def _check_attention(handler: Any, args: dict[str, Any]) -> str | None:
    (steps, _, size), (keys, *_), heads = (
        args["q"].shape,
        args["k"].shape,
        args["out"].shape[2] if "out" in args else args["heads"],
    )
    if heads < 1 or size % heads:
        return expected("heads", f"a divisor of the size {size}", repr(heads))
    if keys < steps:
        return expected("k", f"at least {steps} steps", f"{keys}")
    return None


class _Block(NamedTuple):
    """Some queries of some sequences, which are compared with keys at once.

    Attributes:
        sequences: Which sequences.
        n: Which of the heads of all sequences.
        rows: Which queries.
        columns: Which keys: those that any of the queries sees.
        queries: The queries, scaled: (n, M, d).
        keys: The keys: (n, K, d).
        weights: How much each query gets of the value of each key: (n, M, K).
        is_first: Whether no queries of these sequences came before.
    """

    sequences: slice
    n: slice
    rows: slice
    columns: slice
    queries: Any
    keys: Any
    weights: Any
    is_first: bool


class AttentionOperations(LossOperations, ProductOperations):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`.

    Weights are computed for a block of queries at a time, by a backward pass again.
    So memory does not grow with the square of the number of steps.
    """

    _attention_size = 2**18
    """So many weights are computed at once, or those of one sequence."""
    _attention_queries = 128
    """So many queries of a sequence are compared with keys at once."""

    @operation(
        "q:T,B,N k:V,B,N v:V,B,N known:V,B,1",
        "y:T,B,N",
        optional="known",
        check=_check_attention,
    )
    def attention_forward(
        self,
        q: Any,
        k: Any,
        v: Any,
        known: Any,
        y: Any,
        heads: int,
        causal: bool = False,
    ) -> None:
        """Each query gets a mean of values, weighted by how well their keys fit it.

        Vaswani et al., *Attention is all you need*, 2017. For each head, with as many
        of the N columns each: ``y = softmax(q k^T / sqrt(N / heads)) v``. Where no key
        is known to a query, y is 0.

        Args:
            q: (T, B, N), queries.
            k: (V, B, N), keys: those of the T steps, and more of steps before.
            known: (V, B, 1), 1 for keys that may be seen and 0 for others, or None
                if all may be.
            heads: Number of heads.
            causal: Whether queries see no keys of later steps.
        """
        self._check_sizes("attention_forward", q, k, heads)
        groups = self._groups(heads, q, k, known, v, y)
        for some_q, some_k, some_known, some_v, some_y in groups:
            values = self._by_heads(some_v, heads, _DENSE_V)
            results = self._by_heads(some_y, heads, _DENSE_DY, filled=False)
            for block in self._attend(some_q, some_k, some_known, heads, causal):
                seen = values[block.n, block.columns]
                self.batch_dot_mm(block.weights, seen, results[block.n, block.rows])
            self._put_heads(results, some_y)

    @operation(
        "q:T,B,N k:V,B,N v:V,B,N known:V,B,1 dy:T,B,N",
        "dq:T,B,N dk:T,B,N dv:T,B,N",
        optional="known",
        check=_check_attention,
    )
    def attention_backward(
        self,
        q: Any,
        k: Any,
        v: Any,
        known: Any,
        dy: Any,
        dq: Any,
        dk: Any,
        dv: Any,
        heads: int,
        causal: bool = False,
    ) -> None:
        """Backward pass of :meth:`attention_forward`.

        Args:
            dk: (T, B, N), deltas of the first T keys; overwritten.
            dv: (T, B, N), deltas of their values; overwritten.
        """
        self._check_sizes("attention_backward", q, k, heads)
        for arrays in self._groups(heads, q, k, v, known, dy, dq, dk, dv):
            self._attend_back(arrays, heads, causal)

    def _attend_back(self, arrays, heads, causal) -> None:
        q, k, v, known, dy, dq, dk, dv = arrays
        values, deltas_y = (
            self._by_heads(v, heads, _DENSE_V),
            self._by_heads(dy, heads, _DENSE_DY),
        )
        deltas_q, deltas_k, deltas_v = (
            self._by_heads(array, heads, slot, filled=False)
            for array, slot in ((dq, _DENSE_DQ), (dk, _DENSE_DK), (dv, _DENSE_DV))
        )
        for block in self._attend(q, k, known, heads, causal):
            _, n, rows, columns, queries, keys, weights, is_first = block
            new = slice(0, min(columns.stop, q.shape[0]))
            dot = self.batch_dot_mm if is_first else self.batch_dot_add_mm
            dot(weights[:, :, new], deltas_y[n, rows], deltas_v[n, new], transa=True)
            deltas = self._weigh_back(weights, deltas_y[n, rows], values[n, columns])
            self.batch_dot_mm(deltas, keys, deltas_q[n, rows])
            dot(deltas[:, :, new], queries, deltas_k[n, new], transa=True)
        self._put_heads(deltas_q, dq, scale(q, heads))
        for array, result in ((dk, deltas_k), (dv, deltas_v)):
            self._put_heads(result, array)

    @operation(
        "q:T,B,N k:V,B,N known:V,B,1",
        "out:T,B,F,V",
        optional="known",
        check=_check_attention,
    )
    def attention_weights(
        self, q: Any, k: Any, known: Any, out: Any, causal: bool = False
    ) -> None:
        """How much each query gets of each value in :meth:`attention_forward`.

        Args:
            q, k, known, causal: As there.
            out: (T, B, F, V), for each of F heads; overwritten.
        """
        heads = out.shape[2]
        self._check_sizes("attention_weights", q, k, heads)
        self.fill(out, 0.0)
        for block in self._attend(q, k, known, heads, causal):
            n, m, width = block.weights.shape
            by_steps = block.weights.reshape((n // heads, heads, m, width))
            by_steps = by_steps.swapaxes(1, 2).swapaxes(0, 1)
            part = out[block.rows, block.sequences, :, block.columns]
            self.copy_to(by_steps, part)

    def _check_sizes(self, name: str, q: Any, k: Any, heads: int) -> None:
        if problem := _check_attention(self, {"q": q, "k": k, "heads": heads}):
            raise HandlerError(f"{name}: {problem}")

    # -- one block after the other -------------------------------------------

    def _groups(self, heads: int, q: Any, *arrays: Any) -> Iterator[tuple[Any, ...]]:
        """Arrays of all sequences, of some sequences at a time."""
        yield q, *arrays

    def _attend(self, q, k, known, heads, causal) -> Iterator[_Block]:
        """The weights of all queries, in blocks, later queries first."""
        steps, batch, _ = q.shape
        queries = self._scaled_queries(q, heads)
        keys = self._by_heads(k, heads, _DENSE_K)
        if known is not None:
            rows = self.scratch((batch, len(known), 1), _KNOWN)
            self.copy_to(known.swapaxes(0, 1), rows)
            known = rows.reshape((batch, 1, len(known)))
        for stop in range(steps, 0, -self._attention_queries):
            start = max(0, stop - self._attention_queries)
            width = stop if causal and len(k) == steps else len(k)
            one = max(heads * (stop - start) * width, 1)
            at_once = max(1, self._attention_size // one)
            for b in range(0, batch, at_once):
                some = slice(b, min(b + at_once, batch))
                n = slice(some.start * heads, some.stop * heads)
                weights = self.scratch(
                    (n.stop - n.start, stop - start, width), _WEIGHTS
                )
                operands = queries[n, start:stop], keys[n, :width]
                self._weigh(
                    *operands,
                    None if known is None else known[some, :, :width],
                    (start, steps) if causal else None,
                    weights,
                )
                places = some, n, slice(start, stop), slice(0, width)
                yield _Block(*places, *operands, weights, stop == steps)

    def _weigh(self, queries, keys, known, causal, weights) -> None:
        """Compute the weights (n, M, K) of a block.

        Args:
            queries: (n, M, d), scaled.
            keys: (n, K, d).
            known: (b, 1, K) for b sequences, or None.
            causal: Numbers of the first query, and of all steps, or None.
            weights: (n, M, K), overwritten.
        """
        n, m, width = weights.shape
        rows, lowest = weights.reshape((n * m, width)), self._hiding()
        self.batch_dot_mm(queries, keys, weights, transb=True)
        if known is None:
            if causal is not None:
                self._hide_later(weights, causal, "add_mv", lowest)
            self.softmax_m(rows, rows)
            return
        visible = self.scratch((n, m, width), _VISIBLE)
        hidden = self.scratch((n, m, width), _HIDDEN)
        each = (known.shape[0], n * m // max(known.shape[0], 1), width)
        self.broadcast_t(known, 1, visible.reshape(each))
        if causal is not None:
            self._hide_later(visible, causal, "mult_mv", 0.0)
        self.add_st(-1.0, visible, hidden)
        self.mult_add_st(-lowest, hidden, weights)
        self.softmax_m(rows, rows)
        # Rows in which all is hidden have the same weights everywhere.
        self.mult_tt(weights, visible, weights)

    def _weigh_back(self, weights, dy, values) -> Any:
        """Deltas (n, M, K) of products of queries and keys; overwrites the weights."""
        n, m, width = weights.shape
        deltas = self._block_of_deltas(weights)
        self.batch_dot_mm(dy, values, deltas, transb=True)
        self.mult_tt(weights, deltas, deltas)
        sums, rows = self.scratch((n * m, 1), _SUMS), weights.reshape((n * m, width))
        self.sum_t(deltas.reshape((n * m, width)), 1, sums)
        self.mult_mv(rows, sums, rows)
        self.subtract_tt(deltas, weights, deltas)
        return deltas

    def _block_of_deltas(self, weights: Any) -> Any:
        return self.scratch(tuple(weights.shape), _DELTAS)

    def _hide_later(self, array, causal, operation, hidden) -> None:
        """In an array (n, M, K) hide from M queries what comes later.

        The operation does so with a row that is `hidden` for pairs to be hidden.
        """
        (n, m, width), (first, steps) = array.shape, causal
        last = first + m
        if last < min(width, steps):
            self.fill(array[:, :, last:steps], hidden)
        if m == 1:
            return
        apply, triangle = getattr(self, operation), self._triangle(m, hidden)
        if width == m:
            square = array.reshape((n, m * m))
            apply(square, triangle, square)
            return
        part, square = array[:, :, first:last], self.scratch((n, m * m), _SQUARE)
        self.copy_to(part, square.reshape((n, m, m)))
        apply(square, triangle, square)
        self.copy_to(square.reshape((n, m, m)), part)

    def _triangle(self, size: int, hidden: float) -> Any:
        """A row of size^2 numbers: neutral ones, and `hidden` above the diagonal."""
        known = self.__dict__.setdefault("_triangles", {})
        found = known.get((size, hidden))
        if found is None:
            above = np.triu(np.ones((size, size), bool), 1)
            values = np.where(above, hidden, 0.0 if hidden else 1.0)
            found = self.create_from_numpy(values.reshape(1, -1))
            if len(known) >= _MOST_TRIANGLES:
                known.clear()
            known[size, hidden] = found
        return found

    def _hiding(self) -> float:
        """What hides a pair when it is added to its product."""
        return -float(np.finfo(self.dtype).max) / 4

    # -- heads ---------------------------------------------------------------

    def _scaled_queries(self, q: Any, heads: int) -> Any:
        """Queries, by heads, such that their products with keys are scaled."""
        scaled = self.scratch(tuple(q.shape), _SCALED)
        self.mult_st(scale(q, heads), q, scaled)
        return self._by_heads(scaled, heads, _SCALED)

    def _by_heads(self, array: Any, heads: int, slot: Any, filled: bool = True) -> Any:
        """An array (T, B, N) as (B heads, T, N / heads).

        It is a view, or where strides allow none a temporary, with the values of the
        array if it is to be `filled`.
        """
        steps, batch, size = array.shape
        if not _has_dense_steps(array):
            dense = self.scratch((steps, batch, size), slot)
            if filled:
                self.copy_to(array, dense)
            array = dense
        shape = (steps, batch * heads, size // heads)
        return array.reshape(shape).swapaxes(0, 1)

    def _put_heads(self, by_heads: Any, array: Any, factor: float = 1.0) -> None:
        """Let an array have what is in its view `by_heads`, times a factor."""
        if not _has_dense_steps(array):
            self.copy_to(by_heads.swapaxes(0, 1).reshape(tuple(array.shape)), array)
        if factor != 1.0:
            self.mult_st(factor, array, array)


def scale(q: Any, heads: int) -> float:
    """What products of queries and keys are multiplied with."""
    return 1.0 / math.sqrt(max(q.shape[2] // heads, 1))


def _has_dense_steps(array: Any) -> bool:
    """Whether each step of an array (T, B, N) lies side by side."""
    _, batch, size = array.shape
    strides = getattr(array, "strides", None)
    return strides is None or batch < 2 or strides[1] == size * strides[2]
