"""L2 penalty on activations."""

from __future__ import annotations

from brainstorm.layers.base_layer import Layer, once_per_resize
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.utils import flatten_time_and_features

__all__ = ["L2Decay", "L2DecayLayerImpl"]


def L2Decay(name: str | None = None) -> ConstructionWrapper:
    """A layer for half the sum of squares, which keeps activations small.

    Wire its output ``loss`` to a `Loss` layer, whose `importance` weighs it. To
    decay weights, see `brainstorm.value_modifiers.L2Decay`.
    """
    return ConstructionWrapper.create(L2DecayLayerImpl, name=name)


class L2DecayLayerImpl(Layer):
    """Computes ``loss = sum(x^2) / 2`` over the features.

    ========= =============== =============== ==========================
    buffer    name            shape           content
    ========= =============== =============== ==========================
    inputs    default         (T, B, ...)     x
    outputs   loss            (T, B, 1)       a loss for each step
    internals tmp             as x            the squares
    internals dsq_activations as x, backward  x times the loss's delta
    ========= =============== =============== ==========================
    """

    honours_fresh = True
    repeats = True

    def setup(self, kwargs, in_shapes):
        shape = in_shapes["default"].shape
        internals = {
            "tmp": BufferStructure(*shape),
            "dsq_activations": BufferStructure(*shape, is_backward_only=True),
        }
        return {"loss": BufferStructure("T", "B", 1)}, {}, internals

    @once_per_resize
    def matrices(self, buffers):
        """x, tmp and loss with one row for every step of every sequence."""
        arrays = buffers.inputs.default, buffers.internals.tmp, buffers.outputs.loss
        return tuple(map(flatten_time_and_features, arrays))

    @once_per_resize
    def delta_matrices(self, buffers):
        """The deltas of loss, dsq_activations and the deltas of x, likewise."""
        arrays = (
            buffers.output_deltas.loss,
            buffers.internals.dsq_activations,
            buffers.input_deltas.default,
        )
        return tuple(map(flatten_time_and_features, arrays))

    def forward_pass(self, buffers, training_pass=True):
        h = self.handler
        x, tmp, loss = self.matrices(buffers)
        h.mult_tt(x, x, tmp)
        h.sum_t(tmp, 1, loss)
        h.mult_st(0.5, loss, loss)

    def backward_pass(self, buffers):
        h = self.handler
        x, _, _ = self.matrices(buffers)
        dloss, dsq, dx = self.delta_matrices(buffers)
        h.mult_mv(x, dloss, dsq)
        if "default" in self.fresh:
            h.copy_to(dsq, dx)
        else:
            h.add_tt(dsq, dx, dx)
