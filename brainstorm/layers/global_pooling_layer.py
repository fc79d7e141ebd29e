"""Pooling over whole images."""

import math

from brainstorm.layers.arguments import Check, arguments_of
from brainstorm.layers.base_layer import Layer
from brainstorm.layers.rows import Rows
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.construction import ConstructionWrapper


def _images(array):
    """An array as images (T * B, size, 1, C)."""
    T, B, *inner, C = array.shape
    return array.reshape((T * B, math.prod(inner), 1, C))


def GlobalPooling(type: str = "max", name: str | None = None) -> ConstructionWrapper:
    """A layer that reduces images to one value for each channel.

    Args:
        type: 'max' for the largest value, 'avg' for the mean.
        name: Name of the layer.
    """
    return ConstructionWrapper.create(GlobalPoolingLayerImpl, **locals())


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
    arguments = arguments_of(
        GlobalPooling,
        type=Check(lambda value: value in ("max", "avg"), "'max' or 'avg'"),
    )
    honours_fresh = True
    repeats = True

    images = Rows(
        "inputs.default",
        writes=["outputs.default", "internals.argmax"],
        shape=_images,
    )
    delta_images = Rows(
        "output_deltas.default", writes=["input_deltas.default"], shape=_images
    )

    def setup(self, kwargs, in_shapes):
        *inner, channels = in_shapes["default"].feature_shape
        self.window = math.prod(inner), 1
        structure = BufferStructure("T", "B", channels)
        internals = {"argmax": structure} if self.type == "max" else {}
        return {"default": structure}, {}, internals

    def forward_pass(self, buffers, training_pass=True):
        x, y, argmax = self.images(buffers)
        h, where = self.handler, (x, self.window, y, 0, (1, 1))
        if self.type == "max":
            h.maxpool2d_forward_batch(*where, argmax)
        else:
            h.avgpool2d_forward_batch(*where)

    def backward_pass(self, buffers):
        x, y, argmax = self.images(buffers)
        dy, dx = self.delta_images(buffers)
        used = (argmax,) if self.type == "max" else ()
        pool = f"{self.type}pool2d_backward_batch"
        where = x, self.window, y, 0, (1, 1)
        self.add_deltas("default", pool, *where, *used, dx, dy)
