"""What tells steps apart by their position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from brainstorm.checks import Argument
from brainstorm.layers._positions import angles, count, indices
from brainstorm.layers.arguments import COUNT, arguments_of, one_of
from brainstorm.layers.base_layer import (
    BufferStructure,
    ConstructionWrapper,
    Layer,
    once_per_resize,
)
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures
from brainstorm.utils import flatten_time_and_features


def PositionalEncoding(
    kind: str = "sinusoidal",
    length: int = 2048,
    name: str | None = None,
    *,
    trainable: bool = True,
) -> ConstructionWrapper:
    """A layer that adds to each step a vector for its position.

    Args:
        kind: 'sinusoidal' for waves of many lengths, or 'learned' for parameters.
        length: How many steps a sequence has at most, with those of its context.
        name: Name of the layer.
        trainable: Whether training changes the parameters.
    """
    return ConstructionWrapper.create(PositionalEncodingLayerImpl, **locals())


class PositionalEncodingLayerImpl(Layer):
    """Computes ``y[t] = x[t] + P[t]``, where steps of a context before count, too.

    Of the kind 'sinusoidal' (Vaswani et al., *Attention is all you need*, 2017), with n
    features::

        P[t, 2 c] = sin(t 10000^(-2 c / n))    P[t, 2 c + 1] = cos(t 10000^(-2 c / n))

    =========== ======== ============== ============================================
    buffer      name     shape          content
    =========== ======== ============== ============================================
    inputs      default  (T, B, ...)    x
    outputs     default  as x           y
    parameters  P        (length, n)    a vector for each position, if 'learned'
    internals   counted  (T + 1, B, 1)  number of each step in its sequence, from 1
    =========== ======== ============== ============================================

    Raises:
        LayerValidationError: An argument is not as in `PositionalEncoding`.
        HandlerError: When run with sequences longer than `length`.
    """

    kind: str
    length: int

    arguments: Mapping[str, Argument] = arguments_of(
        PositionalEncoding, kind=one_of("sinusoidal", "learned"), length=COUNT
    )
    honours_fresh = True
    repeats = True

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        shape, parameters = self.like(in_shapes["default"]), {}
        if self.kind == "learned":
            parameters["P"] = BufferStructure(self.length, shape.feature_size)
        counted = BufferStructure("T", "B", 1, context_size=1)
        return {"default": shape}, parameters, {"counted": counted}

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        h, steps = self.handler, len(buffers.inputs.default)
        text = f"a sequence has more steps than length={self.length}"
        if steps > self.length:
            raise self.error(f"{text}: {steps}")
        h.check_limit(buffers.internals.counted[-1], self.length - steps, text)
        count(h, buffers)
        x, y = self.rows(buffers)
        h.take_rows(self.table(buffers), indices(h, buffers), y)
        h.add_tt(x, y, y)

    def backward_pass(self, buffers: BufferView) -> None:
        h = self.handler
        dy = flatten_time_and_features(buffers.output_deltas.default)
        if "default" not in self.unwanted:
            dx = flatten_time_and_features(buffers.input_deltas.default)
            self.add_deltas("default", "copy_to", dy, dx)
        if self.kind == "learned":
            fresh = "gradients" in self.fresh
            h.add_to_rows(dy, indices(h, buffers), buffers.gradients.P, fresh_out=fresh)

    @once_per_resize
    def rows(self, buffers: Any) -> Any:
        """Inputs and outputs, time and batch folded."""
        both = buffers.inputs.default, buffers.outputs.default
        return [flatten_time_and_features(array) for array in both]

    @once_per_resize
    def table(self, buffers: Any) -> Any:
        """The vectors of all positions."""
        if self.kind == "learned":
            return buffers.parameters.P
        return self.handler.create_from_numpy(self.waves())

    def waves(self) -> Any:
        """The vectors of the kind 'sinusoidal'."""
        n = self.in_shapes["default"].feature_size
        a = angles(self.length, -(-n // 2) or 1)
        waves = np.stack([np.sin(a), np.cos(a)], axis=2).reshape(self.length, -1)
        return waves[:, :n]
