"""Squared difference of two inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brainstorm.layers._stepwise_layer import ANY, StepwiseLayer
from brainstorm.structure.buffer_structure import StructureTemplate
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.layer import Setup, Structures


def SquaredDifference(name: str | None = None) -> ConstructionWrapper:
    """A layer for the squared difference of two inputs, both of which get deltas.

    For targets, which need none, see `SquaredError`.
    """
    return ConstructionWrapper.create(SquaredDifferenceLayerImpl, name=name)


class SquaredDifferenceLayerImpl(StepwiseLayer):
    """Computes ``y = (a - b)^2``, elementwise.

    ========= ======== ============ ========
    buffer    name     shape        content
    ========= ======== ============ ========
    inputs    inputs_1 (T, B, ...)  a
    inputs    inputs_2 as a         b
    outputs   default  as a         y
    internals diff     as a         a - b
    ========= ======== ============ ========

    Raises:
        LayerValidationError: The shapes of the inputs differ.
    """

    expected_inputs: Mapping[str, StructureTemplate] = dict.fromkeys(
        ("inputs_1", "inputs_2"), ANY
    )
    repeats = True

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        shape = self.same_shape("inputs_1", "inputs_2")
        return {"default": shape}, {}, {"diff": shape}

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        a, b = buffers.inputs
        diff = buffers.internals.diff
        self.handler.subtract_tt(a, b, diff)
        self.handler.mult_tt(diff, diff, buffers.outputs.default)

    def backward_pass(self, buffers: BufferView) -> None:
        h = self.handler
        da, db = buffers.input_deltas
        dy = buffers.output_deltas.default
        product = h.scratch(dy.shape, 2)
        h.mult_tt(buffers.internals.diff, dy, product)
        self.add_deltas("inputs_1", "mult_st", 2.0, product, da)
        self.add_deltas("inputs_2", "mult_st", -2.0, product, db)
