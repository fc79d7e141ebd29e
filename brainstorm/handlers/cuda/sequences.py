"""Whole sequences and connectionist temporal classification for PyCudaHandler."""

# Operations are documented in LayerOperations.
# ruff: noqa: D102

from __future__ import annotations

import math

from brainstorm.handlers.cuda.arrays import CudaArray, OperationError, check_neighbours
from brainstorm.handlers.cuda.launcher import BLOCK, Launcher, row_blocks

__all__ = ["CudaSequences", "sequence"]

# Elements of the largest array of the log-probabilities of paths: 512 MiB.
PATHS_SIZE = 2**27


class CudaSequences:
    """Part of PyCudaHandler. Sequences are (T, B, N)."""

    _gpu: Launcher

    def sequence_lengths(self, mask, lengths):
        steps, batch = mask.shape[:2]
        if batch:
            arguments = (*sequence(mask), *_column(lengths), steps, batch)
            grid = self._gpu.over(batch)
            self._gpu.launch("sequence_lengths", grid, (BLOCK, 1, 1), *arguments)

    def reverse_steps(self, x, lengths, out, fresh_out=False):
        if out.size:
            arguments = (*sequence(x), *_column(lengths), *sequence(out), *x.shape)
            grid = self._gpu.over(out.size)
            self._gpu.launch(
                "reverse_steps", grid, (BLOCK, 1, 1), *arguments, fresh_out
            )

    def ctc_forward(self, x, targets, lengths, predictions, expected, loss):
        steps, batch, classes = x.shape
        gpu = self._gpu
        if not steps or not batch:
            gpu.elementwise("fill", (loss,), 0.0)
            return
        if not classes:
            raise OperationError("expected at least one class, the blank, got none")
        # Two elements hold one number of 64 bits, here and below.
        log_sums = self.scratch((2 * steps * batch,), 2)
        gpu.launch(
            "ctc_softmax",
            *row_blocks(steps * batch, classes),
            *(*sequence(x), *sequence(predictions), log_sums.pointer, *x.shape),
        )
        segment, size = paths_of(steps)
        at_once = min(batch, max(1, PATHS_SIZE // size))
        work = self.scratch((at_once, size), 3)
        labels = self.scratch((at_once, 2 * steps), 4)
        arguments = (
            *(*sequence(x), log_sums.pointer, *sequence(targets)),
            *(*_column(lengths), *sequence(expected), *_column(loss)),
            *(work.pointer, labels.pointer, *x.shape, segment, gpu.expect_failure()),
        )
        for start in range(0, batch, at_once):
            grid = (min(at_once, batch - start), 1)
            gpu.launch("ctc_forward", grid, (BLOCK, 1, 1), *arguments, start)

    def ctc_backward(self, predictions, expected, lengths, dloss, dx, fresh_dx=False):
        if dx.size:
            arguments = (
                *(*sequence(predictions), *sequence(expected), *_column(lengths)),
                *(*_column(dloss), *sequence(dx), *dx.shape, fresh_dx),
            )
            grid = self._gpu.over(dx.size)
            self._gpu.launch("ctc_backward", grid, (BLOCK, 1, 1), *arguments)


def paths_of(steps: int) -> tuple[int, int]:
    """How many steps to keep the paths' probabilities of, and room for them.

    Returns:
        The length of a segment, and the number of elements for one sequence.
    """
    segment = math.isqrt(steps - 1) + 1
    rows = segment + -(-steps // segment) + 2
    return segment, 2 * rows * (steps + 1)


def sequence(array: CudaArray) -> tuple[int, int, int]:
    """The kernels' struct Sequence."""
    check_neighbours(array)
    return (array.pointer, *array.strides[:2])


def _column(array: CudaArray | None) -> tuple[int, int]:
    """Address of an array (N, 1), and the distance of its rows."""
    return (0, 0) if array is None else (array.pointer, array.strides[0])
