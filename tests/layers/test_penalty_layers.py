"""BinomialCrossEntropy, L1Decay and L2Decay."""

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.utils import LayerValidationError
from tests.layers.single_layer import SingleLayer, normal


def cross_entropy(p, t):
    return SingleLayer(layers.BinomialCrossEntropy(), {"default": p, "targets": t})


def uniform(*shape, seed=0):
    return np.random.RandomState(seed).uniform(0.05, 0.95, shape)


def test_binomial_cross_entropy():
    p, t, dy = uniform(3, 2, 4, 2), uniform(3, 2, 4, 2, seed=1), normal(3, 2, 1)
    run = cross_entropy(p, t).forward()
    cee = -t * np.log(p) - (1 - t) * np.log(1 - p)
    assert np.allclose(run["internals.cee"], cee)
    assert np.allclose(run.y[..., 0], cee.sum((2, 3)))
    run.backward(default=dy)
    slope = (p - t) / (p * (1 - p))
    assert np.allclose(run["internals.ceed"], slope)
    assert np.allclose(run["input_deltas.default"], slope * dy[..., None])
    assert not run["input_deltas.targets"].any()


def test_certain_predictions_are_limited():
    p = np.array([0.0, 0.0, 1.0, 1.0]).reshape(1, 4, 1)
    t = np.array([0.0, 1.0, 0.0, 1.0]).reshape(1, 4, 1)
    run = cross_entropy(p, t).forward().backward(default=1.0)
    most = -np.log(1e-6)
    assert np.allclose(run.y.ravel(), [0.0, most, most, 0.0])
    assert np.allclose(run["input_deltas.default"].ravel(), [1, -1e6, 1e6, -1])


def test_targets_need_the_shape_of_the_input():
    with pytest.raises(LayerValidationError, match=r"BinomialCrossEntropy.*'targets'"):
        cross_entropy(uniform(1, 2, 3), uniform(1, 2, 1))


def test_l1_decay():
    x, dloss = normal(3, 2, 4, 2), normal(3, 2, 1, seed=1)
    x[0, 0, 0, 0] = 0.0
    run = SingleLayer(layers.L1Decay(), {"default": x}).forward()
    assert np.allclose(run["outputs.loss"][..., 0], np.abs(x).sum((2, 3)))
    assert np.array_equal(run["internals.tmp"], np.abs(x))
    run.backward(loss=dloss)
    assert np.allclose(run["input_deltas.default"], np.sign(x) * dloss[..., None])


def test_l2_decay():
    x, dloss = normal(3, 2, 4, 2), normal(3, 2, 1, seed=1)
    run = SingleLayer(layers.L2Decay(), {"default": x}).forward()
    assert np.allclose(run["outputs.loss"][..., 0], 0.5 * (x**2).sum((2, 3)))
    assert np.allclose(run["internals.tmp"], x**2)
    run.backward(loss=dloss)
    assert np.allclose(run["input_deltas.default"], x * dloss[..., None])
    assert np.allclose(run["internals.dsq_activations"], x * dloss[..., None])


@pytest.mark.parametrize("make", [layers.L1Decay, layers.L2Decay])
def test_decay_layers_take_no_arguments(make):
    layer = make()
    layer.layer.layer_kwargs["factor"] = 0.1
    with pytest.raises(LayerValidationError, match="unexpected argument 'factor'"):
        SingleLayer(layer, {"default": normal(1, 2, 3)})
