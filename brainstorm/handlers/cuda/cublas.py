"""The matrix products of cuBLAS, through ctypes."""

from __future__ import annotations

import ctypes
import weakref

from brainstorm.handlers.cuda.arrays import OperationError
from brainstorm.handlers.cuda.libraries import load_library
from brainstorm.utils import HandlerError

STATUS = {
    1: "the library is not initialized",
    3: "out of memory",
    7: "invalid value",
    8: "the GPU is not supported",
    11: "access to the GPU's memory failed",
    13: "execution failed",
    14: "internal error",
    15: "not supported",
}
FLOAT_P, INT, LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong


class Cublas:
    """A handle of cuBLAS in the current context, for its default stream.

    Products are computed in float32: the default mode does not use TF32.

    Raises:
        HandlerError: The library was not found, or gave no handle.
    """

    def __init__(self) -> None:
        library = load_library("cublas")
        if library is None:
            raise HandlerError(
                "PyCudaHandler needs the library cuBLAS, which was not found. Install"
                " the CUDA toolkit, or: pip install nvidia-cublas"
            )
        handle = ctypes.c_void_p()
        status = library.cublasCreate_v2(ctypes.byref(handle))
        if status:
            raise HandlerError(_text("cublasCreate", status))
        library.cublasDestroy_v2.argtypes = [ctypes.c_void_p]
        # At the end of the process the driver is gone before the handle.
        weakref.finalize(self, library.cublasDestroy_v2, handle).atexit = False
        self._handle = handle
        self._sgemm = library.cublasSgemm_v2
        self._sgemm.argtypes = [
            *(ctypes.c_void_p, INT, INT, INT, INT, INT),
            *(FLOAT_P, FLOAT_P, INT, FLOAT_P, INT, FLOAT_P, FLOAT_P, INT),
        ]
        self._batched = library.cublasSgemmStridedBatched
        self._batched.argtypes = [
            *(ctypes.c_void_p, INT, INT, INT, INT, INT),
            *(FLOAT_P, FLOAT_P, INT, LONG, FLOAT_P, INT, LONG),
            *(FLOAT_P, FLOAT_P, INT, LONG, INT),
        ]
        self._one = ctypes.c_float(1.0)
        self._zero = ctypes.c_float(0.0)
        self._alpha = ctypes.addressof(self._one)
        self._betas = (ctypes.addressof(self._zero), self._alpha)

    def sgemm(
        self,
        transa: bool,
        transb: bool,
        m: int,
        n: int,
        k: int,
        a: int,
        lda: int,
        b: int,
        ldb: int,
        add: bool,
        c: int,
        ldc: int,
    ) -> None:
        """``c (+)= a b`` with matrices in C order, whose rows are `ld` apart.

        Args:
            transa: Whether `a` is given as (k, m).
            transb: Whether `b` is given as (n, k).
            m: Number of rows of `c`.
            n: Number of columns of `c`.
            k: Number of products that are summed.
            a: Address of the first matrix.
            lda: Distance of its rows.
            b: Address of the second matrix.
            ldb: Distance of its rows.
            add: Whether to add to `c`.
            c: Address of the result.
            ldc: Distance of its rows.

        Raises:
            OperationError: cuBLAS failed.
        """
        # To cuBLAS, which has columns where C has rows, all matrices are transposed.
        status = self._sgemm(
            *(self._handle, transb, transa, n, m, k),
            *(self._alpha, b, ldb, a, lda, self._betas[add], c, ldc),
        )
        if status:
            raise OperationError(_text("cublasSgemm", status))

    def sgemm_batched(
        self,
        transa: bool,
        transb: bool,
        m: int,
        n: int,
        k: int,
        a: int,
        lda: int,
        step_a: int,
        b: int,
        ldb: int,
        step_b: int,
        c: int,
        ldc: int,
        step_c: int,
        count: int,
    ) -> None:
        """``c[i] = a[i] b[i]`` for `count` matrices of each.

        Args are those of `sgemm`, and the distances from one matrix to the next.

        Raises:
            OperationError: cuBLAS failed.
        """
        status = self._batched(
            *(self._handle, transb, transa, n, m, k, self._alpha),
            *(b, ldb, step_b, a, lda, step_a, self._betas[False]),
            *(c, ldc, step_c, count),
        )
        if status:
            raise OperationError(_text("cublasSgemmStridedBatched", status))


def _text(function: str, status: int) -> str:
    return f"{function} failed: {STATUS.get(status, 'unknown error')} ({status})"
