"""Lengths of sequences, and sequences from the end, on a GPU."""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.cuda.leaves import CudaLeaves
from brainstorm.handlers.operations.sequences import SequenceOperations


class CudaSequences(CudaLeaves, SequenceOperations):
    """Part of PyCudaHandler."""

    def sequence_lengths(self, mask: Any, lengths: Any) -> None:
        sizes = mask.shape[:2]
        arguments = (mask, lengths, *sizes)
        self._launch_for_each("sequence_lengths", sizes[1], *arguments)

    def reverse_steps(
        self, x: Any, lengths: Any, out: Any, fresh_out: bool = False
    ) -> None:
        arguments = (x, lengths, out, *x.shape, fresh_out)
        self._launch_for_each("reverse_steps", out.size, *arguments)
