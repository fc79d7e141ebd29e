"""`Network.generate`: closed loops, against passes of one step made by hand."""

import numpy as np
import pytest

from brainstorm import Gaussian, Network, layers
from brainstorm.handlers import NumpyHandler, default_handler
from brainstorm.utils import NetworkValidationError, UnknownNameError, ValidationError
from tests.handlers.handler_cases import pycuda_handler

HANDLERS = [
    pytest.param(lambda: NumpyHandler(np.float64), id="numpy"),
    pytest.param(lambda: default_handler, id="default"),
    pytest.param(pycuda_handler, id="pycuda", marks=pytest.mark.gpu),
]


def wired(make, inputs=1, size=2):
    inp = layers.Input({"default": ("T", "B", inputs)})
    inp >> make >> layers.FullyConnected(size, "linear", name="Out")
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(Gaussian(0.5), seed=1)
    return net


def series(steps, features, batch=3):
    return np.random.RandomState(0).randn(steps, batch, features)


def by_hand(net, steps, x, context=None, delta=False):
    net.provide_external_data({"default": x})
    net.forward_pass(context=context)
    last, made = x[-1:], []
    for _ in range(steps):
        out = net.get("Out.outputs.default")[-1:]
        last = last + out if delta else out
        made.append(last[0])
        context = net.get_context()
        net.provide_external_data({"default": last})
        net.forward_pass(context=context)
    return np.array(made)


@pytest.mark.parametrize("make_handler", HANDLERS)
@pytest.mark.parametrize("make", [layers.Recurrent, layers.Lstm, layers.Gru])
@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_it_is_what_passes_of_one_step_give(make_handler, make, delta, steps):
    net, handler = wired(make(4), 2), make_handler()
    net.set_handler(handler)
    x = series(5, 2).astype(handler.dtype)
    expected = by_hand(net, steps, x, delta=delta)
    made = net.generate(steps, x, delta=delta)
    assert made.shape == (steps, 3, 2)
    if type(handler) is NumpyHandler:
        np.testing.assert_array_equal(made, expected)
    else:  # other primitives may do what keeps no internals, by the CPU
        np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 6])
@pytest.mark.parametrize("kind", [layers.Nvar, layers.Delay])
def test_it_goes_on_from_contexts_of_several_steps(kind, steps):
    net = wired(kind(3), size=1)
    known = start = 0.1 * series(steps, 1)
    for _ in range(8):
        known = np.concatenate([known, net.predict(known)[-1:]])
    np.testing.assert_allclose(net.generate(8, start), known[steps:], rtol=1e-12)


def test_it_goes_on_from_a_context():
    net = wired(layers.Lstm(4), 2)
    x = series(6, 2)
    whole = net.generate(5, x)
    net.provide_external_data({"default": x[:4]})
    net.forward_pass()
    context = net.get_context()
    np.testing.assert_array_equal(net.generate(5, x[4:], context=context), whole)
    made = net.generate(2, x)
    rest = net.generate(3, made[-1:], context=net_context_after(net, x, made[:-1]))
    np.testing.assert_allclose(rest, whole[2:], rtol=1e-12)


def net_context_after(net, x, made):
    net.provide_external_data({"default": np.concatenate([x, made])})
    net.forward_pass()
    return net.get_context()


def test_it_sees_weights_that_were_changed_meanwhile():
    net = wired(layers.Recurrent(4), 2)
    x = series(5, 2)
    net.generate(6, x)
    net.initialize(Gaussian(0.5), seed=2)
    np.testing.assert_array_equal(net.generate(6, x), by_hand(net, 6, x))


def driven_net():
    inp = layers.Input({"state": ("T", "B", 2), "drive": ("T", "B", 1)})
    r = layers.Recurrent(4)
    inp - "state" >> r
    inp - "drive" >> r
    out = layers.FullyConnected(2, "linear", name="Out")
    squared = layers.FullyConnected(1, "linear", name="Second")
    r >> out
    r >> squared
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(Gaussian(0.5), seed=1)
    return net


def test_other_inputs_drive_it_all_along():
    net = driven_net()
    x, drive = series(4, 2), series(9, 1)
    made = net.generate(
        6, {"state": x, "drive": drive}, feedback={"Out.outputs.default": "state"}
    )
    states = np.concatenate([x, made[:-1]])
    net.provide_external_data({"state": states, "drive": drive})
    net.forward_pass()
    outputs = net.get("Out.outputs.default")
    np.testing.assert_allclose(made, outputs[3:], rtol=1e-12)


def test_several_outputs_are_fed_back():
    net = driven_net()
    x, drive = series(4, 2), series(4, 1)
    feedback = {"Out.outputs.default": "state", "Second.outputs.default": "drive"}
    made = net.generate(6, {"state": x, "drive": drive}, feedback)
    assert list(made) == list(feedback)
    fed = {
        "state": np.concatenate([x, made["Out.outputs.default"][:-1]]),
        "drive": np.concatenate([drive, made["Second.outputs.default"][:-1]]),
    }
    net.provide_external_data(fed)
    net.forward_pass()
    for path, values in made.items():
        np.testing.assert_allclose(values, net.get(path)[3:], rtol=1e-12)


def test_targets_are_not_needed_and_images_keep_their_shape():
    inp = layers.Input({"default": ("T", "B", 2, 3), "targets": ("T", "B", 6)})
    error = layers.SquaredError(name="Error")
    inp >> layers.FullyConnected(6, "linear", name="Out") >> error
    inp - "targets" >> "targets" - error
    error - "loss" >> layers.Loss()
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize({"Out": {"W": 2 * np.eye(6), "bias": 0}})
    x = np.arange(6.0).reshape(1, 2, 3)
    made = net.generate(3, x)
    np.testing.assert_array_equal(made[:, 0], [x.ravel() * 2**n for n in (1, 2, 3)])


def test_a_step_makes_few_calls():
    net = wired(layers.Recurrent(4), 2)
    net.generate(3, series(5, 2))
    programs = net._buffer_manager.sized.programs
    (calls,) = (len(p) for (key, _), p in programs.items() if key[0] == "advance")
    assert calls < 15


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (dict(steps=0), ValidationError, "steps has to be .* at least 1, got 0"),
        (dict(feedback={}), NetworkValidationError, "feedback: expected a dict"),
        (dict(feedback={"No.outputs.y": "default"}), UnknownNameError, "'No.outputs.y"),
        (dict(feedback={"Out.outputs.default": "x"}), UnknownNameError, "no input 'x'"),
        (dict(context={}), NetworkValidationError, "expected a context for"),
        (dict(start=series(3, 5)), NetworkValidationError, "'default'.*got"),
    ],
)
def test_errors(arguments, error, words):
    net = wired(layers.Recurrent(4), 2)
    with pytest.raises(error, match=words):
        net.generate(**{"steps": 3, "start": series(3, 2), **arguments})
    assert net.generate(3, series(3, 2)).shape == (3, 3, 2)


def test_errors_of_wiring():
    net = wired(layers.Bidirectional(layers.Recurrent(2), name="Both"), 2)
    with pytest.raises(NetworkValidationError, match="'Both' needs whole sequences"):
        net.generate(3, series(3, 2))
    net = wired(layers.Recurrent(4), 3)
    with pytest.raises(NetworkValidationError, match=r"size of the input 'default'"):
        net.generate(3, series(3, 3))
    net = driven_net()
    net.output_name = "Out.outputs.default"
    data = {"state": series(4, 2), "drive": series(4, 1)}
    with pytest.raises(NetworkValidationError, match="say by feedback which one"):
        net.generate(3, data)
    with pytest.raises(NetworkValidationError, match="expected 6 steps .*'drive'"):
        net.generate(3, data, {"Out.outputs.default": "state"})
