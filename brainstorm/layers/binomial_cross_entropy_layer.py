"""Cross-entropy of independent probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.layers._stepwise_layer import ANY, StepwiseLayer
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper
from brainstorm.layers.rows import Rows
from brainstorm.structure.buffer_structure import StructureTemplate
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures


def BinomialCrossEntropy(name: str | None = None) -> ConstructionWrapper:
    """A layer for the cross-entropy of probabilities with targets.

    Its input has to lie between 0 and 1. Where it comes from a sigmoid, prefer
    `SigmoidCE`, which computes both at once and stays exact near 0 and 1.
    """
    return ConstructionWrapper.create(BinomialCrossEntropyLayerImpl, name=name)


class BinomialCrossEntropyLayerImpl(StepwiseLayer):
    """Computes ``y = sum(-t log(p) - (1 - t) log(1 - p))`` over the features.

    ========= ======== ==================== ===================================
    buffer    name     shape                content
    ========= ======== ==================== ===================================
    inputs    default  (T, B, ...)          p, between 0 and 1
    inputs    targets  as p                 t, between 0 and 1
    outputs   default  (T, B, 1)            y
    internals cee      as p                 the cross-entropy of each element
    internals ceed     as p, backward       its derivative by p
    ========= ======== ==================== ===================================

    No deltas flow to ``targets``. The logarithms' arguments are clipped to
    [1e-6, 1], and so are the denominators of the derivative
    ``(1 - t) / (1 - p) - t / p``.

    Raises:
        LayerValidationError: The shapes of the inputs differ.
    """

    expected_inputs: Mapping[str, StructureTemplate] = dict.fromkeys(
        ("default", "targets"), ANY
    )
    computes_no_input_deltas_for: Sequence[str] = ("targets",)
    repeats = True

    rows: Rows = Rows("internals.cee", writes=["outputs.default"])
    delta_rows: Rows = Rows(
        "internals.ceed", "output_deltas.default", writes=["input_deltas.default"]
    )

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        shape = self.same_shape("default", "targets")
        internals = {
            "cee": shape,
            "ceed": BufferStructure(*shape.shape, is_backward_only=True),
        }
        return {"default": self.like(shape, 1)}, {}, internals

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        h = self.handler
        p, t = buffers.inputs
        cee = buffers.internals.cee
        other = self.clipped_complement(p)
        h.clip_t(p, 1e-6, 1.0, cee)
        h.log_t(cee, cee)
        h.log_t(other, other)
        # t log(p) + (1 - t) log(1 - p) = t (log(p) - log(1 - p)) + log(1 - p)
        h.subtract_tt(cee, other, cee)
        h.mult_tt(t, cee, cee)
        h.add_tt(cee, other, cee)
        h.mult_st(-1.0, cee, cee)
        cee, y = self.rows(buffers)
        h.sum_t(cee, 1, y)

    def backward_pass(self, buffers: BufferView) -> None:
        h = self.handler
        p, t = buffers.inputs
        ceed = buffers.internals.ceed
        h.clip_t(p, 1e-6, 1.0, ceed)
        h.divide_tt(t, ceed, ceed)
        other = self.clipped_complement(p)
        quotient = h.scratch(p.shape, 3)
        h.mult_st(-1.0, t, quotient)
        h.add_st(1.0, quotient, quotient)
        h.divide_tt(quotient, other, quotient)
        h.subtract_tt(quotient, ceed, ceed)
        self.add_deltas("default", "mult_mv", *self.delta_rows(buffers))

    def clipped_complement(self, p: Any) -> Any:
        """1 - p within [1e-6, 1], in a temporary array."""
        h = self.handler
        complement = h.scratch(p.shape, 2)
        h.mult_st(-1.0, p, complement)
        h.add_st(1.0, complement, complement)
        h.clip_t(complement, 1e-6, 1.0, complement)
        return complement
