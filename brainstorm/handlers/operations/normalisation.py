"""Batch and layer normalisation."""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.operations.contract import in_range, operation
from brainstorm.handlers.operations.products import ProductOperations

__all__ = ["NormalisationOperations"]


class NormalisationOperations(ProductOperations):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation(
        "x:M,C gamma:C beta:C",
        "sigma_b:C centered:M,C x_hat:M,C y:M,C",
        add="mu:C sigma:C",
        check=in_range("decay", 0, 1),
    )
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
        """Training pass of batch normalisation over the rows.

        Ioffe and Szegedy, *Batch normalization*, 2015. With the mean m over the
        rows: ``centered = x - m``, ``sigma_b = sqrt(mean(centered^2) + epsilon)``,
        ``x_hat = centered / sigma_b``, ``y = gamma x_hat + beta``.

        Args:
            mu: (C,), running negative mean: becomes decay mu - (1 - decay) m.
            sigma: (C,), running deviation: decay sigma + (1 - decay) sigma_b.
            sigma_b: (C,), receives the standard deviation of this batch.
            decay: How much of the running values to keep, in [0, 1].
            epsilon: Positive number that keeps the deviation off zero.
        """
        rows = (1, x.shape[1])
        per_row = 1.0 / max(x.shape[0], 1)
        mean, mu, sigma = self.scratch(rows, 2), mu.reshape(rows), sigma.reshape(rows)
        sigma_b = sigma_b.reshape(rows)
        self.sum_t(x, 0, mean)
        self.mult_st(-per_row, mean, mean)
        self.mult_st(decay, mu, mu)
        self.mult_add_st(1.0 - decay, mean, mu)
        self.add_mv(x, mean, centered)
        self.mult_tt(centered, centered, x_hat)
        self.sum_t(x_hat, 0, sigma_b)
        self.mult_st(per_row, sigma_b, sigma_b)
        self.add_st(epsilon, sigma_b, sigma_b)
        self.sqrt_t(sigma_b, sigma_b)
        self.mult_st(decay, sigma, sigma)
        self.mult_add_st(1.0 - decay, sigma_b, sigma)
        self.divide_mv(centered, sigma_b, x_hat)
        self.mult_mv(x_hat, gamma.reshape(rows), y)
        self.add_mv(y, beta.reshape(rows), y)

    @operation("x:M,C gamma:C beta:C mu:C sigma:C", "y:M,C", alias="x")
    def batch_norm_inference(
        self, x: Any, gamma: Any, beta: Any, mu: Any, sigma: Any, y: Any
    ) -> None:
        """``y = gamma (x + mu) / sigma + beta`` with the running values.

        Args:
            mu: (C,), running negative mean.
            sigma: (C,), running deviation.
        """
        rows = (1, x.shape[1])
        factor = self.scratch(rows, 2)
        self.divide_tt(gamma.reshape(rows), sigma.reshape(rows), factor)
        self.add_mv(x, mu.reshape(rows), y)
        self.mult_mv(y, factor, y)
        self.add_mv(y, beta.reshape(rows), y)

    @operation(
        "gamma:C sigma_b:C centered:M,C x_hat:M,C dy:M,C",
        add="dx:M,C dgamma:C dbeta:C",
        optional="dx",
    )
    def batch_norm_backward(
        self,
        gamma: Any,
        sigma_b: Any,
        centered: Any,
        x_hat: Any,
        dy: Any,
        dx: Any,
        dgamma: Any,
        dbeta: Any,
        fresh_dx: bool = False,
        fresh_gradients: bool = False,
    ) -> None:
        """Backward pass of :meth:`batch_norm_forward`.

        ``dx (+)= gamma / sigma_b (dy - mean(dy) - x_hat mean(dy x_hat))``
        """
        arrays = (gamma, sigma_b, centered, x_hat, dy, dx, dgamma, dbeta)
        self._batch_norm_back(arrays, fresh_dx, fresh_gradients)

    def _batch_norm_back(self, arrays, fresh_dx, fresh_gradients) -> None:
        gamma, sigma_b, _, x_hat, dy, dx, dgamma, dbeta = arrays
        rows = (1, dy.shape[1])
        dgamma, dbeta = dgamma.reshape(rows), dbeta.reshape(rows)
        s_gamma = dgamma if fresh_gradients else self.scratch(rows, 2)
        s_beta = dbeta if fresh_gradients else self.scratch(rows, 3)
        work = dx if fresh_dx and dx is not None else self.scratch(dy.shape, 4)
        self.mult_tt(dy, x_hat, work)
        self.sum_t(work, 0, s_gamma)
        self.sum_t(dy, 0, s_beta)
        if not fresh_gradients:
            self.add_tt(s_gamma, dgamma, dgamma)
            self.add_tt(s_beta, dbeta, dbeta)
        if dx is None:
            return
        means = self.scratch(rows, 5)
        per_row = 1.0 / max(dy.shape[0], 1)
        self.mult_st(-per_row, s_gamma, means)
        self.mult_mv(x_hat, means, work)
        self.add_tt(dy, work, work)
        self.mult_st(-per_row, s_beta, means)
        self.add_mv(work, means, work)
        self.divide_tt(gamma.reshape(rows), sigma_b.reshape(rows), means)
        if work is dx:
            self.mult_mv(work, means, dx)
        else:
            self.mult_add_mv(work, means, dx)

    @operation("x:M,C gamma:C beta:C", "mean:M,1 sigma:M,1 y:M,C")
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
        """Layer normalisation: each row on its own.

        Ba et al., *Layer normalization*, 2016. With the mean m of a row:
        ``sigma = sqrt(mean((x - m)^2) + epsilon)``, ``x_hat = (x - m) / sigma``,
        ``y = gamma x_hat + beta``.
        """
        per_row = 1.0 / max(x.shape[1], 1)
        columns = (1, x.shape[1])
        self.sum_t(x, 1, mean)
        self.mult_st(per_row, mean, mean)
        self.subtract_mv(x, mean, y)
        squares = self.scratch(tuple(x.shape), 4)
        self.mult_tt(y, y, squares)
        self.sum_t(squares, 1, sigma)
        self.mult_st(per_row, sigma, sigma)
        self.add_st(epsilon, sigma, sigma)
        self.sqrt_t(sigma, sigma)
        self.divide_mv(y, sigma, y)
        self.mult_mv(y, gamma.reshape(columns), y)
        self.add_mv(y, beta.reshape(columns), y)

    @operation(
        "x:M,C gamma:C mean:M,1 sigma:M,1 dy:M,C",
        add="dx:M,C dgamma:C dbeta:C",
        optional="dx",
    )
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
        """Backward pass of :meth:`layer_norm_forward`.

        ``dx (+)= (d - mean(d) - x_hat mean(d x_hat)) / sigma`` with ``d = gamma dy``
        and means over the row.
        """
        rows, columns = dy.shape
        x_hat, work = self._normalised(x, mean, sigma), self.scratch(tuple(dy.shape), 4)
        self.mult_tt(dy, x_hat, work)
        self._sum_rows(work, dgamma, fresh_gradients)
        self._sum_rows(dy, dbeta, fresh_gradients)
        if dx is None:
            return
        deltas = self.scratch((rows, columns), 5)
        self.mult_mv(dy, gamma.reshape((1, columns)), deltas)
        means = self.scratch((rows, 1), 3)
        self.mult_tt(deltas, x_hat, work)
        self.sum_t(work, 1, means)
        self.mult_st(-1.0 / max(columns, 1), means, means)
        self.mult_mv(x_hat, means, work)
        self.sum_t(deltas, 1, means)
        self.mult_st(-1.0 / max(columns, 1), means, means)
        self.add_mv(work, means, work)
        self.add_tt(work, deltas, work)
        self.divide_mv(work, sigma, work)
        if fresh_dx:
            self.copy_to(work, dx)
        else:
            self.add_tt(work, dx, dx)

    def _normalised(self, x, mean, sigma) -> Any:
        """x_hat, in a temporary."""
        x_hat = self.scratch(tuple(x.shape), 6)
        self.subtract_mv(x, mean, x_hat)
        self.divide_mv(x_hat, sigma, x_hat)
        return x_hat
