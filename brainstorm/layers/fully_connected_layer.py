"""Every output is connected to every input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from brainstorm.layers.base_layer import Layer, is_whole, once_per_resize, options
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.utils import flatten_time_and_features

__all__ = ["FullyConnected", "FullyConnectedLayerImpl"]


def FullyConnected(
    size: int | Sequence[int] | None = None,
    activation: str = "rel",
    name: str | None = None,
    *,
    bias: bool = True,
    trainable: bool = True,
) -> ConstructionWrapper:
    """A layer that connects every output with every input.

    Args:
        size: Number of units, or shape of the output. None keeps the shape of
            the input.
        activation: Activation function.
        name: Name of the layer.
        bias: Whether there is a bias.
        trainable: Whether training changes the parameters.
    """
    return ConstructionWrapper.create(
        FullyConnectedLayerImpl,
        name=name,
        trainable=trainable,
        activation=activation,
        **options(size=(size, None), bias=(bias, True)),
    )


class FullyConnectedLayerImpl(Layer):
    """Computes ``y = act(x W^T + bias)`` at every time step.

    With i the flattened size of the input and n that of the output:

    =========== ======== ===================== ==============================
    buffer      name     shape                 content
    =========== ======== ===================== ==============================
    inputs      default  (T, B, ...)           x
    outputs     default  (T, B, n) or `size`   y
    parameters  W        (n, i)                weights, a row for each unit
    parameters  bias     (n,)                  bias, unless left out
    internals   H        (T, B, n)             pre-activations
    internals   dH       (T, B, n), backward   their deltas
    =========== ======== ===================== ==============================

    Linear layers have no internals: H would equal y.

    Raises:
        LayerValidationError: An argument is not as in `FullyConnected`.
    """

    expected_inputs = {"default": StructureTemplate("T", "B", "...")}
    expected_kwargs = frozenset({"size", "activation", "bias"})
    honours_fresh = True
    repeats = True

    def setup(self, kwargs, in_shapes):
        self.activation = self.activation_argument("rel")
        in_shape = in_shapes["default"].feature_shape
        size = self.argument(
            "size",
            None,
            lambda size: size is None or _is_shape(_shape(size)),
            "a positive integer, a shape or None",
        )
        out_shape = in_shape if size is None else tuple(map(int, _shape(size)))
        self.size = math.prod(out_shape) if size is None else size
        n, i = math.prod(out_shape), math.prod(in_shape)

        outputs = {"default": BufferStructure("T", "B", *out_shape)}
        parameters = {"W": BufferStructure(n, i)}
        if self.bias_argument():
            parameters["bias"] = BufferStructure(n)
        internals = {}
        if self.activation != "linear":
            internals = {
                "H": BufferStructure("T", "B", n),
                "dH": BufferStructure("T", "B", n, is_backward_only=True),
            }
        return outputs, parameters, internals

    @once_per_resize
    def matrices(self, buffers):
        """x, y and H with one row for every step of every sequence."""
        x = flatten_time_and_features(buffers.inputs.default)
        y = flatten_time_and_features(buffers.outputs.default)
        if self.activation == "linear":
            return x, y, None
        return x, y, flatten_time_and_features(buffers.internals.H)

    @once_per_resize
    def delta_matrices(self, buffers):
        """The deltas of x, y and H, likewise."""
        dx = flatten_time_and_features(buffers.input_deltas.default)
        dy = flatten_time_and_features(buffers.output_deltas.default)
        if self.activation == "linear":
            return dx, dy, None
        return dx, dy, flatten_time_and_features(buffers.internals.dH)

    def forward_pass(self, buffers, training_pass=True):
        x, y, H = self.matrices(buffers)
        W, bias = _with_bias(buffers.parameters)
        self.handler.affine(x, W, bias, H, y, self.activation)

    def backward_pass(self, buffers):
        x, y, H = self.matrices(buffers)
        dx, dy, dH = self.delta_matrices(buffers)
        dW, dbias = _with_bias(buffers.gradients)
        self.handler.affine_backward(
            x,
            buffers.parameters.W,
            H,
            y,
            dy,
            dH,
            None if "default" in self.unwanted else dx,
            dW,
            dbias,
            self.activation,
            fresh_dx="default" in self.fresh,
            fresh_gradients="gradients" in self.fresh,
        )


def _with_bias(view: Any) -> tuple[Any, Any]:
    """W and bias, or their gradients; None for a bias that there is not."""
    W, *bias = view
    return W, bias[0] if bias else None


def _shape(size: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(size) if isinstance(size, Sequence) else (size,)


def _is_shape(shape: tuple[Any, ...]) -> bool:
    return len(shape) > 0 and all(is_whole(n, 1) for n in shape)
