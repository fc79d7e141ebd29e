"""Gru, and the arguments bias and initial_state of all layers that have them."""

import json

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.describable import create_from_description, get_description
from brainstorm.handlers import NumpyHandler
from brainstorm.initializers import Gaussian
from brainstorm.structure.architecture import generate_architecture
from brainstorm.structure.network import Network
from brainstorm.utils import LayerValidationError
from tests.handlers.handler_cases import HANDLERS, handler_params
from tests.layers.single_layer import SingleLayer, normal

T, B, I, N = 4, 3, 2, 5  # noqa: E741


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_gru_computes_the_formulas():
    x = normal(T, B, I)
    p = {f"W{g}": normal(N, I, seed=i) for i, g in enumerate("rzh")}
    p |= {f"R{g}": normal(N, N, seed=i + 3) for i, g in enumerate("rzh")}
    p |= {f"b{g}": normal(N, seed=i + 6) for i, g in enumerate("rzh")}
    run = SingleLayer(layers.Gru(N), {"default": x}, p).forward()
    y = np.zeros((B, N))
    for t in range(T):
        r = sigmoid(x[t] @ p["Wr"].T + y @ p["Rr"].T + p["br"])
        z = sigmoid(x[t] @ p["Wz"].T + y @ p["Rz"].T + p["bz"])
        h = np.tanh(x[t] @ p["Wh"].T + r * (y @ p["Rh"].T) + p["bh"])
        y = (1 - z) * h + z * y
        assert np.allclose(run["internals.Rb"][t], r)
        assert np.allclose(run["internals.Zb"][t], z)
        assert np.allclose(run["internals.Hb"][t], h)
        assert np.allclose(run.y[t], y)


RECURRENT = {
    "Recurrent": layers.Recurrent,
    "Lstm": layers.Lstm,
    "Gru": layers.Gru,
    "Clockwork": layers.Clockwork,
    "ClockworkLstm": layers.ClockworkLstm,
}
WITH_BIAS = {**RECURRENT, "FullyConnected": layers.FullyConnected}
WITH_BIAS["Convolution2D"] = lambda size, **kw: layers.Convolution2D(size, 2, **kw)


def network(layer, shape=(I,), seed=1, handler=None, **initializers):
    inp = layers.Input({"default": ("T", "B", *shape)})
    inp >> layer >> layers.Loss()
    net = Network.from_layer(inp)
    net.set_handler(handler or NumpyHandler(np.float64))
    timing = {"timing": 1.0} if "timing" in parameter_names(net) else {}
    chosen = {layer.name: {"default": Gaussian(0.5), **timing, **initializers}}
    net.initialize(chosen, seed=seed)
    return net


def parameter_names(net):
    return [n for layer in net.layers.values() for n in layer.parameter_shapes]


def run(net, x, context=None):
    net.provide_external_data({"default": x})
    net.forward_pass(training_pass=True, context=context)
    net.backward_pass()


@pytest.mark.parametrize("handler", handler_params("pycuda"))
@pytest.mark.parametrize("kind", WITH_BIAS)
def test_without_bias_is_as_with_zeros(kind, handler):
    shape = (4, 3, 2) if kind == "Convolution2D" else (I,)
    x, results = normal(T, B, *shape), []
    with_bias = network(WITH_BIAS[kind](N, name="L"), shape)
    biases = [n for n in parameter_names(with_bias) if n[0] == "b"]
    values = {
        n: np.zeros_like(value) if n[0] == "b" else value
        for n in parameter_names(with_bias)
        for value in [with_bias.get(f"L.parameters.{n}")]
    }
    for bias in (True, False):
        net = network(WITH_BIAS[kind](N, name="L", bias=bias), shape)
        net.set_handler(HANDLERS[handler]())
        names = [n for n in values if bias or n not in biases]
        assert parameter_names(net) == names
        net.initialize({"L": {n: values[n] for n in names}})
        for _ in range(2):
            run(net, x)
        results.append({n: net.get(f"L.gradients.{n}") for n in names})
        results[-1]["y"] = net.get("L.outputs.default")
    for name, array in results[1].items():
        np.testing.assert_allclose(array, results[0][name], 1e-4, 1e-4, err_msg=name)


@pytest.mark.parametrize("handler", handler_params("pycuda"))
@pytest.mark.parametrize("kind", RECURRENT)
def test_learned_state_is_as_one_that_is_carried(kind, handler):
    x = normal(T, B, I)
    states = {"y0": normal(N, seed=2)}
    if "Lstm" in kind:
        states["c0"] = normal(N, seed=3)
    layer = RECURRENT[kind](N, name="L", initial_state="learned")
    net = network(layer, **states)
    net.set_handler(HANDLERS[handler]())
    run(net, x)
    assert np.allclose(net.get("L.outputs.default")[-1], states["y0"])

    other = network(RECURRENT[kind](N, name="L"))
    run(other, x)
    context = other.get_context()
    for path, array in context.items():
        array[:] = 0
        if path == "L.outputs.default":
            array[:] = states["y0"]
        elif path == "L.internals.Ca":
            array[:] = states["c0"]
    other.initialize(
        {"L": {n: net.get(f"L.parameters.{n}") for n in parameter_names(other)}}
    )
    run(other, x, context)
    close = {"rtol": 1e-4, "atol": 1e-4}
    for path in ("outputs.default", "gradients.R" if kind == "Recurrent" else None):
        if path:
            got = net.get(f"L.{path}")
            np.testing.assert_allclose(got, other.get(f"L.{path}"), **close)
    deltas = other.get("L.output_deltas.default")[-1].sum(0)
    np.testing.assert_allclose(net.get("L.gradients.y0"), deltas, **close)
    if "c0" in states:
        deltas = other.get("L.internals.dCa")[-1].sum(0)
        np.testing.assert_allclose(net.get("L.gradients.c0"), deltas, **close)


@pytest.mark.parametrize("kind", RECURRENT)
def test_a_state_that_is_carried_on_is_not_replaced(kind):
    x = normal(2 * T, B, I)
    layer = RECURRENT[kind](N, name="L", initial_state="learned")
    net = network(layer)
    run(net, x)
    y = net.get("L.outputs.default")[:-1]
    run(net, x[:T])
    run(net, x[T:], net.get_context())
    assert np.allclose(net.get("L.outputs.default")[:-1], y[T:])
    assert not net.get("L.gradients.y0").any()


@pytest.mark.parametrize("kind", WITH_BIAS)
def test_arguments_at_their_default_are_not_in_the_architecture(kind):
    architecture = generate_architecture(WITH_BIAS[kind](3))[kind]
    assert not {"bias", "initial_state", "peepholes"} & set(architecture)
    layer = WITH_BIAS[kind](3, bias=False)
    assert generate_architecture(layer)[kind]["bias"] is False


@pytest.mark.parametrize("kind", WITH_BIAS)
@pytest.mark.parametrize("bad", [None, 1, 0, "no"])
def test_bias_is_true_or_false(kind, bad):
    shape = (4, 3, 2) if kind == "Convolution2D" else (I,)
    with pytest.raises(LayerValidationError, match=f"{kind}.*True or False as 'bias'"):
        SingleLayer(WITH_BIAS[kind](3, bias=bad), {"default": normal(1, 1, *shape)})


@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize(
    ("argument", "bad"),
    [
        *(("size", bad) for bad in (None, 0, -1, 1.5, "3", [3], np.nan)),
        *(("activation", bad) for bad in (None, 3, "sine", [])),
    ],
)
def test_bad_sizes_and_activations(kind, argument, bad):
    layer = RECURRENT[kind](**{"size": 3, argument: bad})
    expected = {"size": "a positive integer", "activation": "one of 'linear'"}[argument]
    with pytest.raises(LayerValidationError, match=f"^{kind} .* {expected}.*got") as e:
        SingleLayer(layer, {"default": normal(1, 1, 2)})
    assert repr(bad) in str(e.value)


OPTIONS = [
    {"bias": False},
    *({"bias": bias, "initial_state": "learned"} for bias in (True, False)),
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("kind", RECURRENT)
def test_options_are_described_and_saved(kind, both_ways, options, tmp_path):
    layer, x = RECURRENT[kind](N, name="L", **options), normal(T, B, I)
    timing = {"timing": [1, 2, 3, 1, 2]} if "Clockwork" in kind else {}
    if both_ways:
        layer = layers.Bidirectional(layer, name="L")
        timing = {f"*_{name}": value for name, value in timing.items()}
    net = initialized(layer, (I,), **timing)
    check_round_trips(net, x, tmp_path)
    names = {name.split("_")[-1] for name in net.layers["L"].parameter_shapes}
    assert ("y0" in names) == ("initial_state" in options)
    assert ("c0" in names) == ("initial_state" in options and "Lstm" in kind)
    assert any(name[0] == "b" for name in names) == options.get("bias", True)


@pytest.mark.parametrize("kind", ["FullyConnected", "Convolution2D"])
def test_layers_without_bias_are_described_and_saved(kind, tmp_path):
    shape = (4, 3, 2) if kind == "Convolution2D" else (I,)
    net = initialized(WITH_BIAS[kind](N, name="L", bias=False), shape)
    check_round_trips(net, normal(T, B, *shape), tmp_path)
    assert list(net.layers["L"].parameter_shapes) == ["W"]


def initialized(layer, shape, **initializers):
    net = Network.from_layer(layers.Input({"default": ("T", "B", *shape)}) >> layer)
    net.initialize(L={"default": Gaussian(0.5), **initializers}, seed=1)
    return net


def as_text(net):
    return json.dumps(net.architecture)  # where tuples and lists are the same


def check_round_trips(net, x, tmp_path):
    """A description gives the same layers, a file also the same parameters."""
    y = net.predict(x)
    again = create_from_description(json.loads(json.dumps(get_description(net))))
    assert as_text(again) == as_text(net)
    assert again.initializers == net.initializers
    net.save_as_hdf5(tmp_path / "net.hdf5")
    loaded = Network.from_hdf5(tmp_path / "net.hdf5")
    assert as_text(loaded) == as_text(net)
    np.testing.assert_array_equal(loaded.get("parameters"), net.get("parameters"))
    np.testing.assert_array_equal(loaded.predict(x), y)


@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize("bad", [None, 0, "random", []])
def test_initial_state_is_one_of_two(kind, bad):
    layer = RECURRENT[kind](3, initial_state=bad)
    with pytest.raises(LayerValidationError, match="'zeros' or 'learned' as 'initial"):
        SingleLayer(layer, {"default": normal(1, 1, 2)})
