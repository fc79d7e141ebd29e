"""A layer that does nothing."""

from __future__ import annotations

from brainstorm.layers._stepwise_layer import StepwiseLayer
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.construction import ConstructionWrapper


def NoOp(name: str | None = None) -> ConstructionWrapper:
    """A layer that passes its input on unchanged.

    Useful as a place where several outputs come together, or to name one.
    """
    return ConstructionWrapper.create(NoOpLayerImpl, name=name)


class NoOpLayerImpl(StepwiseLayer):
    """Computes ``y = x``.

    ======== ======== ============ ========
    buffer   name     shape        content
    ======== ======== ============ ========
    inputs   default  (T, B, ...)  x
    outputs  default  as x         y
    ======== ======== ============ ========
    """

    repeats = True

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        self.handler.copy_to(buffers.inputs.default, buffers.outputs.default)

    def backward_pass(self, buffers: BufferView) -> None:
        dx, dy = buffers.input_deltas.default, buffers.output_deltas.default
        self.add_deltas("default", "copy_to", dy, dx)
