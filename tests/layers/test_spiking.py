"""Leaky integration and spiking neurons."""

import json

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.describable import get_description
from brainstorm.handlers import NumpyHandler
from brainstorm.handlers.programs import Program
from brainstorm.initializers import Gaussian
from brainstorm.structure.network import Network
from brainstorm.tools import export_onnx
from brainstorm.training import SgdStepper
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


# The page's example: spikes arrive one step later; the largest output over time counts.
PAGE = {
    "snn_page_240_dt1": (
        {},
        {"bias": False},
        {"gain": "integrate"},
    ),
    "snn_page_282": (
        {"reset": "soft", "detach_reset": False},
        {},
        {},
    ),
}


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


@pytest.mark.parametrize("name", PAGE)
def test_the_network_of_brainpys_page(name):
    file, (neurons, weights, readout) = golden(name), PAGE[name]
    inp = layers.Input({"default": ("T", "B", 10), "targets": ("B", 1)})
    out = layers.SoftmaxCE(name="Out")
    last = inp >> layers.FullyConnected(20, "linear", "I", **weights)
    last = last >> layers.Leaky(10.0, "G") >> layers.Lif(10.0, "R", **neurons)
    last = last >> layers.Delay() >> layers.FullyConnected(2, "linear", "P", **weights)
    last = last >> layers.Leaky(10.0, "C") >> layers.Leaky(5.0, "O", **readout)
    last >> layers.TimePooling("max") >> out - "loss" >> layers.Loss(name="Loss")
    inp - "targets" >> "targets" - out
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(0.0)
    for layer, letter in (("I", "i"), ("P", "o")):
        parameters = net.buffer[layer].parameters
        parameters.W[...] = file[f"W{letter}"].T
        if not weights:
            parameters.bias[...] = file[f"b{letter}"]
    labels = file["labels"].reshape(-1, 1)
    net.provide_external_data({"default": file["spikes_in"], "targets": labels})
    net.forward_pass(training_pass=True)
    net.backward_pass()

    def agree(path, expected):
        np.testing.assert_allclose(net.get(path)[: len(expected)], expected, **close)

    assert file["r_spike"].sum() > 100
    agree("R.outputs.default", file["r_spike"])
    agree("R.outputs.membrane", file["r_V"])
    agree("G.outputs.default", file["i2r_g"])
    agree("C.outputs.default", file["r2o_g"])
    agree("O.outputs.default", file["output"])
    losses = -log_softmax(file["output"].max(0))[np.arange(len(labels)), labels[:, 0]]
    np.testing.assert_allclose(losses.mean(), file["loss"], **close)
    ours = np.minimum(losses, -np.log(1e-6)).mean()  # no probability counts as less
    np.testing.assert_allclose(net.get("Loss.outputs.loss").item(), ours, **close)
    agree("I.gradients.W", file["dWi"].T)
    agree("P.gradients.W", file["dWo"].T)
    if not weights:
        agree("I.gradients.bias", file["dbi"])
        agree("P.gradients.bias", file["dbo"])


def loss_of(values, labels, wire):
    """A loss that a network computes, and its deltas of the values."""
    T, _, K = values.shape
    inp = layers.Input(
        {"default": ("T", "B", K), "each": ("T", "B", 1), "one": ("B", 1)}
        | {"goal": ("B", K), "goals": ("T", "B", K)}
    )
    start = layers.NoOp(name="Values")
    inp >> start
    wire(inp, start)
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    one_hot = np.eye(K)[labels]
    net.provide_external_data(
        {
            "default": values,
            "each": np.tile(labels[:, None], (T, 1, 1)),
            "one": labels[:, None],
            "goal": np.where(one_hot > 0, int(T * 0.8), int(T * 0.2)),
            "goals": np.tile(one_hot, (T, 1, 1)),
        },
        all_inputs=False,
    )
    net.forward_pass(training_pass=True)
    net.backward_pass()
    return net.get_loss_values()["total_loss"], net.get("Values.output_deltas.default")


def with_softmax(importance, pooling=None, targets="one"):
    def wire(inp, values):
        out = layers.SoftmaxCE(name="Out")
        pooled = values >> layers.TimePooling(pooling) if pooling else values
        pooled >> out - "loss" >> layers.Loss(importance)
        inp - targets >> "targets" - out

    return wire


def with_squares(importance, pooling=None, targets="goals"):
    def wire(inp, values):
        out = layers.SquaredError(name="Out")
        pooled = values >> layers.TimePooling(pooling) if pooling else values
        pooled >> out - "loss" >> layers.Loss(importance)
        inp - targets >> "targets" - out

    return wire


# SoftmaxCE and SquaredError are summed over time and features, Loss divides by B; the
# squared error has a half.
LOSSES = {
    "ce_rate": ("spikes", with_softmax(1 / 12, targets="each")),
    "ce_count": ("spikes", with_softmax(1.0, "sum")),
    "ce_max_membrane": ("membrane", with_softmax(1.0, "max")),
    "mse_count": ("spikes", with_squares(2 / 4 / 12, "sum", "goal")),
    "mse_membrane": ("membrane", with_squares(2 / 4 / 12)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_as_in_snntorch(name):
    file, (values, wire) = golden("losses_snntorch"), LOSSES[name]
    loss, deltas = loss_of(file[values], file["labels"], wire)
    # Some of it was computed in float32.
    single = file[name].dtype == np.float32
    np.testing.assert_allclose(loss, file[name].item(), rtol=1e-6 if single else 1e-9)
    rtol = 1e-7 if single else 0
    np.testing.assert_allclose(deltas, file[f"d_{name}"], rtol, 1e-9)


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


def test_in_a_loop_of_feedback_it_is_recurrent():
    n, x, dy = 3, normal(8, 2, 2), normal(8, 2, 3, seed=1)
    options = {"threshold": 0.4, "reset": "soft", "detach_reset": False}
    options |= {"refractory": 1.0, "surrogate": "sigmoid", "learn_tau": True}
    weights = {"W": 2 * normal(n, 2), "R": normal(n, n, seed=2), "bias": normal(n)}
    layer = layers.RecurrentLif(n, 2.0, **options)
    alone = SingleLayer(layer, {"default": x}, weights).forward()
    alone.backward(default=np.concatenate([dy, dy[:1]]))

    inp = layers.Input({"default": ("T", "B", 2), "deltas": ("T", "B", n)})
    both, weighted = layers.Add(name="Both"), layers.Mask()
    neurons = layers.Lif(2.0, "Lif", **options)
    fed = layers.FullyConnected(n, "linear", "Fed", bias=False)
    inp >> layers.FullyConnected(n, "linear", "X") >> "inputs_1" - both
    fed >> "inputs_2" - both >> neurons
    fed << neurons
    neurons >> weighted >> layers.Loss(importance=2.0)  # of two sequences the mean
    inp - "deltas" >> "mask" - weighted
    net = Network.from_layer(neurons)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(0.0)
    net.buffer.X.parameters.W[...] = weights["W"]
    net.buffer.X.parameters.bias[...] = weights["bias"]
    net.buffer.Fed.parameters.W[...] = weights["R"]
    net.provide_external_data({"default": x, "deltas": dy})
    net.forward_pass(training_pass=True)
    spikes = net.get("Lif.outputs.default")
    assert 0.1 < spikes.mean() < 0.9
    assert np.array_equal(spikes[:8], alone.y[:8])
    net.backward_pass()
    for path, name in (("X", "W"), ("X", "bias"), ("Lif", "decay"), ("Fed", "R")):
        got = net.get(f"{path}.gradients.{'W' if name == 'R' else name}")
        np.testing.assert_allclose(got, alone[f"gradients.{name}"], atol=1e-12)


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


# -- as parts of networks ----------------------------------------------------


def test_networks_are_saved_and_loaded(tmp_path):
    net, name = stack(
        layers.Leaky([2.0, 3.0, 4.0, 5.0], learn_tau=True),
        layers.Lif(
            3.0, refractory=2.0, surrogate="arctan", surrogate_args={"alpha": 3}
        ),
        layers.RecurrentLif(4, 3.0, reset="soft", detach_reset=False, learn_tau=True),
    )
    net.buffer.Leaky.parameters.decay[...] = 0.5
    x = normal(9, 2, 3)
    net.provide_external_data({"default": x})
    net.forward_pass(training_pass=True)
    net.save_as_hdf5(str(tmp_path / "net.hdf5"))
    loaded = Network.from_hdf5(str(tmp_path / "net.hdf5"))
    loaded.set_handler(NumpyHandler(np.float64))
    for layer in ("Leaky", "Lif", "RecurrentLif"):
        assert loaded.architecture[layer] == net.architecture[layer]
    loaded.provide_external_data({"default": x})
    loaded.forward_pass()
    path = f"{name}.outputs.membrane"
    np.testing.assert_allclose(loaded.get(path), net.get(path), atol=1e-6)


@pytest.mark.parametrize("make", [layers.Leaky, layers.Lif])
def test_time_constants_can_be_frozen_and_are_trained(make):
    for trainable in (True, False):
        inp = layers.Input({"default": ("T", "B", 2)})
        layer = make(2.0, "L", learn_tau=True, trainable=trainable)
        net = Network.from_layer(inp >> layer >> layers.Loss())
        net.set_handler(NumpyHandler(np.float64))
        net.initialize(1.0)  # not by name: time constants begin as given
        stepper = SgdStepper(learning_rate=0.1)
        stepper.start(net)
        net.provide_external_data({"default": 3 * normal(9, 2, 2)})
        assert not net.get("L.parameters.decay").any()
        stepper.run()
        assert net.get("L.parameters.decay").any() == trainable


@pytest.mark.parametrize(
    ("make", "forward", "backward"),
    [(layers.Leaky, 2, 2), (layers.Lif, 6, 2)],
)
def test_each_step_calls_few_functions(make, forward, backward):
    counts = {}
    for steps in (20, 120):
        run = SingleLayer(make(5.0), {"default": normal(steps, 2, 3)})
        run.forward().backward()
        layer, buffers = run.net.layers[run.name], run.net.buffer[run.name]

        for what in ("forward_pass", "backward_pass"):

            def record(handler, layer=layer, run_pass=what, buffers=buffers):
                layer.set_handler(handler)
                getattr(layer, run_pass)(buffers)

            program, handler = Program(), run.net.handler
            handler.record(record, program)
            layer.set_handler(handler)
            counts[what, steps] = len(program)
    for what, expected in (("forward_pass", forward), ("backward_pass", backward)):
        assert counts[what, 120] - counts[what, 20] == 100 * expected


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
        ("squarewave_fourier_series", {"n": 0}),
        ("squarewave_fourier_series", {"n": 2.5}),
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
