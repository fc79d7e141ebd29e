"""Scaling of the deltas on their way back."""

from __future__ import annotations

from collections.abc import Mapping

from brainstorm.checks import Argument
from brainstorm.layers.arguments import FINITE, arguments_of
from brainstorm.layers.noop_layer import NoOpLayerImpl
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.construction import ConstructionWrapper


def DeltasScaling(factor: float, name: str | None = None) -> ConstructionWrapper:
    """A layer that passes its input on, but multiplies the deltas by a factor.

    With a negative factor the layers below learn the opposite of those above.

    Args:
        factor: Factor of the deltas.
        name: Name of the layer.
    """
    return ConstructionWrapper.create(DeltasScalingLayerImpl, **locals())


class DeltasScalingLayerImpl(NoOpLayerImpl):
    """Computes ``y = x``; its deltas are ``dx = factor * dy``.

    ======== ======== ============ ========
    buffer   name     shape        content
    ======== ======== ============ ========
    inputs   default  (T, B, ...)  x
    outputs  default  as x         y
    ======== ======== ============ ========

    Reference:
        Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation",
        ICML (2015), use it with a negative factor.

    Raises:
        LayerValidationError: `factor` is not a number.
    """

    factor: float

    arguments: Mapping[str, Argument] = arguments_of(DeltasScaling, factor=FINITE)
    repeats = True

    def backward_pass(self, buffers: BufferView) -> None:
        dx, dy = buffers.input_deltas.default, buffers.output_deltas.default
        self.add_deltas("default", "mult_st", self.factor, dy, dx)
