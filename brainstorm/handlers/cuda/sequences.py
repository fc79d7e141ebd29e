"""Whole sequences and connectionist temporal classification for PyCudaHandler."""

# Operations are documented in LayerOperations.
# ruff: noqa: D102

from __future__ import annotations

from brainstorm.handlers.cuda.arrays import CudaArray, check_neighbours
from brainstorm.handlers.cuda.launcher import BLOCK, Launcher, row_blocks

__all__ = ["CudaSequences", "sequence"]

# Elements of the largest array of the log-probabilities of all paths: 512 MiB.
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
        if not x.size:
            return
        gpu = self._gpu
        log_sums = self.scratch((steps * batch,), 2)
        gpu.launch(
            "ctc_softmax",
            *row_blocks(steps * batch, classes),
            *(*sequence(x), *sequence(predictions), log_sums.pointer, *x.shape),
        )
        # Two elements hold one number of 64 bits.
        size = 2 * (steps + 2) * (steps + 1)
        at_once = min(batch, max(1, PATHS_SIZE // size))
        work = self.scratch((at_once, size), 3)
        labels = self.scratch((at_once, 2 * steps), 4)
        arguments = (
            *(*sequence(x), log_sums.pointer, *sequence(targets)),
            *(*_column(lengths), *sequence(expected), *_column(loss)),
            *(work.pointer, labels.pointer, *x.shape),
        )
        gpu.expect_failures()
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


def sequence(array: CudaArray) -> tuple[int, int, int]:
    """The kernels' struct Sequence."""
    check_neighbours(array)
    return (array.pointer, *array.strides[:2])


def _column(array: CudaArray | None) -> tuple[int, int]:
    """Address of an array (N, 1), and the distance of its rows."""
    return (0, 0) if array is None else (array.pointer, array.strides[0])
