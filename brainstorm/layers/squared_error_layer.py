"""Squared error, for regression."""

from __future__ import annotations

from brainstorm.layers._stepwise_layer import ErrorLayer
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.construction import ConstructionWrapper


def SquaredError(name: str | None = None) -> ConstructionWrapper:
    """A layer for regression: half the squared difference from the targets.

    Wire its output ``loss`` to a `Loss` layer to have it minimized.
    """
    return ConstructionWrapper.create(SquaredErrorLayerImpl, name=name)


class SquaredErrorLayerImpl(ErrorLayer):
    """Computes ``predictions = x`` and ``loss = (x - t)^2 / 2``.

    =========== =========== =============== ==============================
    buffer      name        shape           content
    =========== =========== =============== ==============================
    inputs      default     (T, B, ...)     x
    inputs      targets     as x            t
    outputs     predictions as x            x
    outputs     loss        as x            a loss for each element
    internals   diff        as x            x - t
    =========== =========== =============== ==============================

    No deltas flow to ``targets``; those that reach ``predictions`` are ignored.

    Raises:
        LayerValidationError: The shapes of the inputs differ.
    """

    repeats = True

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        h = self.handler
        x, targets = buffers.inputs.default, buffers.inputs.targets
        predictions, loss = buffers.outputs.predictions, buffers.outputs.loss
        diff = buffers.internals.diff
        h.copy_to(x, predictions)
        h.subtract_tt(x, targets, diff)
        h.mult_tt(diff, diff, loss)
        h.mult_st(0.5, loss, loss)

    def backward_pass(self, buffers: BufferView) -> None:
        diff, dx = buffers.internals.diff, buffers.input_deltas.default
        dloss = buffers.output_deltas.loss
        self.add_deltas("default", "mult_tt", diff, dloss, dx)
