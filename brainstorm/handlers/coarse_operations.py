"""Coarse operations, composed from the primitive ones of any handler.

Conventions, besides those in :mod:`brainstorm.handlers.primitive_operations`:

- Time and batch are folded: M = T * B rows.
- Destinations are added to. With ``fresh_*=True`` they are overwritten instead:
  what they held does not matter.
- Arrays that an operation fills for its backward counterpart are named there.
- No array overlaps another one, unless it is said.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from brainstorm.utils import HandlerError

__all__ = ["SMALLEST_PROBABILITY", "CoarseOperations", "check_indices"]

SMALLEST_PROBABILITY = 1e-6
"""The arguments of the logarithms in losses are limited to this."""


class CoarseOperations:
    """What layers, steppers and modifiers call, in terms of primitives.

    Every handler has these. One that can do better overrides them.
    """

    # -- memory --------------------------------------------------------------

    def clear(self, *arrays: Any) -> None:
        """Fill all of these arrays, of any shapes, with zeros."""
        for array in arrays:
            self.fill(array, 0.0)

    def _rows(self, array: Any, slot: int, filled: bool = True) -> Any:
        """An array (T, B, N) as a matrix (M, N).

        It is a view, or where strides allow none a temporary, with the values of the
        array if it is to be `filled`.
        """
        shape = (array.shape[0] * array.shape[1], array.shape[2])
        if _folds(array):
            return array.reshape(shape)
        rows = self.scratch(shape, slot)
        if filled:
            self.copy_to(array, rows.reshape(array.shape))
        return rows

    def _put_rows(self, rows: Any, array: Any) -> None:
        """Let an array have what was written into its `_rows`."""
        if not _folds(array):
            self.copy_to(rows.reshape(array.shape), array)

    def _pieces(self, *arrays: Any) -> Any:
        """Arrays of one shape, cut alike into pieces to work on one after the other."""
        return (arrays,)

    # -- affine layers and activations ---------------------------------------

    def affine(
        self, x: Any, W: Any, bias: Any, h: Any, y: Any, activation: str
    ) -> None:
        """``y = act(h)`` with ``h = x W^T + bias``.

        Args:
            x: Inputs (M, I).
            W: Weights (N, I).
            bias: Vector (N,), or None for zero.
            h: (M, N), receives the pre-activations. None only with the
                activation 'linear'.
            y: (M, N), receives the outputs.
            activation: Name of the activation function.
        """
        out = y if h is None else h
        self.dot_mm(x, W, out, transb=True)
        if bias is not None:
            self.add_mv(out, bias.reshape((1, bias.shape[0])), out)
        if h is not None:
            self.act_func[activation](h, y)

    def affine_backward(
        self,
        x: Any,
        W: Any,
        h: Any,
        y: Any,
        dy: Any,
        dh: Any,
        dx: Any,
        dW: Any,
        dbias: Any,
        activation: str,
        fresh_dx: bool = False,
        fresh_gradients: bool = False,
    ) -> None:
        """Backward pass of :meth:`affine`.

        Args:
            x: Inputs (M, I).
            W: Weights (N, I).
            h: (M, N), as `affine` filled it, or None.
            y: (M, N), as `affine` filled it.
            dy: (M, N), deltas of y; not modified.
            dh: (M, N), receives the deltas of h. None only with 'linear'.
            dx: (M, I), gets the deltas of x, or None if they are not wanted.
            dW: (N, I), gets the gradients of W.
            dbias: (N,), gets the gradients of bias, or None.
            activation: Name of the activation function.
            fresh_dx: Overwrite `dx`.
            fresh_gradients: Overwrite `dW` and `dbias`.
        """
        if dh is None:
            dh = dy
        else:
            self.act_func_deriv[activation](h, y, dy, dh)
        dot = self.dot_mm if fresh_gradients else self.dot_add_mm
        dot(dh, x, dW, transa=True)
        if dbias is not None:
            self._sum_rows(dh, dbias, fresh_gradients)
        if dx is not None:
            dot = self.dot_mm if fresh_dx else self.dot_add_mm
            dot(dh, W, dx)

    def act_backward(
        self, x: Any, y: Any, dy: Any, dx: Any, activation: str, fresh_dx: bool = False
    ) -> None:
        """``dx (+)= dy act'(x)`` for ``y = act(x)``.

        Args:
            x: Inputs of the function, of any shape.
            y: Its outputs.
            dy: Deltas of y.
            dx: Gets the deltas of x.
            activation: Name of the activation function.
            fresh_dx: Overwrite `dx`, which may then be `dy`.
        """
        if fresh_dx:
            self.act_func_deriv[activation](x, y, dy, dx)
        else:
            deltas = self.scratch(dx.shape, 2)
            self.act_func_deriv[activation](x, y, dy, deltas)
            self.add_tt(deltas, dx, dx)

    def _sum_rows(self, m: Any, out: Any, fresh: bool) -> None:
        """Sum (M, N) over its rows into the vector (N,)."""
        out = out.reshape((1, out.shape[0]))
        if fresh:
            self.sum_t(m, 0, out)
        else:
            sums = self.scratch(out.shape, 2)
            self.sum_t(m, 0, sums)
            self.add_tt(sums, out, out)

    # -- losses --------------------------------------------------------------

    def softmax_ce_forward(
        self, x: Any, targets: Any, predictions: Any, loss: Any
    ) -> None:
        """Softmax and its cross-entropy with class indices.

        Args:
            x: (M, C).
            targets: (M, 1), the class indices 0, ..., C-1.
            predictions: (M, C), receives the softmax of each row of x.
            loss: (M, 1), receives -log of the target's prediction, which is
                limited to [1e-6, 1].

        Raises:
            HandlerError: A target is no integer in that range.
        """
        self.do(self.plain._check_classes, targets, x.shape[1])
        self.softmax_m(x, predictions)
        self.index_m_by_v(predictions, targets, loss)
        self.clip_t(loss, SMALLEST_PROBABILITY, 1.0, loss)
        self.log_t(loss, loss)
        self.mult_st(-1.0, loss, loss)

    def _check_classes(self, targets: Any, count: int) -> None:
        check_indices(self.get_numpy_copy(targets), count, "class indices")

    def softmax_ce_backward(
        self,
        targets: Any,
        predictions: Any,
        dloss: Any,
        t_bin: Any,
        dx: Any,
        fresh_dx: bool = False,
    ) -> None:
        """Backward pass of :meth:`softmax_ce_forward`.

        ``dx (+)= (predictions - t_bin) dloss``

        Args:
            targets: (M, 1), valid class indices.
            predictions: (M, C), as the forward pass filled it.
            dloss: (M, 1), deltas of the loss.
            t_bin: (M, C), receives the targets as one-hot rows.
            dx: (M, C), gets the deltas of x, or None if they are not wanted.
            fresh_dx: Overwrite `dx`.
        """
        self.binarize_v(targets, t_bin)
        if dx is None:
            return
        deltas = dx if fresh_dx else self.scratch(dx.shape, 2)
        self.subtract_tt(predictions, t_bin, deltas)
        if fresh_dx:
            self.mult_mv(deltas, dloss, dx)
        else:
            self.mult_add_mv(deltas, dloss, dx)

    def sigmoid_ce_forward(
        self, x: Any, targets: Any, predictions: Any, loss: Any
    ) -> None:
        """Sigmoid and its cross-entropy with the targets, elementwise.

        ``loss = -(t log(p) + (1 - t) log(1 - p))`` with ``p = sigmoid(x)``; the
        arguments of the logarithms are limited to [1e-6, 1].

        Args:
            x: Array of any shape.
            targets: Probabilities in [0, 1], of the same shape.
            predictions: Receives p, of the same shape.
            loss: Receives the loss, of the same shape.
        """
        # -log(1 - p) is softplus(x), and -log(p) is softplus(-x).
        largest = -math.log(SMALLEST_PROBABILITY)
        weight, of_others = self.scratch(x.shape, 2), self.scratch(x.shape, 3)
        self.sigmoid(x, predictions)
        self.mult_st(-1.0, x, weight)
        self.softplus(weight, of_others)
        self.clip_t(of_others, 0.0, largest, of_others)
        self.mult_tt(targets, of_others, loss)
        self.softplus(x, of_others)
        self.clip_t(of_others, 0.0, largest, of_others)
        self.mult_st(-1.0, targets, weight)
        self.add_st(1.0, weight, weight)
        self.mult_add_tt(weight, of_others, loss)

    def sigmoid_ce_backward(
        self,
        targets: Any,
        predictions: Any,
        dloss: Any,
        dcee: Any,
        dx: Any,
        fresh_dx: bool = False,
    ) -> None:
        """Backward pass of :meth:`sigmoid_ce_forward`: ``dx (+)= dcee dloss``.

        Args:
            targets: Array of any shape.
            predictions: As the forward pass filled it.
            dloss: Deltas of the loss.
            dcee: Receives predictions - targets.
            dx: Gets the deltas of x, or None if they are not wanted.
            fresh_dx: Overwrite `dx`.
        """
        self.subtract_tt(predictions, targets, dcee)
        if dx is not None:
            mult = self.mult_tt if fresh_dx else self.mult_add_tt
            mult(dcee, dloss, dx)

    # -- dropout -------------------------------------------------------------

    def dropout_forward(self, x: Any, mask: Any, y: Any, drop_prob: float) -> None:
        """``y = x mask`` with a random mask that keeps the expectation.

        Srivastava et al., *Dropout: a simple way to prevent neural networks from
        overfitting*, 2014; scaled at training time.

        Args:
            x: Array of any shape.
            mask: Receives 0 with probability `drop_prob`, else 1/(1 - drop_prob).
            y: Receives the outputs.
            drop_prob: Probability in [0, 1].
        """
        keep = 1.0 - drop_prob
        self.generate_probability_mask(mask, keep)
        self.mult_st(1.0 / keep if keep > 0 else 0.0, mask, mask)
        self.mult_tt(x, mask, y)

    def dropout_backward(
        self, mask: Any, dy: Any, dx: Any, fresh_dx: bool = False
    ) -> None:
        """Backward pass of :meth:`dropout_forward`: ``dx (+)= dy mask``.

        Args:
            mask: As the forward pass filled it, of any shape.
            dy: Deltas of y.
            dx: Gets the deltas of x; with `fresh_dx` it may be `dy`.
            fresh_dx: Overwrite `dx`.
        """
        mult = self.mult_tt if fresh_dx else self.mult_add_tt
        mult(dy, mask, dx)

    # -- updates -------------------------------------------------------------

    def sgd_update(self, parameters: Any, gradients: Any, learning_rate: float) -> None:
        """``parameters -= learning_rate gradients``, flat arrays of one length."""
        self.mult_add_st(-learning_rate, gradients, parameters)

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

        Args:
            parameters: Flat array, updated.
            gradients: Flat array of the same length.
            velocity: Flat array of the same length, updated.
            learning_rate: Factor of the gradients.
            momentum: Factor of the velocity.
        """
        rate, momentum = self.number(-learning_rate), self.number(momentum)
        for p, g, v in self._pieces(parameters, gradients, velocity):
            self.mult_st(momentum, v, v)
            self.mult_add_st(rate, g, v)
            self.add_tt(v, p, p)

    def nesterov_ahead(self, parameters: Any, velocity: Any, momentum: float) -> None:
        """The step before the gradient is computed, of Nesterov's momentum.

        ``velocity *= momentum; parameters += velocity``. Sutskever et al., *On
        the importance of initialization and momentum in deep learning*, 2013.

        Args:
            parameters: Flat array, updated.
            velocity: Flat array of the same length, updated.
            momentum: Factor of the velocity.
        """
        self.mult_st(momentum, velocity, velocity)
        self.add_tt(velocity, parameters, parameters)

    def nesterov_correct(
        self, parameters: Any, gradients: Any, velocity: Any, learning_rate: float
    ) -> None:
        """The step with the gradient, after :meth:`nesterov_ahead`.

        ``velocity -= learning_rate gradients``;
        ``parameters -= learning_rate gradients``

        Args:
            parameters: Flat array, updated.
            gradients: Flat array of the same length.
            velocity: Flat array of the same length, updated.
            learning_rate: Factor of the gradients.
        """
        self.mult_add_st(-learning_rate, gradients, velocity)
        self.mult_add_st(-learning_rate, gradients, parameters)

    def constrain_rows(self, m: Any, limit: float, norms: Any) -> None:
        """Divide each row by max(1, its Euclidean norm / limit).

        Args:
            m: Matrix (N, I), modified.
            limit: The largest norm that rows may keep; positive.
            norms: (N, 1), scratch.
        """
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

    # -- batch normalisation -------------------------------------------------

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
            x: (M, C).
            gamma: (C,), factor of the outputs.
            beta: (C,), added to the outputs.
            mu: (C,), running negative mean: becomes decay mu - (1 - decay) m.
            sigma: (C,), running deviation: decay sigma + (1 - decay) sigma_b.
            sigma_b: (C,), receives the standard deviation of this batch.
            centered: (M, C), receives x - m.
            x_hat: (M, C), receives the normalised x.
            y: (M, C), receives the outputs.
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

    def batch_norm_inference(
        self, x: Any, gamma: Any, beta: Any, mu: Any, sigma: Any, y: Any
    ) -> None:
        """``y = gamma (x + mu) / sigma + beta`` with the running values.

        Args:
            x: (M, C).
            gamma: (C,), factor of the outputs.
            beta: (C,), added to the outputs.
            mu: (C,), running negative mean.
            sigma: (C,), running deviation.
            y: (M, C), receives the outputs; may be `x`.
        """
        rows = (1, x.shape[1])
        factor = self.scratch(rows, 2)
        self.divide_tt(gamma.reshape(rows), sigma.reshape(rows), factor)
        self.add_mv(x, mu.reshape(rows), y)
        self.mult_mv(y, factor, y)
        self.add_mv(y, beta.reshape(rows), y)

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

        Args:
            gamma: (C,), as given to the forward pass.
            sigma_b: (C,), as the forward pass filled it.
            centered: (M, C), as the forward pass filled it.
            x_hat: (M, C), as the forward pass filled it.
            dy: (M, C), deltas of y; not modified.
            dx: (M, C), gets the deltas of x, or None if they are not wanted.
            dgamma: (C,), gets the gradients of gamma.
            dbeta: (C,), gets the gradients of beta.
            fresh_dx: Overwrite `dx`.
            fresh_gradients: Overwrite `dgamma` and `dbeta`.
        """
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


def check_indices(indices: np.ndarray, count: int, what: str) -> None:
    """Raise a HandlerError if an index is no integer in [0, count).

    Args:
        indices: Array of numbers.
        count: How many there are to choose from.
        what: What they are, for the text of the error.
    """
    bad = ~((indices >= 0) & (indices < count) & (indices == np.floor(indices)))
    if bad.any():
        raise HandlerError(
            f"{what} have to be integers from 0 to {count - 1},"
            f" got {float(indices[bad][0])!r}"
            if count
            else f"{what}: there is nothing to choose from, got"
            f" {float(indices[bad][0])!r}"
        )


def _folds(array: Any) -> bool:
    """Whether the rows of all steps (T, B, N) are the rows of one matrix."""
    steps, batch, _ = array.shape
    strides = getattr(array, "strides", None)
    if strides is None or steps < 2 or batch < 2:
        return True
    return strides[0] == batch * strides[1]
