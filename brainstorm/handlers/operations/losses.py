"""Softmax and losses."""

from __future__ import annotations

import math
from typing import Any

from brainstorm.handlers.operations.contract import (
    check_indices,
    indices_within,
    operation,
)

__all__ = ["SMALLEST_PROBABILITY", "LossOperations"]

SMALLEST_PROBABILITY = 1e-6
"""The arguments of the logarithms in losses are limited to this."""


class LossOperations:
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation("m:M,N", "out:M,N", alias="*")
    def softmax_m(self, m: Any, out: Any) -> None:
        """Softmax over the rows: ``out[i] = exp(m[i]) / sum(exp(m[i]))``."""
        raise NotImplementedError

    @operation("v:M,1", "out:M,N", check_values=indices_within("v", "out"))
    def binarize_v(self, v: Any, out: Any) -> None:
        """``out[i, j] = 1`` if j equals ``v[i, 0]``, an integer in [0, N), else 0."""
        raise NotImplementedError

    @operation(
        "m:M,N v:M,1", "out:M,1", alias="v", check_values=indices_within("v", "m")
    )
    def index_m_by_v(self, m: Any, v: Any, out: Any) -> None:
        """``out[i, 0] = m[i, v[i, 0]]``, where v has integers in [0, N)."""
        raise NotImplementedError

    @operation(
        "x:M,C targets:M,1",
        "predictions:M,C loss:M,1",
        check_values=indices_within("targets", "x"),
    )
    def softmax_ce_forward(
        self, x: Any, targets: Any, predictions: Any, loss: Any
    ) -> None:
        """Softmax and its cross-entropy with class indices from 0 to C - 1.

        `loss` is -log of the target's prediction, which is limited to [1e-6, 1].

        Raises:
            HandlerError: A target is no integer in that range.
        """
        self.do(self.plain._check_classes, targets, x.shape[1])
        self.softmax_m(x, predictions)
        self.index_m_by_v(predictions, targets, loss)
        self.clip_t(loss, SMALLEST_PROBABILITY, 1.0, loss)
        self.log_t(loss, loss)
        self.mult_st(-1.0, loss, loss)

    def _check_classes(self, targets: Any, count: int) -> None:
        check_indices(self.get_numpy_copy(targets), count, "class indices")

    @operation(
        "targets:M,1 predictions:M,C dloss:M,1",
        "t_bin:M,C",
        add="dx:M,C",
        optional="dx",
        check_values=indices_within("targets", "predictions"),
    )
    def softmax_ce_backward(
        self,
        targets: Any,
        predictions: Any,
        dloss: Any,
        t_bin: Any,
        dx: Any,
        fresh_dx: bool = False,
    ) -> None:
        """Backward pass of :meth:`softmax_ce_forward`.

        ``dx (+)= (predictions - t_bin) dloss``, where `t_bin` receives the targets as
        one-hot rows.
        """
        self.binarize_v(targets, t_bin)
        if dx is None:
            return
        deltas = dx if fresh_dx else self.scratch(dx.shape, 2)
        self.subtract_tt(predictions, t_bin, deltas)
        if fresh_dx:
            self.mult_mv(deltas, dloss, dx)
        else:
            self.mult_add_mv(deltas, dloss, dx)

    @operation("x:*S targets:*S", "predictions:*S loss:*S")
    def sigmoid_ce_forward(
        self, x: Any, targets: Any, predictions: Any, loss: Any
    ) -> None:
        """Sigmoid and its cross-entropy with the targets, elementwise.

        ``loss = -(t log(p) + (1 - t) log(1 - p))`` with ``p = sigmoid(x)``; the
        arguments of the logarithms are limited to [1e-6, 1].
        """
        # -log(1 - p) is softplus(x), and -log(p) is softplus(-x).
        largest = -math.log(SMALLEST_PROBABILITY)
        weight, of_others = self.scratch(x.shape, 2), self.scratch(x.shape, 3)
        self.sigmoid(x, predictions)
        self.mult_st(-1.0, x, weight)
        self.softplus(weight, of_others)
        self.clip_t(of_others, 0.0, largest, of_others)
        self.mult_tt(targets, of_others, loss)
        self.softplus(x, of_others)
        self.clip_t(of_others, 0.0, largest, of_others)
        self.mult_st(-1.0, targets, weight)
        self.add_st(1.0, weight, weight)
        self.mult_add_tt(weight, of_others, loss)

    @operation(
        "targets:*S predictions:*S dloss:*S", "dcee:*S", add="dx:*S", optional="dx"
    )
    def sigmoid_ce_backward(
        self,
        targets: Any,
        predictions: Any,
        dloss: Any,
        dcee: Any,
        dx: Any,
        fresh_dx: bool = False,
    ) -> None:
        """Backward pass of :meth:`sigmoid_ce_forward`.

        ``dx (+)= dcee dloss`` with ``dcee = predictions - targets``
        """
        self.subtract_tt(predictions, targets, dcee)
        if dx is not None:
            mult = self.mult_tt if fresh_dx else self.mult_add_tt
            mult(dcee, dloss, dx)
