"""Lengths of sequences, and sequences from the end, on a GPU."""

from __future__ import annotations

from brainstorm.handlers.cuda.arrays import CudaArray, check_neighbours
from brainstorm.handlers.cuda.launcher import BLOCK


class CudaSequences:
    """Part of PyCudaHandler."""

    def sequence_lengths(self, mask, lengths):
        steps, batch = mask.shape[:2]
        if batch:
            arguments = (*sequence(mask), *column_of(lengths), steps, batch)
            grid = self._gpu.over(batch)
            self._gpu.launch("sequence_lengths", grid, (BLOCK, 1, 1), *arguments)

    def reverse_steps(self, x, lengths, out, fresh_out=False):
        if out.size:
            arguments = (*sequence(x), *column_of(lengths), *sequence(out), *x.shape)
            grid = self._gpu.over(out.size)
            self._gpu.launch(
                "reverse_steps", grid, (BLOCK, 1, 1), *arguments, fresh_out
            )


def sequence(array: CudaArray | None) -> tuple[int, int, int]:
    """The kernels' struct Sequence."""
    if array is None:
        return 0, 0, 0
    check_neighbours(array)
    return (array.pointer, *array.strides[:2])


def column_of(array: CudaArray | None) -> tuple[int, int]:
    """Address of an array (N, 1), and the distance of its rows."""
    return (0, 0) if array is None else (array.pointer, array.strides[0])
