"""Sigmoid with cross-entropy, for classification with several labels."""

from brainstorm.layers._stepwise_layer import LayerWithTargets
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper


def SigmoidCE(name: str | None = None) -> ConstructionWrapper:
    """A layer for several binary labels: sigmoid, and cross-entropy with targets.

    Wire its output ``loss`` to a `Loss` layer to have it minimized.
    """
    return ConstructionWrapper.create(SigmoidCELayerImpl, name=name)


class SigmoidCELayerImpl(LayerWithTargets):
    """Computes ``p = sigmoid(x)`` and ``loss = -t log(p) - (1 - t) log(1 - p)``.

    =========== =========== =============== ==============================
    buffer      name        shape           content
    =========== =========== =============== ==============================
    inputs      default     (T, B, ...)     x
    inputs      targets     as x            t, between 0 and 1
    outputs     predictions as x            p
    outputs     loss        as x            a loss for each element
    internals   dcee        as x            p - t, backward
    =========== =========== =============== ==============================

    No deltas flow to ``targets``; those that reach ``predictions`` are ignored.
    The logarithms' arguments are clipped to [1e-6, 1].

    Raises:
        LayerValidationError: The shapes of the inputs differ.
    """

    repeats = True

    def setup(self, kwargs, in_shapes):
        shape = self.same_shape("default", "targets")
        outputs = {"predictions": shape, "loss": shape}
        dcee = BufferStructure(*shape.shape, is_backward_only=True)
        return outputs, {}, {"dcee": dcee}

    def forward_pass(self, buffers, training_pass=True):
        x, targets = buffers.inputs
        predictions, loss = buffers.outputs
        self.handler.sigmoid_ce_forward(x, targets, predictions, loss)

    def backward_pass(self, buffers):
        self.add_deltas(
            "default",
            "sigmoid_ce_backward",
            buffers.inputs.targets,
            buffers.outputs.predictions,
            buffers.output_deltas.loss,
            buffers.internals.dcee,
            buffers.input_deltas.default,
        )
