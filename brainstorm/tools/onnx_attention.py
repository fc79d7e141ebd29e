"""What computes attention, and positions, in an ONNX model."""

from __future__ import annotations

from typing import Any

import numpy as np

from brainstorm.layers._positions import angles
from brainstorm.tools.onnx_graph import Graph


def attention(graph: Graph, layer: Any) -> str:
    """The nodes of an `Attention` layer."""
    sources = "default", layer.source, layer.source
    q, k, v = (
        _affine(graph, layer, name, graph.flat_input(layer, source))
        for name, source in zip("qkv", sources, strict=True)
    )
    n, heads = layer.size, layer.heads
    shape = graph.constant((0, 0, heads, n // heads), np.int64)
    q, k, v = (graph.add("Reshape", x, shape) for x in (q, k, v))
    if layer.rotary:
        q, k = (_turned(graph, x, n // heads) for x in (q, k))
    q = graph.add("Mul", q, graph.constant((n // heads) ** -0.5))
    q, v = (graph.add("Transpose", x, perm=(1, 2, 0, 3)) for x in (q, v))
    k = graph.add("Transpose", k, perm=(1, 2, 3, 0))
    weights = graph.add("MatMul", q, k)
    visible = _visible(graph, layer, weights)
    if visible is not None:
        lowest = graph.constant(np.finfo(np.float32).min)
        weights = graph.add("Where", visible, weights, lowest)
    weights = graph.add("Softmax", weights, axis=-1)
    if visible is not None:
        weights = graph.add("Where", visible, weights, graph.constant(0.0))
    mixed = graph.add("Transpose", graph.add("MatMul", weights, v), perm=(2, 0, 1, 3))
    mixed = graph.add("Reshape", mixed, graph.constant((0, 0, n), np.int64))
    return _affine(graph, layer, "o", mixed)


def positional_encoding(graph: Graph, layer: Any) -> str:
    """The nodes of a `PositionalEncoding` layer."""
    if layer.kind == "learned":
        table = graph.parameter(layer, "P")
    else:
        table = graph.constant(layer.waves())
    x = graph.input(layer)
    start, stop = graph.constant((0,), np.int64), graph.add("Shape", x, end=1)
    rows = graph.add("Slice", table, start, stop)
    features = layer.in_shapes["default"].feature_shape
    shape = graph.constant((-1, 1, *features), np.int64)
    return graph.add("Add", x, graph.add("Reshape", rows, shape))


def _affine(graph: Graph, layer: Any, name: str, x: str) -> str:
    W = graph.add("Transpose", graph.parameter(layer, f"W{name}"), perm=(1, 0))
    y = graph.add("MatMul", x, W)
    return graph.add("Add", y, graph.parameter(layer, f"b{name}")) if layer.bias else y


def _turned(graph: Graph, x: str, size: int) -> str:
    """(T, B, heads, d), turned by angles for its positions."""
    steps = graph.add("Squeeze", graph.add("Shape", x, end=1))
    zero, one = (graph.constant(n, np.int64) for n in (0, 1))
    positions = graph.add("Range", zero, steps, one)
    column = graph.add("Cast", positions, to=graph.FLOAT)
    column = graph.add("Reshape", column, graph.constant((-1, 1, 1, 1), np.int64))
    turns = graph.add(
        "Mul", column, graph.constant(np.tile(angles(2, size // 2)[1], 2))
    )
    first, second = graph.add_split("Split", x, outputs=2, axis=-1)
    others = graph.add("Concat", graph.add("Neg", second), first, axis=-1)
    cos, sin = graph.add("Cos", turns), graph.add("Sin", turns)
    return graph.add("Add", graph.add("Mul", x, cos), graph.add("Mul", others, sin))


def _visible(graph: Graph, layer: Any, weights: str) -> str | None:
    """Which weights (B, heads, T, T) are of keys to be seen, or None for all."""
    visible = None
    if layer.causal:
        shape = graph.add("Shape", weights, start=2)
        ones = graph.add("Expand", graph.constant(1.0), shape)
        visible = graph.add("Cast", graph.add("Trilu", ones, upper=0), to=graph.BOOL)
    if "mask" in layer.in_shapes:
        mask = graph.add("Cast", graph.input(layer, "mask"), to=graph.BOOL)
        mask = graph.add("Transpose", mask, perm=(1, 2, 0))
        mask = graph.add("Unsqueeze", mask, graph.constant((1,), np.int64))
        visible = mask if visible is None else graph.add("And", visible, mask)
    return visible
