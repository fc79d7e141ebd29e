"""Rows of a matrix that are chosen by their numbers, on a GPU."""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.cuda.launcher import row_blocks
from brainstorm.handlers.cuda.leaves import CudaLeaves
from brainstorm.handlers.operations.embedding import EmbeddingOperations
from brainstorm.handlers.programs import whole


class CudaEmbedding(CudaLeaves, EmbeddingOperations):
    """Part of PyCudaHandler."""

    def take_rows(self, m: Any, indices: Any, out: Any) -> None:
        arguments = (m, len(m), indices, out, *out.shape, self._failure())
        self._launch_by_rows("take_rows", out.shape, *arguments)

    @whole
    def check_limit(self, a: Any, limit: int, text: str) -> None:
        # It is noticed when something is read, like an index beyond a matrix.
        chosen = self.scratch((a.size, 1), 3)
        self.take_rows(self.scratch((int(limit) + 1, 1), 2), a, chosen)

    def add_to_rows(
        self, a: Any, indices: Any, out: Any, fresh_out: bool = False
    ) -> None:
        if fresh_out:
            self._elementwise("fill", (out,), 0.0)
        if len(a):
            (wanted, _), block = row_blocks(*out.shape)
            # Each block looks through all indices, so more of them cost time.
            grid = max(1, min(wanted, self._gpu.device.max_blocks // 8)), 1
            arguments = (a, indices, len(a), out, *out.shape, self._failure())
            self._launch("add_to_rows", grid, block, *arguments)
