"""Rows of a matrix that are chosen by their numbers."""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.operations.contract import (
    check_indices,
    indices_within,
    operation,
)
from brainstorm.handlers.operations.losses import LossOperations
from brainstorm.handlers.operations.products import ProductOperations
from brainstorm.handlers.programs import whole
from brainstorm.utils import HandlerError

__all__ = ["EmbeddingOperations"]


class EmbeddingOperations(LossOperations, ProductOperations):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation(
        "m:V,N indices:M,1", "out:M,N", check_values=indices_within("indices", "m", 0)
    )
    @whole
    def take_rows(self, m: Any, indices: Any, out: Any) -> None:
        """``out[i] = m[indices[i, 0]]``, with integers in [0, V).

        Raises:
            HandlerError: An index is no integer in that range.
        """
        check_indices(self.get_numpy_copy(indices), m.shape[0], "take_rows: indices")
        chosen = self.scratch((indices.shape[0], m.shape[0]), 2)
        self.binarize_v(indices, chosen)
        self.dot_mm(chosen, m, out)

    @whole
    def check_limit(self, a: Any, limit: int, text: str) -> None:
        """Look for numbers above a limit.

        Raises:
            HandlerError: There is one, with the given text.
        """
        if a.size and self.get_numpy_copy(a).max() > limit:
            raise HandlerError(text)

    @operation(
        "a:M,N indices:M,1",
        add="out:V,N",
        check_values=indices_within("indices", "out", 0),
    )
    @whole
    def add_to_rows(
        self, a: Any, indices: Any, out: Any, fresh_out: bool = False
    ) -> None:
        """``out[indices[i, 0]] += a[i]`` for all i, one after the other."""
        chosen = self.scratch((indices.shape[0], out.shape[0]), 2)
        self.binarize_v(indices, chosen)
        self._multiply(chosen, a, out, transa=True, add=not fresh_out)
