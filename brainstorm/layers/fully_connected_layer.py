"""Every output is connected to every input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from brainstorm.checks import Argument, is_whole
from brainstorm.layers._stepwise_layer import StepwiseLayer
from brainstorm.layers.arguments import Check, arguments_of
from brainstorm.layers.base_layer import BufferStructure, ConstructionWrapper
from brainstorm.layers.rows import Rows
from brainstorm.literals import Activation
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.layer import Setup, Structures


def FullyConnected(
    size: int | Sequence[int] | None = None,
    activation: Activation = "rel",
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
    return ConstructionWrapper.create(FullyConnectedLayerImpl, **locals())


def _shape(size: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(size) if isinstance(size, Sequence) else (size,)


def _is_shape(shape: tuple[Any, ...]) -> bool:
    return len(shape) > 0 and all(is_whole(n, 1) for n in shape)


class FullyConnectedLayerImpl(StepwiseLayer):
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

    Linear layers have no internals: H would equal y. Where no backward pass follows, H
    may be left out until somebody reads it.

    Raises:
        LayerValidationError: An argument is not as in `FullyConnected`.
    """

    size: int | Sequence[int] | None
    activation: Activation
    bias: bool

    arguments: Mapping[str, Argument] = arguments_of(
        FullyConnected,
        size=Check(
            lambda size: size is None or _is_shape(_shape(size)),
            "a positive integer, a shape or None",
        ),
    )
    overwrites: Mapping[str, str] = {"dH": "default"}
    repeats = True

    rows: Rows = Rows("inputs.default", writes=["outputs.default", "internals.H"])
    delta_rows: Rows = Rows(
        "output_deltas.default", writes=["input_deltas.default", "internals.dH"]
    )

    def setup(self, kwargs: dict[str, Any], in_shapes: Structures) -> Setup:
        x, size = in_shapes["default"], self.size
        in_shape = x.feature_shape
        out_shape = in_shape if size is None else tuple(map(int, _shape(size)))
        n, i = math.prod(out_shape), math.prod(in_shape)
        self.size = n if size is None else size
        outputs = {"default": self.like(x, *out_shape)}
        parameters = {"W": BufferStructure(n, i)}
        if self.bias:
            parameters["bias"] = BufferStructure(n)
        internals = {}
        if self.activation != "linear":
            H = self.like(x, n)
            dH = BufferStructure(*H.shape, is_backward_only=True)
            internals = {"H": H, "dH": dH}
            self.can_leave_out: Sequence[str] = ("H",)
        return outputs, parameters, internals

    def forward_pass(self, buffers: BufferView, training_pass: bool = True) -> None:
        x, y, H = self.rows(buffers)
        W, bias = _with_bias(buffers.parameters)
        if H is None or self.keeps_internals:
            self.handler.affine(x, W, bias, H, y, self.activation)
        else:
            self.handler.affine(x, W, bias, None, y, "linear")
            self.handler.inplace_act_func[self.activation](y)

    def backward_pass(self, buffers: BufferView) -> None:
        x, y, H = self.rows(buffers)
        dy, dx, dH = self.delta_rows(buffers)
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
