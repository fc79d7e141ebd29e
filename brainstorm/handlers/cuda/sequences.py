"""Lengths of sequences, and sequences from the end, on a GPU."""

from __future__ import annotations

from brainstorm.handlers.cuda.arrays import CudaArray, check_neighbours


class CudaSequences:
    """Part of PyCudaHandler."""

    def sequence_lengths(self, mask, lengths):
        sizes = mask.shape[:2]
        arguments = (mask, lengths, *sizes)
        self._gpu.launch_for_each("sequence_lengths", sizes[1], *arguments)

    def reverse_steps(self, x, lengths, out, fresh_out=False):
        arguments = (x, lengths, out, *x.shape, fresh_out)
        self._gpu.launch_for_each("reverse_steps", out.size, *arguments)


def sequence(array: CudaArray | None) -> tuple[int, int, int]:
    """The kernels' struct Sequence."""
    if array is None:
        return 0, 0, 0
    check_neighbours(array)
    return (array.pointer, *array.strides[:2])
