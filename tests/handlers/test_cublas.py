"""Which way matrix products take to cuBLAS; what is called there is a stand-in."""

import ctypes
import gc
import sys
import types

import numpy as np
import pytest

from brainstorm.handlers.cuda import cublas
from brainstorm.handlers.cuda.arrays import OperationError
from brainstorm.handlers.cuda.cublas import Cublas, ScikitCublas, open_cublas


class Library:
    """libcublas, as far as it is there without a GPU."""

    def __init__(self):
        self.destroyed = []
        self.cublasCreate_v2 = lambda handle: 0
        self.cublasDestroy_v2 = lambda handle: self.destroyed.append(handle) or 0
        self.cublasSgemm_v2 = lambda *args: 7
        self.cublasSgemmStridedBatched = lambda *args: 13


@pytest.fixture(autouse=True)
def library(monkeypatch):
    library = Library()
    monkeypatch.setattr(cublas, "load_library", lambda name: library)
    return library


class Error(Exception):
    pass


class InvalidValue(Error):
    pass


def columns(address, rows, cols, distance):
    """A matrix in Fortran's order at an address."""
    numbers = (ctypes.c_float * (distance * cols)).from_address(address)
    return np.frombuffer(numbers, np.float32).reshape(cols, distance).T[:rows]


class StandIn(types.ModuleType):
    """skcuda.cublas, computing with NumPy in the memory of the host."""

    cublasError = Error

    def __init__(self):
        super().__init__("skcuda.cublas")
        self.calls = []

    def cublasCreate(self):
        self.calls.append(("cublasCreate",))
        return 5

    def cublasDestroy(self, handle):
        self.calls.append(("cublasDestroy", handle))

    def cublasSgemm(
        self, handle, transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc
    ):
        self.calls.append(("cublasSgemm", handle, transa, transb, m, n, k, alpha, beta))
        if m < 0:
            raise InvalidValue
        left = columns(a, *((k, m) if transa == "t" else (m, k)), lda)
        right = columns(b, *((n, k) if transb == "t" else (k, n)), ldb)
        left = left.T if transa == "t" else left
        right = right.T if transb == "t" else right
        out = columns(c, m, n, ldc)
        out[...] = alpha * (left @ right) + beta * out


@pytest.fixture
def module(monkeypatch):
    module = StandIn()
    package = types.ModuleType("skcuda")
    package.cublas = module
    monkeypatch.setitem(sys.modules, "skcuda", package)
    monkeypatch.setitem(sys.modules, "skcuda.cublas", module)
    return module


def address(array):
    return array.ctypes.data


@pytest.mark.parametrize("transa", [False, True])
@pytest.mark.parametrize("transb", [False, True])
@pytest.mark.parametrize("add", [False, True])
def test_products_go_to_scikit_cuda(module, transa, transb, add):
    products = open_cublas()
    assert type(products) is ScikitCublas
    rnd = np.random.default_rng(1)
    shapes = ((4, 3) if transa else (3, 4), (2, 4) if transb else (4, 2), (3, 2))
    # Each is part of a larger matrix.
    whole = [rnd.standard_normal((m, n + 2), np.float32) for m, n in shapes]
    a, b, c = (w[:, : w.shape[1] - 2] for w in whole)
    expected = (a.T if transa else a) @ (b.T if transb else b) + add * c
    beside = whole[2][:, 2:].copy()
    places = (address(a), a.shape[1] + 2, address(b), b.shape[1] + 2)
    products.sgemm(transa, transb, 3, 2, 4, *places, add, address(c), 4)
    np.testing.assert_allclose(c, expected, 1e-5)
    assert np.array_equal(whole[2][:, 2:], beside)
    how = "nt"[transb], "nt"[transa]
    assert module.calls == [
        ("cublasCreate",),
        ("cublasSgemm", 5, *how, 2, 3, 4, 1.0, float(add)),
    ]


def test_errors_are_ours(module):
    products = open_cublas()
    with pytest.raises(OperationError, match="^cublasSgemm failed: InvalidValue$"):
        products.sgemm(False, False, 1, -1, 1, 0, 1, 0, 1, False, 0, 1)
    # What it has no function for goes to the library itself.
    with pytest.raises(OperationError, match="^cublasSgemmStr.*: execution failed"):
        products.sgemm_batched(
            *(False, False, (1, 1, 1), (0, 1, 1), (0, 1, 1), (0, 1, 1), 1)
        )


def test_handles_are_given_back(module, library):
    products = open_cublas()
    del products
    gc.collect()
    assert module.calls[-1] == ("cublasDestroy", 5)
    assert len(library.destroyed) == 1


def test_a_handle_that_scikit_cuda_can_not_make(module):
    def fail():
        raise InvalidValue

    module.cublasCreate = fail
    assert type(open_cublas()) is Cublas


@pytest.mark.parametrize("name", cublas.NEEDED)
def test_a_module_without_what_is_needed(monkeypatch, module, name):
    whole = {key: getattr(module, key) for key in cublas.NEEDED if key != name}
    monkeypatch.setitem(sys.modules, "skcuda.cublas", types.SimpleNamespace(**whole))
    assert type(open_cublas()) is Cublas


class Failing:
    """Stands for a scikit-cuda that fails when it is imported."""

    def __init__(self, error):
        self.error = error

    def find_spec(self, name, path=None, target=None):
        if name.startswith("skcuda"):
            raise self.error


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'pkg_resources'"),
        ImportError("libcudart.so: cannot open shared object file"),
        OSError("cublas library not found"),
        AttributeError("module 'numpy' has no attribute 'float'"),
        RuntimeError("unsupported platform"),
        UserWarning("pkg_resources is deprecated"),
        SyntaxError("invalid escape sequence"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_without_scikit_cuda(monkeypatch, error):
    for name in [n for n in sys.modules if n.partition(".")[0] == "skcuda"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Failing(error), *sys.meta_path])
    products = open_cublas()
    assert type(products) is Cublas
    with pytest.raises(OperationError, match="^cublasSgemm failed: invalid value"):
        products.sgemm(False, False, 1, -1, 1, 0, 1, 0, 1, False, 0, 1)
