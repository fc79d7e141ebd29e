"""Rows of a matrix that are chosen by their numbers, on a GPU."""

from __future__ import annotations

from brainstorm.handlers.cuda.arrays import matrix_rows
from brainstorm.handlers.cuda.launcher import row_blocks


class CudaEmbedding:
    """Part of PyCudaHandler."""

    def take_rows(self, m, indices, out):
        if out.size:
            self._gpu.launch(
                "take_rows",
                *row_blocks(*out.shape),
                *(
                    *matrix_rows(m),
                    m.shape[0],
                    *matrix_rows(indices),
                    *matrix_rows(out),
                    *out.shape,
                    self._gpu.expect_failure(),
                ),
            )

    def add_to_rows(self, a, indices, out, fresh_out=False):
        if fresh_out:
            self._gpu.elementwise("fill", (out,), 0.0)
        if a.shape[0]:
            rows, cols = out.shape
            (wanted, _), block = row_blocks(rows, cols)
            # Each block looks through all indices, so more of them cost time.
            blocks = max(1, min(wanted, self._gpu.device.max_blocks // 8))
            self._gpu.launch(
                "add_to_rows",
                (blocks, 1),
                block,
                *(*matrix_rows(a), *matrix_rows(indices), a.shape[0]),
                *(*matrix_rows(out), rows, cols, self._gpu.expect_failure()),
            )
