"""Sequences from the end, with NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from brainstorm.handlers.numpy.memory import NumpyMemory
from brainstorm.handlers.operations.sequences import SequenceOperations, checked_lengths
from brainstorm.handlers.programs import whole


class NumpySequences(NumpyMemory, SequenceOperations):
    """Part of NumpyHandler."""

    @whole
    def reverse_steps(
        self, x: Any, lengths: Any, out: Any, fresh_out: bool = False
    ) -> None:
        if lengths is None:
            self._put(x[::-1], out, fresh_out)
            return
        if lengths.size and not (lengths.min() >= 0 and lengths.max() <= len(x)):
            checked_lengths(lengths, len(x), "reverse_steps")
        if fresh_out:
            out.fill(0)
        ends = self._temporary(lengths.shape, "int", np.intp)
        ends[...] = lengths
        for b, end in enumerate(ends[:, 0]):
            self._put(x[:end, b][::-1], out[:end, b], fresh_out)
