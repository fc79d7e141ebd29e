"""What the layers that slide a window over images have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.checks import is_whole
from brainstorm.handlers.operations.images import Windows
from brainstorm.layers.arguments import Check
from brainstorm.layers.base_layer import Layer, StructureTemplate


def pair(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value, value)


PAIR = Check(
    lambda value: [is_whole(n, 1) for n in pair(value)] == [True, True],
    "a positive whole number, or two of them,",
    lambda value: tuple(map(int, pair(value))),
)
"""A check of two sizes, along height and width."""

WINDOW = {
    "kernel_size": PAIR,
    "stride": PAIR,
    "padding": Check(lambda p: is_whole(p, 0), "a whole number of at least 0", int),
}
"""Checks of the arguments of `WindowLayer`."""


class WindowLayer(Layer):
    """Base of layers that slide a window over images (T, B, H, W, C).

    Attributes:
        kernel_size: Height and width of the window.
        stride: Step sizes along height and width.
        padding: Number of pixels added on each side of height and width.
        dilation: Distance of the pixels in a window, likewise.
    """

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: int
    dilation: tuple[int, int] = (1, 1)
    expected_inputs: Mapping[str, StructureTemplate] = {
        "default": StructureTemplate("T", "B", "F", "F", "F")
    }
    honours_fresh = True

    def window_places(self) -> tuple[int, ...]:
        """Height and width of the outputs: floor((H + 2 padding - kh) / stride) + 1."""
        image = self.in_shapes["default"].feature_shape
        windows = Windows(self.kernel_size, self.padding, self.stride, self.dilation)
        places = windows.counted((1, *image))
        if min(places) < 1:
            padded = tuple(size + 2 * self.padding for size in image[:2])
            dilated = f" with the dilation {self.dilation}"
            raise self.error(
                "expected a kernel_size of at most the padded image's size,"
                f" {padded}, got {self.kernel_size}"
                f"{dilated if self.dilation != (1, 1) else ''}"
            )
        return places
