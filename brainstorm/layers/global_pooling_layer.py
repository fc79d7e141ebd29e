"""Pooling over whole images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from brainstorm.checks import Argument
from brainstorm.layers.arguments import arguments_of
from brainstorm.layers.pooling_layer_2d import TYPE, Pooling2DLayerImpl
from brainstorm.layers.rows import Rows
from brainstorm.literals import PoolingType
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.layer import Setup, Structures


def _images(array):
    """An array as images (T * B, size, 1, C)."""
    T, B, *inner, C = array.shape
    return array.reshape((T * B, math.prod(inner), 1, C))


def GlobalPooling(
    type: PoolingType = "max", name: str | None = None
) -> ConstructionWrapper:
    """A layer that reduces images to one value for each channel.

    Args:
        type: 'max' for the largest value, 'avg' for the mean.
        name: Name of the layer.
    """
    return ConstructionWrapper.create(GlobalPoolingLayerImpl, **locals())


class GlobalPoolingLayerImpl(Pooling2DLayerImpl):
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

    type: PoolingType
    kernel_size: tuple[int, int]
    padding: int
    stride: tuple[int, int]

    expected_inputs: Mapping[str, StructureTemplate] = {
        "default": StructureTemplate("T", "B", "F", "F", "...")
    }
    arguments: Mapping[str, Argument] = arguments_of(GlobalPooling, type=TYPE)
    repeats = True

    images: Rows = Rows(
        "inputs.default", writes=["outputs.default", "internals.argmax"], shape=_images
    )
    delta_images: Rows = Rows(
        "output_deltas.default", writes=["input_deltas.default"], shape=_images
    )

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        *inner, channels = in_shapes["default"].feature_shape
        self.kernel_size, self.padding, self.stride = (math.prod(inner), 1), 0, (1, 1)
        structure = BufferStructure("T", "B", channels)
        internals = {"argmax": structure} if self.type == "max" else {}
        return {"default": structure}, {}, internals
