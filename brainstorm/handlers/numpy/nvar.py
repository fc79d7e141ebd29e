"""Monomials of the columns of a matrix, with NumPy.

They are made in temporaries with a row for each monomial: rows are what is contiguous.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from brainstorm.handlers.numpy.memory import NumpyMemory
from brainstorm.handlers.operations.nvar import (
    NvarOperations,
    blocks_of,
    columns_of_degrees,
    count_monomials,
)


class NumpyNvar(NumpyMemory, NvarOperations):
    """Part of NumpyHandler."""

    def nvar_forward(
        self, lin: Any, y: Any, orders: Sequence[int], constant: bool
    ) -> None:
        columns = columns_of_degrees(lin.shape[1], orders, constant)
        if constant:
            self.fill(y[:, :1], 1.0)
        for degree, rows in self._rows_of_monomials(lin, max(columns)).items():
            if degree in columns:
                self.do(y[:, columns[degree]].__setitem__, ..., rows.T)

    def nvar_backward(
        self, lin: Any, dy: Any, dlin: Any, orders: Sequence[int], constant: bool
    ) -> None:
        L, columns = lin.shape[1], columns_of_degrees(lin.shape[1], orders, constant)
        top = max(columns)
        values = self._rows_of_monomials(lin, top - 1)
        deltas = {d: self._rows_for(L, d, dy, "deltas") for d in range(1, top + 1)}
        for degree, rows in deltas.items():
            if degree in columns:
                self.do(rows.__setitem__, ..., dy[:, columns[degree]].T)
            else:
                self.do(rows.fill, self._zero)
        total = self.scratch((len(dy),), "total")
        for degree in range(top, 1, -1):
            for a, here, others in blocks_of(L, degree):
                part, below = deltas[degree][here], deltas[degree - 1][others]
                product = self.scratch(part.shape, "value")
                self.do(np.multiply, part, values[1][a], product)
                self.do(np.add, below, product, below)
                self.do(np.multiply, part, values[degree - 1][others], product)
                self.do(np.add.reduce, product, 0, None, total)
                self.do(np.add, deltas[1][a], total, deltas[1][a])
        self.do(dlin.__setitem__, ..., deltas[1].T)

    def _rows_for(self, factors, degree, like, slot):
        shape = count_monomials(factors, degree), len(like)
        return self.scratch(shape, (slot, degree))

    def _rows_of_monomials(self, lin, top):
        """The monomials of all degrees, as rows."""
        L = lin.shape[1]
        found = {d: self._rows_for(L, d, lin, "value") for d in range(1, top + 1)}
        if found:
            self.do(found[1].__setitem__, ..., lin.T)
        for degree in range(2, top + 1):
            for a, here, others in blocks_of(L, degree):
                rest, out = found[degree - 1][others], found[degree][here]
                self.do(np.multiply, rest, found[1][a], out)
        return found
