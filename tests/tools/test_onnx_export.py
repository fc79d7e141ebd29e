"""Exported networks, run by onnxruntime."""

import sys
from itertools import product

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm._layer_bench import Specification
from brainstorm.handlers import NumpyHandler
from brainstorm.handlers.operations.activations import ACTIVATIONS
from brainstorm.layers.base_layer import get_layer_class_from_typename
from brainstorm.layers.noop_layer import NoOpLayerImpl
from brainstorm.layers.recurrent_layer import RecurrentLayerImpl
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.prediction import inputs_of
from brainstorm.tools import create_net_from_spec, export_onnx
from brainstorm.tools.onnx_graph import Graph
from brainstorm.utils import FileFormatError, ValidationError
from tests.layers.cases import CASES, ONE_ACTIVATION_EACH, WITHOUT_TIME, Case, ends
from tests.layers.test_gru_and_options import RECURRENT

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


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


def from_case(case, parameters=None):
    """A network for a case, and shapes of its inputs and the path of its output."""
    specification = Specification.of(case.layer, None)
    shapes = case.in_shapes or specification.default_shapes()
    net = initialized(bs.Network.from_architecture(specification.architecture(shapes)))
    outputs = net.layers[specification.name].out_shapes
    chosen = {
        name: value(net.get(f"{specification.name}.parameters.{name}").shape)
        if callable(value)
        else value
        for name, value in {**(case.parameters or {}), **(parameters or {})}.items()
    }
    if net.layers[specification.name].parameter_shapes:
        chosen = {"default": bs.Gaussian(0.7), **chosen}
        net.initialize({specification.name: chosen}, seed=3)
    return net, shapes, f"{specification.name}.outputs.{next(iter(outputs))}"


def inputs_for(shapes, chosen, *sizes):
    data = {}
    for seed, (name, shape) in enumerate(shapes.items()):
        make = (chosen or {}).get(name, lambda s, seed=seed: values(*s, seed=seed))
        shape = BufferStructure(*shape).get_shape(*sizes)
        data[name] = make(shape).astype(np.float32)
    return data


SPIKING = {"Leaky", "Lif", "RecurrentLif"}
PENALTIES = {"Loss", "L1Decay", "L2Decay", "BinomialCrossEntropy"}


@pytest.mark.parametrize("name", WITHOUT_TIME)
def test_layers_without_time(name, tmp_path):
    case = WITHOUT_TIME[name]
    if case.layer.layer.layer_type not in PENALTIES:
        net, shapes, output = from_case(case)
        data = inputs_for(shapes, case.inputs, 1, 4)
        needed, _ = inputs_of(net, output)
        check(net, tmp_path, {n: data[n] for n in needed}, output)


OTHERS = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in CASES
    if name not in ONE_ACTIVATION_EACH
]


@pytest.mark.parametrize("sizes", [(7, 3), (1, 2)])
@pytest.mark.parametrize("name", [*ONE_ACTIVATION_EACH, *OTHERS])
def test_layers(name, sizes, tmp_path):
    case = CASES[name]
    if case.layer.layer.layer_type in PENALTIES:
        pytest.skip("computes a loss")
    if case.layer.layer.layer_type == "Delay":
        sizes = (sizes[0] + 3, sizes[1])  # so that there is more than the zeros
    net, shapes, output = from_case(case)
    if case.layer.layer.layer_type in SPIKING:
        with pytest.raises(
            ValidationError, match="a (Lif|Leaky|RecurrentLif) layer .* can not be"
        ):
            export_onnx(net, tmp_path / "net.onnx", output)
        return
    data = inputs_for(shapes, case.inputs, *sizes)
    needed, _ = inputs_of(net, output)
    session = check(net, tmp_path, {n: data[n] for n in needed}, output)
    assert {i.name for i in session.get_inputs()} == set(needed)


@pytest.mark.parametrize(
    "layer",
    [
        *(layers.Pooling2D(2, kind) for kind in ("max", "avg")),
        layers.Pooling2D((3, 2), "avg", stride=2, padding=1),
        layers.Convolution2D(3, 3, stride=(2, 1), padding=1),
        layers.Convolution2D(3, 2, bias=False),
        layers.FullyConnected((2, 3)),
        layers.GlobalPooling("avg"),
    ],
    ids=repr,
)
def test_images(layer, tmp_path):
    check(single(layer, 7, 6, 2), tmp_path, {"default": values(4, 3, 7, 6, 2)})


def combinations():
    """Of activation functions, options and directions: some of them are slow."""
    options = {}, {"bias": False, "initial_state": "learned"}
    for activation, some, both_ways in product(ACTIVATIONS, options, (False, True)):
        plain = not some and not both_ways
        marks = [] if plain or activation == "tanh" else pytest.mark.slow
        yield pytest.param(activation, some, both_ways, marks=marks)


@pytest.mark.parametrize("cell", RECURRENT)
@pytest.mark.parametrize(("activation", "options", "both_ways"), combinations())
def test_recurrent_layers(cell, activation, options, both_ways, tmp_path):
    layer = RECURRENT[cell](3, activation, name="L", **options)
    timing = {"timing": [1, 2.5, 3]} if "Clockwork" in cell else {}
    shapes = {"default": ("T", "B", 2, 2)}
    if both_ways:
        layer = layers.Bidirectional(layer, name="L")
        shapes["mask"] = ("T", "B", 1)
        timing = {
            f"{d}_{n}": t for d in ("forward", "backward") for n, t in timing.items()
        }
    net, _, output = from_case(Case(layer, shapes, parameters=timing))
    check(net, tmp_path, inputs_for(shapes, {"mask": ends}, 6, 4), output)


def test_sequences_end_where_the_mask_does(tmp_path):
    shapes = {"default": ("T", "B", 2), "mask": ("T", "B", 1)}
    case = Case(layers.Bidirectional(layers.Gru(3), name="L"), shapes)
    net, _, output = from_case(case)
    data = inputs_for(shapes, None, 5, 4)
    # None of it, a gap, only the last step, and all.
    rows = [0, 0, 0, 0, 0], [0.5, 0, 0, -2, 0], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]
    data["mask"] = np.array(rows, np.float32).T[..., np.newaxis]
    data["default"][4, 1] = np.nan  # in the padding
    file = tmp_path / "net.onnx"
    export_onnx(net, file)
    (found,) = onnxruntime.InferenceSession(file).run(None, data)
    expected = net.predict(data, output_name=output)
    assert not found[:, 0, 3:].any()
    found[4, 1, :3] = expected[4, 1, :3] = 0  # the forward layer saw the NaN
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("recurrent", [False, True])
def test_large_values(recurrent, activation, tmp_path):
    x = np.array([[[-1e4, -90, -20, 0, 20, 90, 1e4]]], np.float32)
    if recurrent:
        net = single(layers.Recurrent(7, activation, name="L"), 7)
        net.initialize(L={"W": np.eye(7), "R": 0, "bias": 0})
    else:
        net = single(layers.Elementwise(activation), 7)
    check(net, tmp_path, {"default": x})


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


@pytest.mark.parametrize(
    "layer",
    [
        layers.Convolution2D(2, (1, 1)),
        layers.GlobalPooling("avg"),
        layers.Elementwise("tanh"),
        layers.FullyConnected(2),
    ],
)
def test_joined_pixels(layer, tmp_path):
    inp = layers.Input({"default": ("T", "B", 1, 1, 2)})
    for channels in (2, 3):
        inp >> layers.Convolution2D(channels, (1, 1)) >> layer
    net = initialized(bs.Network.from_layer(inp))
    check(net, tmp_path, {"default": values(2, 5, 1, 1, 2)})


@pytest.mark.parametrize("mask", [(1,), (3, 1), (3, 2)])
def test_several_inputs(mask, tmp_path):
    inp = layers.Input({"a": ("T", "B", 3, 2), "b": ("T", "B", *mask)})
    layer = layers.Mask()
    inp - "a" >> layer
    inp - "b" >> "mask" - layer
    net = initialized(bs.Network.from_layer(inp))
    check(net, tmp_path, {"a": values(2, 5, 3, 2), "b": values(2, 5, *mask, seed=1)})


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_attention(causal, rotary, tmp_path):
    shapes = {"a": ("T", "B", 3, 2), "b": ("T", "B", 3), "mask": ("T", "B", 1)}
    inp = layers.Input(shapes)
    first = layers.Attention(8, 2, causal, bias=False, name="First")
    first = inp - "a" >> first >> layers.PositionalEncoding("learned", 9)
    last = layers.Attention(8, 2, causal, rotary=rotary, name="Last")
    first >> last >> layers.PositionalEncoding()
    inp - "b" >> "memory" - last
    inp - "mask" >> "mask" - last
    net = initialized(bs.Network.from_layer(inp))
    mask = np.ones((4, 3, 1), np.float32)
    mask[2:, 1] = mask[:, 2] = 0
    data = {"a": values(4, 3, 3, 2), "b": values(4, 3, 3, seed=1), "mask": mask}
    check(net, tmp_path, data)


@pytest.mark.parametrize("kind", [layers.Merge, layers.SquaredDifference])
def test_two_inputs(kind, tmp_path):
    inp = layers.Input({"a": ("T", "B", 3, 2), "b": ("T", "B", 3, 2)})
    layer = kind()
    inp - "a" >> "inputs_1" - layer
    inp - "b" >> "inputs_2" - layer
    net = initialized(bs.Network.from_layer(inp))
    check(net, tmp_path, {"a": values(2, 5, 3, 2), "b": values(2, 5, 3, 2, seed=1)})


def test_shared_parameters_are_in_the_file_once(tmp_path):
    inp = layers.Input({"default": ("T", "B", 1)})
    words = layers.Embedding(6, 4, name="Words")
    hidden = [layers.FullyConnected(4, "tanh", name=f"H{i}") for i in range(2)]
    hidden[1].share(hidden[0])
    cells = [layers.Gru(4, name=f"G{i}") for i in range(2)]
    cells[1].share(cells[0])
    last = layers.FullyConnected(6, "linear", name="Last", bias=False)
    last.share(words, "W")
    inp >> words >> hidden[0] >> hidden[1] >> cells[0] >> cells[1] >> last
    net = initialized(bs.Network.from_layer(inp))
    indices = np.random.RandomState(0).randint(6, size=(5, 3, 1)).astype(np.float32)
    check(net, tmp_path, {"default": indices})
    constants = onnx.load(tmp_path / "net.onnx").graph.initializer
    sizes = sorted(np.prod(c.dims) for c in constants if c.data_type == 1)
    # H0's bias, its weights, the words, and biases and weights of G0.
    assert sizes == [4, 16, 24, 24, 48, 48]
    assert {"Words.W", "H0.W", "H0.bias"} <= {c.name for c in constants}


# -- bad input ---------------------------------------------------------------


class UnknownLayerImpl(NoOpLayerImpl):
    """A layer that the export has not heard of."""


class OwnRecurrentLayerImpl(RecurrentLayerImpl):
    """A recurrent layer that the export has not heard of."""


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: ConstructionWrapper.create(UnknownLayerImpl, "Mine"),
            r"an? Unknown layer such as 'Mine' can not .*'Add', 'Attention'",
        ),
        (
            lambda: layers.Bidirectional(
                ConstructionWrapper.create(OwnRecurrentLayerImpl, size=2), "Both"
            ),
            "Bidirectional layer 'Both' can not .* a OwnRecurrent layer; .*'Gru'",
        ),
        (
            lambda: layers.Clockwork(2, name="Clock"),
            "layer 'Clock' can not .* at least 1, got -",
        ),
    ],
)
def test_an_unsupported_layer_is_named_before_a_file_is_written(make, text, tmp_path):
    net = single(make(), 4)
    if "Clock" in net.layers:
        net.buffer.Clock.parameters.timing[:] = -1
    with pytest.raises(ValidationError, match=text):
        export_onnx(net, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_layer_of_ones_own_is_not_taken_for_that_of_its_name(tmp_path):
    def own(kind):
        base = get_layer_class_from_typename(kind)
        return type(f"{kind}LayerImpl", (base,), {"__module__": "mine"})

    for layer in (
        ConstructionWrapper.create(own("NoOp")),
        layers.Bidirectional(ConstructionWrapper.create(own("Lstm"), size=2)),
    ):
        with pytest.raises(ValidationError, match="(NoOp|Lstm) layer.*; those"):
            export_onnx(single(layer, 4), tmp_path / "net.onnx")


@pytest.mark.parametrize("content", [b"print('hello')\n", b"\x89HDF\r\n", b"\x08"])
def test_files_of_other_kinds_are_not_replaced(content, tmp_path):
    net, file = single(layers.FullyConnected(3), 4), tmp_path / "net.onnx"
    file.write_bytes(content)
    with pytest.raises(FileFormatError, match="of another kind already.*no ONNX file"):
        export_onnx(net, file)
    assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]
    file.write_bytes(b"")
    for _ in range(2):
        check(net, tmp_path, {"default": values(1, 5, 4)})


def test_layers_that_are_not_needed_need_no_support(tmp_path):
    net = initialized(create_net_from_spec("regression", 4, 2, "F3"))
    check(net, tmp_path, {"default": values(1, 5, 4)})
    with pytest.raises(ValidationError, match="Loss"):
        export_onnx(net, tmp_path / "loss.onnx", "Loss.outputs.loss")
    with pytest.raises(ValidationError, match="the output 'loss' .* 'Output' can not"):
        export_onnx(net, tmp_path / "loss.onnx", "Output.outputs.loss")
    assert [f.name for f in tmp_path.iterdir()] == ["net.onnx"]


def test_other_errors(tmp_path, monkeypatch):
    net = single(layers.FullyConnected(3), 4)
    with pytest.raises(KeyError, match="no output 'Nope'"):
        export_onnx(net, tmp_path / "net.onnx", "Nope")
    with pytest.raises(ValidationError, match="net: expected a Network, got str"):
        export_onnx("net", tmp_path / "net.onnx")
    with pytest.raises(ValidationError, match="the name of a file, got None"):
        export_onnx(net, None)
    with pytest.raises(FileNotFoundError, match="no folder"):
        export_onnx(net, tmp_path / "none" / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install .*\[onnx\]"):
        export_onnx(net, tmp_path / "net.onnx")


def test_unknown_activations_are_refused_by_name():
    with pytest.raises(ValidationError, match="'sine' has no operator"):
        Graph.activate(None, "x", "sine")
