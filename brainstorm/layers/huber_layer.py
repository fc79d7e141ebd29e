"""Huber's loss, for regression with outliers."""

from __future__ import annotations

from collections.abc import Mapping

from brainstorm.checks import Argument
from brainstorm.layers._stepwise_layer import ErrorLayer
from brainstorm.layers.arguments import POSITIVE, arguments_of
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.construction import ConstructionWrapper


def Huber(delta: float = 1.0, name: str | None = None) -> ConstructionWrapper:
    """A layer for regression: squared error where it is small, else absolute error.

    Wire its output ``loss`` to a `Loss` layer to have it minimized.

    Args:
        delta: Positive number: how large a difference counts as small.
        name: Name of the layer.
    """
    return ConstructionWrapper.create(HuberLayerImpl, **locals())


class HuberLayerImpl(ErrorLayer):
    """Computes ``loss = d^2 / 2`` where ``|d| <= delta``, with ``d = x - t``.

    Elsewhere ``loss = delta (|d| - delta / 2)``. Huber, *Robust estimation of a
    location parameter*, 1964.

    =========== =========== =============== ==============================
    buffer      name        shape           content
    =========== =========== =============== ==============================
    inputs      default     (T, B, ...)     x
    inputs      targets     as x            t
    outputs     predictions as x            x
    outputs     loss        as x            a loss for each element
    internals   clipped     as x            d limited to [-delta, delta]
    =========== =========== =============== ==============================

    No deltas flow to ``targets``; those that reach ``predictions`` are ignored.

    Raises:
        LayerValidationError: The shapes of the inputs differ, or `delta` is not
            positive.
    """

    delta: float

    arguments: Mapping[str, Argument] = arguments_of(Huber, delta=POSITIVE)
    internal = "clipped"
    repeats = True

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        h, clipped = self.handler, buffers.internals.clipped
        predictions, loss = buffers.outputs
        h.copy_to(buffers.inputs.default, predictions)
        predicted, targets = buffers.inputs
        h.subtract_tt(predicted, targets, loss)
        h.clip_t(loss, -self.delta, self.delta, clipped)
        # In both cases the loss is c (d - c / 2), and its derivative is c.
        h.mult_add_st(-0.5, clipped, loss)
        h.mult_tt(clipped, loss, loss)

    def backward_pass(self, buffers: BufferView) -> None:
        clipped, dx = buffers.internals.clipped, buffers.input_deltas.default
        self.add_deltas("default", "mult_tt", clipped, buffers.output_deltas.loss, dx)
