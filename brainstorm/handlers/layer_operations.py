"""Coarse operations of layer normalisation, of embeddings and of reversed sequences.

The conventions are those of :mod:`brainstorm.handlers.coarse_operations`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from brainstorm.handlers.coarse_operations import check_indices
from brainstorm.handlers.ctc import ctc_loss, labels_of, log_softmax
from brainstorm.handlers.programs import whole
from brainstorm.utils import HandlerError

__all__ = ["LayerOperations", "checked_lengths"]


class LayerOperations:
    """What some layers call, in terms of primitives.

    Every handler has these. One that can do better overrides them.
    """

    # -- layer normalisation -------------------------------------------------

    def layer_norm_forward(
        self,
        x: Any,
        gamma: Any,
        beta: Any,
        sigma: Any,
        x_hat: Any,
        y: Any,
        epsilon: float,
    ) -> None:
        """Layer normalisation: each row on its own.

        Ba et al., *Layer normalization*, 2016. With the mean m of a row:
        ``sigma = sqrt(mean((x - m)^2) + epsilon)``, ``x_hat = (x - m) / sigma``,
        ``y = gamma x_hat + beta``.

        Args:
            x: (M, C).
            gamma: (C,), factor of the outputs.
            beta: (C,), added to the outputs.
            sigma: (M, 1), receives the standard deviation of each row.
            x_hat: (M, C), receives the normalised x.
            y: (M, C), receives the outputs.
            epsilon: Positive number that keeps the deviation off zero.
        """
        per_row = 1.0 / max(x.shape[1], 1)
        columns = (1, x.shape[1])
        self.sum_t(x, 1, sigma)
        self.mult_st(per_row, sigma, sigma)
        self.subtract_mv(x, sigma, x_hat)
        self.mult_tt(x_hat, x_hat, y)
        self.sum_t(y, 1, sigma)
        self.mult_st(per_row, sigma, sigma)
        self.add_st(epsilon, sigma, sigma)
        self.sqrt_t(sigma, sigma)
        self.divide_mv(x_hat, sigma, x_hat)
        self.mult_mv(x_hat, gamma.reshape(columns), y)
        self.add_mv(y, beta.reshape(columns), y)

    def layer_norm_backward(
        self,
        gamma: Any,
        sigma: Any,
        x_hat: Any,
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

        Args:
            gamma: (C,), as given to the forward pass.
            sigma: (M, 1), as the forward pass filled it.
            x_hat: (M, C), as the forward pass filled it.
            dy: (M, C), deltas of y; not modified.
            dx: (M, C), gets the deltas of x, or None if they are not wanted.
            dgamma: (C,), gets the gradients of gamma.
            dbeta: (C,), gets the gradients of beta.
            fresh_dx: Overwrite `dx`.
            fresh_gradients: Overwrite `dgamma` and `dbeta`.
        """
        rows, columns = dy.shape
        work = self.scratch((rows, columns), 4)
        self.mult_tt(dy, x_hat, work)
        self._sum_rows(work, dgamma, fresh_gradients)
        self._sum_rows(dy, dbeta, fresh_gradients)
        if dx is None:
            return
        means, deltas = self.scratch((rows, 1), 3), self.scratch((rows, columns), 5)
        self.mult_mv(dy, gamma.reshape((1, columns)), deltas)
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

    # -- embeddings ----------------------------------------------------------

    @whole
    def take_rows(self, m: Any, indices: Any, out: Any) -> None:
        """``out[i] = m[indices[i, 0]]``.

        Args:
            m: Matrix (V, N).
            indices: Column vector (M, 1) of integers in [0, V).
            out: Matrix (M, N), receives the rows.

        Raises:
            HandlerError: An index is no integer in that range.
        """
        check_indices(self.get_numpy_copy(indices), m.shape[0], "take_rows: indices")
        chosen = self.scratch((indices.shape[0], m.shape[0]), 2)
        self.binarize_v(indices, chosen)
        self.dot_mm(chosen, m, out)

    @whole
    def add_to_rows(
        self, a: Any, indices: Any, out: Any, fresh_out: bool = False
    ) -> None:
        """``out[indices[i, 0]] += a[i]`` for all i, one after the other.

        Args:
            a: Matrix (M, N).
            indices: Column vector (M, 1) of integers in [0, V).
            out: Matrix (V, N), whose rows are added to.
            fresh_out: Set `out` to zero first.
        """
        chosen = self.scratch((indices.shape[0], out.shape[0]), 2)
        self.binarize_v(indices, chosen)
        dot = self.dot_mm if fresh_out else self.dot_add_mm
        dot(chosen, a, out, transa=True)

    # -- sequences from the end ----------------------------------------------

    def sequence_lengths(self, mask: Any, lengths: Any) -> None:
        """The number of steps up to the last one at which the mask is not zero.

        Args:
            mask: (T, B, 1).
            lengths: (B, 1), receives the numbers.
        """
        self.fill(lengths, 0.0)
        for t in range(mask.shape[0]):
            self.fill_if(lengths, t + 1.0, mask[t])

    @whole
    def reverse_steps(
        self, x: Any, lengths: Any, out: Any, fresh_out: bool = False
    ) -> None:
        """``out[t, b] += x[lengths[b] - 1 - t, b]`` for all t < lengths[b].

        Args:
            x: (T, B, N).
            lengths: (B, 1), whole numbers in [0, T], or None for T.
            out: (T, B, N), which is added to.
            fresh_out: Set `out` to zero first.
        """
        steps, batch = x.shape[:2]
        ends = [steps] * batch
        if lengths is not None:
            ends = checked_lengths(self.get_numpy_copy(lengths), steps, "reverse_steps")
        if fresh_out:
            self.fill(out, 0.0)
        for b, end in enumerate(ends):
            for t in range(end):
                self.add_tt(x[end - 1 - t, b], out[t, b], out[t, b])

    # -- connectionist temporal classification -------------------------------

    @whole
    def ctc_forward(
        self,
        x: Any,
        targets: Any,
        lengths: Any,
        predictions: Any,
        expected: Any,
        loss: Any,
    ) -> None:
        """Softmax, and the loss of connectionist temporal classification.

        Graves et al., *Connectionist temporal classification: labelling unsegmented
        sequence data with recurrent neural networks*, 2006. Class 0 is the blank.

        Args:
            x: (T, B, C).
            targets: (T, B, 1): the labels of each sequence, from 1 to C - 1, in their
                order. Zeros between and behind them are left out.
            lengths: (B, 1), numbers of steps, or None for T.
            predictions: (T, B, C), receives the softmax of x.
            expected: (T, B, C), receives the probability that the labels, given that
                they are right, have a class in a step: 0 behind the ends.
            loss: (B, 1), receives -log of the probability of the labels.

        Raises:
            HandlerError: A sequence has no labels as above, or too many of them.
        """
        steps, batch, classes = x.shape
        ends = np.full(batch, steps)
        if lengths is not None:
            lengths = self.get_numpy_copy(lengths)
            ends = np.array(checked_lengths(lengths, steps, "ctc_forward"), int)
        labels = labels_of(self.get_numpy_copy(targets), ends, classes)
        rows = self._rows(predictions, 2, filled=False)
        self.softmax_m(self._rows(x, 3), rows)
        self._put_rows(rows, predictions)
        logits = self.get_numpy_copy(x).astype(np.float64)
        losses, shares = ctc_loss(log_softmax(logits), labels, ends)
        self.set_from_numpy(loss, losses[:, np.newaxis])
        self.set_from_numpy(expected, shares)

    @whole
    def ctc_backward(
        self,
        predictions: Any,
        expected: Any,
        lengths: Any,
        dloss: Any,
        dx: Any,
        fresh_dx: bool = False,
    ) -> None:
        """Backward pass of :meth:`ctc_forward`.

        ``dx (+)= (predictions - expected) dloss``, and 0 behind the ends.

        Args:
            predictions: (T, B, C), as the forward pass filled it.
            expected: (T, B, C), as the forward pass filled it.
            lengths: (B, 1), as given to the forward pass.
            dloss: (B, 1), deltas of the loss.
            dx: (T, B, C), gets the deltas of x.
            fresh_dx: Overwrite `dx`.
        """
        steps, batch, classes = predictions.shape
        deltas = self.scratch((steps, batch, classes), 2)
        self.subtract_tt(predictions, expected, deltas)
        weights = self.scratch((batch, 1), 3)
        for t in range(steps):
            self.copy_to(dloss, weights)
            if lengths is not None:
                over = self.scratch((batch, 1), 4)
                self.add_st(-1.0 - t, lengths, over)  # below 0 behind the end
                self.clip_t(over, -1.0, 0.0, over)
                self.fill_if(weights, 0.0, over)
            self.mult_mv(deltas[t], weights, deltas[t])
        if fresh_dx:
            self.copy_to(deltas, dx)
        else:
            self.add_tt(deltas, dx, dx)


def checked_lengths(lengths: np.ndarray, steps: int, operation: str) -> list[int]:
    """Numbers of steps (B, 1) as integers.

    Raises:
        HandlerError: One is not between 0 and `steps`.
    """
    bad = ~((lengths >= 0) & (lengths <= steps))
    if bad.any():
        raise HandlerError(
            f"{operation}: lengths have to be numbers from 0 to {steps}, got"
            f" {float(lengths[bad][0])!r}"
        )
    return [int(length) for length in lengths[:, 0]]
