"""Softmax and losses on a GPU."""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.cuda.leaves import CudaLeaves
from brainstorm.handlers.operations.losses import LossOperations


class CudaLosses(CudaLeaves, LossOperations):
    """Part of PyCudaHandler."""

    def softmax_m(self, m: Any, out: Any) -> None:
        self._launch_by_rows("softmax_m", m.shape, m, out, *m.shape)

    def log_softmax_m(self, m: Any, out: Any) -> None:
        self._launch_by_rows("log_softmax_m", m.shape, m, out, *m.shape)

    def softmax_backward(
        self, y: Any, dy: Any, dx: Any, fresh_dx: bool = False
    ) -> None:
        arguments = (y, dy, dx, *y.shape, fresh_dx)
        self._launch_by_rows("softmax_backward", y.shape, *arguments)

    def binarize_v(self, v: Any, out: Any) -> None:
        arguments = (v, out, *out.shape, self._failure())
        self._launch_by_rows("binarize_v", out.shape, *arguments)

    def index_m_by_v(self, m: Any, v: Any, out: Any) -> None:
        arguments = (m, v, out, *m.shape, self._failure())
        self._launch_for_each("index_m_by_v", out.size, *arguments)

    def softmax_ce_forward(
        self, x: Any, targets: Any, predictions: Any, loss: Any
    ) -> None:
        arrays = x, targets, predictions, loss
        arguments = (*arrays, *x.shape, self._failure())
        self._launch_by_rows("softmax_ce_forward", x.shape, *arguments)

    def softmax_ce_backward(
        self,
        targets: Any,
        predictions: Any,
        dloss: Any,
        t_bin: Any,
        dx: Any,
        fresh_dx: bool = False,
    ) -> None:
        arguments = (targets, predictions, dloss, t_bin, dx, *t_bin.shape, fresh_dx)
        arguments = (*arguments, self._failure())
        self._launch_by_rows("softmax_ce_backward", t_bin.shape, *arguments)

    def sigmoid_ce_backward(
        self,
        targets: Any,
        predictions: Any,
        dloss: Any,
        dcee: Any,
        dx: Any,
        fresh_dx: bool = False,
    ) -> None:
        if dx is None:
            self._elementwise("subtract_tt", (predictions, targets, dcee))
        else:
            name = "sigmoid_ce_backward" + ("_fresh" if fresh_dx else "")
            self._elementwise(name, (targets, predictions, dloss, dcee, dx))
