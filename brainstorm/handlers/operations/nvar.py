"""Monomials of the columns of a matrix, for next-generation reservoirs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from brainstorm.handlers.operations.contract import Check, expected, operation
from brainstorm.handlers.operations.products import ProductOperations

__all__ = ["NvarOperations", "blocks_of", "columns_of_degrees", "count_monomials"]

_PRODUCT, _TOTAL, _VALUES, _DELTAS = 2, 3, 4, 5


def count_monomials(factors: int, degree: int) -> int:
    """How many products of so many factors there are, in any order and repeated."""
    return math.comb(factors + degree - 1, degree)


def columns_of_degrees(
    factors: int, orders: Sequence[int], constant: bool
) -> dict[int, slice]:
    """Where the monomials of each degree are, in the order of the columns."""
    columns, start = {}, int(constant)
    for degree in (1, *orders):
        columns[degree] = slice(start, start + count_monomials(factors, degree))
        start = columns[degree].stop
    return columns


def _check_columns(name: str) -> Check:
    def check(handler: Any, args: dict[str, Any]) -> str | None:
        columns = columns_of_degrees(
            args["lin"].shape[1], args["orders"], args["constant"]
        )
        *_, last = columns.values()
        if args[name].shape[1] != last.stop:
            return expected(name, f"{last.stop} columns", str(args[name].shape[1]))
        return None

    return check


def blocks_of(factors: int, degree: int) -> Iterator[tuple[slice, slice, slice]]:
    """For each factor its column, its monomials, and those that it multiplies.

    Monomials are in the order of `itertools.combinations_with_replacement`, so that the
    ones that begin with a factor are that times the last ones of the degree below.
    """
    start, below = 0, count_monomials(factors, degree - 1)
    for a in range(factors):
        size = count_monomials(factors - a, degree - 1)
        yield slice(a, a + 1), slice(start, start + size), slice(below - size, below)
        start += size


class NvarOperations(ProductOperations):
    """Part of :class:`~brainstorm.handlers.base_handler.Handler`."""

    @operation("lin:M,L", "y:M,Q", check=_check_columns("y"))
    def nvar_forward(
        self, lin: Any, y: Any, orders: Sequence[int], constant: bool
    ) -> None:
        """``y = [1, lin, monomials of lin]``.

        Gauthier et al., *Next generation reservoir computing*, 2021.

        Args:
            lin: What the monomials are of.
            y: Receives the constant, if any, `lin`, and for each of the orders all
                products of so many columns of `lin`.
            orders: Degrees of the monomials, all different and above 1.
            constant: Whether there is a constant.
        """
        columns = columns_of_degrees(lin.shape[1], orders, constant)
        if constant:
            self.fill(y[:, :1], 1.0)
        self.copy_to(lin, y[:, columns[1]])
        places = {d: y[:, part] for d, part in columns.items() if d > 1}
        self._monomials(lin, max(columns), places)

    @operation("lin:M,L dy:M,Q", "dlin:M,L", check=_check_columns("dy"))
    def nvar_backward(
        self, lin: Any, dy: Any, dlin: Any, orders: Sequence[int], constant: bool
    ) -> None:
        """Backward pass of :meth:`nvar_forward`.

        Args:
            lin: As in the forward pass.
            dy: Deltas of y.
            dlin: Receives the deltas of `lin`.
            orders: As in the forward pass.
            constant: As in the forward pass.
        """
        columns = columns_of_degrees(lin.shape[1], orders, constant)
        top = max(columns)
        values = self._monomials(lin, top - 1, {})
        deltas = dy[:, columns[top]]
        self.copy_to(dy[:, columns[1]], dlin)
        for degree in range(top, 1, -1):
            below = dlin
            if degree > 2:
                shape = tuple(values[degree - 1].shape)
                below = self.scratch(shape, _DELTAS + degree * 2)
                if degree - 1 in columns:
                    self.copy_to(dy[:, columns[degree - 1]], below)
                else:
                    self.fill(below, 0.0)
            for a, here, others in blocks_of(lin.shape[1], degree):
                part, rest = deltas[:, here], values[degree - 1][:, others]
                self.mult_add_mv(part, lin[:, a], below[:, others])
                product = self.scratch(tuple(part.shape), _PRODUCT)
                total = self.scratch((lin.shape[0], 1), _TOTAL)
                self.mult_tt(part, rest, product)
                self.sum_t(product, 1, total)
                self.add_tt(dlin[:, a], total, dlin[:, a])
            deltas = below

    def _monomials(self, lin: Any, top: int, places: dict[int, Any]) -> dict[int, Any]:
        """The monomials by degree; for some there are places."""
        found = {1: lin}
        for degree in range(2, top + 1):
            shape = lin.shape[0], count_monomials(lin.shape[1], degree)
            found[degree] = places.get(degree)
            if degree not in places:
                found[degree] = self.scratch(shape, _VALUES + degree * 2)
            for a, here, others in blocks_of(lin.shape[1], degree):
                rest, out = found[degree - 1][:, others], found[degree][:, here]
                self.mult_mv(rest, lin[:, a], out)
        return found
