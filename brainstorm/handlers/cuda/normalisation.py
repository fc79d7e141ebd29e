"""Normalisation of batches and of rows for PyCudaHandler.

The former consists of sums over columns, and of kernels between them.
"""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.cuda.products import CudaProducts
from brainstorm.handlers.operations.normalisation import NormalisationOperations


class CudaNormalisation(CudaProducts, NormalisationOperations):
    """Part of PyCudaHandler."""

    def batch_norm_forward(
        self,
        x: Any,
        gamma: Any,
        beta: Any,
        mu: Any,
        sigma: Any,
        sigma_b: Any,
        centered: Any,
        x_hat: Any,
        y: Any,
        decay: float,
        epsilon: float,
    ) -> None:
        run = self._elementwise
        sums, mean = self.scratch(gamma.shape, 2), self.scratch(gamma.shape, 3)
        factors = (1.0 / max(x.shape[0], 1), decay, 1.0 - decay)
        self._sum_columns(x, None, sums)
        run("batch_norm_mean", (sums, mean, mu), *factors)
        run("subtract_tt", (x, mean, centered))
        self._sum_columns(centered, centered, sums)
        run("batch_norm_deviation", (sums, sigma_b, sigma), *factors, epsilon)
        run("batch_norm_scale", (centered, sigma_b, x_hat, gamma, beta, y))

    def _batch_norm_back(self, arrays, fresh_dx, fresh_gradients) -> None:
        gamma, sigma_b, _, x_hat, dy, dx, dgamma, dbeta = arrays
        run = self._elementwise
        sum_gamma, sum_beta = dgamma, dbeta
        if not fresh_gradients:
            sum_gamma = self.scratch(gamma.shape, 2)
            sum_beta = self.scratch(gamma.shape, 3)
        self._sum_columns(dy, x_hat, sum_gamma)
        self._sum_columns(dy, None, sum_beta)
        if not fresh_gradients:
            run("add_tt", (sum_gamma, dgamma, dgamma))
            run("add_tt", (sum_beta, dbeta, dbeta))
        if dx is not None:
            factor = self.scratch(gamma.shape, 4)
            run("divide_tt", (gamma, sigma_b, factor))
            name = "batch_norm_backward" + ("_fresh" if fresh_dx else "")
            per_row = 1.0 / max(dy.shape[0], 1)
            run(name, (dy, x_hat, sum_gamma, sum_beta, factor, dx), per_row)

    def layer_norm_forward(
        self,
        x: Any,
        gamma: Any,
        beta: Any,
        mean: Any,
        sigma: Any,
        y: Any,
        epsilon: float,
    ) -> None:
        arguments = (x, gamma, beta, mean, sigma, y, *x.shape, epsilon)
        self._launch_by_rows("layer_norm_forward", x.shape, *arguments)

    def layer_norm_backward(
        self,
        x: Any,
        gamma: Any,
        mean: Any,
        sigma: Any,
        dy: Any,
        dx: Any,
        dgamma: Any,
        dbeta: Any,
        fresh_dx: bool = False,
        fresh_gradients: bool = False,
    ) -> None:
        x_hat = self._normalised(x, mean, sigma)
        self._sum_columns(dy, x_hat, dgamma, add=not fresh_gradients)
        self._sum_columns(dy, None, dbeta, add=not fresh_gradients)
        if dx is not None:
            arguments = (gamma, sigma, x_hat, dy, dx, *dy.shape, fresh_dx)
            self._launch_by_rows("layer_norm_backward", dy.shape, *arguments)
