"""What parameters begin with that nobody named."""

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.initializers import Gaussian
from brainstorm.utils import InitializationError, NetworkValidationError

CASES = {
    "BatchNorm": (
        lambda: layers.BatchNorm(),
        {"gamma": 1, "beta": 0, "mu": 0, "sigma": 1},
    ),
    "LayerNorm": (lambda: layers.LayerNorm(), {"gamma": 1, "beta": 0}),
    "Clockwork": (lambda: layers.Clockwork(3), {"timing": 1}),
    "ClockworkLstm": (lambda: layers.ClockworkLstm(3), {"timing": 1}),
    "Lstm": (lambda: layers.Lstm(3, initial_state="learned"), {"y0": 0, "c0": 0}),
    "Gru": (
        lambda: layers.Gru(3, initial_state="learned", recurrent_bias=True),
        {"y0": 0, "bp": 0},
    ),
    "Bidirectional": (
        lambda: layers.Bidirectional(layers.Recurrent(3, initial_state="learned")),
        {"forward_y0": 0, "backward_y0": 0},
    ),
}


def network(layer):
    inp = layers.Input({"default": ("T", "B", 3)})
    return bs.Network.from_layer(inp >> layer)


def values_of(net, name):
    found = net.buffer[name].parameters.keys()
    return {p: net.get(f"{name}.parameters.{p}") for p in sorted(found)}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("pattern", ["default", "*", "layer", "inner"])
def test_broad_initializers_leave_natural_values_alone(name, pattern):
    make, expected = CASES[name]
    net = network(make())
    references = {
        "layer": {name: Gaussian(0.1)},
        "inner": {name: {"default": Gaussian(0.1)}},
    }.get(pattern, {pattern: Gaussian(0.1)})
    net.initialize(references, seed=1)
    for parameter, values in values_of(net, name).items():
        if parameter in expected:
            np.testing.assert_array_equal(values, expected[parameter])
        else:
            assert np.all(values != 0)


@pytest.mark.parametrize(
    "references",
    [
        {"BatchNorm": {"sigma": 2, "default": 0.5}},
        {"*": {"sigma": 2, "mu": 0.5}},
        {"default": {"sigma": 2}},
        {"B*": {"s*": 2}},
    ],
)
def test_parameters_that_are_named_get_what_is_given(references):
    net = network(layers.BatchNorm())
    net.initialize(references)
    values = values_of(net, "BatchNorm")
    np.testing.assert_array_equal(values["sigma"], 2)
    np.testing.assert_array_equal(values["gamma"], 1)
    assert np.all(values["mu"] == references.get("*", {}).get("mu", 0))


def test_other_parameters_are_drawn_as_if_all_were():
    inp = layers.Input({"default": ("T", "B", 3)})
    net = bs.Network.from_layer(
        inp >> layers.BatchNorm(name="A") >> layers.FullyConnected(2, name="Z")
    )
    net.initialize(Gaussian(), seed=3)
    broad = net.get("Z.parameters.W")
    named = dict.fromkeys(("gamma", "beta", "mu", "sigma"), Gaussian())
    net.initialize({"A": named, "default": Gaussian()}, seed=3)
    np.testing.assert_array_equal(broad, net.get("Z.parameters.W"))


def test_nothing_has_to_be_given_for_natural_values():
    network(layers.BatchNorm()).initialize()
    with pytest.raises(NetworkValidationError, match=r"nothing initializes.*Lstm\.Rf"):
        network(layers.Lstm(3)).initialize()


def test_the_default_may_choose_by_parameter():
    net = network(layers.FullyConnected(3, name="A"))
    net.initialize({"default": {"W": 2, "bias": 1}})
    assert {k: v.flat[0] for k, v in values_of(net, "A").items()} == {"W": 2, "bias": 1}
    net.initialize({"A": {"W": 3}, "default": {"bias": 4}})
    assert {k: v.flat[0] for k, v in values_of(net, "A").items()} == {"W": 3, "bias": 4}
    net.initialize({"default": {"W": 5, "default": 6}})
    assert {k: v.flat[0] for k, v in values_of(net, "A").items()} == {"W": 5, "bias": 6}
    with pytest.raises(NetworkValidationError, match=r"default\.V.*no parameter"):
        net.initialize({"default": {"V": 1, "default": 0}})


def test_errors_name_the_parameter_and_the_fallback():
    net = network(layers.FullyConnected(3, name="A"))
    with pytest.raises(InitializationError, match=r"A\.bias: .*'fallback'"):
        net.initialize(bs.Orthogonal())


@pytest.mark.parametrize(
    ("name", "activation", "variance"),
    [
        ("he", "tanh", 2 / 300),
        ("lecun", "tanh", 1 / 300),
        ("glorot", "rel", 2 / 500),
        ("auto", "rel", 2 / 300),
        ("auto", "tanh", 2 / 500),
    ],
)
def test_initializers_have_names(name, activation, variance):
    inp = layers.Input({"default": ("T", "B", 300)})
    out = inp >> layers.FullyConnected(200, activation=activation, name="A")
    net = bs.Network.from_layer(out)
    net.initialize(name, seed=1)
    values = values_of(net, "A")
    assert np.var(values["W"]) == pytest.approx(variance, rel=0.03)
    assert np.all(values["bias"] == 0)
    again = bs.create_from_description(bs.get_description(net))
    assert again.initializers == net.initializers == {"default": name}


def test_orthogonal_by_name_has_a_fallback_for_biases():
    net = network(layers.Lstm(3, name="A"))
    net.initialize({"A": {"R*": "orthogonal", "default": "glorot"}}, seed=1)
    R = net.get("A.parameters.Rz")
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-6)
    with pytest.raises(NetworkValidationError, match=r"no initializer 'gloro'.*'he'"):
        net.initialize("gloro")
