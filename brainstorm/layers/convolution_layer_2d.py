"""Convolution of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.checks import Argument
from brainstorm.handlers.operations.activations import FROM_INPUT
from brainstorm.layers._window_layer import WINDOW, WindowLayer
from brainstorm.layers.arguments import COUNT, arguments_of
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper
from brainstorm.layers.rows import Rows
from brainstorm.literals import Activation
from brainstorm.structure.buffer_views import BufferView
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
        bias: Whether there is a bias.
        trainable: Whether training changes the parameters.
    """
    return ConstructionWrapper.create(Convolution2DLayerImpl, **locals())


class Convolution2DLayerImpl(WindowLayer):
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

    H' = floor((H + 2 p - kh) / s) + 1, and W' likewise.

    Raises:
        LayerValidationError: An argument is not as above, or the kernels are larger
            than the padded images.
    """

    num_filters: int
    activation: Activation
    bias: bool

    arguments: Mapping[str, Argument] = arguments_of(
        Convolution2D, num_filters=COUNT, **WINDOW
    )
    repeats = True

    images = Rows(
        "inputs.default", writes=["outputs.default", "internals.H"], shape=flatten_time
    )
    delta_images = Rows(
        "output_deltas.default",
        writes=["input_deltas.default", "internals.dH"],
        shape=flatten_time,
    )

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        filters, channels = self.num_filters, in_shapes["default"].feature_shape[2]
        shape: tuple[Any, ...] = ("T", "B", *self.window_places(), filters)
        outputs = {"default": BufferStructure(*shape)}
        parameters = {"W": BufferStructure(filters, *self.kernel_size, channels)}
        internals = {}
        if self.bias:
            parameters["bias"] = BufferStructure(filters)
        else:
            internals["zero_bias"] = BufferStructure(filters)
        if self.activation in FROM_INPUT:
            internals["H"] = BufferStructure(*shape)
            internals["dH"] = BufferStructure(*shape, is_backward_only=True)
        return outputs, parameters, internals

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        x, y, H = self.images(buffers)
        W, *biases = buffers.parameters
        bias = biases[0] if biases else buffers.internals.zero_bias
        if not biases:
            self.handler.fill(bias, 0.0)
        where = self.padding, self.stride
        if self.activation in FROM_INPUT:
            self.handler.conv2d_forward_batch(x, W, bias, H, *where)
            self.handler.act_func[self.activation](H, y)
        else:
            self.handler.conv2d_forward_batch(x, W, bias, y, *where, self.activation)

    def backward_pass(self, buffers: BufferView) -> None:
        x, y, H = self.images(buffers)
        dy, dx, dH = self.delta_images(buffers)
        dW, *dbiases = buffers.gradients
        dbias = dbiases[0] if dbiases else self.handler.scratch((dW.shape[0],), 23)
        if not dbiases:
            self.handler.fill(dbias, 0.0)
        activation = self.activation
        if activation in FROM_INPUT:
            self.handler.act_func_deriv[activation](H, y, dy, dH)
            dy, activation = dH, "linear"
        self.handler.conv2d_backward_batch(
            x,
            buffers.parameters.W,
            self.padding,
            self.stride,
            None if "default" in self.unwanted else dx,
            dy,
            dW,
            dbias,
            activation,
            y,
            fresh_in_deltas="default" in self.fresh,
            fresh_gradients="gradients" in self.fresh,
        )
