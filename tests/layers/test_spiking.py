"""Leaky integration and spiking neurons."""

import json

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.describable import get_description
from brainstorm.handlers import NumpyHandler
from brainstorm.initializers import Gaussian
from brainstorm.structure.network import Network
from brainstorm.tools import export_onnx
from brainstorm.utils import LayerValidationError, ValidationError
from tests.golden import golden
from tests.layers.single_layer import SingleLayer, normal

close = {"rtol": 0, "atol": 1e-9}


def check_deltas(run, expected, **deltas):
    """Compare the input deltas for these deltas of the outputs."""
    for name, value in deltas.items():
        if len(run[f"outputs.{name}"]) > len(value):  # the carried state
            deltas[name] = np.concatenate([value, np.zeros_like(value[:1])])
    run.backward(**deltas)
    np.testing.assert_allclose(run["input_deltas.default"], expected, **close)


# -- against others ----------------------------------------------------------

LEAKY = {
    "leaky_integrator_dt1": {"gain": "integrate", "rest": 0.5, "resistance": 2.0},
    "leaky_dt1": {},
    "leaky_dt0.1": {"dt": 0.1},
    "integrator_dt1": {"gain": "integrate"},
}


@pytest.mark.parametrize("name", LEAKY)
def test_leaky_as_in_brainpy(name):
    file = golden(name)
    run = SingleLayer(layers.Leaky(5.0, **LEAKY[name]), {"default": file["I"]})
    run.forward()
    np.testing.assert_allclose(run.y[:-1], file["y"], **close)
    if "dI" in file:
        check_deltas(run, file["dI"], default=file["c"])


def weighted_synapse(file, *synapse):
    """A product without bias, and a synapse."""
    inp = layers.Input({"default": ("T", "B", *file["spikes"].shape[2:])})
    last = inp >> layers.FullyConnected(3, "linear", "P", bias=False)
    for layer in synapse:
        last = last >> layer
    net = Network.from_layer(last)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(0.0)
    net.buffer.P.parameters.W[...] = file["W"].T
    net.provide_external_data({"default": file["spikes"]})
    net.forward_pass(training_pass=True)
    return net


def test_exponential_synapse_as_in_brainpy():
    file = golden("expon_dt1")
    net = weighted_synapse(file, layers.Leaky(8.0, name="S"))
    np.testing.assert_allclose(net.get("S.outputs.default")[:-1], file["g"], **close)
    net.buffer.S.output_deltas.default[:-1] = file["c"]
    for name in ("S", "P"):
        net.layers[name].fresh = frozenset({"default", "gradients"})
        net.layers[name].backward_pass(net.buffer[name])
    np.testing.assert_allclose(net.get("P.gradients.W"), file["dW"].T, **close)
    deltas = net.buffer.P.output_deltas.default @ file["W"].T
    np.testing.assert_allclose(deltas, file["dspikes"], **close)


def test_synapses_of_two_time_constants_as_in_brainpy():
    file, decay, rise = golden("dual_expon_dt1"), 10.0, 2.0
    slow, fast = (
        weighted_synapse(file, layers.Leaky(tau, name="S")).get("S.outputs.default")
        for tau in (decay, rise)
    )
    factor = decay / (decay - rise) * (rise / decay) ** (rise / (rise - decay))
    got = (factor * (slow - fast))[:-1]
    np.testing.assert_allclose(got, file["g"], **close)


@pytest.mark.parametrize("dt", [1.0, 0.1])
def test_alpha_synapse_as_in_brainpy(dt):
    file = golden(f"alpha_synapse_dt{dt:g}")
    parts = (
        layers.Leaky(6.0, dt=dt),
        layers.Delay(),
        layers.Leaky(6.0, name="S", dt=dt, gain="integrate"),
    )
    got = weighted_synapse(file, *parts).get("S.outputs.default")[:-1]
    np.testing.assert_allclose(got, file["g"], **close)


LIF = {
    "lif_soft": {"reset": "soft", "detach_reset": False},
    "lif_soft_detached": {"reset": "soft"},
    "lif_hard": {"detach_reset": False},
    "lif_hard_detached": {},
    "lif_hard_detached_ref3": {"refractory": 3.0},
    "lif_soft_sigmoid": {
        **{"reset": "soft", "detach_reset": False, "surrogate": "sigmoid"},
    },
    "lif_simulation": {},
    "lif_simulation_ref3": {"refractory": 3.0},
}


@pytest.mark.parametrize("name", LIF)
def test_lif_as_in_brainpy(name):
    file = golden(name)
    run = SingleLayer(layers.Lif(10.0, **LIF[name]), {"default": file["I"]}).forward()
    assert np.array_equal(run.y, file["spikes"])
    np.testing.assert_allclose(run["outputs.membrane"][:-1], file["V"], **close)
    assert file["spikes"].sum() > 10
    if "dI" in file:
        check_deltas(run, file["dI"], default=file["cs"], membrane=file["cv"])


def test_leaky_as_in_snntorch():
    # mem' = beta mem + x - (mem > 1) is u, where after a spike 1 / beta is subtracted
    # from it before it decays, and inputs are not multiplied by 1 - a.
    file, beta = golden("leaky_snntorch"), 0.9
    options = {"resistance": 1 / (1 - beta), "reset": "soft", "reset_to": 1 - 1 / beta}
    layer = layers.Lif(-1 / np.log(beta), **options)
    run = SingleLayer(layer, {"default": file["x"]}).forward()
    assert np.array_equal(run.y, file["spikes"])
    np.testing.assert_allclose(run["internals.u"], file["mem"], rtol=0, atol=1e-6)
    assert file["spikes"].sum() > 10


# -- what they compute -------------------------------------------------------


def recurrent_lif(x, W, R, bias, tau, threshold):
    a, v, s, spikes = np.exp(-1 / tau), 0.0, np.zeros((x.shape[1], len(R))), []
    for now in x:
        u = a * v + (1 - a) * (now @ W.T + s @ R.T + bias)
        s = (u >= threshold) * 1.0
        v = u * (1 - s)
        spikes.append(s)
    return np.array(spikes)


def test_recurrent_lif():
    x, W, R, bias = normal(9, 2, 3), 3 * normal(4, 3), normal(4, 4), normal(4)
    parameters = {"W": W, "R": R, "bias": bias}
    layer = layers.RecurrentLif(4, 3.0, threshold=0.4)
    run = SingleLayer(layer, {"default": x}, parameters).forward()
    expected = recurrent_lif(x, W, R, bias, 3.0, 0.4)
    assert 0.1 < expected.mean() < 0.9
    assert np.array_equal(run.y[:-1], expected)
    assert not np.array_equal(expected, recurrent_lif(x, W, 0 * R, bias, 3.0, 0.4))


def test_without_weights_between_neurons_it_is_lif():
    x, W = normal(9, 2, 3), 3 * normal(4, 3)
    parameters = {"W": W, "R": np.zeros((4, 4))}
    options = {"threshold": 0.4, "refractory": 2.0, "reset": "soft", "bias": False}
    layer = layers.RecurrentLif(4, 3.0, **options)
    run = SingleLayer(layer, {"default": x}, parameters).forward()
    del options["bias"]
    alone = SingleLayer(layers.Lif(3.0, **options), {"default": x @ W.T}).forward()
    assert np.array_equal(run.y[:-1], alone.y)
    dy = normal(9, 2, 4, seed=1)
    run.backward(default=np.concatenate([dy, dy[:1]]))
    alone.backward(default=dy)
    current = alone["input_deltas.default"]
    np.testing.assert_allclose(run["internals.dI"], current, atol=1e-12)
    np.testing.assert_allclose(
        run["gradients.W"], np.einsum("tbn,tbi->ni", current, x), atol=1e-12
    )


def test_each_unit_can_have_its_own_time_constant():
    x, taus = normal(7, 2, 3), [2.0, 5.0, 0.7]
    together = SingleLayer(layers.Leaky(taus), {"default": x}).forward().y
    for n, tau in enumerate(taus):
        alone = SingleLayer(layers.Leaky(tau), {"default": x[..., n : n + 1]}).forward()
        np.testing.assert_allclose(together[..., n : n + 1], alone.y, atol=1e-14)


@pytest.mark.parametrize("make", [layers.Leaky, layers.Lif])
def test_time_constants_that_are_learned_begin_as_given(make):
    x = 5 * normal(7, 2, 3)
    given = SingleLayer(make(4.0), {"default": x}).forward()
    learned = SingleLayer(make(4.0, learn_tau=True), {"default": x}).forward()
    np.testing.assert_allclose(learned.y, given.y, atol=1e-12)
    learned.set("parameters.decay", 1.0)
    a = np.exp(-1 / 4.0)
    moved = 1 / (1 + (1 - a) / a / np.e)
    np.testing.assert_allclose(learned.forward()["internals.a"], moved, atol=1e-12)
    other = SingleLayer(make(-1 / np.log(moved)), {"default": x}).forward()
    np.testing.assert_allclose(learned.y, other.y, atol=1e-12)


def test_a_neuron_at_its_threshold_fires():
    x = np.ones((1, 1, 1))
    layer = layers.Lif(1.0, threshold=1 - np.exp(-1.0))
    assert SingleLayer(layer, {"default": x}).forward().y.item() == 1.0


@pytest.mark.parametrize(
    ("refractory", "frozen"), [(0.0, 0), (0.29, 2), (0.3, 3), (1.0, 10)]
)
def test_refractory_periods_are_rounded_down_to_steps(refractory, frozen):
    layer = layers.Lif(1.0, dt=0.1, resistance=1000.0, refractory=refractory)
    run = SingleLayer(layer, {"default": np.ones((40, 1, 1))}).forward()
    (steps,) = np.nonzero(run.y[:, 0, 0])
    assert set(np.diff(steps)) == {frozen + 1}


# -- pieces of sequences -----------------------------------------------------


def stack(*hidden):
    inp = layers.Input({"default": ("T", "B", 3)})
    last = inp >> layers.FullyConnected(4, "linear")
    for layer in hidden:
        last = last >> layer
    net = Network.from_layer(last)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(Gaussian(2.0), seed=1, RecurrentLif={"decay": 0.3})
    return net, last.name


@pytest.mark.parametrize("pieces", [[1] * 12, [5, 1, 6]])
@pytest.mark.parametrize(
    "options", [{}, {"refractory": 2.5, "reset_to": -0.3, "rest": 0.1}]
)
def test_pieces_give_what_the_whole_gives(options, pieces):
    options = {"threshold": 0.4, **options}
    net, name = stack(
        layers.Leaky(2.0),
        layers.Lif(3.0, reset="soft", **options),
        layers.RecurrentLif(4, 3.0, learn_tau=True, **options),
    )
    x = normal(12, 2, 3)

    def spikes(x, context=None):
        net.provide_external_data({"default": x})
        net.forward_pass(context=context)
        return net.get(f"{name}.outputs.default")[: len(x)]

    whole, found, context = spikes(x), [], None
    for part in np.split(x, np.cumsum(pieces)[:-1]):
        found.append(spikes(part, context))
        context = net.get_context()
    assert 0.05 < whole.mean() < 0.95
    assert np.array_equal(np.concatenate(found), whole)
    assert np.array_equal(spikes(x), whole)  # begins at zeros again


# -- what is described and refused -------------------------------------------


def test_only_what_is_not_the_default_is_described():
    for make in (layers.Leaky, layers.Lif, lambda *args: layers.RecurrentLif(2, *args)):
        net = Network.from_layer(layers.Input({"default": ("T", "B", 2)}) >> make(3.0))
        description = json.loads(json.dumps(get_description(net)))
        (layer,) = (
            entry
            for name, entry in description["architecture"].items()
            if name != "Input"
        )
        assert layer["tau"] == 3.0
        assert layer.keys() <= {"@type", "@outgoing_connections", "tau", "size"}


def refused(layer, *words, features=3):
    with pytest.raises(LayerValidationError) as error:
        Network.from_layer(layers.Input({"default": ("T", "B", features)}) >> layer)
    for word in (layer.name, *words):
        assert word in str(error.value)


MAKERS = [
    layers.Leaky,
    layers.Lif,
    lambda *args, **kwargs: layers.RecurrentLif(3, *args, **kwargs),
]
NEURONS = MAKERS[1:]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    "tau", [0, -1.0, float("nan"), float("inf"), "1", None, [], [1.0, 0.0, 1.0]]
)
def test_bad_time_constants(make, tau):
    refused(make(tau), "'tau'", "positive")


@pytest.mark.parametrize("make", MAKERS)
def test_time_constants_that_do_not_fit(make):
    refused(make(0.5), "'tau' above dt / 2 = 0.5", "got 0.5")
    refused(make([3.0, 0.04, 3.0], dt=0.1), "'tau' above dt / 2 = 0.05", "got 0.04")
    refused(make([3.0, 2.0]), "3 numbers as 'tau'", "got 2")
    refused(make(3.0, dt=0.0), "'dt'", "positive")
    refused(make(3.0, learn_tau=1), "'learn_tau'", "True or False")


def test_bad_gain():
    refused(layers.Leaky(gain="both"), "'gain'", "'input' or 'integrate'")
    refused(layers.Leaky(rest=1.0), "gain='integrate'", "'rest'")
    refused(layers.Leaky(resistance=2.0), "gain='integrate'", "'resistance'")
    refused(layers.Leaky(gain="integrate", rest=float("nan")), "'rest'")


@pytest.mark.parametrize("make", NEURONS)
@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("threshold", float("inf"), "a finite number"),
        ("reset_to", 1.0, "below the threshold 1"),
        ("rest", None, "a finite number"),
        ("resistance", "1", "a finite number"),
        ("reset", "none", "'hard' or 'soft'"),
        ("detach_reset", 0, "True or False"),
        ("refractory", -0.1, "at least 0"),
        ("refractory", float("inf"), "at least 0"),
        ("surrogate", "boxcar", "'inv_square', 'sigmoid'"),
        ("surrogate", None, "'slayer'"),
        ("surrogate", ["sigmoid"], "'slayer'"),
        ("surrogate_args", 3.0, "a dict or None"),
        ("surrogate_args", {"beta": 3.0}, "'alpha'"),
        ("surrogate_args", {"alpha": "3"}, "finite values"),
        ("surrogate_args", {"alpha": float("nan")}, "finite values"),
    ],
)
def test_bad_arguments_of_neurons(make, name, value, expected):
    refused(make(**{name: value}), f"'{name}'", expected)


def test_parameters_that_make_no_sense():
    for surrogate, args in (
        ("nonzero_sign_log", {"alpha": 0.0}),
        ("gaussian", {"sigma": 0.0}),
        ("q_pseudo_spike", {"alpha": -2.0}),
    ):
        layer = layers.Lif(surrogate=surrogate, surrogate_args=args)
        refused(layer, "'surrogate_args'", "finite values", surrogate)


@pytest.mark.parametrize("make", MAKERS)
def test_no_onnx(make, tmp_path):
    net = Network.from_layer(layers.Input({"default": ("T", "B", 2)}) >> make(3.0))
    net.initialize(0.1)
    with pytest.raises(ValidationError, match="Lif|Leaky"):
        export_onnx(net, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
