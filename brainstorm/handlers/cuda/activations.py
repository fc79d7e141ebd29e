"""Activation functions on a GPU."""

# Operations are documented in `operations`.
# ruff: noqa: D102

from __future__ import annotations

from brainstorm.handlers.cuda.arrays import CudaArray
from brainstorm.handlers.cuda.launcher import Launcher
from brainstorm.handlers.operations.activations import FROM_INPUT

__all__ = ["CudaActivations"]


class CudaActivations:
    """Part of PyCudaHandler."""

    _gpu: Launcher

    def rel(self, x, y):
        self._gpu.elementwise("rel_forward", (x, y))

    def rel_deriv(self, x, y, dy, dx):
        self._gpu.elementwise("rel_deriv", (y, dy, dx))

    def tanh(self, x, y):
        self._gpu.elementwise("tanh_forward", (x, y))

    def tanh_deriv(self, x, y, dy, dx):
        self._gpu.elementwise("tanh_deriv", (y, dy, dx))

    def sigmoid(self, x, y):
        self._gpu.elementwise("sigmoid_forward", (x, y))

    def sigmoid_deriv(self, x, y, dy, dx):
        self._gpu.elementwise("sigmoid_deriv", (y, dy, dx))

    def el(self, x, y):
        self._gpu.elementwise("el_forward", (x, y))

    def el_deriv(self, x, y, dy, dx):
        self._gpu.elementwise("el_deriv", (y, dy, dx))

    def softplus(self, x, y):
        self._gpu.elementwise("softplus_forward", (x, y))

    def softplus_deriv(self, x, y, dy, dx):
        self._gpu.elementwise("softplus_deriv", (y, dy, dx))

    def leaky_rel(self, x, y):
        self._gpu.elementwise("leaky_rel_forward", (x, y))

    def leaky_rel_deriv(self, x, y, dy, dx):
        self._gpu.elementwise("leaky_rel_deriv", (y, dy, dx))

    def gelu(self, x, y):
        self._gpu.elementwise("gelu_forward", (x, y))

    def gelu_deriv(self, x, y, dy, dx):
        self._gpu.elementwise("gelu_deriv", (x, dy, dx))

    def swish(self, x, y):
        self._gpu.elementwise("swish_forward", (x, y))

    def swish_deriv(self, x, y, dy, dx):
        self._gpu.elementwise("swish_deriv", (x, dy, dx))

    def act_backward(self, x, y, dy, dx, activation, fresh_dx=False):
        self._deriv(activation, x, y, dy, dx, fresh_dx)

    def _deriv(
        self,
        activation: str,
        x: CudaArray | None,
        y: CudaArray,
        dy: CudaArray,
        dx: CudaArray,
        fresh: bool,
    ) -> None:
        if activation in FROM_INPUT:
            y = x
        gpu = self._gpu
        if activation == "linear":
            if not fresh:
                gpu.elementwise("add_tt", (dy, dx, dx))
            elif dy is not dx:
                gpu.elementwise("copy_to", (dy, dx))
        elif fresh:
            gpu.elementwise(activation + "_deriv", (y, dy, dx))
        else:
            gpu.elementwise(activation + "_deriv_add", (y, dy, dx))

    def _add_bias(
        self, h: CudaArray, bias: CudaArray, y: CudaArray | None, activation: str
    ) -> None:
        """``h += bias; y = act(h)``, the latter unless `y` is None."""
        if y is None or activation == "linear":
            self._gpu.elementwise("add_tt", (h, bias, h))
            if y is not None:
                self._gpu.elementwise("copy_to", (h, y))
        else:
            self._gpu.elementwise(activation + "_biased", (h, bias, y))
