"""Pooling2D; test_all_layers.py checks its derivatives."""

import json

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.structure.network import Network
from brainstorm.testing import check_layer
from brainstorm.utils import LayerValidationError
from tests.layers.single_layer import SingleLayer, normal


def made(layer, image=(7, 6, 2)):
    inp = layers.Input({"default": ("T", "B", *image)})
    return Network.from_layer(inp >> layer).layers[layer.name]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"kernel_size": 3}, (5, 4, 2)),
        ({"kernel_size": (3, 2), "stride": 2}, (3, 3, 2)),
        ({"kernel_size": [3, 2], "stride": [1, 4], "padding": 1}, (7, 2, 2)),
        ({"kernel_size": (7, 6), "stride": 3}, (1, 1, 2)),
    ],
)
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_buffers(arguments, expected, kind):
    layer = made(layers.Pooling2D(type=kind, **arguments))
    assert layer.out_shapes["default"].feature_shape == expected
    assert layer.parameter_shapes == {}
    internals = {n: s.feature_shape for n, s in layer.internal_shapes.items()}
    assert internals == ({"argmax": expected} if kind == "max" else {})


def test_largest_values():
    x = np.array([[1.0, 5.0, 2.0], [7.0, 3.0, 9.0], [9.0, 0.0, 9.0]])
    layer = layers.Pooling2D(2, stride=(1, 1))
    run = SingleLayer(layer, {"default": x.reshape(1, 1, 3, 3, 1)}).forward()
    np.testing.assert_array_equal(run.y[0, 0, :, :, 0], [[7, 9], [9, 9]])
    argmax = run["internals.argmax"]
    np.testing.assert_array_equal(argmax[0, 0, :, :, 0], [[2, 3], [2, 1]])
    deltas = np.array([[1.0, 10.0], [100.0, 1000.0]]).reshape(run.y.shape)
    run.backward(default=deltas)
    expected = [[0, 0, 0], [1, 0, 1010], [100, 0, 0]]
    np.testing.assert_array_equal(run["input_deltas.default"][0, 0, :, :, 0], expected)


def test_mean_without_padding():
    x = np.array([[2.0, 4.0], [6.0, 8.0]])
    layer = layers.Pooling2D(2, "avg", padding=1)
    run = SingleLayer(layer, {"default": x.reshape(1, 1, 2, 2, 1)}).forward()
    expected = [[2, 3, 4], [4, 5, 6], [6, 7, 8]]
    np.testing.assert_allclose(run.y[0, 0, :, :, 0], expected, rtol=1e-15)


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_every_step_of_every_sequence_is_pooled(kind):
    x = normal(3, 2, 5, 4, 2)
    layer = layers.Pooling2D((3, 2), kind, (2, 1))
    run = SingleLayer(layer, {"default": x}).forward(training_pass=False)
    reduce = {"max": np.max, "avg": np.mean}[kind]
    for i, j in np.ndindex(2, 3):
        expected = reduce(x[:, :, 2 * i : 2 * i + 3, j : j + 2], axis=(2, 3))
        np.testing.assert_allclose(run.y[:, :, i, j], expected, rtol=1e-14)


def distinct(shape):
    """Values that are far apart, so that a step never changes which is largest."""
    size = np.prod(shape)
    return np.random.RandomState(0).permutation(size).reshape(shape) / size - 0.5


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": 1},
        {"kernel_size": (4, 5)},
        {"kernel_size": 3, "padding": 2},
        {"kernel_size": 2, "stride": 3},
        {"kernel_size": (2, 3), "stride": (1, 2), "padding": 1},
    ],
)
def test_derivatives(kind, arguments):
    check_layer(
        layers.Pooling2D(type=kind, **arguments),
        {"default": ("T", "B", 4, 5, 2)},
        inputs={"default": distinct},
    )


def test_description_in_json():
    layer = layers.Pooling2D((3, 2), "avg", (2, 1), 1, name="Pool")
    inp = layers.Input({"default": ("T", "B", 7, 6, 2)})
    net = Network.from_layer(inp >> layer)
    again = Network.from_architecture(json.loads(json.dumps(net.architecture)))
    assert again.layers["Pool"].out_shapes == net.layers["Pool"].out_shapes
    assert again.layers["Pool"].type == "avg"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": (8, 2)}, r"kernel_size .*\(7, 6\), got \(8, 2\)"),
        ({"kernel_size": -1}, "positive whole number.*'kernel_size', got -1"),
        ({"kernel_size": 2, "stride": 0}, "positive whole number.*'stride', got 0"),
        ({"kernel_size": 2, "padding": -1}, "'padding', got -1"),
        ({"kernel_size": (3, 2), "padding": 2}, r"padding .*\(3, 2\), got 2"),
        ({"kernel_size": 2, "type": "mean"}, "'max' or 'avg' as 'type', got 'mean'"),
        ({"kernel_size": 2, "type": None}, "'type', got None"),
    ],
)
def test_bad_arguments(arguments, message):
    layer = layers.Pooling2D(**arguments, name="Pool")
    with pytest.raises(LayerValidationError, match=f"layer 'Pool': .*{message}"):
        made(layer)
