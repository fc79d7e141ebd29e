"""Softmax on its own."""

from __future__ import annotations

from brainstorm.layers._stepwise_layer import StepwiseLayer
from brainstorm.layers.rows import Rows
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.utils import flatten_all_but_last


def Softmax(name: str | None = None) -> ConstructionWrapper:
    """A layer that turns its features into probabilities, which add up to 1.

    For gates and for weights of an attention. To train a classifier take `SoftmaxCE`,
    which has the loss, too.
    """
    return ConstructionWrapper.create(SoftmaxLayerImpl, name=name)


class SoftmaxRows(StepwiseLayer):
    """Base of layers with an operation ``..._m`` of the rows, and its ``_backward``."""

    operation = ""

    rows: Rows = Rows(
        "inputs.default", writes=["outputs.default"], shape=flatten_all_but_last
    )
    delta_rows: Rows = Rows(
        *("outputs.default", "output_deltas.default"),
        writes=["input_deltas.default"],
        shape=flatten_all_but_last,
    )

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        x, y = self.rows.load(self.handler, buffers)
        getattr(self.handler, f"{self.operation}_m")(x, y)
        self.rows.store(self.handler, buffers)

    def backward_pass(self, buffers: BufferView) -> None:
        rows = self.delta_rows.load(self.handler, buffers)
        self.add_deltas("default", f"{self.operation}_backward", *rows)
        self.delta_rows.store(self.handler, buffers)


class SoftmaxLayerImpl(SoftmaxRows):
    """Computes ``y = exp(x) / sum(exp(x))`` over the last dimension.

    ======== ======== ============== ==========================
    buffer   name     shape          content
    ======== ======== ============== ==========================
    inputs   default  (T, B, ..., C) x
    outputs  default  as x           y, above 0, the sum is 1
    ======== ======== ============== ==========================

    It is computed from the differences to the largest x, so that nothing overflows.
    """

    repeats = True
    operation = "softmax"
