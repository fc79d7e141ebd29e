"""Softmax and losses on a GPU."""

from __future__ import annotations

from brainstorm.handlers.cuda.arrays import matrix_rows
from brainstorm.handlers.cuda.launcher import BLOCK, row_blocks


class CudaLosses:
    """Part of PyCudaHandler."""

    def softmax_m(self, m, out):
        if out.size:
            rows, cols = m.shape
            self._gpu.launch(
                "softmax_m",
                *row_blocks(rows, cols),
                *matrix_rows(m),
                *matrix_rows(out),
                rows,
                cols,
            )

    def binarize_v(self, v, out):
        if v.size:
            self._gpu.launch(
                "binarize_v",
                *row_blocks(*out.shape),
                *(*matrix_rows(v), *matrix_rows(out), *out.shape),
                self._gpu.expect_failure(),
            )

    def index_m_by_v(self, m, v, out):
        if out.size:
            self._gpu.launch(
                "index_m_by_v",
                self._gpu.over(out.size),
                (BLOCK, 1, 1),
                *(*matrix_rows(m), *matrix_rows(v), *matrix_rows(out), *m.shape),
                self._gpu.expect_failure(),
            )

    def softmax_ce_forward(self, x, targets, predictions, loss):
        rows, cols = x.shape
        if rows:
            self._gpu.launch(
                "softmax_ce_forward",
                *row_blocks(rows, cols),
                *(
                    *matrix_rows(x),
                    *matrix_rows(targets),
                    *matrix_rows(predictions),
                    *matrix_rows(loss),
                ),
                *(rows, cols, self._gpu.expect_failure()),
            )

    def softmax_ce_backward(
        self, targets, predictions, dloss, t_bin, dx, fresh_dx=False
    ):
        if targets.size:
            self._gpu.launch(
                "softmax_ce_backward",
                *row_blocks(*t_bin.shape),
                *(
                    *matrix_rows(targets),
                    *matrix_rows(predictions),
                    *matrix_rows(dloss),
                    *matrix_rows(t_bin),
                ),
                *((0, 0) if dx is None else matrix_rows(dx)),
                *(*t_bin.shape, fresh_dx, self._gpu.expect_failure()),
            )

    def sigmoid_ce_forward(self, x, targets, predictions, loss):
        arrays = (x, targets, predictions, loss)
        self._gpu.elementwise("sigmoid_ce_forward", arrays)

    def sigmoid_ce_backward(
        self, targets, predictions, dloss, dcee, dx, fresh_dx=False
    ):
        if dx is None:
            self._gpu.elementwise("subtract_tt", (predictions, targets, dcee))
        else:
            name = "sigmoid_ce_backward" + ("_fresh" if fresh_dx else "")
            self._gpu.elementwise(name, (targets, predictions, dloss, dcee, dx))
