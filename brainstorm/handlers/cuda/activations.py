"""Activation functions on a GPU."""

from __future__ import annotations

from brainstorm.handlers.cuda.arrays import CudaArray
from brainstorm.handlers.operations.activations import (
    FROM_INPUT,
    FUNCTIONS,
    give_methods,
)


class CudaActivations:
    """Part of PyCudaHandler."""

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


def _give_methods(name: str) -> None:
    def apply(h: CudaActivations, x: CudaArray, y: CudaArray) -> None:
        h._gpu.elementwise(f"{name}_forward", (x, y))

    def derive(
        h: CudaActivations, source: CudaArray, dy: CudaArray, dx: CudaArray
    ) -> None:
        h._gpu.elementwise(f"{name}_deriv", (source, dy, dx))

    give_methods(CudaActivations, name, apply, derive)


for _name in FUNCTIONS:
    _give_methods(_name)
