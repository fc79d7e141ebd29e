"""Absolute error, for regression."""

from __future__ import annotations

from brainstorm.layers._stepwise_layer import ErrorLayer
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.construction import ConstructionWrapper


def AbsoluteError(name: str | None = None) -> ConstructionWrapper:
    """A layer for regression: the absolute difference from the targets.

    Its least value is at the median of the targets, so single wrong ones count less
    than in `SquaredError`. Wire its output ``loss`` to a `Loss` layer.
    """
    return ConstructionWrapper.create(AbsoluteErrorLayerImpl, name=name)


class AbsoluteErrorLayerImpl(ErrorLayer):
    """Computes ``predictions = x`` and ``loss = |x - t|``.

    =========== =========== =============== ==============================
    buffer      name        shape           content
    =========== =========== =============== ==============================
    inputs      default     (T, B, ...)     x
    inputs      targets     as x            t
    outputs     predictions as x            x
    outputs     loss        as x            a loss for each element
    internals   diff        as x            x - t
    =========== =========== =============== ==============================

    No deltas flow to ``targets``; those that reach ``predictions`` are ignored. Where
    x = t the derivative is taken as 0.

    Raises:
        LayerValidationError: The shapes of the inputs differ.
    """

    repeats = True

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        h, diff = self.handler, buffers.internals.diff
        predictions, loss = buffers.outputs
        h.copy_to(buffers.inputs.default, predictions)
        predicted, targets = buffers.inputs
        h.subtract_tt(predicted, targets, diff)
        h.abs_t(diff, loss)

    def backward_pass(self, buffers: BufferView) -> None:
        dloss = buffers.output_deltas.loss
        sign = self.handler.scratch(dloss.shape, 2)
        self.handler.sign_t(buffers.internals.diff, sign)
        self.add_deltas("default", "mult_tt", sign, dloss, buffers.input_deltas.default)
