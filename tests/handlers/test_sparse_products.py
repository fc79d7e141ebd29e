"""Recurrent passes with few connections: sparse products, where scipy is there."""

import numpy as np
import pytest

from brainstorm import Network, layers
from brainstorm.handlers import NumpyHandler, default_handler
from brainstorm.handlers.numpy import sparse
from brainstorm.handlers.numpy.sparse import SparseProduct

N, T = 800, 120


def network(handler):
    inp = layers.Input({"default": ("T", "B", 1)})
    net = Network.from_layer(inp >> layers.Recurrent(N, name="R"))
    net.set_handler(handler)
    net.initialize({"R": {"W": 0.5, "R": 0.0, "bias": 0.1}}, seed=1)
    return net


def matrix(density, seed=1):
    rnd = np.random.RandomState(seed)
    return rnd.randn(N, N) * (rnd.rand(N, N) < density) / np.sqrt(N * density)


def run(net, x, R):
    net.buffer.R.parameters.R[...] = R  # by hand: nobody is told
    net.provide_external_data({"default": x})
    net.forward_pass()
    y, expected = np.zeros(N), []
    for value in x[:, 0, 0]:
        y = np.tanh(0.5 * value + R @ y + 0.1)
        expected.append(y)
    return net.get("R.outputs.default")[:-1, 0], np.array(expected)


@pytest.mark.parametrize("handler", [NumpyHandler(np.float64), default_handler])
def test_the_matrix_is_looked_at_in_each_pass(handler, monkeypatch):
    csr_array, made = pytest.importorskip("scipy.sparse").csr_array, []
    noted = lambda matrix: made.append(1) or csr_array(matrix)  # noqa: E731
    monkeypatch.setattr(sparse, "find_csr_array", lambda: noted)
    net, x = network(handler), np.random.RandomState(0).randn(T, 1, 1)
    tolerance = 1e-9 if handler.dtype == np.float64 else 1e-3
    for density, is_sparse in ((0.03, 1), (0.02, 1), (1.0, 0), (0.03, 1)):
        made.clear()
        found, expected = run(net, x, matrix(density, int(100 * density)))
        np.testing.assert_allclose(found, expected, atol=tolerance)
        assert len(made) == is_sparse


def test_it_is_used_where_it_may_pay():
    large, small = np.zeros((N, N)), np.zeros((200, 200))
    row, rows = np.zeros((1, N)), np.zeros((2, N))
    has_scipy = sparse.find_csr_array() is not None
    assert SparseProduct.is_worth_it(large, row, 1000) == has_scipy
    assert not SparseProduct.is_worth_it(large, rows, 1000)
    assert not SparseProduct.is_worth_it(large, row, 10)
    assert not SparseProduct.is_worth_it(small, row[:, :200], 1000)
    assert not SparseProduct.is_worth_it(large.astype(np.float16), row, 1000)


def test_without_scipy_products_are_dense(monkeypatch):
    monkeypatch.setattr(sparse, "find_csr_array", lambda: None)
    net = network(NumpyHandler(np.float64))
    x = np.random.RandomState(0).randn(T, 1, 1)
    np.testing.assert_allclose(*run(net, x, matrix(0.02)), rtol=1e-9)
