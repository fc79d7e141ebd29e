"""Elementwise arithmetic on a GPU."""

# Operations are documented in `operations`.
# ruff: noqa: D102

from __future__ import annotations

from brainstorm.handlers.cuda.launcher import Launcher

__all__ = ["CudaArithmetic"]


class CudaArithmetic:
    """Part of PyCudaHandler."""

    _gpu: Launcher

    def abs_t(self, a, out):
        self._gpu.elementwise("abs_t", (a, out))

    def add_st(self, s, t, out):
        self._gpu.elementwise("add_st", (t, out), s)

    def add_tt(self, a, b, out):
        self._gpu.elementwise("add_tt", (a, b, out))

    def add_into_if(self, a, out, cond):
        self._gpu.elementwise("add_into_if", (a, out, cond))

    def clip_t(self, a, a_min, a_max, out):
        self._gpu.elementwise("clip_t", (a, out), a_min, a_max)

    def divide_tt(self, a, b, out):
        self._gpu.elementwise("divide_tt", (a, b, out))

    def log_t(self, a, out):
        self._gpu.elementwise("log_t", (a, out))

    def modulo_tt(self, a, b, out):
        self._gpu.elementwise("modulo_tt", (a, b, out))

    def mult_add_st(self, s, t, out):
        self._gpu.elementwise("mult_add_st", (t, out), s)

    def mult_add_tt(self, a, b, out):
        self._gpu.elementwise("mult_add_tt", (a, b, out))

    def mult_st(self, s, t, out):
        self._gpu.elementwise("mult_st", (t, out), s)

    def mult_tt(self, a, b, out):
        self._gpu.elementwise("mult_tt", (a, b, out))

    def sign_t(self, a, out):
        self._gpu.elementwise("sign_t", (a, out))

    def sqrt_t(self, a, out):
        self._gpu.elementwise("sqrt_t", (a, out))

    def subtract_tt(self, a, b, out):
        self._gpu.elementwise("subtract_tt", (a, b, out))

    def add_mv(self, m, v, out):
        self._gpu.elementwise("add_tt", (m, v, out))

    def divide_mv(self, m, v, out):
        self._gpu.elementwise("divide_tt", (m, v, out))

    def mult_mv(self, m, v, out):
        self._gpu.elementwise("mult_tt", (m, v, out))

    def mult_add_mv(self, m, v, out):
        self._gpu.elementwise("mult_add_tt", (m, v, out))

    def subtract_mv(self, m, v, out):
        self._gpu.elementwise("subtract_tt", (m, v, out))
