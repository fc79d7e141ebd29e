"""The operations on images."""

# Operations are documented in PrimitiveOperations.
# ruff: noqa: D102

from __future__ import annotations

import math
from typing import Any

import numpy as np

from brainstorm.handlers.onednn import elementwise, images
from brainstorm.handlers.onednn.binding import Algorithm
from brainstorm.handlers.onednn.session import Call
from brainstorm.handlers.programs import whole

__all__ = ["ImageOperations"]


class ImageOperations:
    """Mixin of a handler."""

    @whole
    def conv2d_forward_batch(
        self, inputs, weights, bias, outputs, padding, stride, activation="linear"
    ):
        is_fused = activation in images.FUSED
        call = self._find(
            images.convolution,
            (inputs, weights, bias, outputs),
            padding,
            tuple(stride),
            activation if is_fused else "linear",
        )
        if call:
            call()
            if not is_fused:
                self.act_func[activation](outputs, outputs)
        else:
            super().conv2d_forward_batch(
                inputs, weights, bias, outputs, padding, stride, activation
            )

    @whole
    def conv2d_backward_batch(
        self,
        inputs,
        weights,
        padding,
        stride,
        in_deltas,
        out_deltas,
        weight_deltas,
        bias_deltas,
        activation="linear",
        outputs=None,
        fresh_in_deltas=False,
        fresh_gradients=False,
    ):
        is_fused = activation in images.FUSED
        if not (is_fused and elementwise.derives_safely(activation, outputs)):
            deltas = self.scratch(out_deltas.shape, "deltas")
            self.act_func_deriv[activation](outputs, outputs, out_deltas, deltas)
            out_deltas, activation = deltas, "linear"
        deltas = in_deltas, out_deltas, weight_deltas, bias_deltas
        call = self._find(
            images.convolution_backward,
            (inputs, weights, *deltas, outputs),
            padding,
            tuple(stride),
            activation,
            fresh_in_deltas,
            fresh_gradients,
        )
        if call:
            call()
        else:
            super().conv2d_backward_batch(
                inputs, weights, padding, stride, *deltas, activation, outputs,
                fresh_in_deltas, fresh_gradients,
            )  # fmt: skip

    def _pooling(
        self,
        kind: Algorithm,
        inputs: np.ndarray,
        outputs: np.ndarray,
        window: Any,
        padding: int,
        stride: Any,
    ) -> Call | bool:
        call = self._find(
            images.pooling,
            (inputs, outputs),
            tuple(window),
            padding,
            tuple(stride),
            kind,
        )
        if call:
            call()
        return call

    @whole
    def maxpool2d_forward_batch(self, inputs, window, outputs, padding, stride, argmax):
        kind = Algorithm.POOLING_MAX
        # The library drops NaN.
        call = inputs.size and not math.isnan(np.maximum.reduce(inputs, None))
        call = call and self._pooling(kind, inputs, outputs, window, padding, stride)
        if call:
            np.copyto(argmax, call.values)
        else:
            super().maxpool2d_forward_batch(
                inputs, window, outputs, padding, stride, argmax
            )

    @whole
    def avgpool2d_forward_batch(self, inputs, window, outputs, padding, stride):
        kind = Algorithm.POOLING_AVG
        if not self._pooling(kind, inputs, outputs, window, padding, stride):
            super().avgpool2d_forward_batch(inputs, window, outputs, padding, stride)

    @whole
    def maxpool2d_backward_batch(
        self,
        inputs,
        window,
        outputs,
        padding,
        stride,
        argmax,
        in_deltas,
        out_deltas,
        fresh_in_deltas=False,
    ):
        call = self._find(
            images.pooling_backward,
            (in_deltas, out_deltas),
            tuple(window),
            padding,
            tuple(stride),
            Algorithm.POOLING_MAX,
            fresh_in_deltas,
        )
        if call:
            np.copyto(call.values, argmax, casting="unsafe")
            call()
        else:
            super().maxpool2d_backward_batch(
                inputs, window, outputs, padding, stride, argmax,
                in_deltas, out_deltas, fresh_in_deltas,
            )  # fmt: skip

    @whole
    def avgpool2d_backward_batch(
        self,
        inputs,
        window,
        outputs,
        padding,
        stride,
        in_deltas,
        out_deltas,
        fresh_in_deltas=False,
    ):
        call = self._find(
            images.pooling_backward,
            (in_deltas, out_deltas),
            tuple(window),
            padding,
            tuple(stride),
            Algorithm.POOLING_AVG,
            fresh_in_deltas,
        )
        if call:
            call()
        else:
            super().avgpool2d_backward_batch(
                inputs, window, outputs, padding, stride,
                in_deltas, out_deltas, fresh_in_deltas,
            )  # fmt: skip
