"""Pooling over whole images."""

from __future__ import annotations

import math

from brainstorm.layers.base_layer import Layer, once_per_resize
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.construction import ConstructionWrapper

__all__ = ["GlobalPooling", "GlobalPoolingLayerImpl"]

TYPES = ("max", "avg")


def GlobalPooling(type: str = "max", name: str | None = None) -> ConstructionWrapper:
    """A layer that reduces images to one value for each channel.

    Args:
        type: 'max' for the largest value, 'avg' for the mean.
        name: Name of the layer.
    """
    return ConstructionWrapper.create(GlobalPoolingLayerImpl, name=name, type=type)


class GlobalPoolingLayerImpl(Layer):
    """Pools over all feature dimensions but the last, which is that of the channels.

    Lin et al., *Network in network*, 2013.

    ========= ======== ================= ===========================================
    buffer    name     shape             content
    ========= ======== ================= ===========================================
    inputs    default  (T, B, ..., C)    x, with at least two feature dimensions
    outputs   default  (T, B, C)         the largest or mean value of each channel
    internals argmax   (T, B, C)         where the largest was, for 'max' only
    ========= ======== ================= ===========================================

    Raises:
        LayerValidationError: `type` is not as above, or x has one feature dimension.
    """

    expected_inputs = {"default": StructureTemplate("T", "B", "F", "F", "...")}
    expected_kwargs = frozenset({"type"})
    honours_fresh = True
    repeats = True

    def setup(self, kwargs, in_shapes):
        self.type = self.argument(
            "type", "max", lambda value: value in TYPES, "'max' or 'avg'"
        )
        *inner, channels = in_shapes["default"].feature_shape
        self.window = math.prod(inner), 1
        structure = BufferStructure("T", "B", channels)
        internals = {"argmax": structure} if self.type == "max" else {}
        return {"default": structure}, {}, internals

    def images(self, array, window):
        """An array as images (T * B, height, width, C)."""
        rows = array.shape[0] * array.shape[1]
        return array.reshape((rows, *window, array.shape[-1]))

    @once_per_resize
    def arrays(self, buffers):
        """X, y and, for 'max', argmax as images."""
        x = self.images(buffers.inputs.default, self.window)
        others = (buffers.outputs.default, *buffers.internals)
        return x, *(self.images(array, (1, 1)) for array in others)

    @once_per_resize
    def delta_arrays(self, buffers):
        """The deltas of x and y, likewise."""
        dx = self.images(buffers.input_deltas.default, self.window)
        return dx, self.images(buffers.output_deltas.default, (1, 1))

    def forward_pass(self, buffers, training_pass=True):
        x, y, *argmax = self.arrays(buffers)
        h = self.handler
        pool = h.maxpool2d_forward_batch if argmax else h.avgpool2d_forward_batch
        pool(x, self.window, y, 0, (1, 1), *argmax)

    def backward_pass(self, buffers):
        if "default" in self.unwanted:
            return
        x, y, *argmax = self.arrays(buffers)
        h = self.handler
        pool = h.maxpool2d_backward_batch if argmax else h.avgpool2d_backward_batch
        deltas = self.delta_arrays(buffers)
        fresh = "default" in self.fresh
        pool(x, self.window, y, 0, (1, 1), *argmax, *deltas, fresh_in_deltas=fresh)
