"""The sum of several inputs."""

from brainstorm.layers._stepwise_layer import NumberedLayer
from brainstorm.structure.construction import ConstructionWrapper


def Add(name: str | None = None) -> ConstructionWrapper:
    """A layer that adds its inputs, for example around a block that learns a residue.

    Wire as many as there are to ``inputs_1``, ``inputs_2`` and so on::

        a >> 'inputs_1' - add
        a >> block >> 'inputs_2' - add
    """
    return ConstructionWrapper.create(AddLayerImpl, name=name)


class AddLayerImpl(NumberedLayer):
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

    repeats = True

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
            self.add_deltas(input_name, "copy_to", dy, dx)
