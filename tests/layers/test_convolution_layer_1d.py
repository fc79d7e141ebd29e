"""Convolution1D; test_all_layers.py checks its derivatives, and that pieces are one."""

import json

import numpy as np
import pytest

from brainstorm import Network, layers
from brainstorm.handlers import NumpyHandler
from brainstorm.testing import check_layer
from brainstorm.utils import LayerValidationError
from tests.layers.single_layer import SingleLayer, normal


def convolve(x, W, before, behind, stride=1, dilation=1):
    """Along the first axis of (L, ..., C), with kernels (F, k, C)."""
    zeros = ((before, behind), *((0, 0),) * (x.ndim - 1))
    padded = np.pad(x, zeros)
    reach = dilation * (W.shape[1] - 1) + 1
    return np.stack(
        [
            np.einsum("k...c,fkc->...f", padded[i : i + reach : dilation], W)
            for i in range(0, len(padded) - reach + 1, stride)
        ]
    )


@pytest.mark.parametrize(
    ("length", "dilation", "padding", "zeros"),
    [
        (3, 1, "same", (1, 1)),
        (4, 1, "same", (1, 2)),
        (3, 3, "same", (3, 3)),
        (5, 1, 2, (2, 2)),
        (3, 2, "causal", (4, 0)),
        (4, 1, "causal", (3, 0)),
        (1, 1, "causal", (0, 0)),
        (1, 1, 0, (0, 0)),
        (9, 2, "same", (8, 8)),
    ],
)
def test_over_time(length, dilation, padding, zeros):
    x, W, bias = normal(6, 3, 2), normal(4, length, 2, seed=1), normal(4, seed=2)
    layer = layers.Convolution1D(4, length, 1, padding, "tanh", dilation=dilation)
    run = SingleLayer(layer, {"default": x}, {"W": W, "bias": bias}).forward()
    expected = np.tanh(convolve(x, W, *zeros, dilation=dilation) + bias)
    assert expected.shape == (6, 3, 4)
    np.testing.assert_allclose(run.y, expected, rtol=1e-11)


@pytest.mark.parametrize(
    ("length", "stride", "padding", "zeros"),
    [
        (3, 1, "same", (1, 1)),
        (3, 2, "same", (1, 1)),
        (2, 3, "same", (0, 1)),
        (3, 2, "causal", (2, 0)),
        (3, 2, 0, (0, 0)),
        (4, 1, 2, (2, 2)),
        (7, 1, 0, (0, 0)),
    ],
)
def test_along_signals(length, stride, padding, zeros):
    x, W = normal(2, 3, 7, 2), normal(4, length, 2, seed=1)
    layer = layers.Convolution1D(4, length, stride, padding, "linear", bias=False)
    run = SingleLayer(layer, {"default": x}, {"W": W}).forward()
    expected = convolve(np.moveaxis(x, 2, 0), W, *zeros, stride=stride)
    if padding == "same":
        assert len(expected) == -(-7 // stride)
    np.testing.assert_allclose(run.y, np.moveaxis(expected, 0, 2), rtol=1e-9)


def test_groups_see_their_channels():
    x, W = normal(5, 2, 4), normal(6, 3, 2, seed=1)
    layer = layers.Convolution1D(6, 3, activation="linear", groups=2, bias=False)
    run = SingleLayer(layer, {"default": x}, {"W": W}).forward()
    halves = [
        convolve(x[..., 2 * g : 2 * g + 2], W[3 * g : 3 * g + 3], 1, 1) for g in (0, 1)
    ]
    np.testing.assert_allclose(run.y, np.concatenate(halves, -1), rtol=1e-9)


@pytest.mark.parametrize("pieces", [[1] * 7, [2, 5], [6, 1]])
def test_causal_convolutions_go_on_from_a_context(pieces):
    inp = layers.Input({"default": ("T", "B", 2)})
    first = layers.Convolution1D(3, 3, padding="causal", dilation=2)
    second = layers.Convolution1D(1, 2, padding="causal", activation="tanh")
    net = Network.from_layer(inp >> first >> second)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(1.0, seed=1)
    net.buffer.parameters[...] = normal(net.buffer.parameters.size)
    x, context, found = normal(7, 2, 2), None, []
    for part in np.split(x, np.cumsum(pieces)[:-1]):
        net.provide_external_data({"default": part})
        net.forward_pass(context=context)
        context = net.get_context()
        found.append(net.get(f"{second.name}.outputs.default").copy())
    np.testing.assert_allclose(np.concatenate(found), net.predict(x), rtol=1e-12)


@pytest.mark.parametrize("padding", ["same", "causal"])
@pytest.mark.parametrize("length", [1, 2, 4])
def test_sequences_shorter_than_the_kernels(length, padding):
    layer = layers.Convolution1D(2, 4, padding=padding, activation="sigmoid")
    check_layer(layer, {"default": ("T", "B", 2)}, time_size=length)


def test_description_in_json():
    inp = layers.Input({"default": ("T", "B", 2)})
    layer = layers.Convolution1D(4, 3, padding="causal", dilation=2, name="Conv")
    net = Network.from_layer(inp >> layer)
    again = Network.from_architecture(json.loads(json.dumps(net.architecture)))
    assert again.layers["Conv"].lag == 4
    assert again.layers["Conv"].parameter_shapes["W"].shape == (4, 3, 2)


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((4,), {"stride": 2}, "'stride' 1 over time.*got 2"),
        (
            (4,),
            {"padding": 0},
            r"keeps the number of steps.*\(kernel_size - 1\) = 2.*0",
        ),
        ((4,), {"padding": 2}, "keeps the number of steps"),
        ((4,), {"padding": 1, "kernel_size": 4}, "keeps the number of steps"),
        ((4,), {"padding": "valid"}, "'same', 'causal'.*'padding', got 'valid'"),
        ((4,), {"padding": (1, 1)}, "'padding', got"),
        ((4,), {"groups": 3}, "'groups' that divide the 4 channels, got 3"),
        ((9,), {"groups": 3}, "'groups' that divide the 4 kernels, got 3"),
        ((5, 4), {"kernel_size": 6, "padding": 0}, "fits into .*5 values, got 6"),
        ((5, 4, 1), {}, r"\(T, B, F, F\).*'default'"),
        ((4,), {"dilation": 0}, "'dilation', got 0"),
    ],
)
def test_bad_arguments(shape, arguments, message):
    layer = layers.Convolution1D(
        **{"num_filters": 4, "kernel_size": 3, **arguments}, name="Conv"
    )
    inp = layers.Input({"default": ("T", "B", *shape)})
    with pytest.raises(LayerValidationError, match=f"layer 'Conv': .*{message}"):
        Network.from_layer(inp >> layer)
