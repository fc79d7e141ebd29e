"""Highway: a gate that mixes a transformation with what went into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brainstorm.layers._stepwise_layer import ANY, StepwiseLayer
from brainstorm.structure.buffer_structure import StructureTemplate
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.layer import Setup, Structures


def Highway(name: str | None = None) -> ConstructionWrapper:
    """A layer that carries x on where its gate T is closed, and H where it is open.

    H and T usually are layers on top of x, T with the activation ``'sigmoid'``.
    """
    return ConstructionWrapper.create(HighwayLayerImpl, name=name)


class HighwayLayerImpl(StepwiseLayer):
    """Computes ``y = T * H + (1 - T) * x``, elementwise.

    ======== ======== ============ =================================
    buffer   name     shape        content
    ======== ======== ============ =================================
    inputs   H        (T, B, ...)  the transformation of x
    inputs   T        as H         the gate, usually from 0 to 1
    inputs   x        as H         x
    outputs  default  as H         y
    ======== ======== ============ =================================

    Reference:
        Srivastava, Greff and Schmidhuber, "Training Very Deep Networks",
        NIPS (2015).

    Raises:
        LayerValidationError: The shapes of the inputs differ.
    """

    expected_inputs: Mapping[str, StructureTemplate] = dict.fromkeys(
        ("H", "T", "x"), ANY
    )
    repeats = True

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        return {"default": self.same_shape("H", "T", "x")}, {}, {}

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        h = self.handler
        H, T, x = buffers.inputs
        y = buffers.outputs.default
        h.subtract_tt(H, x, y)
        h.mult_tt(T, y, y)
        h.add_tt(x, y, y)

    def backward_pass(self, buffers: BufferView) -> None:
        h = self.handler
        H, T, x = buffers.inputs
        dH, dT, dx = buffers.input_deltas
        dy = buffers.output_deltas.default
        factor = h.scratch(dy.shape, 2)
        self.add_deltas("H", "mult_tt", dy, T, dH)
        h.subtract_tt(H, x, factor)
        self.add_deltas("T", "mult_tt", dy, factor, dT)
        h.mult_st(-1.0, T, factor)
        h.add_st(1.0, factor, factor)
        self.add_deltas("x", "mult_tt", dy, factor, dx)
