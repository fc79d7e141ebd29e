"""The sum of several inputs."""

from __future__ import annotations

from brainstorm.layers.base_layer import Layer, numbered_inputs
from brainstorm.structure.buffer_structure import StructureTemplate
from brainstorm.structure.construction import ConstructionWrapper

__all__ = ["Add", "AddLayerImpl"]


def Add(name: str | None = None) -> ConstructionWrapper:
    """A layer that adds its inputs, for example around a block that learns a residue.

    Wire as many as there are to ``inputs_1``, ``inputs_2`` and so on::

        a >> 'inputs_1' - add
        a >> block >> 'inputs_2' - add
    """
    return ConstructionWrapper.create(AddLayerImpl, name=name)


class AddLayerImpl(Layer):
    """Computes ``y = a + b + ...`` for two or more inputs of one shape.

    He et al., *Deep residual learning for image recognition*, 2016.

    ======== ========== ============ =======
    buffer   name       shape        content
    ======== ========== ============ =======
    inputs   inputs_1   (T, B, ...)  a
    inputs   inputs_2   as a         b
    inputs   inputs_k   as a         ...
    outputs  default    as a         y
    ======== ========== ============ =======

    Raises:
        LayerValidationError: There are less than two inputs, their numbers have gaps,
            or their shapes differ.
    """

    expected_inputs = {
        "inputs_1": StructureTemplate("T", "B", "..."),
        "inputs_2": StructureTemplate("T", "B", "..."),
    }
    honours_fresh = True
    repeats = True

    def inputs_to_expect(self, given):
        return numbered_inputs(given)

    def setup(self, kwargs, in_shapes):
        return {"default": self.same_shape(*in_shapes)}, {}, {}

    def forward_pass(self, buffers, training_pass=True):
        y = buffers.outputs.default
        first, second, *others = buffers.inputs
        self.handler.add_tt(first, second, y)
        for x in others:
            self.handler.add_tt(y, x, y)

    def backward_pass(self, buffers):
        dy = buffers.output_deltas.default
        for input_name, dx in buffers.input_deltas.items():
            if input_name in self.unwanted:
                continue
            if input_name in self.fresh:
                self.handler.copy_to(dy, dx)
            else:
                self.handler.add_tt(dy, dx, dx)
