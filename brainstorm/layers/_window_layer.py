"""What the layers that slide a window over images have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.checks import is_whole
from brainstorm.layers.arguments import Check
from brainstorm.layers.base_layer import Layer, StructureTemplate


def _pair(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value, value)


PAIR = Check(
    lambda value: [is_whole(n, 1) for n in _pair(value)] == [True, True],
    "a positive whole number, or two of them,",
    lambda value: tuple(map(int, _pair(value))),
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
    """

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: int
    expected_inputs: Mapping[str, StructureTemplate] = {
        "default": StructureTemplate("T", "B", "F", "F", "F")
    }
    honours_fresh = True

    def window_places(self) -> tuple[int, ...]:
        """Height and width of the outputs: floor((H + 2 padding - kh) / stride) + 1."""
        image = self.in_shapes["default"].feature_shape[:2]
        padded = tuple(size + 2 * self.padding for size in image)
        room = [n - k for n, k in zip(padded, self.kernel_size, strict=True)]
        if min(room) < 0:
            raise self.error(
                "expected a kernel_size of at most the padded image's size,"
                f" {padded}, got {self.kernel_size}"
            )
        return tuple(r // s + 1 for r, s in zip(room, self.stride, strict=True))
