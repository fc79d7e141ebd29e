"""Masking."""

from __future__ import annotations

from brainstorm.layers.base_layer import Layer, once_per_resize
from brainstorm.structure.buffer_structure import StructureTemplate
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.utils import flatten_all_but_last, flatten_time_and_features

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

    def setup(self, kwargs, in_shapes):
        shape = in_shapes["default"].feature_shape
        mask = in_shapes["mask"].feature_shape
        if mask == (1,):
            self.flatten = flatten_time_and_features  # one value per step
        elif mask in (shape, (*shape[:-1], 1)):
            self.flatten = flatten_all_but_last
        else:
            raise self.error(
                f"expected the features (1,), {(*shape[:-1], 1)} or {shape} at input"
                f" 'mask', got {mask}"
            )
        return {"default": self.like(in_shapes["default"])}, {}, {}

    @once_per_resize
    def matrices(self, buffers):
        """x, mask and y, with as many rows as the mask has."""
        return tuple(map(self.flatten, (*buffers.inputs, buffers.outputs.default)))

    @once_per_resize
    def delta_matrices(self, buffers):
        """The deltas of y and of x, likewise."""
        deltas = (buffers.output_deltas.default, buffers.input_deltas.default)
        return tuple(map(self.flatten, deltas))

    def forward_pass(self, buffers, training_pass=True):
        x, mask, y = self.matrices(buffers)
        self.handler.mult_mv(x, mask, y)

    def backward_pass(self, buffers):
        _, mask, _ = self.matrices(buffers)
        dy, dx = self.delta_matrices(buffers)
        if "default" in self.fresh:
            self.handler.mult_mv(dy, mask, dx)
        else:
            self.handler.mult_add_mv(dy, mask, dx)
