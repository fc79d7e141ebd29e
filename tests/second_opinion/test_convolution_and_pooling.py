"""Convolution and pooling beside PyTorch's, in float64."""

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.structure.network import Network

torch = pytest.importorskip("torch")
functional = torch.nn.functional

CLOSE = {"rtol": 1e-10, "atol": 1e-11}

ACTIVATIONS = {
    "linear": lambda h: h,
    "rel": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "el": functional.elu,
}

# kernel, stride, padding
GEOMETRIES = [
    ((5, 5), (1, 1), 2),
    ((3, 3), (2, 2), 1),
    ((3, 2), (2, 3), 0),
    ((4, 4), (4, 4), 0),
    ((2, 2), (3, 3), 1),
    ((1, 1), (2, 1), 0),
]


def normal(*shape, seed=0):
    return np.random.RandomState(seed).randn(*shape)


def images(x):
    """Fold time and batch, and put the channels first."""
    folded = torch.tensor(x.reshape(-1, *x.shape[2:])).permute(0, 3, 1, 2)
    return folded.contiguous().requires_grad_()


def unfold(y, leading):
    """Undo `images`."""
    return y.detach().permute(0, 2, 3, 1).reshape(*leading, *y.shape[2:], -1).numpy()


def run(layer, x, weights, parameters=()):
    """Run both passes of a layer whose outputs are weighted and summed."""
    inp = layers.Input(
        {n: ("T", "B", *v.shape[2:]) for n, v in (("default", x), ("w", weights))}
    )
    mask = layers.Mask()
    inp >> layer >> mask >> layers.Loss()
    inp - "w" >> "mask" - mask
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    for name, value in parameters:
        net.handler.set_from_numpy(net.buffer[layer.name].parameters[name], value)
    net.provide_external_data({"default": x, "w": weights * x.shape[1]})
    net.forward_pass(training_pass=True)
    net.backward_pass()
    return net


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
def test_convolution(kernel, stride, padding, activation):
    x = normal(2, 3, 8, 9, 3)
    W, bias = normal(4, *kernel, 3, seed=1), normal(4, seed=2)

    kernels = torch.tensor(W).permute(0, 3, 1, 2).contiguous().requires_grad_()
    b = torch.tensor(bias, requires_grad=True)
    image = images(x)
    y = ACTIVATIONS[activation](functional.conv2d(image, kernels, b, stride, padding))
    expected = unfold(y, (2, 3))
    weights = normal(*expected.shape, seed=3)
    (y * images(weights).detach()).sum().backward()

    layer = layers.Convolution2D(4, kernel, stride, padding, activation, name="Conv")
    net = run(layer, x, weights, (("W", W), ("bias", bias)))
    np.testing.assert_allclose(net.get("Conv.outputs.default"), expected, **CLOSE)
    for path, theirs in [
        ("input_deltas.default", unfold(image.grad, (2, 3))),
        ("gradients.W", kernels.grad.permute(0, 2, 3, 1).numpy()),
        ("gradients.bias", b.grad.numpy()),
    ]:
        np.testing.assert_allclose(net.get(f"Conv.{path}"), theirs, **CLOSE)


# kernel, stride, padding, dilation, groups
GENERAL = [
    ((3, 3), (1, 1), 2, (2, 2), 1),
    ((3, 2), (2, 1), 1, (1, 3), 2),
    ((2, 2), (3, 3), 1, (2, 1), 4),
    ((3, 3), (1, 1), 1, (1, 1), 4),
]


def compare(layer, x, W, bias, theirs, axes):
    """Both passes of a layer, and of a function of the image, kernels and bias.

    `axes` are those of W in PyTorch's order.
    """
    back = np.argsort(axes)
    kernels = torch.tensor(W).permute(*axes).contiguous().requires_grad_()
    b, image = torch.tensor(bias, requires_grad=True), images(x)
    y = torch.tanh(theirs(image, kernels, b))
    expected = unfold(y, x.shape[:2])
    weights = normal(*expected.shape, seed=3)
    (y * images(weights).detach()).sum().backward()
    net = run(layer, x, weights, (("W", W), ("bias", bias)))
    for path, values in [
        ("outputs.default", expected),
        ("input_deltas.default", unfold(image.grad, x.shape[:2])),
        ("gradients.W", kernels.grad.permute(*back).numpy()),
        ("gradients.bias", b.grad.numpy()),
    ]:
        np.testing.assert_allclose(net.get(f"Conv.{path}"), values, **CLOSE)


@pytest.mark.parametrize("case", GENERAL, ids=str)
def test_dilation_and_groups(case):
    kernel, stride, padding, dilation, groups = case
    x, bias = normal(2, 3, 8, 9, 4), normal(8, seed=2)
    W = normal(8, *kernel, 4 // groups, seed=1)
    layer = layers.Convolution2D(
        *(8, kernel, stride, padding, "tanh", "Conv"), dilation=dilation, groups=groups
    )
    compare(
        *(layer, x, W, bias),
        lambda *a: functional.conv2d(*a, stride, padding, dilation, groups),
        (0, 3, 1, 2),
    )


@pytest.mark.parametrize("more", [(0, 0), (1, 0)])
@pytest.mark.parametrize("case", GENERAL[1:3], ids=str)
def test_transposed_convolution(case, more):
    kernel, stride, padding, dilation, groups = case
    x, bias = normal(2, 3, 5, 4, 4), normal(8, seed=2)
    W = normal(4, *kernel, 8 // groups, seed=1)
    layer = layers.ConvolutionTranspose2D(
        *(8, kernel, stride, padding, "tanh", "Conv"),
        **{"dilation": dilation, "groups": groups, "output_padding": more},
    )
    compare(
        *(layer, x, W, bias),
        lambda *a: functional.conv_transpose2d(
            *a, stride, padding, more, groups, dilation
        ),
        (0, 3, 1, 2),
    )


@pytest.mark.parametrize("padding", ["same", "causal", 2])
def test_convolution_of_sequences(padding):
    x, W, bias = normal(9, 3, 4), normal(6, 3, 2, seed=1), normal(6, seed=2)
    weights = normal(9, 3, 6, seed=3)
    kernels = torch.tensor(W).permute(0, 2, 1).contiguous().requires_grad_()
    b, sequence = torch.tensor(bias, requires_grad=True), torch.tensor(x)
    sequence.requires_grad_()
    over_time = sequence.permute(1, 2, 0)
    zeros = (4, 0) if padding == "causal" else (2, 2)
    h = functional.conv1d(
        functional.pad(over_time, zeros), kernels, b, dilation=2, groups=2
    )
    y = torch.tanh(h).permute(2, 0, 1)
    (y * torch.tensor(weights)).sum().backward()
    layer = layers.Convolution1D(
        *(6, 3, 1, padding, "tanh", "Conv"), dilation=2, groups=2
    )
    net = run(layer, x, weights, (("W", W), ("bias", bias)))
    for path, values in [
        ("outputs.default", y.detach().numpy()),
        ("input_deltas.default", sequence.grad.numpy()),
        ("gradients.W", kernels.grad.permute(0, 2, 1).numpy()),
        ("gradients.bias", b.grad.numpy()),
    ]:
        np.testing.assert_allclose(net.get(f"Conv.{path}"), values, **CLOSE)


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
def test_pooling(kernel, stride, padding, kind):
    x = normal(2, 3, 8, 9, 3)
    image = images(x)
    if kind == "max":
        y = functional.max_pool2d(image, kernel, stride, padding)
    else:
        y = functional.avg_pool2d(
            image, kernel, stride, padding, count_include_pad=False
        )
    expected = unfold(y, (2, 3))
    weights = normal(*expected.shape, seed=3)
    (y * images(weights).detach()).sum().backward()

    net = run(layers.Pooling2D(kernel, kind, stride, padding, name="Pool"), x, weights)
    np.testing.assert_allclose(net.get("Pool.outputs.default"), expected, **CLOSE)
    np.testing.assert_allclose(
        net.get("Pool.input_deltas.default"), unfold(image.grad, (2, 3)), **CLOSE
    )
