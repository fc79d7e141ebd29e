"""Pooling of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from brainstorm.checks import Argument
from brainstorm.layers._window_layer import WINDOW, WindowLayer
from brainstorm.layers.arguments import arguments_of, one_of
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper
from brainstorm.layers.rows import Rows
from brainstorm.literals import PoolingType
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures
from brainstorm.utils import flatten_time

TYPE = one_of(*get_args(PoolingType))


def Pooling2D(
    kernel_size: int | Sequence[int],
    type: PoolingType = "max",
    stride: int | Sequence[int] = (1, 1),
    padding: int = 0,
    name: str | None = None,
) -> ConstructionWrapper:
    """A layer that summarises each window of its images by one pixel.

    Args:
        kernel_size: Height and width of the window. One number stands for both.
        type: ``'max'`` for the largest value or ``'avg'`` for the mean.
        stride: Step sizes along height and width; one number stands for both.
        padding: Number of pixels added on each side of height and width. They do
            not count: they are never the largest and not part of the mean.
        name: Name of the layer.
    """
    return ConstructionWrapper.create(Pooling2DLayerImpl, **locals())


class Pooling2DLayerImpl(WindowLayer):
    """Takes the largest value or the mean of each window, in each channel.

    ========= ======== ================= ========================================
    buffer    name     shape             content
    ========= ======== ================= ========================================
    inputs    default  (T, B, H, W, C)   x
    outputs   default  (T, B, H', W', C) y
    internals argmax   (T, B, H', W', C) where in its window each y comes from,
                                         counted by rows ('max' only)
    ========= ======== ================= ========================================

    H' = floor((H + 2 padding - kh) / stride) + 1, and W' likewise. Padding does not
    count. Of equal largest values the first one gets the deltas. The largest value
    of a window that holds NaN is NaN.

    Raises:
        LayerValidationError: An argument is not as in :func:`Pooling2D`; the window
            is larger than the padded images; or it fits into the padding alone.
    """

    type: PoolingType

    arguments: Mapping[str, Argument] = arguments_of(Pooling2D, type=TYPE, **WINDOW)
    repeats = True

    images: Rows = Rows(
        "inputs.default",
        writes=["outputs.default", "internals.argmax"],
        shape=flatten_time,
    )
    delta_images: Rows = Rows(
        "output_deltas.default", writes=["input_deltas.default"], shape=flatten_time
    )

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        height, width = self.window_places()
        if self.padding >= min(self.kernel_size):
            raise self.error(
                "expected a padding smaller than the kernel_size,"
                f" {self.kernel_size}, got {self.padding}: a window would hold"
                " nothing else"
            )
        channels = in_shapes["default"].feature_shape[2]
        structure = BufferStructure("T", "B", height, width, channels)
        internals = {"argmax": structure} if self.type == "max" else {}
        return {"default": structure}, {}, internals

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        pool = getattr(self.handler, f"{self.type}pool2d_forward_batch")
        pool(*self.windows(buffers))

    def backward_pass(self, buffers: BufferView) -> None:
        dy, dx = self.delta_images(buffers)
        pool = f"{self.type}pool2d_backward_batch"
        self.add_deltas("default", pool, *self.windows(buffers), dx, dy)

    def windows(self, buffers: Any) -> Any:
        """What the operations of both passes begin with."""
        x, y, *argmax = (a for a in self.images(buffers) if a is not None)
        return x, self.kernel_size, y, self.padding, self.stride, *argmax
