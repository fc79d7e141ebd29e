"""Input, FullyConnected, Elementwise, NoOp, Dropout and Mask."""

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.initializers import Gaussian
from brainstorm.randomness import global_rnd
from brainstorm.structure.network import Network
from brainstorm.utils import LayerValidationError, NetworkValidationError
from tests.handlers.test_activations import FORMULAS, apply
from tests.layers.single_layer import SingleLayer, normal


@pytest.mark.parametrize("activation", FORMULAS)
def test_fully_connected(activation):
    x, W, bias = normal(3, 2, 2, 2), normal(5, 4, seed=1), normal(5, seed=2)
    layer = layers.FullyConnected(5, activation)
    run = SingleLayer(layer, {"default": x}, {"W": W, "bias": bias}).forward()
    h = x.reshape(3, 2, 4) @ W.T + bias
    assert np.allclose(run.y, apply(FORMULAS[activation][0], h))


def test_fully_connected_by_default_is_rectified():
    x = normal(1, 2, 3)
    parameters = {"W": np.eye(3), "bias": 0.0}
    run = SingleLayer(layers.FullyConnected(3), {"default": x}, parameters).forward()
    assert np.allclose(run.y, np.maximum(x, 0))


@pytest.mark.parametrize(
    ("size", "shape"), [(5, (5,)), ((5,), (5,)), ((2, 3), (2, 3)), (None, (4, 2))]
)
def test_fully_connected_has_outputs_of_any_shape(size, shape):
    x = normal(1, 2, 4, 2)
    W = normal(int(np.prod(shape)), 8, seed=1)
    layer = layers.FullyConnected(size, "linear")
    run = SingleLayer(layer, {"default": x}, {"W": W, "bias": 0.5}).forward()
    expected = x.reshape(1, 2, 8) @ W.T + 0.5
    assert np.allclose(run.y, expected.reshape(1, 2, *shape))


@pytest.mark.parametrize("size", [0, -1, 1.5, "many", (3, 0)])
def test_fully_connected_refuses_bad_sizes(size):
    with pytest.raises(LayerValidationError, match="as 'size'"):
        SingleLayer(layers.FullyConnected(size), {"default": normal(1, 2, 3)})


@pytest.mark.parametrize("make", [layers.FullyConnected, layers.Elementwise])
def test_unknown_activations_are_refused(make):
    with pytest.raises(LayerValidationError, match="'softsign' as 'activation'"):
        SingleLayer(make(activation="sine"), {"default": normal(1, 2, 3)})


@pytest.mark.parametrize("activation", FORMULAS)
def test_elementwise(activation):
    x = 3 * normal(3, 2, 2, 2)
    run = SingleLayer(layers.Elementwise(activation), {"default": x}).forward()
    assert np.allclose(run.y, apply(FORMULAS[activation][0], x))


def test_no_op():
    x, dy = normal(3, 2, 4), normal(3, 2, 4, seed=1)
    run = SingleLayer(layers.NoOp(), {"default": x}).forward().backward(default=dy)
    assert np.array_equal(run.y, x)
    assert np.array_equal(run["input_deltas.default"], dy)


# -- Dropout -------------------------------------------------------------------


def dropout(drop_prob, x, seed=3):
    handler = NumpyHandler(np.float64, seed=seed)
    return SingleLayer(layers.Dropout(drop_prob), {"default": x}, handler=handler)


def test_dropout_drops_and_scales():
    x, dy = normal(10, 20, 50), normal(10, 20, 50, seed=1)
    run = dropout(0.3, x).forward().backward(default=dy)
    mask = run["internals.mask"]
    dropped = mask == 0
    assert np.allclose(mask[~dropped], 1 / 0.7)
    assert np.mean(dropped) == pytest.approx(0.3, abs=0.02)  # 4 standard deviations
    assert np.allclose(run.y, x * mask)
    assert np.allclose(run["input_deltas.default"], dy * mask)


def test_dropout_copies_outside_of_training():
    x = normal(2, 3, 4)
    run = dropout(0.9, x).forward(training_pass=False).backward(default=2.0)
    assert np.array_equal(run.y, x)
    assert np.array_equal(run["input_deltas.default"], np.full(x.shape, 2.0))


def test_dropout_draws_anew_each_time_and_is_reproducible():
    x = normal(2, 3, 40)
    run = dropout(0.5, x)
    first, second = run.forward().y, run.forward().y
    assert not np.array_equal(first, second)
    again = dropout(0.5, x)
    assert np.array_equal(again.forward().y, first)
    assert np.array_equal(again.forward().y, second)


def test_dropout_follows_the_global_seed():
    x = normal(2, 3, 40)
    run = dropout(0.5, x, seed=None)
    outputs = []
    for seed in (1, 2, 1):
        global_rnd.set_seed(seed)
        outputs.append(run.forward().y)
    assert not np.array_equal(outputs[0], outputs[1])
    assert np.array_equal(outputs[0], outputs[2])


@pytest.mark.parametrize("drop_prob", [-0.1, 1.0, "half", None])
def test_dropout_needs_a_probability(drop_prob):
    with pytest.raises(LayerValidationError, match=r"\[0, 1\) as 'drop_prob'"):
        dropout(drop_prob, normal(1, 2, 3))


# -- Mask ----------------------------------------------------------------------


@pytest.mark.parametrize("features", [(1,), (3, 1), (3, 4)])
def test_mask(features):
    x, dy = normal(2, 5, 3, 4), normal(2, 5, 3, 4, seed=1)
    mask = np.random.RandomState(2).randint(0, 2, (2, 5, *features))
    run = SingleLayer(layers.Mask(), {"default": x, "mask": mask}).forward()
    factor = mask.reshape(2, 5, 1, 1) if features == (1,) else mask
    assert np.array_equal(run.y, x * factor)
    run.backward(default=dy)
    assert np.array_equal(run["input_deltas.default"], dy * factor)
    assert not run["input_deltas.mask"].any()


@pytest.mark.parametrize("features", [(4,), (4, 3), (3,), (3, 4, 1)])
def test_mask_of_another_shape_is_refused(features):
    inputs = {"default": normal(2, 5, 3, 4), "mask": normal(2, 5, *features)}
    with pytest.raises(LayerValidationError, match=r"\(1,\), \(3, 1\) or \(3, 4\)"):
        SingleLayer(layers.Mask(), inputs)


# -- Input ---------------------------------------------------------------------


def test_input_provides_data_of_all_buffer_types():
    shapes = {"a": ("T", "B", 2, 3), "b": ("B", 4), "c": (5,)}
    inp = layers.Input(shapes)
    for name in shapes:
        inp - name >> layers.Loss()
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    data = {"a": normal(2, 3, 2, 3), "b": normal(3, 4), "c": normal(5)}
    net.provide_external_data(data)
    net.forward_pass()
    net.backward_pass()
    for name, value in data.items():
        assert np.array_equal(net.get(f"Input.outputs.{name}"), value)
        assert np.array_equal(net.get_input(name), value)
    assert np.allclose(net.get("Input.output_deltas.b"), 1 / 3)


def test_input_takes_its_name_as_all_layers_do():
    inp = layers.Input({"default": ("T", "B", 3)}, name="Input")
    assert "Input" in Network.from_layer(inp >> layers.NoOp()).layers
    inp = layers.Input({"default": ("T", "B", 3)}, name="Other")
    with pytest.raises(NetworkValidationError, match="named 'Input', got: 'Other'"):
        Network.from_layer(inp >> layers.NoOp())


@pytest.mark.parametrize(
    ("out_shapes", "message"),
    [
        (None, "a dict of shapes"),
        ({}, "a dict of shapes"),
        ({"default": ("T", 3)}, "shape of 'default'"),
        ({"default": ("T", "B", 0)}, "shape of 'default'"),
        ({"default": 3}, r"a shape like \(.*\) for 'default', got 3"),
        ({"default": "TB"}, "for 'default', got 'TB'"),
        ({"no name": ("T", "B", 3)}, "identifiers as names, got 'no name'"),
    ],
)
def test_input_refuses_bad_shapes(out_shapes, message):
    with pytest.raises(LayerValidationError, match=message):
        Network.from_layer(layers.Input(out_shapes) >> layers.NoOp())


@pytest.mark.parametrize("make", [layers.FullyConnected, layers.Recurrent])
def test_relu_is_rel_and_files_say_so(make, tmp_path):
    outputs = []
    for activation in ("rel", "relu"):
        layer = make(3, activation, name="layer")
        layers.Input({"default": ("T", "B", 2)}) >> layer
        net = Network.from_layer(layer)
        net.initialize(Gaussian(1.0), seed=1)
        net.provide_external_data({"default": normal(2, 3, 2)})
        net.forward_pass()
        outputs.append(net.get("layer.outputs.default"))
        assert net.architecture["layer"]["activation"] == activation
    assert np.array_equal(*outputs)
    net.save_as_hdf5(tmp_path / "net.hdf5")
    loaded = Network.from_hdf5(tmp_path / "net.hdf5")
    assert loaded.architecture["layer"]["activation"] == "rel"
    assert net.architecture["layer"]["activation"] == "relu"
