"""Attention with oneDNN."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from brainstorm.handlers.onednn.arithmetic import add_binary
from brainstorm.handlers.onednn.definitions import Algorithm, Prop
from brainstorm.handlers.onednn.memory import copy
from brainstorm.handlers.onednn.part import OneDnnPart
from brainstorm.handlers.onednn.products import add_product
from brainstorm.handlers.onednn.recipes import Call, Recipe, layout
from brainstorm.handlers.operations.attention import AttentionOperations, scale

# The library's softmax of infinity is wrong: factors of products are far from that.
_HUGE = 1e15


class OneDnnAttention(OneDnnPart, AttentionOperations):
    """Part of OneDnnHandler."""

    # Found out by trying: with fewer queries at once fewer hidden weights are computed.
    _attention_size = 2**18
    _attention_queries = 64

    def _groups(self, heads: int, q: Any, *arrays: Any) -> Iterator[tuple[Any, ...]]:
        # What is copied of few sequences takes little memory, and stays in the cache.
        steps, batch, _ = q.shape
        keys = max(len(arrays[0]), 1)
        rows = min(max(steps, 1), self._attention_queries)
        at_once = max(1, self._attention_size // (heads * rows * keys))
        if q.size < self._large or at_once >= batch:
            yield q, *arrays
            return
        for b in range(0, batch, at_once):
            some = slice(b, b + at_once)
            yield tuple(None if a is None else a[:, some] for a in (q, *arrays))

    def _scaled_queries(self, q: Any, heads: int) -> Any:
        view = AttentionOperations._by_heads(self, q, heads, "scaled")
        dense = self.scratch(view.shape, ("heads", "scaled"))
        if q.size >= self._large and self._does(copy, (view, dense), scale(q, heads)):
            return dense
        return super()._scaled_queries(q, heads)

    def _by_heads(self, array: Any, heads: int, slot: Any, filled: bool = True) -> Any:
        view = super()._by_heads(array, heads, slot, filled)
        if view.size < self._large:
            return view
        # The library multiplies dense matrices faster.
        dense = self.scratch(view.shape, ("heads", slot))
        if filled:
            self.copy_to(view, dense)
        return dense

    def _put_heads(self, by_heads: Any, array: Any, factor: float = 1.0) -> None:
        if np.may_share_memory(by_heads, array):
            if factor != 1.0:
                self.mult_st(factor, array, array)
            return
        steps, batch, size = array.shape
        _, _, d = by_heads.shape
        parts = by_heads.reshape((batch, size // max(d, 1), steps, d))
        parts = parts.transpose(2, 0, 1, 3)
        to = array.reshape((steps, batch, size // max(d, 1), d))
        if not self._does(copy, (parts, to), factor):
            self.do(np.multiply, parts, self.number(factor), to)

    def _weigh(self, queries, keys, known, causal, weights) -> None:
        if known is not None or weights.size < self._large:
            super()._weigh(queries, keys, known, causal, weights)
        else:
            self.do(self.plain._weigh_large, queries, keys, causal, weights)

    def _weigh_large(self, queries, keys, causal, weights) -> None:
        # This, unlike dot products, wakes no threads of another library.
        is_safe = all(
            np.maximum.reduce(part, None, initial=0.0) < _HUGE
            and np.minimum.reduce(part, None, initial=0.0) > -_HUGE
            for part in (queries, keys)
        )
        arrays = queries, keys, weights
        if not (is_safe and self._does(weigh, arrays, causal, self._hiding())):
            super()._weigh(queries, keys, None, causal, weights)

    def _weigh_back(self, weights, dy, values) -> Any:
        deltas = self._block_of_deltas(weights)
        if weights.size < self._large or not self._does(
            weigh_back, (weights, dy, values, deltas)
        ):
            return super()._weigh_back(weights, dy, values)
        return deltas


def weigh(
    session: Any, queries: Any, keys: Any, weights: Any, causal: Any, hidden: Any
) -> Call:
    """``weights = softmax(queries keys^T)``, with what is later hidden if causal.

    `causal` has the numbers of the first query, and of all steps.
    """
    n, m, width = weights.shape
    arrays, work = (queries, keys, weights), queries.size * width
    recipe = Recipe(session, "attention_forward", arrays, work)
    add_product(recipe, queries, keys.swapaxes(1, 2), weights)
    if causal is not None:
        first, steps = causal
        column, row = np.arange(width), np.arange(first, first + m)[:, np.newaxis]
        is_later = (column > row) & (column < steps)
        mask = np.where(is_later, hidden, 0.0).astype(np.float32).reshape(1, -1)
        flat = recipe.array(weights.reshape(n, m * width))
        add_binary(recipe, Algorithm.ADD, flat, recipe.kept_array(mask), flat)
    memory = recipe.array(weights)
    recipe.add(_softmax(recipe, weights), src=memory, dst=memory)
    return recipe.call()


def weigh_back(session: Any, weights: Any, dy: Any, values: Any, deltas: Any) -> Call:
    """``deltas = weights (d - sum(weights d))``, where ``d = dy values^T``."""
    arrays, work = (weights, dy, values, deltas), dy.size * weights.shape[2]
    recipe = Recipe(session, "attention_backward", arrays, work)
    given, out = recipe.array(weights), recipe.array(deltas)
    add_product(recipe, dy, values.swapaxes(1, 2), deltas)
    hint = _softmax(recipe, weights)
    kind = "softmax_backward", Algorithm.SOFTMAX
    primitive = recipe.primitive(*kind, out.desc, out.desc, given.desc, 2, hint)
    recipe.add(primitive, dst=given, diff_dst=out, diff_src=out)
    return recipe.call()


def _softmax(recipe: Recipe, weights: np.ndarray):
    kind = "softmax_forward", Prop.FORWARD_TRAINING, Algorithm.SOFTMAX
    return recipe.primitive(*kind, layout(weights), layout(weights), 2)
