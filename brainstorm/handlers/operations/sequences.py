"""Lengths of sequences, and sequences from the end."""

from __future__ import annotations

from typing import Any

import numpy as np

from brainstorm.handlers.operations.arithmetic import ArithmeticOperations
from brainstorm.handlers.operations.contract import operation
from brainstorm.handlers.programs import whole
from brainstorm.utils import HandlerError

__all__ = ["SequenceOperations", "checked_lengths"]


class SequenceOperations(ArithmeticOperations):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation("mask:T,B,1", "lengths:B,1")
    def sequence_lengths(self, mask: Any, lengths: Any) -> None:
        """The number of steps up to the last one at which the mask is not zero.

        Args:
            mask: (T, B, 1).
            lengths: (B, 1), receives the numbers.
        """
        self.fill(lengths, 0.0)
        for t in range(mask.shape[0]):
            self.fill_if(lengths, t + 1.0, mask[t])

    @operation("x:T,B,N lengths:B,1", add="out:T,B,N", optional="lengths")
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
