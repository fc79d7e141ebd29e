"""L1 penalty on activations."""

from __future__ import annotations

from typing import Any

from brainstorm.layers._stepwise_layer import StepwiseLayer
from brainstorm.layers.rows import Rows
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.layer import Setup, Structures


def L1Decay(name: str | None = None) -> ConstructionWrapper:
    """A layer for the sum of absolute values, which makes activations sparse.

    Wire its output ``loss`` to a `Loss` layer, whose `importance` weighs it. To
    decay weights, see `brainstorm.value_modifiers.L1Decay`.
    """
    return ConstructionWrapper.create(L1DecayLayerImpl, name=name)


class L1DecayLayerImpl(StepwiseLayer):
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

    repeats = True

    rows: Rows = Rows("inputs.default", writes=["internals.tmp", "outputs.loss"])
    delta_rows: Rows = Rows(
        "inputs.default", "output_deltas.loss", writes=["input_deltas.default"]
    )

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        tmp = self.like(in_shapes["default"])
        return {"loss": self.like(in_shapes["default"], 1)}, {}, {"tmp": tmp}

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        x, tmp, loss = self.rows(buffers)
        self.handler.abs_t(x, tmp)
        self.handler.sum_t(tmp, 1, loss)

    def backward_pass(self, buffers: BufferView) -> None:
        h = self.handler
        x, dloss, dx = self.delta_rows(buffers)
        sign = h.scratch(x.shape, 2)
        h.sign_t(x, sign)
        self.add_deltas("default", "mult_mv", sign, dloss, dx)
