"""What the layers with learned kernels have in common."""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.operations.activations import FROM_INPUT
from brainstorm.layers.base_layer import BufferStructure, Layer
from brainstorm.layers.rows import Rows
from brainstorm.literals import Activation
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup


class ConvolutionLayer(Layer):
    """Base of layers with kernels W, a bias unless left out, and an activation.

    Attributes:
        operation: What the handler's operations begin with.
    """

    operation = "conv2d"

    num_filters: int
    padding: Any
    stride: Any
    dilation: Any
    groups: int
    activation: Activation
    bias: bool

    def check_groups(self, channels: int) -> None:
        """Check that channels and kernels can be cut into groups."""
        for what, count in (("channels", channels), ("kernels", self.num_filters)):
            if count % self.groups:
                raise self.error(
                    f"expected 'groups' that divide the {count} {what}, got"
                    f" {self.groups}"
                )

    def structures(self, y: BufferStructure, W: BufferStructure) -> Setup:
        """Structures of all buffers, given those of the outputs and the kernels."""
        bias = BufferStructure(y.feature_shape[-1])
        internals: dict[str, BufferStructure] = {}
        parameters = {"W": W}
        if self.bias:
            parameters["bias"] = bias
        else:
            internals["zero_bias"] = bias
        if self.activation in FROM_INPUT:
            internals["H"] = y
            internals["dH"] = BufferStructure(*y.shape, is_backward_only=True)
        return {"default": y}, parameters, internals

    def geometry(self) -> tuple[Any, dict[str, Any]]:
        """Padding and stride; then dilation and groups, if any, by name."""
        options = {"dilation": self.dilation, "groups": self.groups}
        is_plain = (self.dilation, self.groups) == ((1, 1), 1)
        return (self.padding, self.stride), {} if is_plain else options

    def kernels(self, W: Any) -> Any:
        """W as the operations take it."""
        return W

    def convolve(self, buffers: BufferView, x: Any, y: Any, H: Any) -> None:
        """The forward pass, for images."""
        forward = getattr(self.handler, f"{self.operation}_forward_batch")
        W, *bias = buffers.parameters
        if not bias:
            bias = [buffers.internals.zero_bias]
            self.handler.fill(bias[0], 0.0)
        where, options = self.geometry()
        if self.activation in FROM_INPUT:
            forward(x, self.kernels(W), *bias, H, *where, **options)
            self.handler.act_func[self.activation](H, y)
        else:
            forward(x, self.kernels(W), *bias, y, *where, self.activation, **options)

    def convolve_back(
        self, buffers: BufferView, images: Any, deltas: Any, fresh: bool
    ) -> None:
        """The backward pass, for x, y and H, and for dy, dx (or None) and dH."""
        (x, y, H), (dy, dx, dH) = images, deltas
        dW, *dbias = buffers.gradients
        if not dbias:
            dbias = [self.handler.scratch(buffers.internals.zero_bias.shape, 23)]
            self.handler.fill(dbias[0], 0.0)
        activation = self.activation
        if activation in FROM_INPUT:
            self.handler.act_func_deriv[activation](H, y, dy, dH)
            dy, activation = dH, "linear"
        where, options = self.geometry()
        getattr(self.handler, f"{self.operation}_backward_batch")(
            *(x, self.kernels(buffers.parameters.W), *where, dx, dy),
            *(self.kernels(dW), *dbias, activation, y),
            fresh_in_deltas=fresh,
            fresh_gradients="gradients" in self.fresh,
            **options,
        )


class ImageConvolutionLayer(ConvolutionLayer):
    """Base of those that work on each image as a whole."""

    images: Rows
    delta_images: Rows

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        """Convolve all images."""
        self.convolve(buffers, *self.images(buffers))

    def backward_pass(self, buffers: BufferView) -> None:
        """Add to gradients and deltas."""
        dy, dx, dH = self.delta_images(buffers)
        deltas = dy, None if "default" in self.unwanted else dx, dH
        fresh = "default" in self.fresh
        self.convolve_back(buffers, self.images(buffers), deltas, fresh)
