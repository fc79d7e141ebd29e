"""Larger images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from brainstorm.checks import Argument
from brainstorm.layers._window_layer import PAIR
from brainstorm.layers.arguments import arguments_of, one_of
from brainstorm.layers.base_layer import (
    BufferStructure,
    ConstructionWrapper,
    Layer,
    StructureTemplate,
)
from brainstorm.layers.rows import Rows
from brainstorm.literals import Interpolation
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures
from brainstorm.utils import flatten_time


def Upsample2D(
    factor: int | Sequence[int] = 2,
    name: str | None = None,
    *,
    kind: Interpolation = "nearest",
) -> ConstructionWrapper:
    """A layer that makes a block of pixels of each pixel of its images.

    For interpolation that is learned see `ConvolutionTranspose2D`.

    Args:
        factor: Height and width of the blocks. One number stands for both.
        name: Name of the layer.
        kind: 'nearest' for blocks of equal pixels, or 'bilinear' for values in between
            those of the nearest pixels.
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

    If it is bilinear, each factor f acts along one axis after the other. The place of
    pixel i among those of x is ``p = (i + 1/2) / f - 1/2``; with j, the integer below
    that, ``y[i] = (1 - (p - j)) x[j] + (p - j) x[j + 1]``. Beyond its ends x goes on as
    it ends. (This is PyTorch's ``align_corners=False``.)

    Raises:
        LayerValidationError: An argument is not as in :func:`Upsample2D`.
    """

    factor: tuple[int, int]
    kind: Interpolation

    expected_inputs: Mapping[str, StructureTemplate] = {
        "default": StructureTemplate("T", "B", "F", "F", "F")
    }
    arguments: Mapping[str, Argument] = arguments_of(
        Upsample2D, factor=PAIR, kind=one_of(*get_args(Interpolation))
    )
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

    def enlarged(self, x: Any, y: Any) -> list[tuple[Any, Any, int]]:
        """What is enlarged to what, along which axis: x to a temporary, that to y."""
        n, _, width, channels = x.shape
        taller = self.handler.scratch((n, y.shape[1], width, channels), 3)
        return [(x, taller, 0), (taller, y, 1)]

    def shares(
        self, small: Any, large: Any, axis: int
    ) -> Iterator[tuple[float, Any, Any]]:
        """What pixels give to others: a factor, and both, as arrays of one shape."""
        factor = self.factor[axis]
        n, height, width, channels = small.shape
        sizes = (height, factor, width) if axis == 0 else (height, width, factor)
        blocks = large.reshape((n, *sizes, channels))
        ahead, behind, first, last = (
            (slice(None),) * (1 + axis) + (part,)
            for part in (slice(1, None), slice(None, -1), slice(0, 1), slice(-1, None))
        )
        for k in range(factor):
            place = blocks[:, :, k] if axis == 0 else blocks[:, :, :, k]
            offset = (k + 0.5) / factor - 0.5  # from the pixel whose block it is
            share = abs(offset)
            yield 1 - share, small, place
            if offset < 0:
                yield share, small[behind], place[ahead]
                yield share, small[first], place[first]
            elif offset > 0:
                yield share, small[ahead], place[behind]
                yield share, small[last], place[last]

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        x, y = self.images(buffers)
        if self.kind == "bilinear":
            for small, large, axis in self.enlarged(x, y):
                self.handler.fill(large, 0.0)
                for share, pixels, between in self.shares(small, large, axis):
                    self.handler.mult_add_st(share, pixels, between)
            return
        for place in self.places(y):
            self.handler.copy_to(x, place)

    def backward_pass(self, buffers: BufferView) -> None:
        h, (dy, dx) = self.handler, self.delta_images(buffers)
        if self.kind == "bilinear":
            total = h.scratch(dx.shape, 2)
            for small, large, axis in reversed(self.enlarged(total, dy)):
                h.fill(small, 0.0)
                for share, pixels, between in self.shares(small, large, axis):
                    h.mult_add_st(share, between, pixels)
            self.add_deltas("default", "copy_to", total, dx)
            return
        total, part = h.scratch(dx.shape, 2), h.scratch(dx.shape, 3)
        first, *others = self.places(dy)
        h.copy_to(first, total)
        for place in others:
            h.copy_to(place, part)  # adding strided arrays is slow
            h.add_tt(total, part, total)
        self.add_deltas("default", "copy_to", total, dx)
