"""An activation function on its own."""

from __future__ import annotations

from collections.abc import Mapping

from brainstorm.checks import Argument
from brainstorm.layers._stepwise_layer import StepwiseLayer
from brainstorm.layers.arguments import arguments_of
from brainstorm.literals import Activation
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.construction import ConstructionWrapper


def Elementwise(
    activation: Activation = "rel", name: str | None = None
) -> ConstructionWrapper:
    """A layer that applies an activation function to every element.

    Args:
        activation: Activation function.
        name: Name of the layer.
    """
    return ConstructionWrapper.create(ElementwiseLayerImpl, **locals())


class ElementwiseLayerImpl(StepwiseLayer):
    """Computes ``y = act(x)``.

    ======== ======== ============ ========
    buffer   name     shape        content
    ======== ======== ============ ========
    inputs   default  (T, B, ...)  x
    outputs  default  as x         y
    ======== ======== ============ ========

    Raises:
        LayerValidationError: `activation` is unknown.
    """

    activation: Activation

    arguments: Mapping[str, Argument] = arguments_of(Elementwise)
    repeats = True

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        x, y = buffers.inputs.default, buffers.outputs.default
        self.handler.act_func[self.activation](x, y)

    def backward_pass(self, buffers: BufferView) -> None:
        x, y = buffers.inputs.default, buffers.outputs.default
        dx, dy = buffers.input_deltas.default, buffers.output_deltas.default
        self.add_deltas("default", "act_backward", x, y, dy, dx, self.activation)
