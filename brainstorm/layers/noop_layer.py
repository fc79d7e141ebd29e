"""A layer that does nothing."""

from __future__ import annotations

from brainstorm.layers.base_layer import Layer
from brainstorm.structure.construction import ConstructionWrapper


def NoOp(name: str | None = None) -> ConstructionWrapper:
    """A layer that passes its input on unchanged.

    Useful as a place where several outputs come together, or to name one.
    """
    return ConstructionWrapper.create(NoOpLayerImpl, name=name)


class NoOpLayerImpl(Layer):
    """Computes ``y = x``.

    ======== ======== ============ ========
    buffer   name     shape        content
    ======== ======== ============ ========
    inputs   default  (T, B, ...)  x
    outputs  default  as x         y
    ======== ======== ============ ========
    """

    honours_fresh = True
    repeats = True
    time_is_optional = True

    def setup(self, kwargs, in_shapes):
        return {"default": self.like(in_shapes["default"])}, {}, {}

    def forward_pass(self, buffers, training_pass=True):
        self.handler.copy_to(buffers.inputs.default, buffers.outputs.default)

    def backward_pass(self, buffers):
        dx, dy = buffers.input_deltas.default, buffers.output_deltas.default
        self.add_deltas("default", "copy_to", dy, dx)
