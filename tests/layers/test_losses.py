"""SoftmaxCE, SigmoidCE, SquaredError, AbsoluteError, Huber and Loss."""

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


def test_absolute_error():
    x, t, dloss = normal(3, 2, 4), normal(3, 2, 4, seed=1), normal(3, 2, 4, seed=2)
    x[0, 0, 0] = t[0, 0, 0]
    run = with_targets(layers.AbsoluteError, x, t).forward()
    assert np.array_equal(run["outputs.predictions"], x)
    assert np.allclose(run["outputs.loss"], np.abs(x - t))
    run.backward(loss=dloss, predictions=7.0)
    assert np.allclose(run["input_deltas.default"], np.sign(x - t) * dloss)


@pytest.mark.parametrize("delta", [0.3, 1.0, 50.0])
def test_huber(delta):
    x, t, dloss = normal(3, 2, 4), normal(3, 2, 4, seed=1), normal(3, 2, 4, seed=2)
    run = with_targets(lambda: layers.Huber(delta), x, t).forward()
    d = np.abs(x - t)
    loss = np.where(d <= delta, d**2 / 2, delta * (d - delta / 2))
    assert np.array_equal(run["outputs.predictions"], x)
    assert np.allclose(run["outputs.loss"], loss)
    run.backward(loss=dloss, predictions=7.0)
    slope = np.where(d <= delta, x - t, delta * np.sign(x - t))
    assert np.allclose(run["input_deltas.default"], slope * dloss)


@pytest.mark.parametrize("delta", [0, -1, "1", None, float("nan"), float("inf")])
def test_huber_needs_a_positive_number(delta):
    with pytest.raises(LayerValidationError, match="Huber.*positive number as 'delta'"):
        with_targets(lambda: layers.Huber(delta), normal(1, 2, 3), normal(1, 2, 3))


@pytest.mark.parametrize("weights", [None, [0.5, 2, 1, 0, 3]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_smooth_and_weighted_softmax_ce(smoothing, weights):
    x, t = normal(3, 2, 4, 5), np.random.RandomState(1).randint(0, 5, (3, 2, 4, 1))
    make = layers.SoftmaxCE(label_smoothing=smoothing, class_weights=weights)
    run = with_targets(lambda: make, x, t).forward()
    p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    w = np.ones(5) if weights is None else np.array(weights)
    one_hot = np.eye(5)[t[..., 0]]
    shares = w * ((1 - smoothing) * one_hot + smoothing / 5)
    loss = -(shares * np.log(p)).sum(-1, keepdims=True)
    assert np.allclose(run["outputs.predictions"], p)
    assert np.allclose(run["outputs.loss"], loss)
    dloss = normal(3, 2, 4, 1, seed=2)
    run.backward(loss=dloss, predictions=7.0)
    total = shares.sum(-1, keepdims=True)
    assert np.allclose(run["input_deltas.default"], (total * p - shares) * dloss)
    assert np.allclose(run["internals.t_bin"], shares)


def test_smooth_losses_of_large_values_are_finite():
    x = np.array([1000.0, 0.0, -1000.0]).reshape(1, 1, 3)
    make = layers.SoftmaxCE(label_smoothing=0.3)
    run = with_targets(lambda: make, x, np.zeros((1, 1, 1))).forward()
    assert np.allclose(run["outputs.loss"], 0.2 * -np.log(1e-6))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_smoothing": 1}, r"\[0, 1\) as 'label_smoothing', got 1"),
        ({"label_smoothing": -0.1}, "'label_smoothing', got -0.1"),
        ({"label_smoothing": "0"}, "'label_smoothing', got '0'"),
        ({"class_weights": [1, 2]}, "3 numbers as 'class_weights'.*got 2"),
        ({"class_weights": [1, 2, -1]}, "at least 0.*'class_weights'"),
        ({"class_weights": [0, 0, 0]}, "not all of them 0.*'class_weights'"),
        ({"class_weights": 2.0}, "'class_weights', got 2.0"),
        ({"class_weights": {"a": 1}}, "'class_weights'"),
    ],
)
def test_bad_arguments_of_softmax_ce(arguments, message):
    make = layers.SoftmaxCE("Out", **arguments)
    with pytest.raises(LayerValidationError, match=f"SoftmaxCE layer 'Out'.*{message}"):
        with_targets(lambda: make, normal(1, 2, 3), np.zeros((1, 2, 1)))


@pytest.mark.parametrize("weight", [0.2, 1, 7.0, [0.5, 1, 2.5, 7]])
def test_positive_labels_may_count_more(weight):
    x, dloss = 3 * normal(3, 2, 4), normal(3, 2, 4, seed=2)
    t = np.random.RandomState(1).uniform(0, 1, (3, 2, 4))
    t[0] = np.round(t[0])
    make = layers.SigmoidCE(positive_weight=weight)
    weight = np.array(weight)
    run = with_targets(lambda: make, x, t).forward()
    p = 1 / (1 + np.exp(-x))
    assert np.allclose(run["outputs.predictions"], p)
    loss = -weight * t * np.log(p) - (1 - t) * np.log(1 - p)
    assert np.allclose(run["outputs.loss"], loss)
    run.backward(loss=dloss, predictions=7.0)
    slope = weight * t * (p - 1) + (1 - t) * p
    assert np.allclose(run["input_deltas.default"], slope * dloss)


BAD_WEIGHTS = [0, -1, "2", float("nan"), [], [1], [1, 2], [1, 2, 0], [1, 2, "3"]]


@pytest.mark.parametrize("weight", BAD_WEIGHTS)
def test_positive_weights_are_positive(weight):
    make = layers.SigmoidCE(positive_weight=weight)
    with pytest.raises(LayerValidationError, match="SigmoidCE.*'positive_weight'"):
        with_targets(lambda: make, normal(1, 2, 3), np.zeros((1, 2, 3)))


@pytest.mark.parametrize(
    "make",
    [layers.SigmoidCE, layers.SquaredError, layers.AbsoluteError, layers.Huber],
)
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


def test_defaults_change_no_descriptions():
    """Networks that use nothing new are described as before, for older versions."""
    for make in (layers.SoftmaxCE, layers.SigmoidCE):
        inp = layers.Input({"default": ("T", "B", 1), "targets": ("T", "B", 1)})
        out = make(name="Out")
        inp >> out
        inp - "targets" >> "targets" - out
        architecture = Network.from_layer(out).architecture
        assert set(architecture["Out"]) == {"@type", "@outgoing_connections"}


def test_weights_of_samples_by_a_mask():
    x, weights = normal(1, 4, 3), np.array([1.0, 0.5, 0.0, 2.0]).reshape(1, 4, 1)
    targets = np.array([0, 2, 1, 1]).reshape(1, 4, 1)
    shapes = {"default": 3, "targets": 1, "weights": 1}
    inp = layers.Input({n: ("T", "B", size) for n, size in shapes.items()})
    out, mask = layers.SoftmaxCE(), layers.Mask()
    inp >> out
    inp - "targets" >> "targets" - out
    inp - "weights" >> "mask" - mask
    out - "loss" >> mask >> layers.Loss()
    net = Network.from_layer(inp)
    net.provide_external_data({"default": x, "targets": targets, "weights": weights})
    net.forward_pass()
    p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    loss = -np.log(np.take_along_axis(p, targets, -1)) * weights
    assert net.get_loss_values()["total_loss"] == pytest.approx(loss.sum() / 4, 1e-5)
