"""Softmax and LogSoftmax; test_all_layers.py checks their derivatives."""

import numpy as np

from brainstorm import Network, layers
from tests.layers.single_layer import SingleLayer, normal


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_softmax_over_the_last_dimension():
    x, dy = 3 * normal(3, 2, 4, 5), normal(3, 2, 4, 5, seed=1)
    run = SingleLayer(layers.Softmax(), {"default": x}).forward()
    p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    np.testing.assert_allclose(run.y, p, rtol=1e-12)
    run.backward(default=dy)
    jacobians = np.eye(5) * p[..., None] - p[..., None] * p[..., None, :]
    expected = np.einsum("...i,...ij->...j", dy, jacobians)
    np.testing.assert_allclose(run["input_deltas.default"], expected, rtol=1e-9)


def test_log_softmax():
    x, dy = 3 * normal(3, 2, 4, 5), normal(3, 2, 4, 5, seed=1)
    run = SingleLayer(layers.LogSoftmax(), {"default": x}).forward()
    expected = x - np.log(np.exp(x).sum(-1, keepdims=True))
    np.testing.assert_allclose(run.y, expected, rtol=1e-12)
    run.backward(default=dy)
    expected = dy - np.exp(expected) * dy.sum(-1, keepdims=True)
    np.testing.assert_allclose(run["input_deltas.default"], expected, rtol=1e-9)


def test_a_gate_of_softmax_and_multiply():
    """Two layers that mix: the mean of x, weighted by its own softmax."""
    x = normal(2, 3, 4)
    inp = layers.Input({"default": ("T", "B", 4)})
    gate, product = layers.Softmax(), layers.Multiply()
    inp >> gate >> "inputs_1" - product
    inp >> "inputs_2" - product
    net = Network.from_layer(product)
    np.testing.assert_allclose(net.predict(x), softmax(x) * x, rtol=1e-5)
