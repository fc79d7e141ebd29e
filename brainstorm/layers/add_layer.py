"""The sum of several inputs."""

from __future__ import annotations

from brainstorm.layers._stepwise_layer import CombiningLayer
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.construction import ConstructionWrapper


def Add(name: str | None = None) -> ConstructionWrapper:
    """A layer that adds its inputs, for example around a block that learns a residue.

    Wire as many as there are to ``inputs_1``, ``inputs_2`` and so on::

        a >> 'inputs_1' - add
        a >> block >> 'inputs_2' - add
    """
    return ConstructionWrapper.create(AddLayerImpl, name=name)


class AddLayerImpl(CombiningLayer):
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

    operation = "add_tt"
    repeats = True

    def backward_pass(self, buffers: BufferView) -> None:
        dy = buffers.output_deltas.default
        for input_name, dx in buffers.input_deltas.items():
            self.add_deltas(input_name, "copy_to", dy, dx)
