"""Softmax with cross-entropy, for classification."""

from brainstorm.layers._stepwise_layer import LayerWithTargets
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper
from brainstorm.layers.rows import Rows
from brainstorm.utils import flatten_all_but_last


def SoftmaxCE(name: str | None = None) -> ConstructionWrapper:
    """A layer for classification: softmax, and its cross-entropy with the targets.

    Wire its output ``loss`` to a `Loss` layer to have it minimized.
    """
    return ConstructionWrapper.create(SoftmaxCELayerImpl, name=name)


class SoftmaxCELayerImpl(LayerWithTargets):
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

    repeats = True

    rows = Rows(
        "inputs.default",
        "inputs.targets",
        writes=["outputs.predictions", "outputs.loss"],
        shape=flatten_all_but_last,
    )
    delta_rows = Rows(
        "inputs.targets",
        "outputs.predictions",
        "output_deltas.loss",
        writes=["internals.t_bin", "input_deltas.default"],
        shape=flatten_all_but_last,
    )

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

    def forward_pass(self, buffers, training_pass=True):
        rows = self.rows.load(self.handler, buffers)
        self.handler.softmax_ce_forward(*rows)
        self.rows.store(self.handler, buffers)

    def backward_pass(self, buffers):
        rows = self.delta_rows.load(self.handler, buffers)
        self.add_deltas("default", "softmax_ce_backward", *rows)
        self.delta_rows.store(self.handler, buffers)
