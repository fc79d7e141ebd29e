"""Recurrent passes over single sequences; with sparse products where scipy is there."""

import numpy as np
import pytest

from brainstorm import Gaussian, Network, layers
from brainstorm.handlers import NumpyHandler, default_handler
from brainstorm.handlers.numpy import recurrent

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
    monkeypatch.setattr(recurrent, "find_csr_array", lambda: noted)
    net, x = network(handler), np.random.RandomState(0).randn(T, 1, 1)
    tolerance = 1e-9 if handler.dtype == np.float64 else 1e-3
    for density, is_sparse in ((0.03, 1), (0.02, 1), (1.0, 0), (0.03, 1)):
        made.clear()
        found, expected = run(net, x, matrix(density, int(100 * density)))
        np.testing.assert_allclose(found, expected, atol=tolerance)
        assert len(made) == is_sparse


@pytest.mark.parametrize("handler", [NumpyHandler(np.float64), default_handler])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "rel"])
@pytest.mark.parametrize(("leak", "inside"), [(1.0, False), (0.3, False), (0.3, True)])
def test_one_sequence_is_as_among_others(handler, activation, leak, inside):
    layer = layers.Recurrent(7, activation, leak=leak, leak_inside=inside)
    net = Network.from_layer(layers.Input({"default": ("T", "B", 2)}) >> layer)
    net.set_handler(handler)
    net.initialize(Gaussian(0.5), seed=1)
    x = np.random.RandomState(0).randn(9, 3, 2)
    tolerance = 1e-12 if handler.dtype == np.float64 else 1e-5
    among = net.predict(x)
    for b in range(3):
        alone = net.predict(x[:, b : b + 1])
        np.testing.assert_allclose(alone[:, 0], among[:, b], atol=tolerance)


def test_one_sequence_takes_few_calls_however_long_it_is():
    net = network(NumpyHandler(np.float32))
    counts = set()
    for steps in (5, 50):
        net.predict(np.zeros((steps, 1, 1)))
        (program,) = net._buffer_manager.sized.programs.values()
        counts.add(len(program))
    assert max(counts) < 10


@pytest.mark.parametrize(
    ("size", "share", "dtype", "is_sparse"),
    [
        (800, 0.03, np.float64, True),
        (800, 0.3, np.float64, False),
        (200, 0.01, np.float64, False),
        (800, 0.01, np.float16, False),
    ],
)
def test_which_matrices_are_sparse(size, share, dtype, is_sparse):
    pytest.importorskip("scipy")
    found = recurrent._as_sparse(matrix(share)[:size, :size].astype(dtype))
    assert (found is not None) == is_sparse


def test_without_scipy_products_are_dense(monkeypatch):
    monkeypatch.setattr(recurrent, "find_csr_array", lambda: None)
    net = network(NumpyHandler(np.float64))
    x = np.random.RandomState(0).randn(T, 1, 1)
    np.testing.assert_allclose(*run(net, x, matrix(0.02)), rtol=1e-9)
