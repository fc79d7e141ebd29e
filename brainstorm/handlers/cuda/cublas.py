"""The matrix products of cuBLAS, through scikit-cuda or through ctypes."""

from __future__ import annotations

import ctypes
import importlib
import warnings
import weakref
from typing import Any

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
POINTER, INT, LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
NEEDED = ("cublasCreate", "cublasDestroy", "cublasSgemm", "cublasError")


def open_cublas() -> Cublas:
    """A handle of cuBLAS, through scikit-cuda where that can be imported.

    Raises:
        HandlerError: There is no cuBLAS.
    """
    module = _import_scikit_cuda()
    if module is not None:
        try:
            return ScikitCublas(module)
        except module.cublasError:
            pass  # it may have found a library that is not for this driver
    return Cublas()


def _import_scikit_cuda() -> Any:
    """Its module for cuBLAS, or None.

    It was last released in 2019. With newer versions of Python, NumPy, setuptools and
    CUDA importing it fails in ways that have nothing in common.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module("skcuda.cublas")
    except Exception:
        return None
    return module if all(hasattr(module, name) for name in NEEDED) else None


class Cublas:
    """A handle of cuBLAS in the current context, for its default stream.

    Products are computed in float32: the default mode does not use TF32.
    """

    def __init__(self) -> None:
        library = load_library("cublas")
        if library is None:
            raise HandlerError(
                "PyCudaHandler needs the library cuBLAS, which was not found. Install"
                " the CUDA toolkit, or: pip install nvidia-cublas"
            )
        self._library = library
        handle = ctypes.c_void_p()
        _check("cublasCreate", library.cublasCreate_v2(ctypes.byref(handle)))
        library.cublasDestroy_v2.argtypes = [ctypes.c_void_p]
        # At the end of the process the driver is gone before the handle.
        weakref.finalize(self, library.cublasDestroy_v2, handle).atexit = False
        self._handle = handle
        self._sgemm = library.cublasSgemm_v2
        self._sgemm.argtypes = [
            *(ctypes.c_void_p, INT, INT, INT, INT, INT),
            *(POINTER, POINTER, INT, POINTER, INT, POINTER, POINTER, INT),
        ]
        self._batched = library.cublasSgemmStridedBatched
        self._batched.argtypes = [
            *(ctypes.c_void_p, INT, INT, INT, INT, INT),
            *(POINTER, POINTER, INT, LONG, POINTER, INT, LONG),
            *(POINTER, POINTER, INT, LONG, INT),
        ]
        self._one = ctypes.c_float(1.0)
        self._zero = ctypes.c_float(0.0)
        self._alpha = ctypes.addressof(self._one)
        self._betas = (ctypes.addressof(self._zero), self._alpha)

    def use_stream(self, stream: int, workspace: int, size: int) -> None:
        """Have work go to a stream, with so many bytes of memory for temporaries.

        Args:
            stream: Its handle.
            workspace: Address of the memory, which must outlive all work.
            size: Its size.
        """
        # This order: the former takes back the latter.
        for name, values in (
            ("cublasSetStream_v2", (POINTER(stream),)),
            ("cublasSetWorkspace_v2", (POINTER(workspace), ctypes.c_size_t(size))),
        ):
            function = getattr(self._library, name, None)
            if function is None:
                raise HandlerError(f"cuBLAS is too old: it has no {name}")
            _check(name.partition("_")[0], function(self._handle, *values))

    def sgemm(
        self,
        transa: Any,
        transb: Any,
        m: Any,
        n: Any,
        k: Any,
        a: Any,
        lda: Any,
        b: Any,
        ldb: Any,
        add: Any,
        c: Any,
        ldc: Any,
    ) -> None:
        """``c (+)= a b`` with matrices in C order, whose rows are `ld` apart.

        `a` is (m, k), or (k, m) if `transa`, and `b` is (k, n), or (n, k) if `transb`;
        they are given by their addresses.
        """
        # To cuBLAS, which has columns where C has rows, all matrices are transposed.
        status = self._sgemm(
            *(self._handle, transb, transa, n, m, k),
            *(self._alpha, b, ldb, a, lda, self._betas[add], c, ldc),
        )
        _check("cublasSgemm", status, OperationError)

    def sgemm_batched(
        self,
        transa: Any,
        transb: Any,
        sizes: Any,
        a: Any,
        b: Any,
        c: Any,
        count: Any,
        add: bool = False,
    ) -> None:
        """``c[i] (+)= a[i] b[i]`` for `count` matrices: address, `ld`, and distance."""
        m, n, k = sizes
        status = self._batched(
            *(self._handle, transb, transa, n, m, k, self._alpha),
            *(*b, *a, self._betas[add], *c, count),
        )
        _check("cublasSgemmStridedBatched", status, OperationError)


class ScikitCublas(Cublas):
    """One whose products of two matrices scikit-cuda computes.

    It has no function for many products at once; these remain as they are.

    Args:
        module: ``skcuda.cublas``.
    """

    def __init__(self, module: Any):
        super().__init__()
        self._module = module
        self._scikit_handle = module.cublasCreate()
        destroy = weakref.finalize(self, module.cublasDestroy, self._scikit_handle)
        destroy.atexit = False

    def sgemm(self, *args: Any) -> None:
        """See `Cublas.sgemm`."""
        transa, transb, m, n, k, a, lda, b, ldb, add, c, ldc = args
        how = "nt"[bool(transb)], "nt"[bool(transa)]
        beta = 1.0 if add else 0.0
        try:
            self._module.cublasSgemm(
                *(self._scikit_handle, *how, n, m, k, 1.0, b, ldb, a, lda, beta, c, ldc)
            )
        except self._module.cublasError as error:
            raise OperationError(
                f"cublasSgemm failed: {type(error).__name__}"
            ) from error


def _check(function: str, status: int, kind: type = HandlerError) -> None:
    if status:
        known = STATUS.get(status, "unknown error")
        raise kind(f"{function} failed: {known} ({status})")
