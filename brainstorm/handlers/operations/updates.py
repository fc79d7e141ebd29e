"""Updates of parameters."""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.operations.contract import in_range, operation
from brainstorm.handlers.operations.products import ProductOperations
from brainstorm.handlers.programs import sqrt

__all__ = ["UpdateOperations"]

NEWTON_SCHULZ = 3.4445, -4.7750, 2.0315
"""``x = a x + b x x' x + c x x' x x' x`` brings singular values into [0.7, 1.2]."""


class UpdateOperations(ProductOperations):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`.

    Parameters, gradients and what is kept of these are flat arrays of one length.
    """

    @operation("gradients:N", add="parameters:N")
    def sgd_update(self, parameters: Any, gradients: Any, learning_rate: float) -> None:
        """``parameters -= learning_rate gradients``, flat arrays of one length."""
        self.mult_add_st(-learning_rate, gradients, parameters)

    @operation("gradients:N", add="parameters:N velocity:N")
    def momentum_update(
        self,
        parameters: Any,
        gradients: Any,
        velocity: Any,
        learning_rate: float,
        momentum: float,
    ) -> None:
        """One step of gradient descent with momentum.

        ``velocity = momentum velocity - learning_rate gradients``;
        ``parameters += velocity``
        """
        rate, momentum = self.number(-learning_rate), self.number(momentum)
        for p, g, v in self._pieces(parameters, gradients, velocity):
            self.mult_st(momentum, v, v)
            self.mult_add_st(rate, g, v)
            self.add_tt(v, p, p)

    @operation(add="parameters:N velocity:N")
    def nesterov_ahead(self, parameters: Any, velocity: Any, momentum: float) -> None:
        """The step before the gradient is computed, of Nesterov's momentum.

        ``velocity *= momentum; parameters += velocity``. Sutskever et al., *On
        the importance of initialization and momentum in deep learning*, 2013.
        """
        self.mult_st(momentum, velocity, velocity)
        self.add_tt(velocity, parameters, parameters)

    @operation("gradients:N", add="parameters:N velocity:N")
    def nesterov_correct(
        self, parameters: Any, gradients: Any, velocity: Any, learning_rate: float
    ) -> None:
        """The step with the gradient, after :meth:`nesterov_ahead`.

        ``velocity -= learning_rate gradients``;
        ``parameters -= learning_rate gradients``
        """
        self.mult_add_st(-learning_rate, gradients, velocity)
        self.mult_add_st(-learning_rate, gradients, parameters)

    @operation("gradients:N", add="parameters:N mean:N variance:N")
    def adam_update(
        self,
        parameters: Any,
        gradients: Any,
        mean: Any,
        variance: Any,
        learning_rate: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        weight_decay: float,
        update_nr: int,
    ) -> None:
        """One step of Adam, with decoupled weight decay (AdamW).

        Kingma and Ba, *Adam: a method for stochastic optimization*, 2015;
        Loshchilov and Hutter, *Decoupled weight decay regularization*, 2019::

            mean = beta1 mean + (1 - beta1) gradients
            variance = beta2 variance + (1 - beta2) gradients^2
            m = mean / (1 - beta1^update_nr)
            v = variance / (1 - beta2^update_nr)
            parameters -= learning_rate weight_decay parameters
            parameters -= learning_rate m / (sqrt(v) + epsilon)

        Args:
            update_nr: Number of this update, counted from 1.
        """
        numbers = (learning_rate, beta1, beta2, epsilon, weight_decay, update_nr)
        arrays = (parameters, gradients, mean, variance)
        self._adam_step(arrays, self._adam_factors(*numbers), bool(weight_decay))

    def _adam_step(
        self, arrays: tuple[Any, ...], factors: tuple[Any, ...], decays: bool
    ) -> None:
        keep_m, add_m, keep_v, add_v, epsilon, rate, kept = map(self.number, factors)
        for p, g, m, v in self._pieces(*arrays):
            work = self.scratch(g.shape, 2)
            self.mult_st(keep_m, m, m)
            self.mult_add_st(add_m, g, m)
            self._add_squares(g, v, (keep_v, add_v), work)
            self.sqrt_t(v, work)
            self.add_st(epsilon, work, work)
            self.divide_tt(m, work, work)
            if decays:
                self.mult_st(kept, p, p)
            self.mult_add_st(rate, work, p)

    def _adam_factors(
        self, rate: Any, beta1: Any, beta2: Any, epsilon: Any, decay: Any, update: Any
    ) -> tuple[Any, ...]:
        """What `adam_update` multiplies with, and its epsilon.

        The corrections of both moments are moved into epsilon and the step size.
        """
        correction = sqrt(1.0 - beta2**update)
        self.do(self.plain._check_epsilon, epsilon * correction, epsilon)
        step = -rate * correction / (1.0 - beta1**update)
        shares = (beta1, 1.0 - beta1, beta2, 1.0 - beta2)
        return (*shares, epsilon * correction, step, 1.0 - rate * decay)

    @operation("gradients:N", add="parameters:N mean:N")
    def lion_update(
        self,
        parameters: Any,
        gradients: Any,
        mean: Any,
        learning_rate: float,
        beta1: float,
        beta2: float,
        weight_decay: float,
    ) -> None:
        """One step of Lion.

        Chen et al., *Symbolic discovery of optimization algorithms*, 2023::

            step = sign(beta1 mean + (1 - beta1) gradients)
            parameters -= learning_rate (step + weight_decay parameters)
            mean = beta2 mean + (1 - beta2) gradients
        """
        numbers = (learning_rate, beta1, beta2, weight_decay)
        factors = map(self.number, self._lion_factors(*numbers))
        keep, add, keep_m, add_m, rate, kept = factors
        for p, g, m in self._pieces(parameters, gradients, mean):
            work = self.scratch(g.shape, 2)
            self.mult_st(keep, m, work)
            self.mult_add_st(add, g, work)
            self.sign_t(work, work)
            if weight_decay:
                self.mult_st(kept, p, p)
            self.mult_add_st(rate, work, p)
            self.mult_st(keep_m, m, m)
            self.mult_add_st(add_m, g, m)

    def _lion_factors(
        self, rate: Any, beta1: Any, beta2: Any, decay: Any
    ) -> tuple[Any, ...]:
        """What `lion_update` multiplies with."""
        shares = beta1, 1.0 - beta1, beta2, 1.0 - beta2
        return (*shares, -rate, 1.0 - rate * decay)

    @operation("gradients:M,N", add="parameters:M,N mean:M,N")
    def muon_update(
        self,
        parameters: Any,
        gradients: Any,
        mean: Any,
        learning_rate: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        """One step of Muon, for a matrix of weights.

        Jordan et al., *Muon: an optimizer for hidden layers in neural networks*, 2024.
        ``orthogonal`` brings all singular values near 1, by five Newton-Schulz steps::

            mean = momentum mean + (1 - momentum) gradients
            step = orthogonal(momentum mean + (1 - momentum) gradients)
            parameters -= learning_rate weight_decay parameters
            parameters -= learning_rate sqrt(max(1, M / N)) step
        """
        (rows, cols), add = parameters.shape, 1.0 - momentum
        if not rows * cols:
            return
        step = self.scratch((rows, cols), 31)
        self.mult_st(momentum, mean, mean)
        self.mult_add_st(add, gradients, mean)
        self.mult_st(momentum, mean, step)
        self.mult_add_st(add, gradients, step)
        step = self._orthogonal(step)
        scale = max(1.0, rows / cols) ** 0.5
        if weight_decay:
            self.mult_add_st(weight_decay * (1.0 / scale), parameters, step)
        self.mult_add_st(-learning_rate * scale, step, parameters)

    def _orthogonal(self, x: Any) -> Any:
        """A matrix of the same singular vectors; `x` is used up."""
        rows, cols = x.shape
        small, wide = min(rows, cols), rows <= cols
        other, squares = self.scratch(x.shape, 32), self.scratch((small, small), 33)
        factor, sums = self.scratch((small, small), 34), self.scratch((rows, 1), 35)
        total = self.scratch((1, 1), 36)
        self.mult_tt(x, x, other)
        self.sum_t(other, 1, sums)
        self.sum_t(sums, 0, total)
        self.sqrt_t(total, total)
        self.add_st(1e-7, total, total)
        self.divide_mv(x.reshape((1, rows * cols)), total, x.reshape((1, rows * cols)))
        a, b, c = NEWTON_SCHULZ
        for _ in range(5):
            self.dot_mm(x, x, squares, transa=not wide, transb=wide)
            self.dot_mm(squares, squares, factor)
            self.mult_st(c, factor, factor)
            self.mult_add_st(b, squares, factor)
            self.dot_mm(*((factor, x) if wide else (x, factor)), other)
            self.mult_add_st(a, x, other)
            x, other = other, x
        return x

    @operation("gradients:N", add="parameters:N mean_square:N")
    def rms_prop_update(
        self,
        parameters: Any,
        gradients: Any,
        mean_square: Any,
        learning_rate: float,
        decay: float,
        epsilon: float,
    ) -> None:
        """One step of RMSProp.

        Tieleman and Hinton, *Neural networks for machine learning*, lecture 6e,
        2012::

            mean_square = decay mean_square + (1 - decay) gradients^2
            parameters -= learning_rate gradients / (sqrt(mean_square) + epsilon)
        """
        self.do(self.plain._check_epsilon, epsilon, epsilon)
        arrays = parameters, gradients, mean_square
        self._rms_prop_step(arrays, (decay, 1.0 - decay, epsilon, -learning_rate))

    def _rms_prop_step(self, arrays: tuple[Any, ...], factors: tuple[Any, ...]) -> None:
        *shares, epsilon, rate = map(self.number, factors)
        for p, g, squares in self._pieces(*arrays):
            work = self.scratch(g.shape, 2)
            self._add_squares(g, squares, shares, work)
            self._step_by_root(p, g, squares, rate, epsilon, work)

    @operation("gradients:N", add="parameters:N sum_of_squares:N")
    def ada_grad_update(
        self,
        parameters: Any,
        gradients: Any,
        sum_of_squares: Any,
        learning_rate: float,
        epsilon: float,
    ) -> None:
        """One step of AdaGrad.

        Duchi, Hazan and Singer, *Adaptive subgradient methods*, 2011::

            sum_of_squares += gradients^2
            parameters -= learning_rate gradients / (sqrt(sum_of_squares) + epsilon)
        """
        self.do(self.plain._check_epsilon, epsilon, epsilon)
        arrays = parameters, gradients, sum_of_squares
        self._ada_grad_step(arrays, (epsilon, -learning_rate))

    def _ada_grad_step(self, arrays: tuple[Any, ...], factors: tuple[Any, ...]) -> None:
        epsilon, rate = map(self.number, factors)
        for p, g, squares in self._pieces(*arrays):
            work = self.scratch(g.shape, 2)
            self.mult_add_tt(g, g, squares)
            self._step_by_root(p, g, squares, rate, epsilon, work)

    @operation("gradients:N", add="parameters:N mean_square:N mean_square_step:N")
    def ada_delta_update(
        self,
        parameters: Any,
        gradients: Any,
        mean_square: Any,
        mean_square_step: Any,
        learning_rate: float,
        decay: float,
        epsilon: float,
    ) -> None:
        """One step of AdaDelta.

        Zeiler, *ADADELTA: an adaptive learning rate method*, 2012::

            mean_square = decay mean_square + (1 - decay) gradients^2
            step = gradients sqrt(mean_square_step + epsilon)
                             / sqrt(mean_square + epsilon)
            mean_square_step = decay mean_square_step + (1 - decay) step^2
            parameters -= learning_rate step
        """
        self.do(self.plain._check_epsilon, epsilon, epsilon)
        arrays = parameters, gradients, mean_square, mean_square_step
        self._ada_delta_step(arrays, (decay, 1.0 - decay, epsilon, -learning_rate))

    def _ada_delta_step(
        self, arrays: tuple[Any, ...], factors: tuple[Any, ...]
    ) -> None:
        *shares, epsilon, rate = map(self.number, factors)
        for p, g, squares, step_squares in self._pieces(*arrays):
            work, step = self.scratch(g.shape, 2), self.scratch(g.shape, 3)
            self._add_squares(g, squares, shares, work)
            self.add_st(epsilon, step_squares, step)
            self.add_st(epsilon, squares, work)
            self.divide_tt(step, work, step)
            self.sqrt_t(step, step)
            self.mult_tt(g, step, step)
            self._add_squares(step, step_squares, shares, work)
            self.mult_add_st(rate, step, p)

    def _check_epsilon(self, epsilon: float, given: float) -> None:
        """Refuse what is too small for the handler's type."""

    def _add_squares(self, values: Any, mean: Any, shares: Any, work: Any) -> None:
        """``mean = kept mean + added values^2``, with these two shares."""
        kept, added = shares
        self.mult_tt(values, values, work)
        self.mult_st(kept, mean, mean)
        self.mult_add_st(added, work, mean)

    def _step_by_root(
        self, parameters, gradients, squares, rate, epsilon, work
    ) -> None:
        """``parameters += rate gradients / (sqrt(squares) + epsilon)``."""
        self.sqrt_t(squares, work)
        self.add_st(epsilon, work, work)
        self.divide_tt(gradients, work, work)
        self.mult_add_st(rate, work, parameters)

    @operation(
        write="norms:N,1",
        add="m:N,I",
        check=in_range("limit", 5e-324, float("inf")),
    )
    def constrain_rows(self, m: Any, limit: float, norms: Any) -> None:
        """Divide each row by max(1, its Euclidean norm / limit)."""
        work, scale = self.scratch(m.shape, 2), self.scratch(norms.shape, 3)
        # Squares of what is divided by the mean size of its row do not overflow.
        self.abs_t(m, work)
        self.mult_st(1.0 / max(m.shape[1], 1), work, work)
        self.sum_t(work, 1, scale)
        self.sign_t(scale, norms)
        self.mult_st(-1.0, norms, norms)
        self.add_st(1.0, norms, norms)
        self.add_tt(norms, scale, scale)  # 1 for rows of zeros
        self.divide_mv(m, scale, work)
        self.mult_tt(work, work, work)
        self.sum_t(work, 1, norms)
        self.sqrt_t(norms, norms)
        self.mult_st(1.0 / limit, scale, scale)
        self.mult_tt(scale, norms, norms)
        self.clip_t(norms, 1.0, float("inf"), norms)
        self.divide_mv(m, norms, m)
