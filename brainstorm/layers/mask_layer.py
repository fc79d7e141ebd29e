"""Masking."""

from __future__ import annotations

from brainstorm.layers.base_layer import Layer, once_per_resize
from brainstorm.layers.rows import Rows
from brainstorm.structure.buffer_structure import StructureTemplate
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.utils import flatten_time_and_features

__all__ = ["Mask", "MaskLayerImpl"]


def Mask(name: str | None = None) -> ConstructionWrapper:
    """A layer that multiplies its input with a mask.

    Put in front of a loss, it lets errors count only at some time steps.
    """
    return ConstructionWrapper.create(MaskLayerImpl, name=name)


class MaskLayerImpl(Layer):
    """Computes ``y = x * mask``.

    ======== ======== ====================================== ==========
    buffer   name     shape                                  content
    ======== ======== ====================================== ==========
    inputs   default  (T, B, ...)                            x
    inputs   mask     (T, B, 1), x's with a last 1, or x's   the mask
    outputs  default  as x                                   y
    ======== ======== ====================================== ==========

    No deltas flow to ``mask``.

    Raises:
        LayerValidationError: The mask has another shape.
    """

    expected_inputs = {
        "default": StructureTemplate("T", "B", "..."),
        "mask": StructureTemplate("T", "B", "..."),
    }
    computes_no_input_deltas_for = ("mask",)
    honours_fresh = True
    repeats = True

    def setup(self, kwargs, in_shapes):
        shape = in_shapes["default"].feature_shape
        mask = in_shapes["mask"].feature_shape
        if mask in ((1,), shape):
            self.flatten = flatten_time_and_features
        elif mask == (*shape[:-1], 1):
            self.flatten = lambda array: array
        else:
            raise self.error(
                f"expected the features (1,), {(*shape[:-1], 1)} or {shape} at input"
                f" 'mask', got {mask}"
            )
        return {"default": self.like(in_shapes["default"])}, {}, {}

    @once_per_resize
    def rows(self, buffers):
        """x, mask and y, with as many rows as the mask has, or all of its shape."""
        flat = [self.flatten(a) for a in (*buffers.inputs, *buffers.outputs)]
        return Rows(self.handler, flat[:2], flat[2:])

    @once_per_resize
    def delta_rows(self, buffers):
        """The deltas of y and of x, likewise."""
        dy, dx = buffers.output_deltas.default, buffers.input_deltas.default
        return Rows(self.handler, [self.flatten(dy)], [self.flatten(dx)])

    def forward_pass(self, buffers, training_pass=True):
        rows = self.rows(buffers)
        rows.load(self.handler)
        self.handler.mult_mv(*rows.matrices)
        rows.store(self.handler)

    def backward_pass(self, buffers):
        _, mask, _ = self.rows(buffers).matrices
        rows = self.delta_rows(buffers)
        dy, dx = rows.matrices
        rows.load(self.handler)
        if "default" in self.fresh:
            self.handler.mult_mv(dy, mask, dx)
        else:
            self.handler.mult_add_mv(dy, mask, dx)
        rows.store(self.handler)
