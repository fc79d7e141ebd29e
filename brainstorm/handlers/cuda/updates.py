"""Limits of the norms of parameters for PyCudaHandler."""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.cuda.launcher import BLOCK, row_blocks
from brainstorm.handlers.cuda.leaves import CudaLeaves
from brainstorm.handlers.operations.updates import UpdateOperations

# More columns of a row are worked on by several blocks, if there are few rows.
_PART = 4096


class CudaUpdates(CudaLeaves, UpdateOperations):
    """Part of PyCudaHandler."""

    def constrain_rows(self, m: Any, limit: float, norms: Any) -> None:
        rows, cols = m.shape
        gpu = self._gpu
        (blocks, _), _ = row_blocks(rows, cols)
        parts = min(-(-cols // _PART), gpu.device.max_blocks // max(blocks, 1))
        if parts <= 1:
            self._launch_by_rows("constrain_rows", m.shape, m, rows, cols, limit, norms)
            return
        chunk = -(-cols // parts)
        grid, block = (-(-cols // chunk), rows), (BLOCK, 1, 1)
        # Two elements hold one number of 64 bits.
        squares = self.scratch((2 * grid[0] * rows,), 2)
        row = (m, cols, chunk, squares)
        gpu.launch("squares_of_parts", grid, block, *row)
        gpu.launch("constrain_parts", grid, block, *row, limit, norms)
