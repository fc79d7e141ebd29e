"""Marks a value as one to be minimized."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.checks import Argument
from brainstorm.layers.arguments import FINITE, arguments_of
from brainstorm.layers.base_layer import ConstructionWrapper, Layer
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures


def Loss(importance: float = 1.0, name: str | None = None) -> ConstructionWrapper:
    """A layer that marks its input as something to minimize.

    Args:
        importance: Weight of this loss among several.
        name: Name of the layer.
    """
    return ConstructionWrapper.create(LossLayerImpl, **locals())


class LossLayerImpl(Layer):
    """Computes ``loss = importance * sum(x) / batch size``.

    The batch size is the number of sequences: the sum runs over time too. Backward
    passes begin here, so deltas that reach ``loss`` are ignored. Constant inputs
    count as a batch of one.

    ======== ======== =========== =====================================
    buffer   name     shape       content
    ======== ======== =========== =====================================
    inputs   default  any         x
    outputs  loss     (1,)        the loss
    ======== ======== =========== =====================================

    Raises:
        LayerValidationError: `importance` is not a number.
    """

    importance: float

    expected_inputs: Mapping[str, StructureTemplate] = {
        "default": StructureTemplate("...")
    }
    arguments: Mapping[str, Argument] = arguments_of(Loss, importance=FINITE)
    takes_no_output_deltas_from: Sequence[str] = ("loss",)
    is_loss = True
    honours_fresh = True
    repeats = True

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        # How many dimensions come before the features; the last of them is B.
        self.leading: int = in_shapes["default"].buffer_type
        return {"loss": BufferStructure(1)}, {}, {}

    def scale(self, x: Any) -> Any:
        """What a unit of x adds to the loss."""
        return self.importance / (x.shape[self.leading - 1] if self.leading else 1)

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        x, loss = buffers.inputs.default, buffers.outputs.loss
        rows, features = x.shape[: self.leading], x.shape[self.leading :]
        matrix = x.reshape((math.prod(rows), math.prod(features)))
        self.handler.sum_t(matrix, None, loss.reshape(()))
        self.handler.mult_st(self.scale(x), loss, loss)

    def backward_pass(self, buffers: BufferView) -> None:
        dx = buffers.input_deltas.default
        self.add_deltas("default", "fill", dx, self.scale(dx))
