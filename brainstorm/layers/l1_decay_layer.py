"""L1 penalty on activations."""

from __future__ import annotations

from brainstorm.layers.base_layer import Layer, once_per_resize
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.utils import flatten_time_and_features

__all__ = ["L1Decay", "L1DecayLayerImpl"]


def L1Decay(name: str | None = None) -> ConstructionWrapper:
    """A layer for the sum of absolute values, which makes activations sparse.

    Wire its output ``loss`` to a `Loss` layer, whose `importance` weighs it. To
    decay weights, see `brainstorm.value_modifiers.L1Decay`.
    """
    return ConstructionWrapper.create(L1DecayLayerImpl, name=name)


class L1DecayLayerImpl(Layer):
    """Computes ``loss = sum(|x|)`` over the features.

    ========= ======== ============ ==========================
    buffer    name     shape        content
    ========= ======== ============ ==========================
    inputs    default  (T, B, ...)  x
    outputs   loss     (T, B, 1)    a loss for each step
    internals tmp      as x         the absolute values
    ========= ======== ============ ==========================

    The derivative at 0 is taken as 0.
    """

    honours_fresh = True
    repeats = True

    def setup(self, kwargs, in_shapes):
        tmp = self.like(in_shapes["default"])
        return {"loss": BufferStructure("T", "B", 1)}, {}, {"tmp": tmp}

    @once_per_resize
    def matrices(self, buffers):
        """x, tmp and loss with one row for every step of every sequence."""
        arrays = buffers.inputs.default, buffers.internals.tmp, buffers.outputs.loss
        return tuple(map(flatten_time_and_features, arrays))

    @once_per_resize
    def delta_matrices(self, buffers):
        """The deltas of loss and of x, likewise."""
        arrays = buffers.output_deltas.loss, buffers.input_deltas.default
        return tuple(map(flatten_time_and_features, arrays))

    def forward_pass(self, buffers, training_pass=True):
        x, tmp, loss = self.matrices(buffers)
        self.handler.abs_t(x, tmp)
        self.handler.sum_t(tmp, 1, loss)

    def backward_pass(self, buffers):
        h = self.handler
        x, _, _ = self.matrices(buffers)
        dloss, dx = self.delta_matrices(buffers)
        sign = h.scratch(x.shape, 2)
        h.sign_t(x, sign)
        (h.mult_mv if "default" in self.fresh else h.mult_add_mv)(sign, dloss, dx)
