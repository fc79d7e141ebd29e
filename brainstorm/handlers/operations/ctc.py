"""Connectionist temporal classification: loss and gradient, in log space.

Graves et al., *Connectionist temporal classification: labelling unsegmented sequence
data with recurrent neural networks*, 2006. NumPy computes it for handlers that have
nothing better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from brainstorm.handlers.operations.contract import operation
from brainstorm.handlers.operations.losses import LossOperations
from brainstorm.handlers.operations.sequences import checked_lengths
from brainstorm.handlers.programs import whole
from brainstorm.utils import HandlerError

__all__ = ["CtcOperations", "ctc_loss", "labels_of", "log_softmax"]

BLANK = 0


class CtcOperations(LossOperations):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation(
        "x:T,B,C targets:T,B,1 lengths:B,1",
        "predictions:T,B,C expected:T,B,C loss:B,1",
        optional="lengths",
    )
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
            targets: (T, B, 1): the labels of each sequence, from 1 to C - 1, in their
                order. Zeros between and behind them are left out.
            lengths: (B, 1), numbers of steps, or None for T.
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

    @operation(
        "predictions:T,B,C expected:T,B,C lengths:B,1 dloss:B,1",
        add="dx:T,B,C",
        optional="lengths",
    )
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


def labels_of(
    targets: np.ndarray, lengths: np.ndarray, classes: int
) -> list[np.ndarray]:
    """The labels of each sequence, checked: each from 1 to `classes` - 1.

    In the targets (T, B, 1), zeros are left out; `lengths` (B,) are numbers of steps.
    """
    if targets.size and not classes:
        raise HandlerError("ctc: expected at least one class, the blank, got none")
    found = []
    for b, column in enumerate(targets[:, :, 0].T):
        good = (column >= 0) & (column < classes) & (column == np.floor(column))
        if not good.all():
            raise HandlerError(
                f"ctc: expected labels that are whole numbers from 1 to {classes - 1},"
                f" or 0 for none, for sequence {b}, got {float(column[~good][0])!r}"
            )
        labels = column[column != BLANK].astype(np.intp)
        count = len(labels)
        repeated = int((labels[1:] == labels[:-1]).sum())
        if count + repeated > lengths[b]:
            raise HandlerError(
                f"ctc: sequence {b} has {count} labels, {repeated} of which repeat the"
                f" one before; this takes {count + repeated} steps, but it has"
                f" {int(lengths[b])}"
            )
        found.append(labels)
    return found


def log_softmax(x: np.ndarray) -> np.ndarray:
    """The logarithm of the softmax over the last axis."""
    shifted = x - x.max(-1, keepdims=True, initial=-np.inf)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def ctc_loss(
    log_p: np.ndarray, labels: Sequence[np.ndarray], lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The negative log-probability of the labels, and where they are to be expected.

    Args:
        log_p: (T, B, C), logarithms of the probabilities of each class.
        labels: For each sequence, at most as many labels as `labels_of` allows.
        lengths: (B,), numbers of steps.

    Returns:
        The loss (B,), and `expected` (T, B, C) of `ctc_forward`. The loss's derivative
        by the inputs of a softmax is the softmax minus it.
    """
    batch = log_p.shape[1]
    if not log_p.size:
        return np.zeros(batch), np.zeros(log_p.shape)
    states = np.full((batch, 2 * max(map(len, labels), default=0) + 1), BLANK)
    for b, sequence in enumerate(labels):
        states[b, 1 : 2 * len(sequence) : 2] = sequence
    counts = np.array([2 * len(sequence) + 1 for sequence in labels], int)
    # A blank between two labels that differ can be left out.
    skips = np.full(states.shape, -np.inf)
    skips[:, 2:][(states[:, 2:] != BLANK) & (states[:, 2:] != states[:, :-2])] = 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        emitted = np.take_along_axis(log_p, states[np.newaxis], 2)  # (T, B, S)
        alpha = _forward(emitted, skips)
        log_total = _log_total(alpha, lengths, counts)
        # Backward in time is forward in the reversed sequence of states.
        beta = np.full(alpha.shape, -np.inf)
        for b, (length, count) in enumerate(zip(lengths, counts, strict=True)):
            if length:
                back = emitted[:length, b : b + 1, :count][::-1, :, ::-1]
                skip = np.full((1, count), -np.inf)
                skip[:, 2:] = skips[b, 2:count][::-1]
                beta[:length, b, :count] = _forward(back, skip)[::-1, 0, ::-1]
        share = np.exp(alpha + beta - emitted - log_total[:, np.newaxis])
    share[~np.isfinite(share)] = 0.0
    expected = np.zeros(log_p.shape)
    for b, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        for s in range(count):
            expected[:length, b, states[b, s]] += share[:length, b, s]
    return -log_total, expected


def _forward(emitted: np.ndarray, skips: np.ndarray) -> np.ndarray:
    """Log-probabilities (T, B, S) of the first steps that end in each state."""
    alpha = np.full(emitted.shape, -np.inf)
    alpha[0, :, :2] = emitted[0, :, :2]
    for t in range(1, len(emitted)):
        before = alpha[t - 1]
        now = before.copy()
        now[:, 1:] = np.logaddexp(now[:, 1:], before[:, :-1])
        now[:, 2:] = np.logaddexp(now[:, 2:], before[:, :-2] + skips[:, 2:])
        alpha[t] = now + emitted[t]
    return alpha


def _log_total(
    alpha: np.ndarray, lengths: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Log-probability (B,) of ending in the last label or in the blank behind it."""
    totals = np.zeros(len(lengths))
    for b, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        if length:
            ends = alpha[length - 1, b, max(count - 2, 0) : count]
            totals[b] = np.logaddexp.reduce(ends)
    return totals
