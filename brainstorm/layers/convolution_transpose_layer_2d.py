"""Convolution of images the other way round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.checks import Argument, is_whole
from brainstorm.layers._convolution_layer import ImageConvolutionLayer
from brainstorm.layers._window_layer import PAIR, WINDOW, pair
from brainstorm.layers.arguments import COUNT, Check, arguments_of
from brainstorm.layers.base_layer import (
    BufferStructure,
    ConstructionWrapper,
    StructureTemplate,
)
from brainstorm.layers.rows import Rows
from brainstorm.literals import Activation
from brainstorm.structure.layer import Setup, Structures
from brainstorm.utils import flatten_time


def ConvolutionTranspose2D(
    num_filters: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = (1, 1),
    padding: int = 0,
    activation: Activation = "rel",
    name: str | None = None,
    *,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    bias: bool = True,
    trainable: bool = True,
) -> ConstructionWrapper:
    """A layer that makes larger images: each pixel becomes a kernel, and all add up.

    It is what the deltas go through in a `Convolution2D` of the same arguments, so it
    gives images of the shape that such a layer had got.

    Args:
        num_filters: Number of output channels.
        kernel_size: Height and width of the kernels. One number stands for both.
        stride: How far the kernels of two neighbours are apart, likewise.
        padding: Number of pixels that are cut off on each side of height and width.
        activation: Activation function.
        name: Name of the layer.
        output_padding: Rows and columns, less than the stride, that are added below and
            on the right; convolutions give the same size for all of these numbers.
        dilation: Distance of the pixels of a kernel, along height and width.
        groups: Number of groups into which channels are cut, see `Convolution2D`.
        bias: Whether there is a bias.
        trainable: Whether training changes the parameters.
    """
    return ConstructionWrapper.create(ConvolutionTranspose2DLayerImpl, **locals())


class ConvolutionTranspose2DLayerImpl(ImageConvolutionLayer):
    """Computes ``y = act(transposed convolution of x with W + bias)``.

    For images of height H and width W in C channels, and F filters of kh by kw pixels:
    ``y[i s + k d - p, j s' + l d' - p, f]`` is ``act(bias[f] + sum of x[i, j, c]
    W[c, k, l, f])`` over all i, j, k, l and c that lead there, where (s, s') is the
    stride, (d, d') the dilation and p the padding. Zeiler et al., *Deconvolutional
    networks*, 2010.

    =========== ======== ======================= ================================
    buffer      name     shape                   content
    =========== ======== ======================= ================================
    inputs      default  (T, B, H, W, C)         x
    outputs     default  (T, B, H', W', F)       y
    parameters  W        (C, kh, kw, F / groups) kernels
    parameters  bias     (F,)                    bias, unless left out
    internals   H        (T, B, H', W', F)       pre-activations, see `Convolution2D`
    internals   dH       (T, B, H', W', F)       their deltas, backward
    =========== ======== ======================= ================================

    H' = (H - 1) s - 2 p + d (kh - 1) + 1 + output_padding, and W' likewise. Without a
    bias there is an internal ``zero_bias`` (F,), which is 0.

    Raises:
        LayerValidationError: An argument is not as above, nothing is left within the
            padding, or there are no such groups.
    """

    expected_inputs: Mapping[str, StructureTemplate] = {
        "default": StructureTemplate("T", "B", "F", "F", "F")
    }
    kernel_size: tuple[int, int]
    output_padding: tuple[int, int]

    arguments: Mapping[str, Argument] = arguments_of(
        ConvolutionTranspose2D,
        num_filters=COUNT,
        **WINDOW,
        output_padding=Check(
            lambda value: [is_whole(n, 0) for n in pair(value)] == [True, True],
            "a whole number of at least 0, or two of them,",
            lambda value: tuple(map(int, pair(value))),
        ),
        dilation=PAIR,
        groups=COUNT,
    )
    honours_fresh = True
    repeats = True
    operation = "conv2d_transpose"

    images: Rows = Rows(
        "inputs.default", writes=["outputs.default", "internals.H"], shape=flatten_time
    )
    delta_images: Rows = Rows(
        "output_deltas.default",
        writes=["input_deltas.default", "internals.dH"],
        shape=flatten_time,
    )

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        *image, channels = in_shapes["default"].feature_shape
        self.check_groups(channels)
        given = self.kernel_size, self.stride, self.dilation, self.output_padding
        size = []
        for length, k, s, d, added in zip(image, *given, strict=True):
            if added >= s:
                raise self.error(
                    f"expected 'output_padding' below the stride, {self.stride}, got"
                    f" {self.output_padding}"
                )
            size.append((length - 1) * s - 2 * self.padding + d * (k - 1) + 1 + added)
        if min(size) < 1:
            raise self.error(
                f"expected a padding that leaves something of the images, got"
                f" {self.padding} with kernels of {self.kernel_size}"
            )
        y = BufferStructure("T", "B", *size, self.num_filters)
        filters = self.num_filters // self.groups
        return self.structures(y, BufferStructure(channels, *self.kernel_size, filters))
