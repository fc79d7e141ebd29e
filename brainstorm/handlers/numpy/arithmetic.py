"""Elementwise arithmetic with NumPy."""

from __future__ import annotations

import numpy as np

from brainstorm.handlers.numpy.pieces import pieces, vector_pieces


class NumpyArithmetic:
    """Part of NumpyHandler."""

    def abs_t(self, a, out):
        self.do(np.abs, a, out)

    def add_st(self, s, t, out):
        self.do(np.add, t, self.number(s), out)

    def add_tt(self, a, b, out):
        self.do(np.add, a, b, out)

    def add_into_if(self, a, out, cond):
        for a, out, cond in pieces(a, out, cond):
            self.do(np.add, out, a, out=out, where=self._nonzero(cond))

    def clip_t(self, a, a_min, a_max, out):
        self.do(np.maximum, a, self.number(a_min), out=out)
        self.do(np.minimum, out, self.number(a_max), out=out)

    def divide_tt(self, a, b, out):
        self.do(np.divide, a, b, out)

    def log_t(self, a, out):
        self.do(np.log, a, out)

    def modulo_tt(self, a, b, out):
        self.do(np.mod, a, b, out)

    def mult_add_st(self, s, t, out):
        s = self.number(s)
        for t, out in pieces(t, out):
            product = self.scratch(t.shape)
            self.do(np.multiply, t, s, product)
            self.do(np.add, out, product, out)

    def mult_add_tt(self, a, b, out):
        for a, b, out in pieces(a, b, out):
            product = self.scratch(a.shape)
            self.do(np.multiply, a, b, product)
            self.do(np.add, out, product, out)

    def mult_st(self, s, t, out):
        self.do(np.multiply, t, self.number(s), out)

    def mult_tt(self, a, b, out):
        self.do(np.multiply, a, b, out)

    def sign_t(self, a, out):
        self.do(np.sign, a, out)

    def sqrt_t(self, a, out):
        self.do(np.sqrt, a, out)

    def subtract_tt(self, a, b, out):
        self.do(np.subtract, a, b, out)

    def add_mv(self, m, v, out):
        self._with_vector(np.add, m, v, out)

    def divide_mv(self, m, v, out):
        self._with_vector(np.divide, m, v, out)

    def mult_mv(self, m, v, out):
        self._with_vector(np.multiply, m, v, out)

    def mult_add_mv(self, m, v, out):
        for m, v, out in vector_pieces(m, v, out):
            product = self.scratch(m.shape)
            self._with_vector(np.multiply, m, v, product)
            self.do(np.add, out, product, out)

    def subtract_mv(self, m, v, out):
        self._with_vector(np.subtract, m, v, out)

    def _with_vector(self, ufunc: np.ufunc, m, v, out) -> None:
        """Call a function with a vector that is repeated to the size of a matrix.

        Where operands have different strides NumPy allocates buffers, which takes
        longer than repeating a row; so the vector is repeated beforehand.
        """
        if v.shape == m.shape:
            self.do(ufunc, m, v, out)
            return
        for m, v, out in vector_pieces(m, v, out):
            wide = self.scratch(m.shape, 1)
            self.do(wide.__setitem__, ..., v)
            self.do(ufunc, m, wide, out)
