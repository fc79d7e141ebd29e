"""Activation functions on a GPU."""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.cuda.leaves import CudaLeaves
from brainstorm.handlers.operations.activations import FROM_INPUT, ActivationOperations


class CudaActivations(CudaLeaves, ActivationOperations):
    """Part of PyCudaHandler."""

    def _deriv(
        self, activation: str, x: Any, y: Any, dy: Any, dx: Any, fresh: bool
    ) -> None:
        if activation in FROM_INPUT:
            y = x
        if activation == "linear":
            if not fresh:
                self._elementwise("add_tt", (dy, dx, dx))
            elif dy is not dx:
                self._elementwise("copy_to", (dy, dx))
        elif fresh:
            self._elementwise(activation + "_deriv", (y, dy, dx))
        else:
            self._elementwise(activation + "_deriv_add", (y, dy, dx))

    def _add_bias(self, h, bias, y, activation) -> None:
        """``h += bias; y = act(h)``, the latter unless `y` is None."""
        if y is None or activation == "linear":
            self._elementwise("add_tt", (h, bias, h))
            if y is not None:
                self._elementwise("copy_to", (h, y))
        else:
            self._elementwise(activation + "_biased", (h, bias, y))
