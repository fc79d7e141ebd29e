"""ConvolutionTranspose2D; test_all_layers.py checks its derivatives."""

import numpy as np
import pytest

from brainstorm import Network, layers
from brainstorm.utils import LayerValidationError
from tests.layers.single_layer import SingleLayer, normal


@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": 3},
        {"kernel_size": (2, 3), "stride": 2, "padding": 1},
        {"kernel_size": 2, "stride": (1, 3), "dilation": 2, "output_padding": (0, 2)},
        {"kernel_size": 4, "stride": 2, "padding": 1, "output_padding": 1},
    ],
)
def test_kernels_add_up(arguments):
    x, bias = normal(2, 3, 3, 4, 2), normal(3, seed=2)
    layer = layers.ConvolutionTranspose2D(3, activation="tanh", **arguments)
    inp = layers.Input({"default": ("T", "B", 3, 4, 2)})
    made = Network.from_layer(inp >> layer).layers[layer.name]
    (kh, kw), (sy, sx), (dy, dx) = made.kernel_size, made.stride, made.dilation
    W, p, more = normal(2, kh, kw, 3, seed=1), made.padding, made.output_padding
    size = 2 * sy + dy * (kh - 1) + 1 + more[0], 3 * sx + dx * (kw - 1) + 1 + more[1]
    h = np.zeros((2, 3, *size, 3))
    for i, j, k, l in np.ndindex(3, 4, kh, kw):  # noqa: E741
        h[:, :, i * sy + k * dy, j * sx + l * dx] += x[:, :, i, j] @ W[:, k, l]
    h = h[:, :, p : size[0] - p, p : size[1] - p] + bias
    run = SingleLayer(
        layers.ConvolutionTranspose2D(3, activation="tanh", **arguments),
        {"default": x},
        {"W": W, "bias": bias},
    ).forward()
    assert run.y.shape == h.shape
    np.testing.assert_allclose(run.y, np.tanh(h), rtol=1e-9, atol=1e-12)


def test_it_gives_images_of_the_shape_that_a_convolution_got():
    for length in range(7, 14):
        shape = (length, length, 1)
        inp = layers.Input({"default": ("T", "B", *shape)})
        there = layers.Convolution2D(2, 4, 3, 1, name="There")
        back = layers.ConvolutionTranspose2D(
            1, 4, 3, 1, output_padding=(length + 2 - 4) % 3, name="Back"
        )
        net = Network.from_layer(inp >> there >> back)
        assert net.layers["Back"].out_shapes["default"].feature_shape == shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_padding": 1}, r"below the stride, \(1, 1\), got \(1, 1\)"),
        ({"output_padding": -1}, "'output_padding', got -1"),
        ({"padding": 9}, "leaves something of the images, got 9"),
        ({"groups": 3}, "'groups' that divide the 2 channels"),
        ({"kernel_size": 0}, "'kernel_size', got 0"),
        ({"stride": "2"}, "'stride', got '2'"),
    ],
)
def test_bad_arguments(arguments, message):
    given = {"num_filters": 2, "kernel_size": 3, **arguments}
    layer = layers.ConvolutionTranspose2D(**given, name="Up")
    inp = layers.Input({"default": ("T", "B", 3, 3, 2)})
    with pytest.raises(LayerValidationError, match=f"layer 'Up': .*{message}"):
        Network.from_layer(inp >> layer)
