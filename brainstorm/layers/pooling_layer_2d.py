"""Pooling of images."""

from __future__ import annotations

from collections.abc import Sequence

from brainstorm.layers.window_layer import WindowLayer
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.utils import flatten_time, listing

__all__ = ["Pooling2D", "Pooling2DLayerImpl"]

TYPES = ("max", "avg")


def Pooling2D(
    kernel_size: int | Sequence[int],
    type: str = "max",
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
    return ConstructionWrapper.create(
        Pooling2DLayerImpl,
        name=name,
        kernel_size=kernel_size,
        type=type,
        stride=stride,
        padding=padding,
    )


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

    expected_kwargs = frozenset({"kernel_size", "type", "stride", "padding"})
    repeats = True

    def setup(self, kwargs, in_shapes):
        self.type = self.argument(
            "type", "max", lambda kind: kind in TYPES, f"one of {listing(TYPES)}"
        )
        height, width = self.read_window()
        if self.padding >= min(self.kernel_size):
            raise self.error(
                "expected a padding smaller than the kernel_size,"
                f" {self.kernel_size}, got {self.padding}: a window would hold"
                " nothing else"
            )
        channels = in_shapes["default"].feature_shape[2]
        shape = ("T", "B", height, width, channels)
        internals = {}
        if self.type == "max":
            internals["argmax"] = BufferStructure(*shape)
        return {"default": BufferStructure(*shape)}, {}, internals

    def forward_pass(self, buffers, training_pass=True):
        x, y = self.images(buffers)
        window = self.kernel_size, y, self.padding, self.stride
        if self.type == "max":
            argmax = flatten_time(buffers.internals.argmax)
            self.handler.maxpool2d_forward_batch(x, *window, argmax)
        else:
            self.handler.avgpool2d_forward_batch(x, *window)

    def backward_pass(self, buffers):
        x, y = self.images(buffers)
        dx, dy = self.delta_images(buffers)
        window = self.kernel_size, y, self.padding, self.stride
        fresh = "default" in self.fresh
        if self.type == "max":
            argmax = flatten_time(buffers.internals.argmax)
            self.handler.maxpool2d_backward_batch(x, *window, argmax, dx, dy, fresh)
        else:
            self.handler.avgpool2d_backward_batch(x, *window, dx, dy, fresh)
