"""Updates of parameters, and limits of their norms, for NumpyHandler."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from brainstorm.handlers.numpy.arithmetic import NumpyArithmetic
from brainstorm.handlers.numpy.pieces import pieces, row_pieces
from brainstorm.handlers.operations.updates import UpdateOperations
from brainstorm.handlers.programs import whole
from brainstorm.utils import HandlerError


class NumpyUpdates(NumpyArithmetic, UpdateOperations):
    """Part of NumpyHandler."""

    def _set_limits(self, dtype: Any) -> None:
        info = np.finfo(dtype)
        self._smallest = float(info.smallest_subnormal)
        # Squares of numbers that do not count beside these do not vanish.
        self._smallest_limit = 1000 * math.sqrt(info.tiny / info.eps)

    def _pieces(self, *arrays: Any) -> Any:
        return pieces(*arrays)

    def _check_epsilon(self, epsilon: float, given: float) -> None:
        """Refuse what would divide zero by zero where a gradient is zero."""
        if epsilon < self._smallest:
            name = np.dtype(self.dtype).name
            raise HandlerError(
                f"epsilon = {given!r} is zero in {name}, whose smallest number is"
                f" {self._smallest:.1g}: take a larger one, a stepper without epsilon"
                " such as MomentumStepper, or a handler with float32"
            )

    @whole
    def constrain_rows(self, m: Any, limit: float, norms: Any) -> None:
        if len(m) == 1:
            self._constrain_row(m[0], limit, norms)
            return
        for m, norms in row_pieces(m, norms):
            squares = self.scratch(m.shape, 2)
            if not self._sum_squares(m, limit, squares, norms):
                self._constrain_scaled(m, limit, squares, norms)
                continue
            np.sqrt(norms, norms)
            np.multiply(norms, 1.0 / limit, norms)
            np.maximum(norms, self._one, out=norms)
            self._with_vector(np.divide, m, norms, m)

    def _sum_squares(
        self, m: np.ndarray, limit: float, squares: np.ndarray, norms: np.ndarray
    ) -> bool:
        """Squares and their sums over rows; whether no digits were lost that count."""
        if limit < self._smallest_limit:
            return False
        try:
            with np.errstate(over="raise"):
                np.multiply(m, m, squares)
                np.add.reduce(squares, 1, out=norms, keepdims=True)
        except FloatingPointError:
            return False
        return True

    def _constrain_scaled(
        self, m: np.ndarray, limit: float, scaled: np.ndarray, norms: np.ndarray
    ) -> None:
        """The same for numbers whose squares overflow, or vanish beside the limit."""
        with np.errstate(all="ignore"):
            np.abs(m, scaled)
            scale = np.maximum.reduce(scaled, 1, keepdims=True, initial=0)
            scale[scale == 0] = 1
            self._with_vector(np.divide, m, scale, scaled)
            np.multiply(scaled, scaled, scaled)
            np.add.reduce(scaled, 1, out=norms, keepdims=True)
            np.sqrt(norms, norms)
            kept = norms <= self.dtype(limit) / scale
            scale[kept] = 1
            np.divide(self.dtype(limit), norms, norms)
            norms[kept] = 1
            self._with_vector(np.divide, m, scale, m)
            self._with_vector(np.multiply, m, norms, m)

    def _constrain_row(self, row: np.ndarray, limit: float, norm: np.ndarray) -> None:
        """The same for a single row, which may be that of all gradients."""
        total, part_sum = 0.0, self.scratch((1, 1), 3)
        for (part,) in pieces(row):
            part = part[np.newaxis]
            squares = self.scratch(part.shape, 2)
            if not self._sum_squares(part, limit, squares, part_sum):
                self._constrain_long_row(row, limit)
                return
            total += float(part_sum[0, 0])
        excess = math.sqrt(total) / limit
        norm.fill(excess)
        if not excess <= 1:
            np.multiply(row, 1 / excess, row)

    def _constrain_long_row(self, row: np.ndarray, limit: float) -> None:
        scale = max((float(np.max(np.abs(part))) for (part,) in pieces(row)), default=0)
        if not scale:
            return
        total = 0.0
        for (part,) in pieces(row):
            total += float(np.sum(np.square(part / self.dtype(scale))))
        root = math.sqrt(total)
        if not root <= limit / scale:
            np.divide(row, self.dtype(scale), row)
            np.multiply(row, limit / root, row)
