"""Larger images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.checks import Argument
from brainstorm.layers._window_layer import PAIR
from brainstorm.layers.arguments import arguments_of
from brainstorm.layers.base_layer import (
    BufferStructure,
    ConstructionWrapper,
    Layer,
    StructureTemplate,
)
from brainstorm.layers.rows import Rows
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures
from brainstorm.utils import flatten_time


def Upsample2D(
    factor: int | Sequence[int] = 2, name: str | None = None
) -> ConstructionWrapper:
    """A layer that makes a block of equal pixels of each pixel of its images.

    For interpolation that is learned see `ConvolutionTranspose2D`.

    Args:
        factor: Height and width of the blocks. One number stands for both.
        name: Name of the layer.
    """
    return ConstructionWrapper.create(Upsample2DLayerImpl, **locals())


class Upsample2DLayerImpl(Layer):
    """Computes ``y[i, j, c] = x[i // fy, j // fx, c]``, the nearest pixel.

    ========= ======== ======================= ==========================
    buffer    name     shape                   content
    ========= ======== ======================= ==========================
    inputs    default  (T, B, H, W, C)         x
    outputs   default  (T, B, fy H, fx W, C)   y
    ========= ======== ======================= ==========================

    Raises:
        LayerValidationError: `factor` is not as in :func:`Upsample2D`.
    """

    factor: tuple[int, int]

    expected_inputs: Mapping[str, StructureTemplate] = {
        "default": StructureTemplate("T", "B", "F", "F", "F")
    }
    arguments: Mapping[str, Argument] = arguments_of(Upsample2D, factor=PAIR)
    honours_fresh = True
    repeats = True

    images: Rows = Rows(
        "inputs.default", writes=["outputs.default"], shape=flatten_time
    )
    delta_images: Rows = Rows(
        "output_deltas.default", writes=["input_deltas.default"], shape=flatten_time
    )

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        height, width, channels = in_shapes["default"].feature_shape
        size = height * self.factor[0], width * self.factor[1]
        return {"default": BufferStructure("T", "B", *size, channels)}, {}, {}

    def places(self, large: Any) -> Any:
        """For each place in a block, the pixels of all blocks there."""
        n, height, width, channels = large.shape
        (fy, fx) = self.factor
        blocks = large.reshape((n, height // fy, fy, width // fx, fx, channels))
        return [blocks[:, :, y, :, x] for y in range(fy) for x in range(fx)]

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        x, y = self.images(buffers)
        for place in self.places(y):
            self.handler.copy_to(x, place)

    def backward_pass(self, buffers: BufferView) -> None:
        h, (dy, dx) = self.handler, self.delta_images(buffers)
        total, part = h.scratch(dx.shape, 2), h.scratch(dx.shape, 3)
        first, *others = self.places(dy)
        h.copy_to(first, total)
        for place in others:
            h.copy_to(place, part)  # adding strided arrays is slow
            h.add_tt(total, part, total)
        self.add_deltas("default", "copy_to", total, dx)
