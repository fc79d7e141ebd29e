"""Elementwise arithmetic on a GPU."""

from __future__ import annotations

from collections.abc import Callable

from brainstorm.handlers.operations.arithmetic import FORMULAS
from brainstorm.handlers.operations.contract import add_method


class CudaArithmetic:
    """Part of PyCudaHandler."""

    def add_into_if(self, a, out, cond):
        self._gpu.elementwise("add_into_if", (a, out, cond))

    def clip_t(self, a, a_min, a_max, out):
        self._gpu.elementwise("clip_t", (a, out), a_min, a_max)


def _unary(kernel: str) -> Callable:
    return lambda self, a, out: self._gpu.elementwise(kernel, (a, out))


def _with_scalar(kernel: str) -> Callable:
    return lambda self, s, t, out: self._gpu.elementwise(kernel, (t, out), s)


def _binary(kernel: str) -> Callable:
    return lambda self, a, b, out: self._gpu.elementwise(kernel, (a, b, out))


def _with_vector(kernel: str) -> Callable:
    return lambda self, m, v, out: self._gpu.elementwise(kernel, (m, v, out))


_KINDS = {"_t": _unary, "st": _with_scalar, "tt": _binary, "mv": _with_vector}

for _name in FORMULAS:  # a kernel repeats what is smaller than its output by itself
    _kernel = _name.replace("_mv", "_tt")
    add_method(CudaArithmetic, _name, _KINDS[_name[-2:]](_kernel))
