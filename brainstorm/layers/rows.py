"""Arrays as matrices whose columns are the last dimension."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from brainstorm.handlers.base_handler import Handler

__all__ = ["Rows"]


class Rows:
    """Arrays (..., C) as matrices (M, C), to be read or written.

    They are views of the arrays, save in one case. Where an output with several
    feature dimensions is joined with others into one input, their features lie in
    between, and no view is such a matrix. Then it is a copy, and `load` and `store`
    move the values.

    Args:
        handler: Tells what is a view.
        read: Arrays that are only read.
        written: Arrays that are written too.

    Attributes:
        matrices: The matrices, those to read first.
    """

    def __init__(self, handler: Handler, read: Sequence[Any], written: Sequence[Any]):
        self.matrices = []
        self._copies, self._copies_written = [], []
        for array in (*read, *written):
            rows = math.prod(array.shape[:-1])
            matrix = array.reshape((rows, array.shape[-1]))
            self.matrices.append(matrix)
            if handler.overlap(matrix, array) == "none":
                pair = array, matrix.reshape(array.shape)
                self._copies.append(pair)
                if len(self.matrices) > len(read):
                    self._copies_written.append(pair)

    def load(self, handler: Handler) -> None:
        """Let the matrices have the values of the arrays."""
        for array, copy in self._copies:
            handler.copy_to(array, copy)

    def store(self, handler: Handler) -> None:
        """Let the written arrays have the values of their matrices."""
        for array, copy in self._copies_written:
            handler.copy_to(copy, array)
