"""Softmax with cross-entropy, for classification."""

from __future__ import annotations

from brainstorm.layers.base_layer import Layer, once_per_resize
from brainstorm.layers.rows import Rows
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.construction import ConstructionWrapper

__all__ = ["SoftmaxCE", "SoftmaxCELayerImpl"]


def SoftmaxCE(name: str | None = None) -> ConstructionWrapper:
    """A layer for classification: softmax, and its cross-entropy with the targets.

    Wire its output ``loss`` to a `Loss` layer to have it minimized.
    """
    return ConstructionWrapper.create(SoftmaxCELayerImpl, name=name)


class SoftmaxCELayerImpl(Layer):
    """Computes ``p = softmax(x)`` and ``loss = -log p[target]``.

    Over the last dimension, with C classes:

    =========== =========== =================== ==========================
    buffer      name        shape               content
    =========== =========== =================== ==========================
    inputs      default     (T, B, ..., C)      x
    inputs      targets     (T, B, ..., 1)      class indices from 0
    outputs     predictions (T, B, ..., C)      p
    outputs     loss        (T, B, ..., 1)      cross-entropy
    internals   t_bin       (T, B, ..., C)      one-hot targets, backward
    =========== =========== =================== ==========================

    No deltas flow to ``targets``; those that reach ``predictions`` are ignored.
    The logarithm's argument is clipped to [1e-6, 1].

    Raises:
        LayerValidationError: The shape of the targets does not fit.
        HandlerError: When run with targets that are not class indices.
    """

    expected_inputs = {
        "default": StructureTemplate("T", "B", "..."),
        "targets": StructureTemplate("T", "B", "..."),
    }
    computes_no_input_deltas_for = ("targets",)
    takes_no_output_deltas_from = ("predictions",)
    honours_fresh = True
    repeats = True

    def setup(self, kwargs, in_shapes):
        shape = in_shapes["default"].shape
        expected = (*shape[:-1], 1)
        if in_shapes["targets"].shape != expected:
            raise self.error(
                f"expected the shape {expected} at input 'targets' for 'default' of"
                f" {shape}, got {in_shapes['targets'].shape}"
            )
        outputs = {
            "predictions": BufferStructure(*shape),
            "loss": BufferStructure(*expected),
        }
        return outputs, {}, {"t_bin": BufferStructure(*shape, is_backward_only=True)}

    @once_per_resize
    def rows(self, buffers):
        """x, targets, predictions and loss with one row for each target."""
        return Rows(self.handler, buffers.inputs, buffers.outputs)

    @once_per_resize
    def delta_rows(self, buffers):
        """The deltas of the loss and of x, and the one-hot targets, likewise."""
        dloss, dx = buffers.output_deltas.loss, buffers.input_deltas.default
        return Rows(self.handler, [dloss], [dx, buffers.internals.t_bin])

    def forward_pass(self, buffers, training_pass=True):
        rows = self.rows(buffers)
        rows.load(self.handler)
        self.handler.softmax_ce_forward(*rows.matrices)
        rows.store(self.handler)

    def backward_pass(self, buffers):
        if "default" in self.unwanted:
            return
        _, targets, predictions, _ = self.rows(buffers).matrices
        rows = self.delta_rows(buffers)
        dloss, dx, t_bin = rows.matrices
        rows.load(self.handler)
        self.handler.softmax_ce_backward(
            targets, predictions, dloss, t_bin, dx, fresh_dx="default" in self.fresh
        )
        rows.store(self.handler)
