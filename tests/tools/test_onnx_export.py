"""Exported networks, run by onnxruntime."""

import sys

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.tools import create_net_from_spec, export_onnx
from brainstorm.utils import ValidationError

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

ACTIVATIONS = ["linear", "rel", "tanh", "sigmoid", "el"]


def values(*shape, seed=0):
    return np.random.RandomState(seed).randn(*shape).astype(np.float32)


def initialized(net):
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(bs.Gaussian(0.5), seed=1)
    return net


def single(layer, *shape):
    inp = layers.Input({"default": ("T", "B", *shape)})
    return initialized(bs.Network.from_layer(inp >> layer))


def check(net, tmp_path, data, output_name=None):
    """Compare what onnxruntime and the network make of some data."""
    file = tmp_path / "net.onnx"
    export_onnx(net, file, output_name)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (output,) = session.get_outputs()
    (found,) = session.run([output.name], data)
    expected = net.predict(data, output_name=output_name)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.std(found) > 0
    return session


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        *[(lambda a=a: layers.FullyConnected(5, a), (4,)) for a in ACTIVATIONS],
        (lambda: layers.FullyConnected((2, 3)), (4, 2)),
        (lambda: layers.FullyConnected(), (4, 2)),
        *[(lambda a=a: layers.Recurrent(5, a), (4,)) for a in ACTIVATIONS],
        (lambda: layers.Recurrent(5), (2, 3)),
        *[(lambda a=a: layers.Lstm(5, a), (4,)) for a in ACTIVATIONS],
        (lambda: layers.Lstm(5, peepholes=False), (2, 3)),
        (lambda: layers.Elementwise("el"), (4, 2)),
        (lambda: layers.Dropout(), (4,)),
        (lambda: layers.NoOp(), (4,)),
        (lambda: layers.DeltasScaling(3.0), (4,)),
        (lambda: layers.Convolution2D(4, (3, 2), activation="tanh"), (7, 6, 2)),
        (lambda: layers.Convolution2D(3, 3, stride=(2, 1), padding=1), (7, 6, 2)),
        (lambda: layers.Pooling2D(2), (7, 6, 2)),
        (lambda: layers.Pooling2D((3, 2), stride=(2, 1), padding=1), (7, 6, 2)),
        (lambda: layers.Pooling2D(3, "avg", stride=2, padding=1), (7, 6, 2)),
    ],
)
def test_layers(make, shape, tmp_path):
    check(single(make(), *shape), tmp_path, {"default": values(6, 3, *shape)})


@pytest.mark.parametrize("shape", [(4,), (5, 5, 4)])
def test_batch_norm(shape, tmp_path):
    net = single(layers.BatchNorm(name="B"), *shape)
    rnd = np.random.RandomState(0)
    net.initialize(B={n: rnd.rand(4) + 0.5 for n in ("gamma", "beta", "mu", "sigma")})
    check(net, tmp_path, {"default": values(2, 3, *shape)})


@pytest.mark.parametrize("task", ["classification", "multi-label", "regression"])
def test_targets_are_no_inputs(task, tmp_path):
    net = initialized(create_net_from_spec(task, 4, 3, "D F6 Ft5"))
    session = check(net, tmp_path, {"default": values(2, 5, 4)})
    assert [i.name for i in session.get_inputs()] == ["default"]
    assert session.get_inputs()[0].shape == ["T", "B", 4]
    assert session.get_outputs()[0].name == "Output.predictions"
    assert session.get_outputs()[0].shape == ["T", "B", 3]


def test_other_sizes_run_in_the_same_model(tmp_path):
    net = initialized(create_net_from_spec("classification", (8, 8, 1), 3, "C4:3 P2s2"))
    net.initialize(bs.Gaussian(0.5))
    session = check(net, tmp_path, {"default": values(2, 5, 8, 8, 1)})
    x = values(1, 9, 8, 8, 1)
    (found,) = session.run(None, {"default": x})
    np.testing.assert_allclose(found, net(x), rtol=1e-4, atol=1e-5)


def test_sequence_network(tmp_path):
    net = initialized(create_net_from_spec("classification", 4, 3, "L6 R5"))
    check(net, tmp_path, {"default": values(7, 5, 4)})


def test_highway_and_joined_outputs(tmp_path):
    inp = layers.Input({"default": ("T", "B", 4)})
    H, T = (layers.FullyConnected(4, "sigmoid", name=n) for n in "HT")
    highway, last = layers.Highway(), layers.FullyConnected(2, "tanh")
    inp >> H >> "H" - highway
    inp >> T >> "T" - highway
    inp >> "x" - highway
    highway >> last
    inp >> layers.FullyConnected((2, 3), "tanh", name="A") >> last
    T >> last
    net = initialized(bs.Network.from_layer(inp))
    data = {"default": values(2, 5, 4)}
    check(net, tmp_path, data)
    check(net, tmp_path, data, "Highway.outputs.default")


@pytest.mark.parametrize("mask", [(1,), (3, 1), (3, 2)])
def test_several_inputs(mask, tmp_path):
    inp = layers.Input({"a": ("T", "B", 3, 2), "b": ("T", "B", *mask)})
    layer = layers.Mask()
    inp - "a" >> layer
    inp - "b" >> "mask" - layer
    net = initialized(bs.Network.from_layer(inp))
    check(net, tmp_path, {"a": values(2, 5, 3, 2), "b": values(2, 5, *mask, seed=1)})


@pytest.mark.parametrize("kind", [layers.Merge, layers.SquaredDifference])
def test_two_inputs(kind, tmp_path):
    inp = layers.Input({"a": ("T", "B", 3, 2), "b": ("T", "B", 3, 2)})
    layer = kind()
    inp - "a" >> "inputs_1" - layer
    inp - "b" >> "inputs_2" - layer
    net = initialized(bs.Network.from_layer(inp))
    check(net, tmp_path, {"a": values(2, 5, 3, 2), "b": values(2, 5, 3, 2, seed=1)})


def test_shared_parameters(tmp_path):
    inp = layers.Input({"default": ("T", "B", 4)})
    a, b = (
        layers.FullyConnected(4, "tanh", name="A"),
        layers.FullyConnected(4, name="B"),
    )
    net = initialized(bs.Network.from_layer(inp >> a >> b.share(a)))
    check(net, tmp_path, {"default": values(2, 5, 4)})


# -- bad input ---------------------------------------------------------------


def test_an_unsupported_layer_is_named_before_a_file_is_written(tmp_path):
    net = single(layers.Clockwork(3, name="Clock"), 4)
    with pytest.raises(ValidationError, match="a Clockwork layer such as 'Clock' can"):
        export_onnx(net, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_layers_that_are_not_needed_need_no_support(tmp_path):
    net = initialized(create_net_from_spec("regression", 4, 2, "F3"))
    check(net, tmp_path, {"default": values(1, 5, 4)})
    with pytest.raises(ValidationError, match="Loss"):
        export_onnx(net, tmp_path / "loss.onnx", "Loss.outputs.loss")


def test_other_errors(tmp_path, monkeypatch):
    net = single(layers.FullyConnected(3), 4)
    with pytest.raises(KeyError, match="no output 'Nope'"):
        export_onnx(net, tmp_path / "net.onnx", "Nope")
    with pytest.raises(FileNotFoundError, match="no folder"):
        export_onnx(net, tmp_path / "none" / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install brainstorm\[onnx\]"):
        export_onnx(net, tmp_path / "net.onnx")
