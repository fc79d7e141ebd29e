"""Handlers that were written for the operations of brainstorm 0.5.

There convolution and pooling had no activation functions, always added to gradients and
always computed input deltas.
"""

# Operations are documented in `operations`.

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from brainstorm.handlers.operations.images import ImageOperations


def adapt(cls: type) -> None:
    """Give the operations that a class defines the arguments that are new since 0.5."""
    for name, (argument, adapter) in ADAPTERS.items():
        operation = vars(cls).get(name)
        if inspect.isfunction(operation) and not _takes(operation, argument):
            adapted = functools.wraps(operation)(adapter(operation))
            adapted.__signature__ = inspect.signature(getattr(ImageOperations, name))
            setattr(cls, name, adapted)


def _takes(operation: Callable, argument: str) -> bool:
    parameters = inspect.signature(operation).parameters
    kinds = [parameter.kind for parameter in parameters.values()]
    return argument in parameters or inspect.Parameter.VAR_KEYWORD in kinds


def _convolution(operation: Callable) -> Callable:
    def conv2d_forward_batch(
        self: Any,
        inputs: Any,
        weights: Any,
        bias: Any,
        outputs: Any,
        padding: int,
        stride: tuple[int, int],
        activation: str = "linear",
    ) -> None:
        operation(self, inputs, weights, bias, outputs, padding, stride)
        if activation != "linear":
            self.act_func[activation](outputs, outputs)

    return conv2d_forward_batch


def _convolution_deltas(operation: Callable) -> Callable:
    def conv2d_backward_batch(
        self: Any,
        inputs: Any,
        weights: Any,
        padding: int,
        stride: tuple[int, int],
        in_deltas: Any,
        out_deltas: Any,
        weight_deltas: Any,
        bias_deltas: Any,
        activation: str = "linear",
        outputs: Any = None,
        fresh_in_deltas: bool = False,
        fresh_gradients: bool = False,
    ) -> None:
        if activation != "linear":
            deltas = self.scratch(out_deltas.shape, 2)
            self.act_func_deriv[activation](outputs, outputs, out_deltas, deltas)
            out_deltas = deltas
        if in_deltas is None:
            in_deltas, fresh_in_deltas = self.scratch(inputs.shape, 3), True
        if fresh_in_deltas:
            self.fill(in_deltas, 0.0)
        if fresh_gradients:
            self.clear(weight_deltas, bias_deltas)
        operation(
            *(self, inputs, weights, padding, stride),
            *(in_deltas, out_deltas, weight_deltas, bias_deltas),
        )

    return conv2d_backward_batch


def _pooling_deltas(operation: Callable) -> Callable:
    signature = inspect.signature(operation)

    def pool2d_backward_batch(
        self: Any, *args: Any, fresh_in_deltas: bool = False, **kwargs: Any
    ) -> None:
        expected = len(signature.parameters) - 1
        if len(args) > expected:
            args, (fresh_in_deltas,) = args[:expected], args[expected:]
        if fresh_in_deltas:
            arguments = signature.bind(self, *args, **kwargs).arguments
            self.fill(arguments["in_deltas"], 0.0)
        operation(self, *args, **kwargs)

    return pool2d_backward_batch


ADAPTERS: dict[str, tuple[str, Callable[[Callable], Callable]]] = {
    "conv2d_forward_batch": ("activation", _convolution),
    "conv2d_backward_batch": ("activation", _convolution_deltas),
    "maxpool2d_backward_batch": ("fresh_in_deltas", _pooling_deltas),
    "avgpool2d_backward_batch": ("fresh_in_deltas", _pooling_deltas),
}
"""For each operation an argument that it did not have, and what gives it that."""
