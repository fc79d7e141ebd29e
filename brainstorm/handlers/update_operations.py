"""Coarse operations that update parameters, composed from the primitive ones.

All arrays are flat and of one length. The parameters and the state of the method
are updated in place; the gradients are not modified.
"""

from __future__ import annotations

import math
from typing import Any

__all__ = ["UpdateOperations"]


class UpdateOperations:
    """What the steppers with adaptive rates call, in terms of primitives.

    Every handler has these. One that can do better overrides them.
    """

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
            parameters: Updated.
            gradients: Their gradients.
            mean: Running mean of the gradients, updated.
            variance: Running mean of their squares, updated.
            learning_rate: Step size.
            beta1: How much of `mean` to keep, in [0, 1).
            beta2: How much of `variance` to keep, in [0, 1).
            epsilon: Positive number that keeps the divisor off zero.
            weight_decay: Strength of the decay, 0 for none.
            update_nr: Number of this update, counted from 1.
        """
        work = self.scratch(gradients.shape, 2)
        self.mult_st(beta1, mean, mean)
        self.mult_add_st(1.0 - beta1, gradients, mean)
        self._add_squares(gradients, variance, beta2, work)
        # The corrections of both moments, moved into the factors.
        correction = math.sqrt(1.0 - beta2**update_nr)
        rate = learning_rate * correction / (1.0 - beta1**update_nr)
        self.sqrt_t(variance, work)
        self.add_st(epsilon * correction, work, work)
        self.divide_tt(mean, work, work)
        if weight_decay:
            self.mult_st(1.0 - learning_rate * weight_decay, parameters, parameters)
        self.mult_add_st(-rate, work, parameters)

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

        Args:
            parameters: Updated.
            gradients: Their gradients.
            mean_square: Running mean of their squares, updated.
            learning_rate: Step size.
            decay: How much of `mean_square` to keep, in [0, 1).
            epsilon: Positive number that keeps the divisor off zero.
        """
        work = self.scratch(gradients.shape, 2)
        self._add_squares(gradients, mean_square, decay, work)
        self._step_by_root(
            parameters, gradients, mean_square, learning_rate, epsilon, work
        )

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

        Args:
            parameters: Updated.
            gradients: Their gradients.
            sum_of_squares: Of all gradients so far, updated.
            learning_rate: Step size.
            epsilon: Positive number that keeps the divisor off zero.
        """
        work = self.scratch(gradients.shape, 2)
        self.mult_add_tt(gradients, gradients, sum_of_squares)
        self._step_by_root(
            parameters, gradients, sum_of_squares, learning_rate, epsilon, work
        )

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

        Args:
            parameters: Updated.
            gradients: Their gradients.
            mean_square: Running mean of their squares, updated.
            mean_square_step: Running mean of the squares of the steps, updated.
            learning_rate: Factor of the steps.
            decay: How much of the running means to keep, in [0, 1).
            epsilon: Positive number, the square of the smallest root.
        """
        work = self.scratch(gradients.shape, 2)
        step = self.scratch(gradients.shape, 3)
        self._add_squares(gradients, mean_square, decay, work)
        self.add_st(epsilon, mean_square_step, step)
        self.add_st(epsilon, mean_square, work)
        self.divide_tt(step, work, step)
        self.sqrt_t(step, step)
        self.mult_tt(gradients, step, step)
        self._add_squares(step, mean_square_step, decay, work)
        self.mult_add_st(-learning_rate, step, parameters)

    def _add_squares(self, values: Any, mean: Any, decay: float, work: Any) -> None:
        """``mean = decay mean + (1 - decay) values^2``."""
        self.mult_tt(values, values, work)
        self.mult_st(decay, mean, mean)
        self.mult_add_st(1.0 - decay, work, mean)

    def _step_by_root(
        self,
        parameters: Any,
        gradients: Any,
        squares: Any,
        learning_rate: float,
        epsilon: float,
        work: Any,
    ) -> None:
        """``parameters -= learning_rate gradients / (sqrt(squares) + epsilon)``."""
        self.sqrt_t(squares, work)
        self.add_st(epsilon, work, work)
        self.divide_tt(gradients, work, work)
        self.mult_add_st(-learning_rate, work, parameters)
