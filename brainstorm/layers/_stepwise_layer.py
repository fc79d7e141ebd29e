"""What the layers have in common that treat each time step by itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from brainstorm.layers.base_layer import Layer, StructureTemplate
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures

ANY = StructureTemplate("T", "B", "...")


class StepwiseLayer(Layer):
    """Base of layers that do the same in each time step, and to data without time.

    If they do not say otherwise, their output has the shape of their input.
    """

    honours_fresh = True
    time_is_optional = True

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        return {"default": self.like(in_shapes["default"])}, {}, {}


class LayerWithTargets(StepwiseLayer):
    """Base of layers that compare their predictions with targets."""

    expected_inputs: Mapping[str, StructureTemplate] = dict.fromkeys(
        ("default", "targets"), ANY
    )
    computes_no_input_deltas_for: Sequence[str] = ("targets",)
    takes_no_output_deltas_from: Sequence[str] = ("predictions",)


class ErrorLayer(LayerWithTargets):
    """Base of layers whose predictions are their input, with a loss for each element.

    Attributes:
        internal: Name of an internal of the same shape.
    """

    internal = "diff"

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        shape = self.same_shape("default", "targets")
        return {"predictions": shape, "loss": shape}, {}, {self.internal: shape}


class NumberedLayer(StepwiseLayer):
    """Base of layers with the inputs ``inputs_1``, ``inputs_2`` and any more."""

    expected_inputs: Mapping[str, StructureTemplate] = dict.fromkeys(
        ("inputs_1", "inputs_2"), ANY
    )

    def inputs_to_expect(
        self, given: Collection[str]
    ) -> Mapping[str, StructureTemplate]:
        names = [f"inputs_{i + 1}" for i in range(max(2, len(given)))]
        return dict.fromkeys(names, ANY)


class CombiningLayer(NumberedLayer):
    """Base of layers that combine inputs of one shape, element by element.

    Attributes:
        operation: The handler's operation for two of them.
    """

    operation = ""

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        return {"default": self.same_shape(*in_shapes)}, {}, {}

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        combine, y = getattr(self.handler, self.operation), buffers.outputs.default
        first, second, *others = buffers.inputs
        combine(first, second, y)
        for x in others:
            combine(y, x, y)
