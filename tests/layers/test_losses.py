"""SoftmaxCE, SigmoidCE, SquaredError and Loss."""

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.structure.network import Network
from brainstorm.utils import HandlerError, LayerValidationError
from tests.layers.single_layer import SingleLayer, normal


def with_targets(make, x, t):
    return SingleLayer(make(), {"default": x, "targets": t})


def test_softmax_ce():
    x, t = normal(3, 2, 4, 5), np.random.RandomState(1).randint(0, 5, (3, 2, 4, 1))
    run = with_targets(layers.SoftmaxCE, x, t).forward()
    p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    assert np.allclose(run["outputs.predictions"], p)
    assert np.allclose(run["outputs.loss"], -np.log(np.take_along_axis(p, t, -1)))
    dloss = normal(3, 2, 4, 1, seed=2)
    run.backward(loss=dloss, predictions=7.0)  # the latter has to be ignored
    one_hot = np.eye(5)[t[..., 0]]
    assert np.array_equal(run["internals.t_bin"], one_hot)
    assert np.allclose(run["input_deltas.default"], (p - one_hot) * dloss)
    assert not run["input_deltas.targets"].any()


def test_softmax_ce_of_large_values():
    x = np.array([1000.0, 0.0, -1000.0]).reshape(1, 1, 3).repeat(3, 1)
    run = with_targets(layers.SoftmaxCE, x, np.arange(3).reshape(1, 3, 1)).forward()
    assert np.allclose(run["outputs.loss"].ravel(), [0, -np.log(1e-6), -np.log(1e-6)])
    run.backward(loss=1.0)
    assert np.allclose(run["input_deltas.default"][0, 2], [1, 0, -1])


@pytest.mark.parametrize("target", [-1, 3, 0.5, float("nan")])
def test_softmax_ce_refuses_targets_that_are_no_classes(target):
    run = with_targets(layers.SoftmaxCE, normal(1, 1, 3), np.full((1, 1, 1), target))
    with pytest.raises(HandlerError, match="from 0 to 2"):
        run.forward()
    run.inputs["targets"][:] = 2
    run.forward()  # still works


@pytest.mark.parametrize("shape", [(1, 2, 3), (1, 2, 1, 1), (1, 2, 2)])
def test_softmax_ce_needs_one_target_each(shape):
    with pytest.raises(LayerValidationError, match=r"SoftmaxCE.*'B', 1\).*'targets'"):
        with_targets(layers.SoftmaxCE, normal(1, 2, 3), np.zeros(shape))


def test_sigmoid_ce():
    x, dloss = 3 * normal(3, 2, 4), normal(3, 2, 4, seed=2)
    t = np.random.RandomState(1).uniform(0, 1, (3, 2, 4))
    run = with_targets(layers.SigmoidCE, x, t).forward()
    p = 1 / (1 + np.exp(-x))
    assert np.allclose(run["outputs.predictions"], p)
    loss = -t * np.log(p) - (1 - t) * np.log(1 - p)
    assert np.allclose(run["outputs.loss"], loss)
    run.backward(loss=dloss, predictions=7.0)
    assert np.allclose(run["internals.dcee"], p - t)
    assert np.allclose(run["input_deltas.default"], (p - t) * dloss)


def test_sigmoid_ce_of_large_values():
    x = np.array([1000.0, -1000.0]).reshape(1, 2, 1)
    run = with_targets(layers.SigmoidCE, x, np.zeros((1, 2, 1))).forward()
    assert np.allclose(run["outputs.loss"].ravel(), [-np.log(1e-6), 0.0])


def test_squared_error():
    x, t, dloss = normal(3, 2, 4), normal(3, 2, 4, seed=1), normal(3, 2, 4, seed=2)
    run = with_targets(layers.SquaredError, x, t).forward()
    assert np.array_equal(run["outputs.predictions"], x)
    assert np.allclose(run["outputs.loss"], 0.5 * (x - t) ** 2)
    assert np.allclose(run["internals.diff"], x - t)
    run.backward(loss=dloss, predictions=7.0)
    assert np.allclose(run["input_deltas.default"], (x - t) * dloss)


@pytest.mark.parametrize("make", [layers.SigmoidCE, layers.SquaredError])
def test_targets_need_the_shape_of_the_input(make):
    with pytest.raises(LayerValidationError, match="same shape at input 'targets'"):
        with_targets(make, normal(1, 2, 3), normal(1, 2, 1))


def test_loss_divides_by_the_batch_size_alone():
    x = normal(3, 5, 4)
    run = SingleLayer(layers.Loss(0.5), {"default": x}).forward()
    assert run["outputs.loss"] == pytest.approx(0.5 * x.sum() / 5)
    run.backward(loss=7.0)  # has to be ignored
    assert np.allclose(run["input_deltas.default"], 0.5 / 5)


@pytest.mark.parametrize(
    ("shape", "divisor"), [((4,), 1), ((5, 4), 5), ((3, 5, 4, 2), 5)]
)
def test_loss_of_all_buffer_types(shape, divisor):
    names = {1: (), 2: ("B",), 4: ("T", "B")}[len(shape)]
    inp = layers.Input({"default": (*names, *shape[len(names) :])})
    net = Network.from_layer(inp >> layers.Loss())
    x = normal(*shape)
    net.provide_external_data({"default": x})
    net.forward_pass()
    assert net.get_loss_values()["total_loss"] == pytest.approx(x.sum() / divisor, 1e-5)


@pytest.mark.parametrize("importance", ["high", None, float("nan")])
def test_loss_needs_a_number_as_importance(importance):
    with pytest.raises(LayerValidationError, match="finite number as 'importance'"):
        SingleLayer(layers.Loss(importance), {"default": normal(1, 2, 3)})
