"""Dropout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brainstorm.checks import Argument, is_finite
from brainstorm.layers._stepwise_layer import StepwiseLayer
from brainstorm.layers.arguments import Check, arguments_of
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.layer import Setup, Structures


def Dropout(drop_prob: float = 0.5, name: str | None = None) -> ConstructionWrapper:
    """A layer that drops a part of its inputs at random, during training.

    Args:
        drop_prob: Probability of being dropped, from 0 to below 1.
        name: Name of the layer.
    """
    return ConstructionWrapper.create(DropoutLayerImpl, **locals())


class DropoutLayerImpl(StepwiseLayer):
    """Computes ``y = x * mask`` in training passes, else ``y = x``.

    A mask's element is 0 with probability `drop_prob`, else 1 / (1 - drop_prob),
    so that the expected value of y is x.

    ========= ======== ============ ======================================
    buffer    name     shape        content
    ========= ======== ============ ======================================
    inputs    default  (T, B, ...)  x
    outputs   default  as x         y
    internals mask     as x         the mask; all 1 outside of training
    ========= ======== ============ ======================================

    Reference:
        Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from
        Overfitting", JMLR 15 (2014).

    Raises:
        LayerValidationError: `drop_prob` is not a probability below 1.
    """

    drop_prob: float

    arguments: Mapping[str, Argument] = arguments_of(
        Dropout,
        drop_prob=Check(
            lambda p: is_finite(p) and 0 <= p < 1, "a probability in [0, 1)"
        ),
    )
    repeats = True

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        shape = self.like(in_shapes["default"])
        return {"default": shape}, {}, {"mask": shape}

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        x, y = buffers.inputs.default, buffers.outputs.default
        mask = buffers.internals.mask
        if training_pass:
            self.handler.dropout_forward(x, mask, y, self.drop_prob)
        else:
            self.handler.copy_to(x, y)
            self.handler.fill(mask, 1.0)

    def backward_pass(self, buffers: BufferView) -> None:
        mask, dy = buffers.internals.mask, buffers.output_deltas.default
        dx = buffers.input_deltas.default
        self.add_deltas("default", "dropout_backward", mask, dy, dx)
