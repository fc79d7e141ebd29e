"""Elementwise arithmetic with NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from brainstorm.handlers.numpy.memory import NumpyMemory
from brainstorm.handlers.numpy.pieces import pieces, vector_pieces
from brainstorm.handlers.operations.arithmetic import FORMULAS, ArithmeticOperations
from brainstorm.handlers.operations.contract import add_method


class NumpyArithmetic(NumpyMemory, ArithmeticOperations):
    """Part of NumpyHandler."""

    def add_into_if(self, a: Any, out: Any, cond: Any) -> None:
        for a, out, cond in pieces(a, out, cond):
            self.do(np.add, out, a, out=out, where=self._nonzero(cond))

    def clip_t(self, a: Any, a_min: float, a_max: float, out: Any) -> None:
        self.do(np.maximum, a, self.number(a_min), out=out)
        self.do(np.minimum, out, self.number(a_max), out=out)

    def mult_add_st(self, s: Any, t: Any, out: Any) -> None:
        s = self.number(s)
        for t, out in pieces(t, out):
            product = self.scratch(t.shape)
            self.do(np.multiply, t, s, product)
            self.do(np.add, out, product, out)

    def mult_add_tt(self, a: Any, b: Any, out: Any) -> None:
        for a, b, out in pieces(a, b, out):
            product = self.scratch(a.shape)
            self.do(np.multiply, a, b, product)
            self.do(np.add, out, product, out)

    def mult_add_mv(self, m: Any, v: Any, out: Any) -> None:
        for m, v, out in vector_pieces(m, v, out):
            product = self.scratch(m.shape)
            self._with_vector(np.multiply, m, v, product)
            self.do(np.add, out, product, out)

    def _with_vector(self, ufunc: np.ufunc, m, v, out) -> None:
        """Call a function with a vector that is repeated to the size of a matrix.

        Where operands have different strides NumPy allocates buffers, which takes
        longer than repeating a row; so the vector is repeated beforehand.
        """
        if v.shape == m.shape:
            self.do(ufunc, m, v, out)
            return
        wide = None
        for m, v, out in vector_pieces(m, v, out):
            if wide is None or len(v) > 1:
                wide = self.scratch(m.shape, 1)
                self.do(wide.__setitem__, ..., v)
            self.do(ufunc, m, wide[: len(m)], out)  # of which the last has the fewest


def _of_one(ufunc: np.ufunc) -> Callable[..., None]:
    def operation(self, a, out):
        self.do(ufunc, a, out)

    return operation


def _with_scalar(ufunc: np.ufunc) -> Callable[..., None]:
    def operation(self, s, t, out):
        self.do(ufunc, t, self.number(s), out)

    return operation


def _of_two(ufunc: np.ufunc) -> Callable[..., None]:
    def operation(self, a, b, out):
        self.do(ufunc, a, b, out)

    return operation


def _with_vector(ufunc: np.ufunc) -> Callable[..., None]:
    def operation(self, m, v, out):
        self._with_vector(ufunc, m, v, out)

    return operation


UFUNCS: dict[str, np.ufunc] = {
    "abs": np.abs,
    "log": np.log,
    "sign": np.sign,
    "sqrt": np.sqrt,
}
UFUNCS |= {"add": np.add, "divide": np.divide, "mult": np.multiply}
UFUNCS |= {"modulo": np.mod, "subtract": np.subtract}
_KINDS = {"_t": _of_one, "st": _with_scalar, "tt": _of_two, "mv": _with_vector}

for _name in FORMULAS.keys() - vars(NumpyArithmetic).keys():
    _make, _ufunc = _KINDS[_name[-2:]], UFUNCS[_name.rpartition("_")[0]]
    add_method(NumpyArithmetic, _name, _make(_ufunc))
