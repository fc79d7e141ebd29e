"""Convolution2D; test_all_layers.py checks its derivatives with every activation."""

import json

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.structure.network import Network
from brainstorm.testing import check_layer
from brainstorm.utils import LayerValidationError
from tests.layers.single_layer import SingleLayer, normal


def shape_of(layer, image=(7, 6, 2)):
    inp = layers.Input({"default": ("T", "B", *image)})
    net = Network.from_layer(inp >> layer)
    return net.layers[layer.name].out_shapes["default"].feature_shape


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"kernel_size": 3}, (5, 4, 4)),
        ({"kernel_size": (3, 2), "stride": 2}, (3, 3, 4)),
        ({"kernel_size": [3, 2], "stride": [1, 4], "padding": 2}, (9, 3, 4)),
        ({"kernel_size": (7, 6)}, (1, 1, 4)),
        ({"kernel_size": (11, 10), "stride": (9, 9), "padding": 2}, (1, 1, 4)),
        ({"kernel_size": 3, "dilation": 2}, (3, 2, 4)),
        ({"kernel_size": (2, 3), "dilation": [3, 1], "groups": 2}, (4, 4, 4)),
    ],
)
def test_output_shape(arguments, expected):
    assert shape_of(layers.Convolution2D(4, **arguments)) == expected


def test_buffers():
    inp = layers.Input({"default": ("T", "B", 7, 6, 2)})
    layer = layers.Convolution2D(4, (3, 5), name="Conv")
    net = Network.from_layer(inp >> layer)
    conv = net.layers["Conv"]
    assert {n: s.shape for n, s in conv.parameter_shapes.items()} == {
        "W": (4, 3, 5, 2),
        "bias": (4,),
    }
    assert list(conv.parameter_shapes) == ["W", "bias"]
    assert conv.internal_shapes == {}
    assert conv.activation == "rel"


def test_every_step_of_every_sequence_is_convolved():
    x, W, bias = normal(3, 2, 4, 5, 2), normal(3, 2, 2, 2, seed=1), normal(3, seed=2)
    run = SingleLayer(
        layers.Convolution2D(3, 2, (2, 3), 1, "tanh"),
        {"default": x},
        {"W": W, "bias": bias},
    ).forward()
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((3, 2, 3, 2, 3))
    for i, j in np.ndindex(3, 2):
        seen = padded[:, :, 2 * i : 2 * i + 2, 3 * j : 3 * j + 2]
        y[:, :, i, j] = np.tanh(np.einsum("tbklc,fklc->tbf", seen, W) + bias)
    np.testing.assert_allclose(run.y, y, rtol=1e-12)


@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": 1},
        {"kernel_size": (4, 3)},
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (3, 2), "padding": 4},
        {"kernel_size": 3, "stride": 2},
        {"kernel_size": 2, "stride": 3, "padding": 1},
        {"kernel_size": 2, "stride": (2, 2)},
        {"kernel_size": 2, "dilation": (2, 3), "padding": 1},
        {"kernel_size": 2, "groups": 2, "stride": 2, "dilation": 2},
    ],
)
def test_derivatives(arguments):
    layer = layers.Convolution2D(2, activation="sigmoid", **arguments)
    check_layer(layer, {"default": ("T", "B", 4, 5, 2)}, time_size=2)


@pytest.mark.parametrize("all_deltas", [True, False])
def test_two_consumers_of_one_output(all_deltas):
    inp = layers.Input({"default": ("T", "B", 5, 4, 2)})
    shared = layers.Convolution2D(2, 2, activation="tanh", name="Shared")
    inp >> shared
    for name, padding in (("A", 0), ("B", 1)):
        consumer = layers.Convolution2D(
            1, 2, padding=padding, activation="sigmoid", name=name
        )
        shared >> consumer >> layers.Loss(name=f"Loss{name}")
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.buffer.parameters[...] = 0.5 * normal(net.buffer.parameters.size)
    net.provide_external_data({"default": normal(2, 3, 5, 4, 2)})

    def loss():
        net.forward_pass()
        return net.get_loss_values()["total_loss"]

    loss()
    net.backward_pass(all_deltas)
    gradients = net.get("parameters") * 0
    parameters = net.buffer.parameters
    for i in range(parameters.size):
        value, losses = parameters[i], []
        for step in (1e-6, -1e-6):
            parameters[i] = value + step
            losses.append(loss())
        parameters[i] = value
        gradients[i] = (losses[0] - losses[1]) / 2e-6
    np.testing.assert_allclose(net.get("gradients"), gradients, atol=1e-5, rtol=1e-3)


def test_groups_and_dilation():
    x, W = normal(2, 3, 6, 5, 4), normal(6, 2, 2, 2, seed=1)
    layer = layers.Convolution2D(
        *(6, 2, 1, 1, "linear"), dilation=(3, 2), groups=2, bias=False
    )
    run = SingleLayer(layer, {"default": x}, {"W": W}).forward()
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((2, 3, 5, 5, 6))
    for i, j, f in np.ndindex(5, 5, 6):
        channels = slice(0, 2) if f < 3 else slice(2, 4)
        seen = padded[:, :, i : i + 4 : 3, j : j + 3 : 2, channels]
        y[:, :, i, j, f] = np.einsum("tbklc,klc->tb", seen, W[f])
    np.testing.assert_allclose(run.y, y, rtol=1e-9, atol=1e-12)


def test_defaults_change_no_descriptions():
    inp = layers.Input({"default": ("T", "B", 7, 6, 2)})
    net = Network.from_layer(inp >> layers.Convolution2D(4, 3, name="Conv"))
    assert not {"dilation", "groups", "bias"} & set(net.architecture["Conv"])


def test_description_in_json():
    inp = layers.Input({"default": ("T", "B", 7, 6, 2)})
    layer = layers.Convolution2D(4, (3, 2), (2, 1), 1, "el", name="Conv")
    net = Network.from_layer(inp >> layer)
    again = Network.from_architecture(json.loads(json.dumps(net.architecture)))
    assert again.layers["Conv"].out_shapes == net.layers["Conv"].out_shapes
    assert again.layers["Conv"].stride == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": (8, 2)}, r"kernel_size .*\(7, 6\), got \(8, 2\)"),
        (
            {"kernel_size": (2, 9), "padding": 1},
            r"kernel_size .*\(9, 8\), got \(2, 9\)",
        ),
        ({"kernel_size": 0}, "positive whole number.*'kernel_size', got 0"),
        ({"kernel_size": (3, -1)}, r"'kernel_size', got \(3, -1\)"),
        ({"kernel_size": (3, 3, 3)}, r"'kernel_size', got \(3, 3, 3\)"),
        ({"kernel_size": 2.5}, "'kernel_size', got 2.5"),
        ({"kernel_size": "33"}, "'kernel_size', got '33'"),
        ({"kernel_size": None}, "'kernel_size', got None"),
        ({"kernel_size": 3, "stride": 0}, "positive whole number.*'stride', got 0"),
        ({"kernel_size": 3, "stride": (1, 0)}, r"'stride', got \(1, 0\)"),
        ({"kernel_size": 3, "padding": -1}, "at least 0 as 'padding', got -1"),
        ({"kernel_size": 3, "padding": (1, 1)}, r"'padding', got \(1, 1\)"),
        ({"kernel_size": 3, "padding": True}, "'padding', got True"),
        ({"kernel_size": 3, "num_filters": 0}, "'num_filters', got 0"),
        ({"kernel_size": 3, "num_filters": -4}, "'num_filters', got -4"),
        ({"kernel_size": 3, "activation": "sine"}, "'activation', got 'sine'"),
        ({"kernel_size": 3, "dilation": 0}, "'dilation', got 0"),
        ({"kernel_size": 3, "dilation": 4}, r"got \(3, 3\) with the dilation \(4, 4\)"),
        ({"kernel_size": 3, "groups": 0}, "'groups', got 0"),
        ({"kernel_size": 3, "groups": 3}, "divide the 2 channels, got 3"),
        (
            {"kernel_size": 3, "groups": 2, "num_filters": 5},
            "divide the 5 kernels, got 2",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    layer = layers.Convolution2D(**{"num_filters": 4, **arguments}, name="Conv")
    with pytest.raises(LayerValidationError, match=f"layer 'Conv': .*{message}"):
        shape_of(layer)


@pytest.mark.parametrize("image", [(7,), (7, 6), (7, 6, 2, 2)])
def test_inputs_are_images(image):
    with pytest.raises(LayerValidationError, match=r"\(T, B, F, F, F\).*'default'"):
        shape_of(layers.Convolution2D(4, 3), image)
