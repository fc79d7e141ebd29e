"""Embedding and LayerNorm."""

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.structure.network import Network
from brainstorm.utils import HandlerError, LayerValidationError
from tests.handlers.handler_cases import HANDLERS, handler_params
from tests.layers.single_layer import SingleLayer, normal


@pytest.mark.parametrize(
    ("shape", "out_shape"), [((1,), (2,)), ((3,), (3, 2)), ((3, 1), (3, 1, 2))]
)
def test_embedding_looks_up_rows(shape, out_shape):
    indices = np.random.RandomState(0).randint(0, 5, (4, 3, *shape))
    W = normal(5, 2)
    run = SingleLayer(layers.Embedding(5, 2), {"default": indices}, {"W": W}).forward()
    assert run.y.shape == (4, 3, *out_shape)
    assert np.array_equal(run.y, W[indices].reshape(4, 3, *out_shape))


def test_embedding_gradient_is_zero_where_no_index_came():
    indices = np.array([[[1]], [[3]], [[1]]])
    dy = normal(3, 1, 2)
    layer = layers.Embedding(5, 2)
    run = SingleLayer(layer, {"default": indices}, {"W": normal(5, 2)}).forward()
    run.backward(default=dy)
    dW = run["gradients.W"]
    assert np.allclose(dW[1], dy[0, 0] + dy[2, 0])
    assert np.array_equal(dW[3], dy[1, 0])
    assert not dW[[0, 2, 4]].any()


def test_embedding_is_fully_connected_of_one_hot_vectors():
    indices = np.random.RandomState(0).randint(0, 6, (5, 4, 1))
    results = []
    for layer, shape, x in (
        (layers.Embedding(6, 3, name="E"), ("T", "B", 1), indices),
        (layers.FullyConnected(3, "linear", name="E"), ("T", "B", 6), None),
    ):
        x = np.eye(6)[indices[..., 0]] if x is None else x
        inp = layers.Input({"default": shape})
        inp >> layer >> layers.Lstm(2, name="L") >> layers.Loss()
        net = Network.from_layer(inp)
        net.set_handler(NumpyHandler(np.float64))
        W = normal(6, 3)
        E = {"W": W} if x is indices else {"W": W.T, "bias": 0}
        net.initialize({"E": E, "L": lambda shape: normal(*shape, seed=1)})
        net.provide_external_data({"default": x})
        net.forward_pass(training_pass=True)
        net.backward_pass()
        dW = net.get("E.gradients.W")
        results.append((net.get_loss_values()["total_loss"], dW))
    assert results[0][0] == pytest.approx(results[1][0])
    assert np.allclose(results[0][1], results[1][1].T)


@pytest.mark.parametrize("handler", handler_params("pycuda"))
@pytest.mark.parametrize("index", [5, -1, 1.5, np.nan, 1e30])
def test_embedding_needs_indices_of_the_vocabulary(index, handler):
    layer, inputs = layers.Embedding(5, 2), {"default": [[[index]]]}
    run = SingleLayer(layer, inputs, {"W": 1.0}, HANDLERS[handler]())
    with pytest.raises(HandlerError, match=r"from 0 to 4, got|got NaN"):
        assert run.forward().y.all()  # GPUs tell when values are read
    run.inputs["default"] = np.array([[[4.0]]])
    assert run.forward().y.all()


@pytest.mark.parametrize(("words", "size"), [(0, 2), (2, 0), (None, 2), (2.5, 2)])
def test_embedding_needs_sizes(words, size):
    with pytest.raises(LayerValidationError, match="Embedding.*a positive integer"):
        SingleLayer(layers.Embedding(words, size), {"default": [[[0]]]})


@pytest.mark.parametrize("shape", [(4,), (3, 2, 4)])
def test_layer_norm(shape):
    x = 3 * normal(2, 3, *shape) + 1
    parameters = {"gamma": normal(4, seed=1), "beta": normal(4, seed=2)}
    run = SingleLayer(layers.LayerNorm(0.01), {"default": x}, parameters).forward()
    sigma = np.sqrt(x.var(-1, keepdims=True) + 0.01)
    x_hat = (x - x.mean(-1, keepdims=True)) / sigma
    assert np.allclose(run.y, parameters["gamma"] * x_hat + parameters["beta"])
    assert np.allclose(run["internals.sigma"].ravel(), sigma.ravel())
    assert np.allclose(run["internals.mean"].ravel(), x.mean(-1).ravel())


@pytest.mark.parametrize("shape", [(4,), (3, 2, 4)])
def test_what_layer_norm_has_normalised_is_computed_when_it_is_read(shape):
    inp = layers.Input({"default": ("T", "B", *shape)})
    net = Network.from_layer(inp >> layers.LayerNorm(0.01, name="Norm"))
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(5.0)
    x = 3 * normal(2, 3, *shape) + 1
    net.provide_external_data({"default": x})
    net.forward_pass()
    sigma = np.sqrt(x.var(-1, keepdims=True) + 0.01)
    x_hat = (x - x.mean(-1, keepdims=True)) / sigma
    np.testing.assert_allclose(net.get("Norm.internals.x_hat"), x_hat, 1e-12)


@pytest.mark.parametrize("epsilon", [0, -1.0, None, float("inf")])
def test_layer_norm_needs_a_positive_epsilon(epsilon):
    with pytest.raises(LayerValidationError, match="a positive number as 'epsilon'"):
        SingleLayer(layers.LayerNorm(epsilon), {"default": normal(1, 2, 3)})
