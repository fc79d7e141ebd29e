"""Convolution of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.checks import Argument
from brainstorm.layers._convolution_layer import ImageConvolutionLayer
from brainstorm.layers._window_layer import PAIR, WINDOW, WindowLayer
from brainstorm.layers.arguments import COUNT, arguments_of
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper
from brainstorm.layers.rows import Rows
from brainstorm.literals import Activation
from brainstorm.structure.layer import Setup, Structures
from brainstorm.utils import flatten_time


def Convolution2D(
    num_filters: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = (1, 1),
    padding: int = 0,
    activation: Activation = "rel",
    name: str | None = None,
    *,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    bias: bool = True,
    trainable: bool = True,
) -> ConstructionWrapper:
    """A layer that convolves images with learned kernels.

    Args:
        num_filters: Number of kernels, which is the number of output channels.
        kernel_size: Height and width of the kernels. One number stands for both.
        stride: Step sizes along height and width, likewise.
        padding: Number of zeros added on each side of height and width.
        activation: Activation function.
        name: Name of the layer.
        dilation: Distance of the pixels that a kernel sees, along height and width; one
            number stands for both (Yu and Koltun 2016).
        groups: Number of groups into which channels and kernels are cut; kernels see
            the channels of their group. As many as there are channels make a depthwise
            convolution.
        bias: Whether there is a bias.
        trainable: Whether training changes the parameters.
    """
    return ConstructionWrapper.create(Convolution2DLayerImpl, **locals())


class Convolution2DLayerImpl(ImageConvolutionLayer, WindowLayer):
    """Computes ``y = act(x * W + bias)`` for every image, all steps alike.

    With images of height H and width W in C channels, and F filters of kh by kw
    pixels: ``y[i, j, f] = act(bias[f] + sum of x[i s + k - p, j s' + l - p, c]
    W[f, k, l, c])`` over k, l and c, where (s, s') is the stride, p the padding and x
    is zero outside of the image. The kernels are not flipped (so this is a
    correlation). LeCun et al., *Gradient-based learning applied to document
    recognition*, 1998.

    =========== ======== ======================= ================================
    buffer      name     shape                   content
    =========== ======== ======================= ================================
    inputs      default  (T, B, H, W, C)         x
    outputs     default  (T, B, H', W', F)       y
    parameters  W        (F, kh, kw, C)          kernels
    parameters  bias     (F,)                    bias, unless left out
    internals   H        (T, B, H', W', F)       pre-activations, see below
    internals   dH       (T, B, H', W', F)       their deltas, backward
    =========== ======== ======================= ================================

    Only 'gelu', 'swish', 'hard_swish' and 'mish' have H and dH: their derivative needs
    the pre-activations, that of the other activations follows from y. Without a bias
    there is an internal ``zero_bias`` (F,), which is 0.

    H' = floor((H + 2 p - kh) / s) + 1, and W' likewise. With a dilation (d, d'), x is
    that at ``i s + d k - p``, and kh in H' is ``d (kh - 1) + 1``. With g groups, W has
    C / g channels; filter f sees those of group ``f // (F / g)``.

    Raises:
        LayerValidationError: An argument is not as above, the kernels are larger than
            the padded images, or there are no such groups.
    """

    arguments: Mapping[str, Argument] = arguments_of(
        Convolution2D, num_filters=COUNT, **WINDOW, dilation=PAIR, groups=COUNT
    )
    repeats = True

    images: Rows = Rows(
        "inputs.default", writes=["outputs.default", "internals.H"], shape=flatten_time
    )
    delta_images: Rows = Rows(
        "output_deltas.default",
        writes=["input_deltas.default", "internals.dH"],
        shape=flatten_time,
    )

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        filters, channels = self.num_filters, in_shapes["default"].feature_shape[2]
        self.check_groups(channels)
        y = BufferStructure("T", "B", *self.window_places(), filters)
        W = BufferStructure(filters, *self.kernel_size, channels // self.groups)
        return self.structures(y, W)
