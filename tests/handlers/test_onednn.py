"""What OneDnnHandler does besides its operations, which the conformance tests check."""

import ctypes
import ctypes.util
import gc
import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import brainstorm as bs
from brainstorm.handlers import NumpyHandler, choosing
from brainstorm.handlers.onednn import (
    binding,
    definitions,
    images,
    lstm,
    lstm_formats,
    lstm_records,
    products,
    recipes,
    session,
)
from brainstorm.handlers.onednn.lstm_library import LibraryLstm
from brainstorm.handlers.onednn_handler import OneDnnHandler
from brainstorm.handlers.operations.gru import GruCells, GruDeltas, GruWeights
from brainstorm.handlers.operations.images import Windows
from brainstorm.handlers.operations.lstm import LstmCells
from brainstorm.handlers.operations.recurrent import Weights
from brainstorm.testing import check_layer
from brainstorm.utils import HandlerError, ValidationError
from tests.handlers.handler_cases import onednn_handler
from tests.layers.cases import CASES


@pytest.fixture
def handler():
    return onednn_handler()


def randn(*shape, seed=0):
    return np.random.RandomState(seed).randn(*shape).astype(np.float32)


# -- networks ----------------------------------------------------------------


def perceptron():
    """With a large hidden layer, so that no operation is too small for oneDNN."""
    inp, out = bs.tools.get_in_out_layers("classification", 50, 10)
    full = bs.layers.FullyConnected
    graph = inp >> full(400, "tanh") >> full(300, "leaky_rel") >> full(200, "gelu")
    return bs.Network.from_layer(graph >> full(300, "sigmoid") >> full(300) >> out)


def convolutions():
    inp = bs.layers.Input({"default": ("T", "B", 12, 12, 3), "targets": ("T", "B", 1)})
    conv, pool = bs.layers.Convolution2D, bs.layers.Pooling2D
    softmax = bs.layers.SoftmaxCE()
    graph = inp >> conv(16, 3, padding=1) >> pool(3, stride=2) >> bs.layers.BatchNorm()
    graph = graph >> conv(8, 3, activation="swish") >> pool(2, "avg")
    graph >> bs.layers.FullyConnected(10, "linear") >> softmax
    inp - "targets" >> "targets" - softmax
    return bs.Network.from_layer(softmax - "loss" >> bs.layers.Loss())


def recurrent(layer):
    def make():
        inp, out = bs.tools.get_in_out_layers("classification", 20, 10)
        return bs.Network.from_layer(inp >> layer() >> out)

    return make


NETWORKS = {
    "perceptron": perceptron,
    "convolutions": convolutions,
    "lstm": recurrent(lambda: bs.layers.Lstm(30)),
    "without peepholes": recurrent(lambda: bs.layers.Lstm(30, peepholes=False)),
    "gru": recurrent(lambda: bs.layers.Gru(30, recurrent_bias=True, name="Lstm")),
    "gru without bias": recurrent(lambda: bs.layers.Gru(30, bias=False, name="Lstm")),
    "other lstm": recurrent(lambda: bs.layers.Lstm(30, "sigmoid")),
    "recurrent": recurrent(lambda: bs.layers.Recurrent(30)),
    "clockwork": recurrent(lambda: bs.layers.ClockworkLstm(30)),
}


def make_net(name, handler):
    net = NETWORKS[name]()
    net.set_handler(handler)
    net.initialize(bs.initializers.Gaussian(0.2), seed=1)
    if name == "clockwork":
        timing = 1.0 + np.arange(30) % 3
        handler.set_from_numpy(net.buffer.ClockworkLstm.parameters.timing, timing)
    return net


def batch(net, time_size=6, batch_size=80):
    rnd = np.random.RandomState(2)
    shape = net.layers["Input"].out_shapes["default"].feature_shape
    return {
        "default": rnd.randn(time_size, batch_size, *shape).astype(np.float32),
        "targets": rnd.randint(10, size=(time_size, batch_size, 1)),
    }


def train(net, updates, **sizes):
    stepper = bs.training.MomentumStepper(0.01, 0.9)
    stepper.start(net)
    losses = []
    for _ in range(updates):
        net.provide_external_data(batch(net, **sizes))
        stepper.run()
        losses.append(net.get_loss_values()["total_loss"])
    return losses


def all_buffers(net):
    paths = ["parameters", "gradients"]
    for name in net.layers:
        for kind in ("inputs", "outputs", "internals", "input_deltas", "output_deltas"):
            paths += [f"{name}.{kind}.{k}" for k, _ in net.buffer[name][kind].items()]
    return {path: net.get(path) for path in paths}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_train_as_with_numpy(handler, name):
    net, reference = make_net(name, handler), make_net(name, NumpyHandler(np.float64))
    np.testing.assert_allclose(train(net, 4), train(reference, 4), rtol=1e-4)
    for each in (net, reference):
        each.forward_pass(training_pass=True)
        each.backward_pass()
    expected = all_buffers(reference)
    for path, values in all_buffers(net).items():
        scale = max(1e-3, np.abs(expected[path]).max())
        np.testing.assert_allclose(
            values, expected[path], rtol=0, atol=2e-3 * scale, err_msg=path
        )


@pytest.mark.parametrize("name", NETWORKS)
def test_numpy_multiplies_no_matrices(handler, name, monkeypatch):
    net = make_net(name, handler)

    def refused(*args, **kwargs):
        raise AssertionError("a product of NumPy's")

    for function in ("dot", "matmul", "inner", "vdot", "tensordot"):
        monkeypatch.setattr(np, function, refused)
    train(net, 2)
    net.provide_external_data(batch(net, 3, 7))
    net.forward_pass()


def test_networks_move_between_handlers(handler, tmp_path):
    net = make_net("lstm", OneDnnHandler(seed=1))
    train(net, 1)
    net.save_as_hdf5(tmp_path / "net.hdf5")
    loaded = bs.Network.from_hdf5(tmp_path / "net.hdf5")
    assert type(loaded.handler) is OneDnnHandler
    moved = bs.Network.from_hdf5(tmp_path / "net.hdf5")
    moved.set_handler(NumpyHandler(np.float64))
    outputs = []
    for each in (net, loaded, moved):
        each.provide_external_data(batch(each))
        each.forward_pass()
        outputs.append(each.get("Output.outputs.predictions"))
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_allclose(outputs[0], outputs[2], atol=1e-6)


# -- what an LSTM leaves out -------------------------------------------------


@pytest.fixture(params=["together", "in parts", "step by step"])
def lstm_handler(request, monkeypatch):
    """One that has the library run all sequences, or splits them among three threads.

    Or one that runs step by step.
    """
    onednn_handler()
    if request.param == "step by step":
        monkeypatch.setattr(lstm, "_LARGE_STEP", 1)
    if request.param == "in parts":
        monkeypatch.setattr(lstm_formats, "_MIN_WORK", 1)
        if not binding.load_library().runs_in_parallel:
            pytest.skip("this oneDNN was built without OpenMP")
    return OneDnnHandler(threads=3 if request.param == "in parts" else None)


def lstm_internals(net, deltas=True):
    names = net.layers["Lstm"].internal_shapes
    return {n: net.get(f"Lstm.internals.{n}") for n in names if deltas or n[0] != "d"}


def assert_same(got, expected, **tolerances):
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, err_msg=name, **tolerances)


@pytest.mark.parametrize("name", ["lstm", "without peepholes", "gru"])
def test_internals_are_those_of_the_pass(lstm_handler, name):
    """Although weights and inputs have changed since."""
    nets = make_net(name, lstm_handler), make_net(name, NumpyHandler(np.float64))
    results = []
    for net in nets:
        net.provide_external_data(batch(net))
        net.forward_pass(training_pass=True)
        context = net.get_context()
        net.forward_pass(training_pass=True, context=context)
        net.backward_pass()
        net.handler.fill(net.buffer.parameters, 7.0)
        net.provide_external_data({k: v * 0 for k, v in batch(net).items()})
        results.append(lstm_internals(net))
    assert_same(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_internals_of_a_pass_without_a_backward_pass(lstm_handler, name):
    nets = make_net(name, lstm_handler), make_net(name, NumpyHandler(np.float64))
    results = []
    for net in nets:
        train(net, 1)
        net.provide_external_data(batch(net, 3, 5))
        net.forward_pass()
        results.append(lstm_internals(net, deltas=False))
    assert_same(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lstm", "without peepholes", "gru"])
@pytest.mark.parametrize("steps", [1, 100])
def test_evaluation_of_sequences_in_pieces(lstm_handler, name, steps, monkeypatch):
    """With all that goes from piece to piece, of steps and of sequences."""
    monkeypatch.setattr("brainstorm.handlers.operations.recurrent._PIECE_SUMS", 1)
    monkeypatch.setattr("brainstorm.handlers.operations.recurrent._PIECE_STEPS", steps)
    nets = make_net(name, lstm_handler), make_net(name, NumpyHandler(np.float64))
    results = []
    for net in nets:
        context = None
        for batch_size in (80, 7, 7):
            net.provide_external_data(batch(net, 5, batch_size))
            context = context if batch_size == 7 else None
            net.forward_pass(context=context, keeps_internals=False)
            context = net.get_context() if batch_size == 7 else None
            results.append(
                {"y": net.get("Lstm.outputs.default")[:-1], **net.get_context()}
            )
    for got, expected in zip(results[:3], results[3:], strict=True):
        assert_same(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_what_is_left_out_of_large_arrays(name, handler, monkeypatch):
    monkeypatch.setattr("brainstorm.handlers.numpy.memory._LARGE_MEMORY", 1)
    nets = make_net(name, handler), make_net(name, NumpyHandler(np.float64))
    results = []
    for net in nets:
        train(net, 1)
        net.forward_pass()
        results.append(lstm_internals(net, deltas=False))
    (record,) = handler._lstm_records
    assert record.last is not None
    assert_same(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_sizes_take_turns(lstm_handler, name):
    """Passes of another size use the same memory."""
    nets = make_net(name, lstm_handler), make_net(name, NumpyHandler(np.float64))
    losses = [[], []]
    for time_size, batch_size in [(6, 80), (2, 80), (9, 90), (6, 80), (1, 1), (6, 80)]:
        sizes = {"time_size": time_size, "batch_size": batch_size}
        for net, log in zip(nets, losses, strict=True):
            log += train(net, 2, **sizes)
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_state_is_not_left_out(lstm_handler):
    """Carrying it on costs nothing more, and looking does not change it."""
    net, reference = (
        make_net("lstm", each) for each in (lstm_handler, NumpyHandler(np.float64))
    )
    contexts = []
    for each in (net, reference):
        each.provide_external_data(batch(each))
        each.forward_pass(training_pass=True)
        contexts.append(each.get_context())
    assert set(contexts[0]) == {"Lstm.outputs.default", "Lstm.internals.Ca"}
    assert_same(*contexts, rtol=1e-4, atol=1e-5)
    if lstm._LARGE_STEP == 1:
        assert not lstm_handler._lstm_records
    else:
        (record,) = lstm_handler._lstm_records
        assert len(record.last.what._forward.parts) == (lstm_handler.threads or 1)
        assert record.leaves_out(net.buffer.Lstm.internals.Fb)
        assert record.leaves_out(net.buffer.Lstm.internals.Ca)
    net.get("Lstm.internals.Ca")
    assert_same(net.get_context(), contexts[0], rtol=0, atol=0)


@pytest.mark.parametrize(
    "name",
    [
        *("lstm", "without peepholes", "gru"),
        pytest.param("gru without bias", marks=pytest.mark.slow),
    ],
)
def test_lstms_train_as_with_numpy(lstm_handler, name):
    """Some sizes can not be split, or not evenly."""
    nets = make_net(name, lstm_handler), make_net(name, NumpyHandler(np.float64))
    for batch_size in (80, 7, 9, 13):
        losses = [train(net, 2, batch_size=batch_size) for net in nets]
        np.testing.assert_allclose(*losses, rtol=1e-4)
    for each in nets:
        each.forward_pass(training_pass=True)
        each.backward_pass(all_deltas=True)
        each.backward_pass(all_deltas=True)  # gradients of Lstm are written again
    expected = all_buffers(nets[1])
    for path, values in all_buffers(nets[0]).items():
        scale = max(1e-3, np.abs(expected[path]).max())
        np.testing.assert_allclose(
            values, expected[path], rtol=0, atol=2e-3 * scale, err_msg=path
        )


@pytest.mark.parametrize(
    "name",
    [
        *("Lstm tanh", "Lstm, neither, learned"),
        "Gru tanh",
        pytest.param("Gru, no bias, learned state", marks=pytest.mark.slow),
        pytest.param("Gru, no other bias, learned", marks=pytest.mark.slow),
    ],
)
def test_lstms_pass_all_checks_of_layers(lstm_handler, name, monkeypatch):
    """Also with inputs and outputs between those of other layers."""
    made = []

    def make_and_note(*args):
        made.append(make(*args))
        return made[-1]

    kind = lstm_records.GruRecord if "Gru" in name else lstm_records.Record
    make = kind._make_pass
    monkeypatch.setattr(kind, "_make_pass", make_and_note)
    case = CASES[name]
    arguments = {"time_size": 3, "batch_size": 9, "seed": 1}
    check_layer(case.layer, **case.arguments, **arguments, handler=lstm_handler)
    assert any(isinstance(each, LibraryLstm) for each in made) == (lstm._LARGE_STEP > 1)


def test_gradients_of_all_parts_are_added(lstm_handler):
    """To what there is, where the gradients are not to be overwritten."""
    steps, size, units, inputs = 4, 13, 6, 3
    results = []
    for each in (lstm_handler, NumpyHandler(np.float32)):
        x, y = randn(steps, size, inputs), np.zeros((steps + 1, size, units), "f")
        shapes = (4 * units, inputs), (4 * units, units), (4 * units,), (3, units)
        weights = Weights(*[randn(*shape) for shape in shapes])
        cells, deltas = (LstmCells(*np.zeros((10, *y.shape), "f")) for _ in range(2))
        each.lstm_forward(x, weights, cells, y, "tanh")
        dx, *gradients = (randn(*a.shape, seed=5) for a in (x, *weights))
        dy, gradients = randn(*y.shape, seed=3), Weights(*gradients)
        each.lstm_backward(x, weights, cells, y, dy, deltas, dx, gradients, "tanh")
        results.append([y, dx, *gradients])
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("biases", [(), ("bias",), ("recurrent_bias",)])
def test_gradients_of_a_gru(lstm_handler, fresh, biases):
    """With a bias, or the recurrent one, or none."""
    steps, size, units, inputs = 4, 13, 6, 3
    results = []
    for each in (lstm_handler, NumpyHandler(np.float32)):
        x, y = randn(steps, size, inputs), np.zeros((steps + 1, size, units), "f")
        y[-1] = randn(size, units, seed=4)
        cells = GruCells(*np.zeros((7, steps, size, units), "f"))
        deltas = GruDeltas(*np.zeros((4, steps, size, units), "f"))
        shapes = {"W": (3 * units, inputs), "R": (3 * units, units)}
        shapes |= {"bias": (3 * units,), "recurrent_bias": (units,)}
        weights, gradients = (
            GruWeights(
                **{
                    name: None
                    if "bias" in name and name not in biases
                    else randn(*shape, seed=seed)
                    for name, shape in shapes.items()
                }
            )
            for seed in (1, 2)
        )
        dx, dy = randn(*x.shape, seed=5), randn(*y.shape, seed=3)
        each.gru_forward(x, weights, cells, y, "tanh")
        each.gru_backward(
            *(x, weights, cells, y, dy, deltas, dx, gradients, "tanh"),
            fresh_dx=fresh,
            fresh_gradients=fresh,
        )
        results.append([y, dx, dy, *[g for g in gradients if g is not None]])
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_gradients_of_a_bias_may_be_unwanted(lstm_handler):
    steps, size, units, inputs = 3, 8, 4, 3
    results = []
    for each in (lstm_handler, NumpyHandler(np.float64)):
        make = each.create_from_numpy
        shapes = (4 * units, inputs), (4 * units, units), (4 * units,), (3, units)
        weights = Weights(*[make(randn(*shape)) for shape in shapes])
        x, y = make(randn(steps, size, inputs)), each.zeros((steps + 1, size, units))
        cells, deltas = (
            LstmCells(*[each.zeros(y.shape) for _ in range(10)]) for _ in range(2)
        )
        each.lstm_forward(x, weights, cells, y, "tanh")
        dW, dR, _, dpeepholes = (each.zeros(a.shape) for a in weights)
        each.lstm_backward(
            *(x, weights._replace(bias=None), cells, y, make(randn(*y.shape, seed=3))),
            *(deltas, None, Weights(dW, dR, None, dpeepholes), "tanh"),
        )
        results.append([dW, dR, dpeepholes])
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_complete_fills_memory(lstm_handler):
    net = make_net("lstm", lstm_handler)
    train(net, 1)
    gates = net.buffer.Lstm.internals.Fb
    lstm_handler.complete(gates)
    np.testing.assert_array_equal(gates, net.get("Lstm.internals.Fb"))
    assert gates[:-1].min() > 0


def test_backward_pass_on_other_arrays_than_the_forward_pass(lstm_handler):
    """Internals that somebody filled by hand are what counts."""
    other = NumpyHandler(np.float32)
    steps, size, units = 3, 4, 5
    y, *cells = (randn(steps + 1, size, units, seed=k) for k in range(11))
    x, W = randn(steps, size, 2), randn(4 * units, 2)
    results = []
    for each in (lstm_handler, other):
        weights = Weights(W, randn(4 * units, units), None, randn(3, units))
        dy, *deltas = (randn(steps + 1, size, units) for _ in range(11))
        dbias, dx = np.empty(4 * units, np.float32), np.empty_like(x)
        gradients = [None if a is None else np.empty_like(a) for a in weights]
        gradients = Weights(*gradients)._replace(bias=dbias)
        each.lstm_backward(
            *(x, weights, LstmCells(*[a.copy() for a in cells]), y),
            *(dy, LstmCells(*deltas), dx, gradients, "tanh"),
            **{"fresh_dx": True, "fresh_gradients": True},
        )
        results.append([dx, *gradients])
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lstm_handler", ["together", "in parts"], indirect=True)
def test_memory_goes_with_the_network(lstm_handler):
    net = make_net("lstm", lstm_handler)
    train(net, 1)
    train(net, 1)
    assert lstm_handler._lstm_records
    del net
    gc.collect()
    assert not lstm_handler._lstm_records


# -- numbers that are none ---------------------------------------------------


def test_nan_comes_through(handler):
    x = randn(200, 300)
    x[3, 4] = np.nan
    expected = {"rel": np.maximum(x, 0), "tanh": np.tanh(x)}
    for name, values in expected.items():
        y = np.empty_like(x)
        handler.act_func[name](x, y)
        np.testing.assert_allclose(y, values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["gelu", "swish"])
def test_minus_infinity_comes_through(handler, name):
    x = randn(200, 300)
    x[3, 4] = -np.inf
    y, expected = np.empty_like(x), np.empty_like(x)
    handler.act_func[name](x, y)
    NumpyHandler(np.float32).act_func[name](x, expected)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert y[3, 4] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_softmax_of_bad_rows(handler, bad):
    m = randn(300, 100)
    m[5, 6] = bad
    out = np.empty_like(m)
    with np.errstate(invalid="ignore"):
        handler.softmax_m(m, out)
    assert np.isnan(out[5]).all()
    assert np.isfinite(np.delete(out, 5, 0)).all()


@pytest.mark.parametrize("columns", [1, 2, 100, 333])
def test_softmax_ce_of_many_rows(handler, columns):
    """By the formula in float64, with rows that hold what can not be normalized."""
    m = randn(30_000 // columns, columns)
    m *= np.linspace(0, 200, len(m), dtype=np.float32)[:, np.newaxis]
    m[5, 0], m[6, 0], m[7], m[8, 1:] = np.nan, np.inf, -np.inf, -np.inf
    targets = np.arange(len(m), dtype=np.float32)[:, np.newaxis] % columns
    predictions, loss, logs = np.empty_like(m), np.empty_like(targets), np.empty_like(m)
    with np.errstate(invalid="ignore"):
        for rows in (slice(None), slice(9, None), slice(7, None)):
            x, predicted = m[rows], predictions[rows]
            handler.softmax_ce_forward(x, targets[rows], predicted, loss[rows])
            handler.log_softmax_m(x, logs[rows])
            exact = x.astype(float)
            largest = exact.max(axis=1, keepdims=True)
            log = exact - largest
            log -= np.log(np.exp(log).sum(axis=1, keepdims=True))
            np.testing.assert_allclose(predicted, np.exp(log), 2e-5, 1e-7)
            np.testing.assert_allclose(logs[rows], log, 1e-6, 2e-5)
            own = np.take_along_axis(-log, targets[rows].astype(int), 1)
            most = -np.log(1e-6)  # of the losses
            np.testing.assert_allclose(loss[rows], np.minimum(own, most), 1e-5, 2e-6)
            assert not (loss[rows] < 0).any()


@pytest.mark.parametrize("activation", ["linear", "rel", "leaky_rel", "tanh"])
def test_nan_in_images(handler, activation):
    x = randn(2, 8, 8, 16)
    x[1, 4, 4, 3] = np.nan
    y = np.empty((2, 6, 6, 16), np.float32)
    W, bias = randn(16, 3, 3, 16), randn(16)
    handler.conv2d_forward_batch(x, W, bias, y, 0, (1, 1), activation)
    assert np.isnan(y[1, 2:5, 2:5]).all()
    assert np.isnan(y).sum() == 9 * 16
    pooled, argmax = handler.allocate((2, 3, 3, 16)), handler.allocate((2, 3, 3, 16))
    handler.maxpool2d_forward_batch(y, (2, 2), pooled, 0, (2, 2), argmax)
    assert np.isnan(pooled).sum() == 4 * 16


# -- what is prepared --------------------------------------------------------


def test_calls_are_prepared_once(handler):
    a, b, out = randn(30, 40), randn(40, 50), np.empty((30, 50), np.float32)
    handler.dot_mm(a, b, out)
    call = handler._find(products.dot, (a, b, out), False, False, False)
    assert call
    a[:] = 1  # what is prepared are places, not values
    handler.dot_mm(a, b, out)
    np.testing.assert_allclose(out, np.ones((30, 40)) @ b, rtol=1e-4, atol=1e-4)
    again = handler._find(products.dot, (a[:], b, out), False, False, False)
    assert again is call


def test_a_row_with_few_numbers_is_multiplied_by_numpy(handler, monkeypatch):
    """A step of a reservoir: the library takes up to three times as long."""
    built, prepare = [], session.Session.prepare
    noted = lambda self, build, *a: built.append(build) or prepare(self, build, *a)  # noqa: E731
    monkeypatch.setattr(session.Session, "prepare", noted)
    for rows, units in ((1, 500), (1, 800), (2, 500)):
        built.clear()
        a, b, out = randn(rows, units), randn(units, units), randn(rows, units)
        handler.dot_mm(a, b, out, transb=True)
        np.testing.assert_allclose(out, a.astype(float) @ b.T, rtol=1e-3, atol=1e-3)
        assert bool(built) == ((rows, units) != (1, 500))


def test_arrays_that_are_gone_are_forgotten(handler):
    b = randn(40, 50)
    for rows in range(2, 50):
        a, out = randn(rows, 40, seed=rows), np.empty((rows, 50), np.float32)
        handler.dot_mm(a, b, out)
        np.testing.assert_allclose(out, a.astype(float) @ b, rtol=1e-3, atol=1e-4)
        handler.dot_mm(a, b, out)
        assert handler.current_session().known.values
    del a, out
    assert not handler.current_session().known.values


def test_number_of_calls_is_limited(handler, monkeypatch):
    """Of layouts by bytes, of arrays by number; what is not kept still works."""
    monkeypatch.setattr(session, "_MAX_BYTES", 10 * recipes.STEP_BYTES)
    monkeypatch.setattr(session, "_MAX_KNOWN", 12)
    arrays = [randn(k, k, seed=k) for k in range(1, 31)]
    outs = [np.empty_like(a) for a in arrays]
    for _ in range(4):
        for a, out in zip(arrays, outs, strict=True):
            handler.dot_mm(a, a, out)
            np.testing.assert_allclose(out, a @ a, rtol=1e-4, atol=1e-5)
    prepared = handler.current_session()
    assert len(prepared.known.values) <= 12
    assert len(prepared._calls) <= 10


@pytest.mark.parametrize(
    "array",
    [
        randn(8, 8).astype(np.float64),
        randn(8, 16)[:, ::2],
        randn(8, 8)[::-1],
        np.broadcast_to(randn(1, 8), (8, 8)),
        np.frombuffer(b"0" + randn(8, 8).tobytes(), np.float32, 64, 1).reshape(8, 8),
        np.empty((0, 8), np.float32),
    ],
    ids=["float64", "steps", "backwards", "broadcast", "unaligned", "empty"],
)
def test_arrays_that_the_library_can_not_use(handler, array):
    b = randn(8, 8, seed=1)
    out = np.full((len(array), 8), np.nan, array.dtype)
    handler.dot_mm(array, b, out)
    np.testing.assert_allclose(out, array.astype(float) @ b, rtol=1e-4, atol=1e-5)


def test_large_convolutions_use_no_slow_implementation(handler):
    arrays = randn(2, 9, 9, 3), randn(16, 3, 3, 3), randn(16)
    arrays = (*arrays, np.empty((2, 7, 7, 16), np.float32))
    assert handler._find(images.convolution, arrays, Windows((3, 3), 0, (1, 1)), "rel")


# -- threads and processes ---------------------------------------------------


def test_number_of_threads(handler):
    one, two = OneDnnHandler(threads=1), OneDnnHandler(threads=2)
    a, b = randn(300, 400), randn(400, 500)
    outs = [np.empty((300, 500), np.float32) for _ in range(3)]
    for _ in range(3):
        for each, out in zip((one, two, handler), outs, strict=True):
            each.dot_mm(a, b, out)
            np.testing.assert_allclose(out, a @ b, rtol=1e-3, atol=1e-3)
    assert "1 threads" in one.describe()
    assert "2 threads" in two.describe()


def run_with_threads(handler, seed=0):
    """What uses threads in each of its ways."""
    a, out = randn(300, 300, seed=seed), np.empty((300, 300), np.float32)
    handler.dot_mm(a, a, out)
    np.testing.assert_allclose(out, a.astype(float) @ a, rtol=1e-3, atol=1e-3)
    small = np.empty((3, 3), np.float32)
    handler.dot_mm(a[:3, :3], a[:3, :3], small)
    handler.maxpool2d_forward_batch(
        *(randn(1, 4, 4, 2), (2, 2), np.empty((1, 2, 2, 2), "f"), 0, (2, 2)),
        np.empty((1, 2, 2, 2), "f"),
    )
    train(make_net("lstm", handler), 1)


def test_handlers_leave_the_number_of_threads_alone(handler):
    """Of others, and OpenMP's, in this thread and in new ones."""
    library = binding.load_library()
    if not library.runs_in_parallel:
        pytest.skip("this oneDNN was built without OpenMP")

    def check():
        before = library.get_threads()
        for number in (3, 1):
            library.set_threads(number)
            one, two = OneDnnHandler(threads=1), OneDnnHandler(threads=2)
            free = OneDnnHandler()
            for each in (one, free, two, handler):
                run_with_threads(each)
                assert library.get_threads() == number
            assert "1 threads" in one.describe()
            assert "2 threads" in two.describe()
            assert f"{number} threads" in free.describe()
            assert f"{number} threads" in handler.describe()
            assert free.current_session().threads == number
        library.set_threads(before)

    check()
    failures = []

    def work():
        try:
            check()
        except BaseException as error:
            failures.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert not failures


def test_failures_leave_the_number_of_threads_alone(handler):
    library, two = binding.load_library(), OneDnnHandler(threads=2)
    a, out = randn(300, 300), np.empty((300, 300), np.float32)
    two.dot_mm(a, a, out)
    call = two._find(products.dot, (a, a, out), False, False, False)
    call._execute = lambda *step: 1
    before = library.get_threads()
    with pytest.raises(HandlerError):
        two.dot_mm(a, a, out)
    assert library.get_threads() == before


def test_threads_share_a_handler(handler):
    expected = train(make_net("lstm", handler), 5)
    found = {}

    def work(name):
        found[name] = train(make_net("lstm", handler), 5)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for k in range(4):
        np.testing.assert_allclose(found[k], expected, rtol=1e-6)


def test_internals_are_read_in_another_thread(handler):
    net = make_net("lstm", handler)
    train(net, 1)
    found = {}
    reader = threading.Thread(target=lambda: found.update(lstm_internals(net)))
    reader.start()
    reader.join()
    reference = make_net("lstm", NumpyHandler(np.float64))
    train(reference, 1)
    assert_same(found, lstm_internals(reference), rtol=1e-3, atol=1e-4)


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_works_in_parallel(handler):
    library, done = binding.load_library(), []
    if not library.runs_in_parallel:
        pytest.skip("this oneDNN was built without OpenMP")
    library.in_parallel([lambda k=k: done.append(k) for k in range(5)])
    assert sorted(done) == list(range(5))

    def fail():
        raise HandlerError("this one")

    with pytest.raises(HandlerError, match="this one"):
        library.in_parallel([lambda: done.append(5), fail, lambda: done.append(6)])
    assert sorted(done) == list(range(7))
    with pytest.raises(KeyboardInterrupt):
        library.in_parallel([lambda: None, lambda: _interrupt()])


def _interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("made", ["before", "after"])
@pytest.mark.parametrize("threads", [2, None])
def test_forked_processes_use_one_thread(handler, made, threads):
    """Whatever the handler was made for, before or after; also in new threads."""
    result = run_python(
        f"""
        import os, threading
        import numpy as np
        from brainstorm.handlers.onednn import OneDnnHandler
        a = np.random.RandomState(0).randn(400, 400).astype(np.float32)
        out = np.empty_like(a)

        def check(handler, described):
            handler.dot_mm(a, a, out)
            np.testing.assert_allclose(out, a @ a, rtol=1e-3, atol=1e-3)
            assert described in handler.describe(), handler.describe()

        handler = OneDnnHandler(threads={threads})
        check(handler, "2 threads")
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            check(handler, "2 threads")
            print("fine")
        else:
            if "{made}" == "after":
                handler = OneDnnHandler(threads={threads})
            check(handler, "1 threads")
            check(OneDnnHandler(threads=2), "1 threads")
            thread = threading.Thread(target=check, args=(handler, "1 threads"))
            thread.start()
            thread.join()
            grandchild = os.fork()
            if not grandchild:
                check(handler, "1 threads")
                os._exit(0)
            os._exit(os.waitpid(grandchild, 0)[1] != 0)
        """,
        OPENBLAS_NUM_THREADS="1",
        OMP_NUM_THREADS="2",
    )
    assert result.stdout == "fine\n", result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_forked_processes_go_on(handler):
    result = run_python(
        """
        import os
        import numpy as np
        from brainstorm.handlers.onednn import OneDnnHandler
        handler = OneDnnHandler(threads=2)
        a = np.random.RandomState(0).randn(400, 400).astype(np.float32)
        out = np.empty_like(a)
        handler.dot_mm(a, a, out)
        child = os.fork()
        handler.dot_mm(a, a, out)
        np.testing.assert_allclose(out, a @ a, rtol=1e-3, atol=1e-3)
        if child:
            assert os.waitpid(child, 0)[1] == 0
            assert "2 threads" in handler.describe()
            print("fine")
        else:
            assert "1 threads" in handler.describe()
            os._exit(0)
        """,
        OPENBLAS_NUM_THREADS="1",
    )
    assert result.stdout == "fine\n", result.stderr


# -- precision ---------------------------------------------------------------


def test_bfloat16_is_less_precise(handler):
    rough = OneDnnHandler(math_mode="bf16")
    a, b = randn(256, 256), randn(256, 256, seed=1)
    out = np.empty((256, 256), np.float32)
    rough.dot_mm(a, b, out)
    # Factors are rounded to 8 bits: each product is off by 2^-8 at most.
    assert np.abs(out - a @ b).max() < 2**-7 * (np.abs(a) @ np.abs(b)).max()
    handler.dot_mm(a, b, out)
    np.testing.assert_allclose(out, a.astype(float) @ b, rtol=1e-3, atol=1e-4)


def test_networks_learn_in_bfloat16(handler):
    losses = train(make_net("lstm", OneDnnHandler(math_mode="bf16")), 20)
    expected = train(make_net("lstm", handler), 20)
    np.testing.assert_allclose(losses, expected, rtol=2e-2)


# -- arguments and descriptions ----------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"math_mode": "f64"}, "'f32', 'bf16' as 'math_mode', got 'f64'"),
        ({"threads": 0}, "positive number of 'threads' or None, got 0"),
        ({"threads": 1.5}, "positive number of 'threads' or None, got 1.5"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValidationError, match=message):
        OneDnnHandler(**arguments)


def test_description(handler):
    handler = OneDnnHandler(seed=3, math_mode="bf16", threads=1)
    description = bs.get_description(handler)
    assert description == {"@type": "OneDnnHandler", "seed": 3, "math_mode": "bf16"}
    again = bs.create_from_description(description)
    assert type(again) is OneDnnHandler
    assert (again.seed, again.math_mode, again.threads) == (3, "bf16", None)
    assert bs.get_description(OneDnnHandler()) == {"@type": "OneDnnHandler"}
    with pytest.raises(ValidationError, match="'math_mode' and 'seed', got 'dtype'"):
        bs.create_from_description({"@type": "OneDnnHandler", "dtype": "float64"})


def test_draws_the_same_as_numpy(handler):
    masks = []
    for each in (OneDnnHandler(seed=5), NumpyHandler(np.float32, seed=5)):
        masks.append(np.empty(1000, np.float32))
        each.generate_probability_mask(masks[-1], 0.3)
    np.testing.assert_array_equal(*masks)


# -- the library -------------------------------------------------------------


def test_version_and_instructions(handler):
    library = binding.load_library()
    assert library.version.startswith("3.")
    assert library.instruction_set in handler.describe()
    assert f"oneDNN {library.version}" in handler.describe()


def test_not_the_library():
    with pytest.raises(OSError, match="nowhere"):
        binding.Library("/nowhere/libdnnl.so.3")
    libc = ctypes.util.find_library("c")
    if libc:
        with pytest.raises(HandlerError, match="is not oneDNN"):
            binding.Library(libc)


class Function:
    """A function that lets its type be set."""

    def __init__(self, result):
        self.result = result

    def __call__(self):
        return self.result


@pytest.mark.parametrize(
    ("major", "isa", "message"),
    [(2, 0x7, "expected oneDNN 3, dnnl is 2.7.0"), (3, 0x3, "CPUs with AVX2")],
)
def test_unfit_libraries_are_refused(monkeypatch, major, isa, message):
    class Fake:
        dnnl_version = Function(ctypes.pointer(definitions.Version(major, 7, 0)))
        dnnl_get_effective_cpu_isa = Function(isa)

    monkeypatch.setattr(ctypes, "CDLL", lambda path: Fake)
    with pytest.raises(HandlerError, match=message):
        binding.Library("dnnl")


@pytest.fixture
def no_library(monkeypatch):
    def missing(path):
        raise OSError(f"{path} is not there")

    monkeypatch.setattr(binding, "Library", missing)
    binding.load_library.cache_clear()
    yield
    binding.load_library.cache_clear()


def test_missing_library(no_library, monkeypatch):
    with pytest.raises(ImportError, match=r"pip install .*\[onednn\]"):
        OneDnnHandler()
    monkeypatch.delenv(choosing.VARIABLE, raising=False)
    assert type(choosing.choose_handler()) is NumpyHandler
    monkeypatch.setenv(choosing.VARIABLE, "onednn")
    with pytest.raises(ImportError, match="oneDNN"):
        choosing.choose_handler()


def test_status_becomes_an_exception(handler):
    a, out = randn(30, 30), np.empty((30, 30), np.float32)
    handler.dot_mm(a, a, out)
    call = handler._find(products.dot, (a, a, out), False, False, False)
    execute, call._execute = call._execute, lambda *step: 1
    with pytest.raises(
        HandlerError, match=r"dot_mm .*\(30, 30\), .* oneDNN says out of memory"
    ):
        handler.dot_mm(a, a, out)
    call._execute = execute
    handler.dot_mm(a, a, out)
    np.testing.assert_allclose(out, a @ a, rtol=1e-4, atol=1e-4)


def test_out_of_memory(handler, monkeypatch):
    net = make_net("convolutions", handler)
    aligned = recipes._aligned

    def full(size):
        raise MemoryError

    monkeypatch.setattr(recipes, "_aligned", full)
    net.provide_external_data(batch(net))
    with pytest.raises(HandlerError, match=r"convolution of arrays .*: out of memory"):
        net.forward_pass()
    monkeypatch.setattr(recipes, "_aligned", aligned)
    assert np.isfinite(train(net, 1)).all()


def test_status_names():
    assert definitions.status_name(2) == "invalid arguments"
    assert definitions.status_name(99) == "status 99"


# -- choosing ----------------------------------------------------------------


def test_choice_of_the_default(handler, monkeypatch):
    monkeypatch.delenv(choosing.VARIABLE, raising=False)
    assert type(choosing.choose_handler()) is OneDnnHandler
    for choice, cls in [
        ("auto", OneDnnHandler),
        ("onednn", OneDnnHandler),
        ("numpy", NumpyHandler),
    ]:
        monkeypatch.setenv(choosing.VARIABLE, choice)
        chosen = choosing.choose_handler()
        assert type(chosen) is cls
        assert chosen.dtype is np.float32
        assert choosing.describe_handler(chosen).startswith(cls.__name__)
    monkeypatch.setenv(choosing.VARIABLE, "fast")
    with pytest.raises(ValidationError, match="'fast'; choices are: 'auto', 'numpy'"):
        choosing.choose_handler()
