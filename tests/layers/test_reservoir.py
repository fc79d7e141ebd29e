"""Reservoir: a Recurrent layer that is frozen, with first values of its own."""

import numpy as np
import pytest

from brainstorm import Gaussian, Network, layers
from brainstorm.describable import create_from_description, get_description
from brainstorm.handlers import NumpyHandler, default_handler
from brainstorm.tools import effective_spectral_radius
from brainstorm.training import SgdStepper
from brainstorm.utils import LayerValidationError
from tests.golden import golden
from tests.layers.single_layer import SingleLayer


def network(reservoir, inputs=2, handler=None):
    inp = layers.Input({"default": ("T", "B", inputs), "targets": ("T", "B", 1)})
    error = layers.SquaredError(name="Error")
    inp >> reservoir >> layers.FullyConnected(1, "linear", name="Out") >> error
    inp - "targets" >> "targets" - error
    error - "loss" >> layers.Loss()
    net = Network.from_layer(inp)
    net.set_handler(handler or NumpyHandler(np.float64))
    return net


@pytest.mark.parametrize(
    ("kind", "leak"), [("internal", "0.3"), ("internal", "1.0"), ("external", "1.0")]
)
def test_the_numbers_of_others(kind, leak):
    z = golden(f"reservoir_{kind}_leak{leak}")
    inside = kind == "external"
    reservoir = layers.Reservoir(8, float(leak), leak_inside=inside, trainable=True)
    run = SingleLayer(
        reservoir,
        {"default": z["x"]},
        {"W": z["Win"].T, "R": z["Wrec"].T, "bias": z["bias"]},
    )
    np.testing.assert_allclose(run.forward().y[:-1], z["y"], rtol=1e-9, atol=1e-12)
    run.backward(default=np.concatenate([z["c"], 0 * z["c"][:1]]))
    for path, name in (
        ("gradients.W", "dWin"),
        ("gradients.R", "dWrec"),
        ("gradients.bias", "dbias"),
        ("input_deltas.default", "dx"),
    ):
        expected = z[name] if name in ("dx", "dbias") else z[name].T
        np.testing.assert_allclose(run[path], expected, rtol=1e-9, atol=1e-12)


def test_first_values():
    net = network(layers.Reservoir(60, 0.3, 1.2, 0.5, 0.2, name="R"))
    for initializers in (Gaussian(3.0), {"Out": 0.0}, {"Out": 0.0, "R": {"bias": 0.0}}):
        net.initialize(initializers, seed=2)
        W, R = (net.get(f"R.parameters.{name}") for name in "WR")
        assert 0.45 < np.abs(W).max() <= 0.5
        assert effective_spectral_radius(R) == pytest.approx(1.2)
        assert np.mean(R != 0) == pytest.approx(0.2, abs=0.03)
        assert np.all(net.get("R.parameters.bias") == 0)
    net.initialize({"Out": 0.0}, seed=3)
    assert np.any(net.get("R.parameters.W") != W)
    net.initialize({"Out": 0.0}, seed=2)
    np.testing.assert_array_equal(net.get("R.parameters.R"), R)
    net.initialize({"Out": 0.0, "R": {"W": 0.5}}, seed=2)
    assert np.all(net.get("R.parameters.W") == 0.5)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_small_ones_have_a_spectral_radius_too(size):
    net = network(layers.Reservoir(size, name="R"))
    for seed in range(5):
        net.initialize({"Out": 0.0}, seed=seed)
        R = net.get("R.parameters.R")
        assert effective_spectral_radius(R) == pytest.approx(0.9)


def test_it_is_not_trained_and_needs_no_backward_pass():
    net = network(layers.Reservoir(10, name="R"))
    net.initialize({"Out": 0.1}, seed=1)
    before = net.get("R.parameters.R")
    stepper = SgdStepper(0.1)
    stepper.start(net)
    rnd = np.random.RandomState(0)
    data = {"default": rnd.randn(5, 2, 2), "targets": rnd.randn(5, 2, 1)}
    net.provide_external_data(data)
    stepper.run()
    np.testing.assert_array_equal(net.get("R.parameters.R"), before)
    assert np.any(net.get("Out.parameters.W") != 0.1)
    operations = str(net.program(training_pass=True))
    assert "recurrent_forward" in operations
    assert "recurrent_backward" not in operations


def test_description_and_copies():
    net = network(layers.Reservoir(10, 0.2, name="R", leak_inside=True), handler=None)
    net.initialize({"Out": 0.1}, seed=1)
    again = create_from_description(get_description(net))
    assert again.architecture["R"] == net.architecture["R"]
    assert again.layers["R"].frozen == {"W", "R", "bias"}
    assert again.layers["R"].leak == 0.2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(leak=0.0), "'leak', got 0.0"),
        (dict(leak=1.5), "'leak', got 1.5"),
        (dict(spectral_radius=-1), "at least 0 as 'spectral_radius', got -1"),
        (dict(input_scaling="a"), "at least 0 as 'input_scaling', got 'a'"),
        (dict(connectivity=0), "above 0 and up to 1 as 'connectivity', got 0"),
        (dict(leak_inside=1), "'leak_inside', got 1"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(LayerValidationError, match=f"Reservoir.*{words}"):
        network(layers.Reservoir(5, **arguments))


@pytest.mark.parametrize("handler", [NumpyHandler(np.float32), default_handler])
def test_single_steps_are_those_of_a_whole_pass(handler):
    net = network(layers.Reservoir(20, name="R"), handler=handler)
    net.initialize({"Out": Gaussian()}, seed=1)
    x = np.random.RandomState(0).randn(8, 1, 2)
    whole = net.predict(x)
    context, steps = None, []
    for t in range(8):
        net.provide_external_data({"default": x[t : t + 1]}, all_inputs=False)
        net.forward_pass(context=context)
        context = net.get_context()
        steps.append(net.get("Out.outputs.default")[0])
    np.testing.assert_allclose(steps, whole, rtol=1e-6, atol=1e-7)
