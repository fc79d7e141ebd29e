"""Softmax and losses."""

from __future__ import annotations

import math
from typing import Any

from brainstorm.handlers.operations.activations import ActivationOperations
from brainstorm.handlers.operations.contract import (
    check_indices,
    indices_within,
    operation,
)
from brainstorm.handlers.operations.products import ProductOperations

__all__ = ["SMALLEST_PROBABILITY", "LossOperations"]

SMALLEST_PROBABILITY = 1e-6
"""The arguments of the logarithms in losses are limited to this."""

# Numbers of all types of handlers.
_TINY, _HUGE = 1e-37, 1e37


class LossOperations(ActivationOperations, ProductOperations):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation("m:M,N", "out:M,N", alias="*")
    def softmax_m(self, m: Any, out: Any) -> None:
        """Softmax over the rows: ``out[i] = exp(m[i]) / sum(exp(m[i]))``."""
        raise NotImplementedError

    @operation("m:M,N", "out:M,N")
    def log_softmax_m(self, m: Any, out: Any) -> None:
        """Its logarithm: ``out[i] = m[i] - log(sum(exp(m[i])))``."""
        # For each j, log(sum) is m[j] - log(p[j]); their mean, weighted by p, leaves
        # out those that are too small.
        p, sums = self.scratch(m.shape, 2), self.scratch((m.shape[0], 1), 3)
        self.softmax_m(m, p)
        self.clip_t(p, _TINY, 1.0, out)
        self.log_t(out, out)
        self.subtract_tt(m, out, out)
        self.clip_t(out, -_HUGE, _HUGE, out)  # infinity times 0 would be NaN
        self.mult_tt(p, out, out)
        self.sum_t(out, 1, sums)
        self.subtract_mv(m, sums, out)

    @operation("y:M,N dy:M,N", add="dx:M,N")
    def softmax_backward(
        self, y: Any, dy: Any, dx: Any, fresh_dx: bool = False
    ) -> None:
        """Backward pass of :meth:`softmax_m`, which gave y.

        ``dx[i] (+)= y[i] (dy[i] - sum(y[i] dy[i]))``
        """
        work, sums = self.scratch(y.shape, 2), self.scratch((y.shape[0], 1), 3)
        self.mult_tt(y, dy, work)
        self.sum_t(work, 1, sums)
        self.subtract_mv(dy, sums, work)
        (self.mult_tt if fresh_dx else self.mult_add_tt)(y, work, dx)

    @operation("y:M,N dy:M,N", add="dx:M,N")
    def log_softmax_backward(
        self, y: Any, dy: Any, dx: Any, fresh_dx: bool = False
    ) -> None:
        """Backward pass of :meth:`log_softmax_m`, which gave y.

        ``dx[i] (+)= dy[i] - softmax(y[i]) sum(dy[i])``; softmax(y) is exp(y) then.
        """
        p, sums = self.scratch(y.shape, 2), self.scratch((y.shape[0], 1), 3)
        self.softmax_m(y, p)
        self.sum_t(dy, 1, sums)
        self.mult_mv(p, sums, p)
        if fresh_dx:
            self.subtract_tt(dy, p, dx)
        else:
            self.add_tt(dx, dy, dx)
            self.subtract_tt(dx, p, dx)

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

    @operation("x:M,C shares:M,C", "predictions:M,C loss:M,1")
    def soft_targets_ce_forward(
        self, x: Any, shares: Any, predictions: Any, loss: Any
    ) -> None:
        """Softmax and its cross-entropy with shares of the classes.

        ``loss = -sum(shares log(predictions))``, where the logarithm's argument is
        limited to [1e-6, 1]. The shares need not add up to 1.
        """
        work = self.scratch(x.shape, 2)
        self.softmax_m(x, predictions)
        self.clip_t(predictions, SMALLEST_PROBABILITY, 1.0, work)
        self.log_t(work, work)
        self.mult_tt(shares, work, work)
        self.sum_t(work, 1, loss)
        self.mult_st(-1.0, loss, loss)

    @operation("shares:M,C predictions:M,C dloss:M,1", add="dx:M,C")
    def soft_targets_ce_backward(
        self, shares: Any, predictions: Any, dloss: Any, dx: Any, fresh_dx: bool = False
    ) -> None:
        """Backward pass of :meth:`soft_targets_ce_forward`.

        ``dx (+)= (sum(shares) predictions - shares) dloss``
        """
        work, sums = self.scratch(dx.shape, 2), self.scratch(dloss.shape, 3)
        self.sum_t(shares, 1, sums)
        self.mult_mv(predictions, sums, work)
        self.subtract_tt(work, shares, work)
        (self.mult_mv if fresh_dx else self.mult_add_mv)(work, dloss, dx)

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
