"""What the layers that slide a window over images have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from brainstorm.layers.base_layer import Layer, is_whole, once_per_resize
from brainstorm.structure.buffer_structure import StructureTemplate
from brainstorm.utils import flatten_time

__all__ = ["WindowLayer"]


class WindowLayer(Layer):
    """Base of layers that slide a window over images (T, B, H, W, C).

    Attributes:
        kernel_size: Height and width of the window.
        stride: Step sizes along height and width.
        padding: Number of pixels added on each side of height and width.
    """

    expected_inputs = {"default": StructureTemplate("T", "B", "F", "F", "F")}
    honours_fresh = True

    def read_window(self) -> tuple[int, int]:
        """Read the arguments above.

        Returns:
            Height and width of the outputs: floor((H + 2 padding - kh) / stride) + 1.

        Raises:
            LayerValidationError: They are wrong, or the window is too large.
        """
        self.kernel_size = self.pair_argument("kernel_size", None)
        self.stride = self.pair_argument("stride", (1, 1))
        self.padding = int(
            self.argument(
                "padding", 0, lambda p: is_whole(p, 0), "a whole number of at least 0"
            )
        )
        image = self.in_shapes["default"].feature_shape[:2]
        room = tuple(
            size + 2 * self.padding - k
            for size, k in zip(image, self.kernel_size, strict=True)
        )
        if min(room) < 0:
            raise self.error(
                "expected a kernel_size of at most the padded image's size,"
                f" {tuple(size + 2 * self.padding for size in image)}, got"
                f" {self.kernel_size}"
            )
        return tuple(r // s + 1 for r, s in zip(room, self.stride, strict=True))

    def pair_argument(self, name: str, default: Any) -> tuple[int, int]:
        """The value of an argument for height and width, checked."""
        value = self.argument(
            name,
            default,
            lambda value: [is_whole(n, 1) for n in _pair(value)] == [True, True],
            "a positive whole number, or two of them,",
        )
        height, width = _pair(value)
        return int(height), int(width)

    @once_per_resize
    def images(self, buffers):
        """Inputs and outputs, with time and batch folded."""
        arrays = buffers.inputs.default, buffers.outputs.default
        return tuple(map(flatten_time, arrays))

    @once_per_resize
    def delta_images(self, buffers):
        """Their deltas, likewise."""
        arrays = buffers.input_deltas.default, buffers.output_deltas.default
        return tuple(map(flatten_time, arrays))


def _pair(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value, value)
