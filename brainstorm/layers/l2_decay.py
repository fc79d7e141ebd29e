"""L2 penalty on activations."""

from __future__ import annotations

from typing import Any

from brainstorm.layers._stepwise_layer import StepwiseLayer
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper
from brainstorm.layers.rows import Rows
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures


def L2Decay(name: str | None = None) -> ConstructionWrapper:
    """A layer for half the sum of squares, which keeps activations small.

    Wire its output ``loss`` to a `Loss` layer, whose `importance` weighs it. To
    decay weights, see `brainstorm.value_modifiers.L2Decay`.
    """
    return ConstructionWrapper.create(L2DecayLayerImpl, name=name)


class L2DecayLayerImpl(StepwiseLayer):
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

    repeats = True

    rows: Rows = Rows("inputs.default", writes=["internals.tmp", "outputs.loss"])
    delta_rows: Rows = Rows(
        "inputs.default",
        "output_deltas.loss",
        writes=["internals.dsq_activations", "input_deltas.default"],
    )

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        shape = in_shapes["default"].shape
        internals = {
            "tmp": BufferStructure(*shape),
            "dsq_activations": BufferStructure(*shape, is_backward_only=True),
        }
        return {"loss": self.like(in_shapes["default"], 1)}, {}, internals

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        h = self.handler
        x, tmp, loss = self.rows(buffers)
        h.mult_tt(x, x, tmp)
        h.sum_t(tmp, 1, loss)
        h.mult_st(0.5, loss, loss)

    def backward_pass(self, buffers: BufferView) -> None:
        x, dloss, dsq, dx = self.delta_rows(buffers)
        self.handler.mult_mv(x, dloss, dsq)
        self.add_deltas("default", "copy_to", dsq, dx)
