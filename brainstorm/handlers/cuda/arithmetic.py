"""Elementwise arithmetic on a GPU."""

from __future__ import annotations

from collections.abc import Callable


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


for _name in ("abs", "log", "sign", "sqrt"):
    setattr(CudaArithmetic, f"{_name}_t", _unary(f"{_name}_t"))
for _name in ("add", "mult", "mult_add"):
    setattr(CudaArithmetic, f"{_name}_st", _with_scalar(f"{_name}_st"))
for _name in ("add", "divide", "modulo", "mult", "mult_add", "subtract"):
    setattr(CudaArithmetic, f"{_name}_tt", _binary(f"{_name}_tt"))
    if _name != "modulo":
        setattr(CudaArithmetic, f"{_name}_mv", _with_vector(f"{_name}_tt"))
