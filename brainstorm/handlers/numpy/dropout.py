"""Dropout with NumPy."""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.numpy.memory import NumpyMemory
from brainstorm.handlers.numpy.pieces import pieces
from brainstorm.handlers.operations.dropout import DropoutOperations


class NumpyDropout(NumpyMemory, DropoutOperations):
    """Part of NumpyHandler."""

    def dropout_forward(self, x: Any, mask: Any, y: Any, drop_prob: float) -> None:
        for x, mask, y in pieces(x, mask, y):
            super().dropout_forward(x, mask, y, drop_prob)
