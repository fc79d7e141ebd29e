"""Masking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.layers._stepwise_layer import ANY, StepwiseLayer
from brainstorm.layers.rows import Rows, by_sequences
from brainstorm.structure.buffer_structure import StructureTemplate
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.layer import Setup, Structures
from brainstorm.utils import flatten_all_but_last, flatten_time_and_features


def Mask(name: str | None = None) -> ConstructionWrapper:
    """A layer that multiplies its input with a mask.

    Put in front of a loss, it lets errors count only at some time steps.
    """
    return ConstructionWrapper.create(MaskLayerImpl, name=name)


class MaskLayerImpl(StepwiseLayer):
    """Computes ``y = x * mask``.

    ======== ======== ====================================== ==========
    buffer   name     shape                                  content
    ======== ======== ====================================== ==========
    inputs   default  (T, B, ...)                            x
    inputs   mask     (T, B, 1), x's with a last 1, or x's   the mask
    outputs  default  as x                                   y
    ======== ======== ====================================== ==========

    No deltas flow to ``mask``.

    Raises:
        LayerValidationError: The mask has another shape.
    """

    expected_inputs: Mapping[str, StructureTemplate] = dict.fromkeys(
        ("default", "mask"), ANY
    )
    computes_no_input_deltas_for: Sequence[str] = ("mask",)
    repeats = True

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        shape = in_shapes["default"].feature_shape
        mask = in_shapes["mask"].feature_shape
        if mask in ((1,), shape):
            flatten = flatten_time_and_features if self.has_time else by_sequences
        elif mask == (*shape[:-1], 1):
            flatten = flatten_all_but_last
        else:
            raise self.error(
                f"expected the features (1,), {(*shape[:-1], 1)} or {shape} at input"
                f" 'mask', got {mask}"
            )
        paths = "inputs.default", "inputs.mask"
        self.rows: Rows = Rows(*paths, writes=["outputs.default"], shape=flatten)
        paths = "output_deltas.default", "inputs.mask"
        self.delta_rows: Rows = Rows(
            *paths, writes=["input_deltas.default"], shape=flatten
        )
        return {"default": self.like(in_shapes["default"])}, {}, {}

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        self.handler.mult_mv(*self.rows.load(self.handler, buffers))
        self.rows.store(self.handler, buffers)

    def backward_pass(self, buffers: BufferView) -> None:
        rows = self.delta_rows.load(self.handler, buffers)
        self.add_deltas("default", "mult_mv", *rows)
        self.delta_rows.store(self.handler, buffers)
