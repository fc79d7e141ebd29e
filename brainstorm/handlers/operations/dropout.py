"""Dropout."""

from __future__ import annotations

from typing import Any

from brainstorm.handlers.operations.arithmetic import ArithmeticOperations
from brainstorm.handlers.operations.contract import in_range, operation

__all__ = ["DropoutOperations"]


class DropoutOperations(ArithmeticOperations):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation("x:*S", "mask:*S y:*S", check=in_range("drop_prob", 0, 1))
    def dropout_forward(self, x: Any, mask: Any, y: Any, drop_prob: float) -> None:
        """``y = x mask`` with a random mask that keeps the expectation.

        Srivastava et al., *Dropout: a simple way to prevent neural networks from
        overfitting*, 2014; scaled at training time: the mask is 0 with probability
        `drop_prob`, else 1/(1 - drop_prob).
        """
        keep = 1.0 - drop_prob
        self.generate_probability_mask(mask, keep)
        self.mult_st(1.0 / keep if keep > 0 else 0.0, mask, mask)
        self.mult_tt(x, mask, y)

    @operation("mask:*S dy:*S", add="dx:*S", alias="dy")
    def dropout_backward(
        self, mask: Any, dy: Any, dx: Any, fresh_dx: bool = False
    ) -> None:
        """Backward pass of :meth:`dropout_forward`: ``dx (+)= dy mask``."""
        mult = self.mult_tt if fresh_dx else self.mult_add_tt
        mult(dy, mask, dx)
