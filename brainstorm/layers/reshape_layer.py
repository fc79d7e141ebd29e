"""The same features in another shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.checks import Argument, is_whole
from brainstorm.layers._stepwise_layer import StepwiseLayer
from brainstorm.layers.arguments import Check, arguments_of
from brainstorm.layers.rows import Rows
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.layer import Setup, Structures
from brainstorm.utils import flatten_features


def Reshape(shape: int | Sequence[int], name: str | None = None) -> ConstructionWrapper:
    """A layer that gives the features of each time step another shape.

    Args:
        shape: The shape, without time and batch. One size may be -1: what remains.
        name: Name of the layer.
    """
    return ConstructionWrapper.create(ReshapeLayerImpl, **locals())


def _shape(value: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,)


def _is_shape(shape: tuple[int, ...]) -> bool:
    return (
        len(shape) > 0
        and all(is_whole(n, -1) and n != 0 for n in shape)
        and shape.count(-1) <= 1
    )


class ReshapeLayerImpl(StepwiseLayer):
    """Copies its input; the order of the features stays.

    ======== ======== =================== =======
    buffer   name     shape               content
    ======== ======== =================== =======
    inputs   default  (T, B, ...)         x
    outputs  default  (T, B) and `shape`  x
    ======== ======== =================== =======

    Raises:
        LayerValidationError: `shape` is not as above, or of another size.
    """

    shape: int | Sequence[int]

    arguments: Mapping[str, Argument] = arguments_of(
        Reshape, shape=Check(lambda value: _is_shape(_shape(value)), "a shape")
    )
    repeats = True

    flat: Rows = Rows(
        "inputs.default", writes=["outputs.default"], shape=flatten_features
    )
    flat_deltas: Rows = Rows(
        "output_deltas.default", writes=["input_deltas.default"], shape=flatten_features
    )

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        size = in_shapes["default"].feature_size
        shape = tuple(map(int, _shape(self.shape)))
        if -1 in shape:
            known = -math.prod(shape)
            shape = tuple(max(size // known, 1) if n == -1 else n for n in shape)
        if math.prod(shape) != size:
            raise self.error(
                f"expected a shape of {size} features, as many as"
                f" {in_shapes['default'].feature_shape} has, got {self.shape!r}"
            )
        return {"default": self.like(in_shapes["default"], *shape)}, {}, {}

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        self.handler.copy_to(*self.flat(buffers))

    def backward_pass(self, buffers: BufferView) -> None:
        self.add_deltas("default", "copy_to", *self.flat_deltas(buffers))
