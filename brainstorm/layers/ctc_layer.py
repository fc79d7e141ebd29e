"""Classification of sequences whose labels are not aligned with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.layers.base_layer import ConstructionWrapper, Layer
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures


def Ctc(name: str | None = None) -> ConstructionWrapper:
    """A layer for labelling sequences: connectionist temporal classification.

    Wire its output ``loss`` to a `Loss` layer to have it minimized. If sequences
    differ in length, wire a mask to the input ``mask``.
    """
    return ConstructionWrapper.create(CtcLayerImpl, name=name)


class CtcLayerImpl(Layer):
    """Computes ``p = softmax(x)`` and ``loss = -log P(labels | p)``.

    Graves et al., *Connectionist temporal classification: labelling unsegmented
    sequence data with recurrent neural networks*, 2006. In each step the network gives
    one of C classes, of which class 0 is the blank. From such a path come the labels by
    joining equal neighbours and then dropping blanks; P sums over all paths that give
    the labels.

    =========== =========== ============= ==========================================
    buffer      name        shape         content
    =========== =========== ============= ==========================================
    inputs      default     (T, B, C)     x
    inputs      targets     (T, B, 1)     the labels, from 1 to C - 1, in their
                                          order; zeros are left out
    inputs      mask        (T, B, 1)     optional: 0 behind a sequence's last step
    outputs     predictions (T, B, C)     p
    outputs     loss        (B, 1)        loss of each sequence
    internals   expected    (T, B, C)     probability of each class in each step,
                                          given the labels
    internals   lengths     (B, 1)        of the sequences, with a mask
    =========== =========== ============= ==========================================

    A sequence ends with the last step at which the mask is not 0. No deltas flow to
    ``targets`` and ``mask``; those that reach ``predictions`` are ignored. The
    probabilities are computed as logarithms, in float64 whatever the handler.

    Raises:
        LayerValidationError: A shape does not fit, or there is only one class.
        HandlerError: When run with targets that are not as above, or with more labels
            than a sequence has steps (labels that repeat the one before take two).
    """

    expected_inputs: Mapping[str, StructureTemplate] = {
        "default": StructureTemplate("T", "B", "F"),
        "targets": StructureTemplate("T", "B", 1),
    }
    optional_inputs: Mapping[str, StructureTemplate] = {
        "mask": StructureTemplate("T", "B", 1)
    }
    computes_no_input_deltas_for: Sequence[str] = ("targets", "mask")
    takes_no_output_deltas_from: Sequence[str] = ("predictions",)
    honours_fresh = True
    needs_whole_sequences = True
    repeats = True

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        x = self.like(in_shapes["default"])
        if x.feature_size < 2:
            raise self.error("expected a blank and at least one label, got one class")
        outputs = {"predictions": x, "loss": BufferStructure("B", 1)}
        internals = {"expected": x}
        if "mask" in in_shapes:
            internals["lengths"] = BufferStructure("B", 1)
        return outputs, {}, internals

    def lengths(self, buffers: Any) -> Any:
        """Lengths of the sequences, or None if all have T steps."""
        return buffers.internals.lengths if "mask" in self.in_shapes else None

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        lengths = self.lengths(buffers)
        if lengths is not None:
            self.handler.sequence_lengths(buffers.inputs.mask, lengths)
        predictions, loss = buffers.outputs
        x, targets = buffers.inputs.default, buffers.inputs.targets
        expected = buffers.internals.expected
        self.handler.ctc_forward(x, targets, lengths, predictions, expected, loss)

    def backward_pass(self, buffers: BufferView) -> None:
        self.add_deltas(
            "default",
            "ctc_backward",
            buffers.outputs.predictions,
            buffers.internals.expected,
            self.lengths(buffers),
            buffers.output_deltas.loss,
            buffers.input_deltas.default,
        )
