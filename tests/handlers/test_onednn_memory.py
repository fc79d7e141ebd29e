"""What OneDnnHandler prepares for memory, and what happens when memory changes.

The values are compared with those of NumpyHandler in float64, which prepares nothing.
"""

import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref

import numpy as np
import pytest

import brainstorm as bs
from brainstorm.handlers import NumpyHandler
from brainstorm.handlers.onednn import (
    binding,
    lstm,
    lstm_formats,
    lstm_records,
    recipes,
    session,
)
from brainstorm.handlers.onednn_handler import OneDnnHandler
from brainstorm.handlers.operations.lstm import LstmCells
from brainstorm.handlers.operations.recurrent import Weights
from brainstorm.structure import buffers as structure_buffers
from brainstorm.utils import HandlerError
from tests.handlers.handler_cases import OnlyOneDnnHandler, onednn_handler

T, B, F, N = 3, 4, 5, 6
CELLS = LstmCells._fields


@pytest.fixture
def handler():
    return onednn_handler()


@pytest.fixture(params=["together", "in parts", "step by step"])
def lstm_handler(request, monkeypatch):
    """One that runs an LSTM as a whole, splits the sequences, or runs step by step."""
    onednn_handler()
    if request.param == "step by step":
        monkeypatch.setattr(lstm, "_LARGE_STEP", 1)
    if request.param == "in parts":
        monkeypatch.setattr(lstm_formats, "_MIN_WORK", 1)
        monkeypatch.setattr(lstm_formats, "_MIN_SEQUENCES", 1)
        if not binding.load_library().runs_in_parallel:
            pytest.skip("this oneDNN was built without OpenMP")
    return OneDnnHandler(threads=3 if request.param == "in parts" else None)


# What runs step by step leaves nothing out.
LEAVES_OUT = pytest.mark.parametrize(
    "lstm_handler", ["together", "in parts"], indirect=True
)


def reference():
    return NumpyHandler(np.float64)


def assert_close(got, expected, name=""):
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5, err_msg=name)


# -- an LSTM's arrays --------------------------------------------------------


class LstmBuffers:
    """Arrays of a layer, for one handler; `values` has some that are shared."""

    def __init__(self, handler, seed=0, steps=T, batch=B, **given):
        self.handler = handler
        rnd = np.random.RandomState(seed)
        state, gates = (steps + 1, batch, N), 4 * N
        drawn = {
            "x": (steps, batch, F), "W": (gates, F), "R": (gates, N),
            "peepholes": (3, N), "bias": (gates,), "dy": state,
        }  # fmt: skip
        filled = {"y": state, "dx": (steps, batch, F), "dW": (gates, F)}
        filled |= {"dR": (gates, N), "dpeepholes": (3, N), "dbias": (gates,)}
        filled |= {name: state for name in CELLS} | {f"d{c}": state for c in CELLS}
        self.arrays = {
            name: handler.create_from_numpy(rnd.randn(*shape))
            for name, shape in drawn.items()
        }
        self.arrays |= {name: handler.zeros(shape) for name, shape in filled.items()}
        self.arrays |= given

    def __getitem__(self, names):
        return [self.arrays[name] for name in names.split()]

    @property
    def _given(self):
        W, R, bias, peepholes = self["W R bias peepholes"]
        cells = LstmCells(*self[" ".join(CELLS)])
        return self.arrays["x"], Weights(W, R, bias, peepholes), cells, self.arrays["y"]

    def forward(self, activation="tanh"):
        self.handler.lstm_forward(*self._given, activation)

    def backward(self, activation="tanh", **fresh):
        dy, dx = self["dy dx"]
        deltas = LstmCells(*self["d" + " d".join(CELLS)])
        gradients = Weights(*self["dW dR dbias dpeepholes"])
        self.handler.lstm_backward(
            *(*self._given, dy, deltas, dx, gradients, activation),
            **{"fresh_dx": True, "fresh_gradients": True, **fresh},
        )

    def replace(self, name, values):
        self.arrays[name] = self.handler.create_from_numpy(values)

    def read(self, *names):
        return {n: self.handler.get_numpy_copy(self.arrays[n]) for n in names}


RESULTS = ("y", "dx", "dW", "dR", "dpeepholes", "dbias", "dy")
INTERNALS = (*CELLS, *(f"d{name}" for name in CELLS))


def assert_same_results(buffers, names):
    ours, expected = (each.read(*names) for each in buffers)
    for name in names:
        assert_close(ours[name], expected[name], name)


@pytest.mark.parametrize("name", ["x", "W", "R", "peepholes", "bias", "y", *CELLS])
def test_a_forward_pass_with_another_array(lstm_handler, name):
    """All others are the same."""
    pair = [LstmBuffers(each) for each in (lstm_handler, reference())]
    for each in pair:
        for seed in range(3):
            shape = each.arrays[name].shape
            before = each.arrays[name]
            values = np.random.RandomState(seed).randn(*shape)
            each.replace(name, values)
            each.forward()
            each.backward()
            del before
    assert_same_results(pair, RESULTS)
    assert_same_results(pair, INTERNALS)


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize(
    "name", ["dx", "dW", "dR", "dpeepholes", "dbias", "dy", "dZa", "dFb", "dOa", "dCa"]
)
def test_a_backward_pass_into_another_array(lstm_handler, name, fresh):
    """It is written, and the one before is not touched any more."""
    pair = [LstmBuffers(each) for each in (lstm_handler, reference())]
    kept = []
    for each in pair:
        for seed in range(3):
            shape = each.arrays[name].shape
            kept.append((each.handler, each.arrays[name], None))
            each.replace(name, np.random.RandomState(seed).randn(*shape))
            each.forward()
            each.backward(fresh_dx=fresh, fresh_gradients=fresh)
            array = each.arrays[name]
            kept[-1] = each.handler, array, each.handler.get_numpy_copy(array)
    for each, array, values in kept:
        np.testing.assert_array_equal(each.get_numpy_copy(array), values)
    assert_same_results(pair, RESULTS)
    assert_same_results(pair, INTERNALS)


SHARING = {"nothing": "", "W": "W", "all": "W R peepholes bias", "inputs": "x"}


@pytest.mark.parametrize("order", ["abBA", "abAB", "aAbB", "abABabBA", "baAB"])
@pytest.mark.parametrize("shared", SHARING)
def test_lstms_that_share_arrays(lstm_handler, shared, order):
    """Small letters are forward passes, capital ones backward passes, of two layers."""
    pair = []
    for each in (lstm_handler, reference()):
        first = LstmBuffers(each, seed=1)
        given = {name: first.arrays[name] for name in SHARING[shared].split()}
        layers = {"a": first, "b": LstmBuffers(each, seed=2, **given)}
        for letter in order:
            layer = layers[letter.lower()]
            layer.forward() if letter.islower() else layer.backward()
        pair.append(layers)
    for name in "ab":
        layers = [each[name] for each in pair]
        assert_same_results(layers, RESULTS)
        assert_same_results(layers, INTERNALS)


def test_lstms_that_share_weights_but_not_the_activation(lstm_handler):
    pair = []
    for each in (lstm_handler, reference()):
        first = LstmBuffers(each, seed=1)
        given = {n: first.arrays[n] for n in ("W", "R", "peepholes", "bias")}
        second = LstmBuffers(each, seed=2, **given)
        first.forward()
        second.forward("sigmoid")
        second.backward("sigmoid")
        first.backward()
        pair.append((first, second))
    for layers in zip(*pair, strict=True):
        assert_same_results(layers, RESULTS)
        assert_same_results(layers, INTERNALS)


def test_another_activation_on_the_same_arrays(lstm_handler):
    pair = [LstmBuffers(each) for each in (lstm_handler, reference())]
    for each in pair:
        for activation in ("tanh", "sigmoid", "tanh", "rel"):
            each.forward(activation)
        each.backward("rel")
    assert_same_results(pair, RESULTS)
    assert_same_results(pair, INTERNALS)


def test_cells_that_overlap_those_of_another_pass(lstm_handler):
    """The later pass counts where they do, the earlier one elsewhere."""
    pair = []
    for each in (lstm_handler, reference()):
        memory = {c: each.zeros((2 * T + 1, B, N)) for c in CELLS}
        first = LstmBuffers(each, 1, **{c: m[: T + 1] for c, m in memory.items()})
        second = LstmBuffers(each, 2, **{c: m[T:] for c, m in memory.items()})
        for _ in range(3):
            first.forward()
            second.forward()
        pair.append({c: each.get_numpy_copy(m) for c, m in memory.items()})
    for name, values in pair[0].items():
        rows = slice(None) if name == "Ca" else np.r_[:T, T : 2 * T]
        assert_close(values[rows], pair[1][name][rows], name)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_lstms_on_arrays_that_are_cut_out_of_others(lstm_handler, axis):
    pair = []
    for each in (lstm_handler, reference()):
        buffers = LstmBuffers(each, seed=1)
        for name, array in list(buffers.arrays.items()):
            if array.ndim > axis and each is lstm_handler:
                shape = list(array.shape)
                shape[axis] += 3
                cut = (slice(None),) * axis + (slice(1, -2),)
                view = each.zeros(tuple(shape))[cut]
                each.set_from_numpy(view, array)
                buffers.arrays[name] = view
        for _ in range(2):
            buffers.forward()
            buffers.backward()
        pair.append(buffers)
    assert_same_results(pair, RESULTS)
    assert_same_results(pair, INTERNALS)


# -- what is left out --------------------------------------------------------


@LEAVES_OUT
def test_deltas_are_read_only_before_the_next_forward_pass(lstm_handler):
    pair = [LstmBuffers(each) for each in (lstm_handler, reference())]
    for each in pair:
        each.forward()
        each.backward()
    assert_same_results(pair, ["dFb"])
    ours = pair[0]
    ours.backward()
    ours.forward()
    for name in ("dZa", "dFb", "dCa"):
        with pytest.raises(HandlerError, match="another forward pass has run since"):
            ours.read(name)
    with pytest.raises(HandlerError, match="left out these deltas"):
        lstm_handler.is_fully_finite(ours.arrays["dCb"])
    ours.read("Fb", "dW", "dx", "dy")
    ours.backward()
    assert_same_results(pair, ["dFb"])


@LEAVES_OUT
def test_what_somebody_writes_stays(lstm_handler):
    """Although the pass before had left it out."""
    ours = LstmBuffers(lstm_handler)
    ours.forward()
    ours.backward()
    lstm_handler.fill(ours.arrays["Fb"], 0.25)
    lstm_handler.set_from_numpy(ours.arrays["dFb"], np.full((T + 1, B, N), 0.5))
    assert (ours.read("Fb")["Fb"] == 0.25).all()
    assert (ours.read("dFb")["dFb"] == 0.5).all()
    ours.backward()
    ours.forward()
    lstm_handler.fill(ours.arrays["dIb"], 2.0)
    assert (ours.read("dIb")["dIb"] == 2.0).all()
    with pytest.raises(HandlerError):
        ours.read("dFb")


def test_views_that_are_gone_do_not_matter(lstm_handler):
    """Only the memory does."""
    memories = []
    for each in (lstm_handler, reference()):
        memory = {name: each.zeros((T + 1, B, N)) for name in (*CELLS, "y")}
        buffers = LstmBuffers(each, **{n: m[:] for n, m in memory.items()})
        buffers.forward()
        del buffers
        gc.collect()
        memories.append({n: each.get_numpy_copy(m) for n, m in memory.items()})
    for name, values in memories[0].items():
        assert_close(values, memories[1][name], name)


def test_memory_of_which_some_is_gone(lstm_handler):
    ours = LstmBuffers(lstm_handler)
    ours.forward()
    del ours.arrays["Zb"]
    gc.collect()
    assert not lstm_handler._lstm_records
    lstm_handler.get_numpy_copy(ours.arrays["y"])


def test_memory_that_belongs_to_no_array(lstm_handler):
    """It is not known how long it lives, so nothing is left out."""
    pair = [LstmBuffers(each) for each in (lstm_handler, reference())]
    for each in pair:
        shape, dtype = (T + 1, B, N), each.handler.dtype
        raw = bytearray(np.zeros(shape, dtype).nbytes)
        each.arrays["Fb"] = np.frombuffer(raw, dtype).reshape(shape)
        each.forward()
        each.backward()
    assert not lstm_handler._lstm_records
    assert_same_results(pair, RESULTS)
    assert_same_results(pair, INTERNALS)


# -- sharing between layers --------------------------------------------------


def twins(make, feature_shape):
    """Two layers that share all parameters, on two inputs."""
    layers = bs.layers
    inp = layers.Input(
        {name: ("T", "B", *feature_shape) for name in ("left", "right")}
        | {"targets": ("T", "B", 1)}
    )
    first, second = make("First"), make("Second")
    second.share(first)
    joined, loss = layers.Concat(), layers.SoftmaxCE()
    inp - "left" >> first >> layers.FullyConnected(4, name="A") >> "inputs_1" - joined
    inp - "right" >> second >> layers.FullyConnected(4, name="B") >> "inputs_2" - joined
    joined >> layers.FullyConnected(3, "linear", name="C") >> loss
    inp - "targets" >> "targets" - loss
    return bs.Network.from_layer(loss - "loss" >> layers.Loss())


L = bs.layers
SHARED = {
    "Lstm": (lambda name: L.Lstm(6, name=name), (5,)),
    "Lstm without bias": (lambda name: L.Lstm(6, bias=False, name=name), (5,)),
    "Lstm sigmoid": (lambda name: L.Lstm(6, "sigmoid", name=name), (5,)),
    "ClockworkLstm": (lambda name: L.ClockworkLstm(6, name=name), (5,)),
    "Gru": (lambda name: L.Gru(6, name=name), (5,)),
    "Recurrent": (lambda name: L.Recurrent(6, name=name), (5,)),
    "Clockwork": (lambda name: L.Clockwork(6, name=name), (5,)),
    "Bidirectional": (lambda name: L.Bidirectional(L.Lstm(6), name=name), (5,)),
    "FullyConnected": (lambda name: L.FullyConnected(6, name=name), (5,)),
    "Convolution2D": (lambda name: L.Convolution2D(4, 3, name=name), (6, 6, 2)),
    "BatchNorm": (lambda name: L.BatchNorm(name=name), (5,)),
}


@pytest.mark.parametrize("cls", [OneDnnHandler, OnlyOneDnnHandler])
@pytest.mark.parametrize("name", SHARED)
def test_layers_that_share_parameters(name, cls):
    make, features = SHARED[name]
    rnd = np.random.RandomState(0)
    data = {side: rnd.randn(4, 8, *features) for side in ("left", "right")}
    data["targets"] = rnd.randint(3, size=(4, 8, 1))
    nets = [twins(make, features) for _ in range(2)]
    for net, each in zip(nets, (onednn_handler(cls), reference()), strict=True):
        net.set_handler(each)
        net.initialize(bs.initializers.Gaussian(0.3), seed=1)
        for parameter, values in net.buffer.First.parameters.items():
            if parameter == "timing":
                each.set_from_numpy(values, 1.0 + np.arange(6) % 3)
        for _ in range(3):
            net.provide_external_data(data)
            net.forward_pass(training_pass=True)
            net.backward_pass()
    for path in ("gradients", "Input.output_deltas.left", "Input.output_deltas.right"):
        assert_close(nets[0].get(path), nets[1].get(path), path)
    for layer in ("First", "Second"):
        for internal in nets[1].layers[layer].internal_shapes:
            path = f"{layer}.internals.{internal}"
            assert_close(nets[0].get(path), nets[1].get(path), path)


# -- keys --------------------------------------------------------------------


def test_another_layout_at_a_known_place(handler):
    """Byte order, strides, shapes and types all count."""
    a, b, out = (np.random.RandomState(k).rand(4, 4).astype("f") for k in range(3))
    handler.dot_mm(a, b, out)
    handler.dot_mm(a, b, out)
    flat = a.reshape(-1)
    others = [
        a.view(">f4"),
        a.T,
        a[::-1],
        flat[:12].reshape(4, 3),
        a.astype(np.float64),
    ]
    others += [a[:, 1:3], np.lib.stride_tricks.as_strided(a, (4, 4), (0, 4)), a]
    for x in others:
        y = np.ones((x.shape[1], 4), np.float32)
        for _ in range(3):
            got = out if x.shape[0] == 4 else np.empty((len(x), 4), np.float32)
            handler.dot_mm(x, y, got)
            expected = x.astype(np.float64) @ y
            np.testing.assert_allclose(got, expected, rtol=1e-4, err_msg=str(x.strides))


@pytest.mark.parametrize("times_before", [0, 1, 3])
def test_read_only_arrays_are_not_written(handler, times_before):
    """Not either where they could be written before."""
    a, b, out = np.ones((3, 3), "f"), np.ones((3, 3), "f"), np.zeros((3, 3), "f")
    for _ in range(times_before):
        handler.dot_mm(a, b, out)
    a.flags.writeable = out.flags.writeable = False
    before = out.copy()
    for _ in range(3):
        with pytest.raises(ValueError, match="read-only"):
            handler.dot_mm(a, b, out)
    np.testing.assert_array_equal(out, before)
    out.flags.writeable = True
    handler.dot_mm(a, b, out)
    np.testing.assert_array_equal(out, np.full((3, 3), 3.0))


@pytest.mark.parametrize("name", ["y", "Ca", "Fb"])
@pytest.mark.parametrize("times_before", [0, 3])
def test_an_lstm_does_not_write_read_only_arrays(handler, name, times_before):
    ours = LstmBuffers(handler)
    for _ in range(times_before):
        ours.forward()
    ours.arrays[name].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        ours.forward()


def test_an_lstm_does_not_write_read_only_gradients(handler):
    ours = LstmBuffers(handler)
    for _ in range(3):
        ours.forward()
        ours.backward()
    ours.arrays["dR"].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        ours.backward()


def test_a_call_is_prepared_once_for_many_arrays(handler, counted):
    """It moves between them, also between those that are known."""
    w = np.random.RandomState(0).rand(6, 5).astype("f")
    pairs = [
        (np.random.rand(7, 6).astype("f"), np.empty((7, 5), "f")) for _ in range(5)
    ]
    for _ in range(4):
        for a, out in pairs:
            handler.dot_mm(a, w, out)
        for a, out in pairs:
            np.testing.assert_allclose(out, a @ w, rtol=1e-5)
    assert counted == {"calls": 1, "passes": 0}


# -- long and many sequences -------------------------------------------------


@pytest.fixture
def counted(monkeypatch):
    """How many calls and passes of an LSTM were prepared."""
    counts = {"calls": 0, "passes": 0}
    prepare, make = session.Session.prepare, lstm_records.Record._make_pass

    def count_calls(*args):
        counts["calls"] += 1
        return prepare(*args)

    def count_passes(*args):
        counts["passes"] += 1
        return make(*args)

    monkeypatch.setattr(session.Session, "prepare", count_calls)
    monkeypatch.setattr(lstm_records.Record, "_make_pass", count_passes)
    return counts


RECURRENT = {
    "Recurrent": lambda: L.Recurrent(4),
    "Gru": lambda: L.Gru(4),
    "Clockwork": lambda: L.Clockwork(4),
    "ClockworkLstm": lambda: L.ClockworkLstm(4),
    "Lstm": lambda: L.Lstm(4),
    "Lstm sigmoid": lambda: L.Lstm(4, "sigmoid"),
    "Bidirectional": lambda: L.Bidirectional(L.Lstm(4)),
}


def sequence_net(layer, handler):
    inp, out = bs.tools.get_in_out_layers("classification", 3, 2)
    net = bs.Network.from_layer(inp >> layer >> out)
    net.set_handler(handler)
    net.initialize(bs.initializers.Gaussian(0.1), seed=1)
    for name, each in net.layers.items():
        if "timing" in each.parameter_shapes:
            timing = net.buffer[name].parameters.timing
            handler.set_from_numpy(timing, np.ones(timing.shape))
    return net


def run_pass(net, steps, batch=2):
    data = {
        "default": np.ones((steps, batch, 3)),
        "targets": np.zeros((steps, batch, 1)),
    }
    net.provide_external_data(data)
    net.forward_pass(training_pass=True)
    net.backward_pass()


@pytest.mark.parametrize(
    "cls", [OneDnnHandler, pytest.param(OnlyOneDnnHandler, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", RECURRENT)
def test_long_sequences_are_prepared_like_short_ones(name, cls, counted):
    """What is prepared and kept does not grow with the number of time steps."""
    numbers = {}
    for steps in (20, 1300):
        handler = onednn_handler(cls)
        net = sequence_net(RECURRENT[name](), handler)
        counted.update(calls=0, passes=0)
        run_pass(net, steps)
        run_pass(net, steps)  # recorded anew: the first one got new memory
        numbers[steps] = dict(counted)
        run_pass(net, steps)
        numbers[steps]["again"] = counted["calls"] - numbers[steps]["calls"]
        numbers[steps]["kept"] = len(handler.current_session()._calls)
    assert numbers[1300]["again"] == 0
    # Sums of many rows take some more primitives, large arrays others.
    assert numbers[1300]["calls"] <= numbers[20]["calls"] + 12
    assert numbers[1300]["kept"] <= numbers[20]["kept"] + 12


def test_large_lstms_are_prepared_like_short_ones(monkeypatch):
    """Those that run step by step."""
    monkeypatch.setattr(lstm, "_LARGE_STEP", 1)
    adds, add = [], recipes.Recipe.add
    monkeypatch.setattr(
        recipes.Recipe, "add", lambda *a, **k: (adds.append(1), add(*a, **k))
    )
    numbers = []
    for steps in (3, 15):
        adds.clear()
        ours, expected = (
            LstmBuffers(each, steps=steps) for each in (onednn_handler(), reference())
        )
        for each in (ours, expected):
            each.forward()
            each.backward()
        assert_same_results([ours, expected], RESULTS)
        numbers.append(len(adds))
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize("count", [40, pytest.param(120, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["Lstm", "Gru"])
def test_many_lengths_are_prepared_once(handler, name, count, counted, monkeypatch):
    cuts, cut = [], structure_buffers.BufferManager._cut
    monkeypatch.setattr(
        structure_buffers.BufferManager,
        "_cut",
        lambda *args: (cuts.append(1), cut(*args))[1],
    )
    net = sequence_net(RECURRENT[name](), handler)
    lengths = np.random.RandomState(0).permutation(np.arange(1, count + 1))
    run_pass(net, count)
    for steps in lengths:
        run_pass(net, steps)
    counted.update(calls=0, passes=0)
    cuts.clear()
    for steps in lengths:
        run_pass(net, steps)
    assert counted == {"calls": 0, "passes": 0}
    assert not cuts


def test_passes_of_an_lstm_are_limited(handler, monkeypatch):
    monkeypatch.setattr(lstm_records, "_MAX_PASSES", 5)
    net = sequence_net(L.Lstm(4), handler)
    reference_net = sequence_net(L.Lstm(4), reference())
    for _ in range(2):
        for steps in (20, *range(1, 15)):
            for each in (net, reference_net):
                run_pass(each, steps)
            assert_close(net.get("gradients"), reference_net.get("gradients"))
    (record,) = handler._lstm_records
    assert len(record._runs) <= 5


# -- releasing ---------------------------------------------------------------


def kept_bytes(handler):
    prepared = handler._local.session
    arenas = prepared.arenas._bytes.values() if prepared else ()
    scratch = handler._workspace.buffers.values()
    return sum(len(b) for b in arenas) + sum(b.nbytes for b in scratch)


def test_release(handler):
    net, expected = (
        sequence_net(L.Bidirectional(L.Lstm(4)), h) for h in (handler, reference())
    )
    run_pass(net, 30)
    run_pass(expected, 30)
    assert kept_bytes(handler)
    handler.release()
    assert not kept_bytes(handler)
    assert not handler._lstm_records
    for path in ("gradients", "Bidirectional.internals.forward_dFb"):
        assert_close(net.get(path), expected.get(path), path)
    for each in (net, expected):
        run_pass(each, 30)
    assert_close(net.get("gradients"), expected.get("gradients"))


@pytest.mark.parametrize("cls", [NumpyHandler, OneDnnHandler])
def test_memory_is_released_with_the_last_network(cls):
    handler = NumpyHandler(np.float32) if cls is NumpyHandler else onednn_handler()
    nets = [sequence_net(L.Recurrent(4), handler) for _ in range(2)]
    for net in nets:
        run_pass(net, 300)
    released, release = [], handler.release
    handler.release = lambda: (released.append(1), release())
    nets[0].set_handler(NumpyHandler(np.float32))
    del net, nets[0]
    gc.collect()
    assert not released
    run_pass(nets[0], 300)
    view = nets[0].buffer.parameters
    nets.clear()
    gc.collect()
    assert not released  # somebody may still compute with it
    del view
    gc.collect()
    assert released
    assert not handler._workspace.buffers
    if cls is OneDnnHandler:
        assert handler._local.session is None
        assert not kept_bytes(handler)


def test_primitives_go_with_what_needs_them(handler):
    library = handler._library
    handler.release()
    gc.collect()
    before = len(library._primitives)
    net = sequence_net(L.Lstm(4), handler)
    run_pass(net, 13)
    assert len(library._primitives) > before
    del net
    gc.collect()
    assert len(library._primitives) <= before


def test_primitives_are_described_once(handler):
    """A description takes as much memory as a primitive, which has one of its own."""
    # Attributes and chains of operations are of no class of their own.
    kinds = (binding._PrimitiveDesc, binding._Owned)
    before = [o for o in gc.get_objects() if type(o) in kinds]
    net = sequence_net(L.FullyConnected(4), handler)
    run_pass(net, 13)
    assert handler._library._primitives
    found = [o for o in gc.get_objects() if type(o) in kinds]
    assert not [o for o in found if all(o is not other for other in before)]


def test_objects_can_not_be_found_while_they_are_destroyed():
    """Another thread may look for them then."""
    found = []

    class Library:
        class functions:
            @staticmethod
            def dnnl_primitive_destroy(handle):
                found.append(reference())

    primitive = binding.Primitive(Library, None, "dnnl_primitive_create")
    reference = weakref.ref(primitive)
    del primitive
    gc.collect()
    assert found == [None]


def test_room_for_other_sizes_is_not_computed(lstm_handler):
    """What a longer pass left out does not come into the rows of a shorter one."""
    results = []
    for each in (lstm_handler, reference()):
        memory = {name: each.zeros((8, B, N)) for name in (*CELLS, "y")}
        for steps in (7, 1):
            views = {name: array[: steps + 1] for name, array in memory.items()}
            each.clear(*[views[name][-1] for name in views])
            each.set_from_numpy(views["Ca"][-1], np.ones((B, N)))
            buffers = LstmBuffers(each, steps=steps, **views)
            buffers.forward()
        results.append(buffers)
    assert_same_results(results, (*CELLS, "y"))


def test_a_handler_that_is_gone_leaves_nothing(handler):
    other = OneDnnHandler()
    other.dot_mm(*(np.ones((3, 3), "f") for _ in range(3)))
    session_of_it = weakref.ref(other.current_session())
    del other
    gc.collect()
    assert session_of_it() is None


def test_another_thread_releases(handler):
    """While this one is going to go on."""
    a, out = np.ones((30, 30), "f"), np.empty((30, 30), "f")
    handler.dot_mm(a, a, out)
    thread = threading.Thread(target=handler.release)
    thread.start()
    thread.join()
    out.fill(0)
    handler.dot_mm(a, a, out)
    np.testing.assert_array_equal(out, np.full((30, 30), 30.0))


# -- memory that comes and goes ----------------------------------------------

CHURN = """
    import gc, sys
    import numpy as np
    import brainstorm as bs
    from brainstorm.handlers import NumpyHandler, OneDnnHandler
    from brainstorm.handlers.onednn import lstm, lstm_formats

    L, (rounds, seed) = bs.layers, map(int, sys.argv[1:])
    rnd = np.random.RandomState(seed)
    lstm_formats._MIN_WORK = 2**14  # some split the sequences,
    lstm._LARGE_STEP = 2**13  # some run step by step
    theirs = NumpyHandler(np.float64)

    def make(handler, kind, size, bias, name):
        kinds = {
            "lstm": lambda: L.Lstm(size, bias=bias, peepholes=not bias),
            "sigmoid": lambda: L.Lstm(size, "sigmoid", bias=bias),
            "gru": lambda: L.Gru(size, bias=bias),
            "rnn": lambda: L.Recurrent(size, bias=bias),
            "full": lambda: L.FullyConnected(size, bias=bias),
            "both": lambda: L.Bidirectional(L.Lstm(size, bias=bias)),
        }
        inp, out = bs.tools.get_in_out_layers("classification", 5, 3)
        net = bs.Network.from_layer(inp >> kinds[kind]() >> L.Lstm(4, bias=bias) >> out)
        net.set_handler(handler)
        net.initialize(bs.initializers.Gaussian(0.3), seed=name)
        return net

    def step(net, data):
        net.provide_external_data(data)
        net.forward_pass(training_pass=True)
        net.backward_pass()
        return net.get("gradients")

    names = ["lstm", "lstm", "sigmoid", "gru", "rnn", "full", "both"]
    nets, mine = [], []
    for k in range(rounds):
        if k % 8 == 0:  # memory that all networks of a handler share grows anew
            nets, ours = [], OneDnnHandler(threads=2)
        if len(nets) > 3 and rnd.rand() < 0.5:
            del nets[rnd.randint(len(nets))]
        kind, size = names[rnd.randint(len(names))], int(rnd.randint(1, 9))
        size *= k % 8 + 1
        bias = bool(rnd.rand() < 0.3)
        nets.append([make(h, kind, size, bias, k) for h in (ours, theirs)])
        steps, batch = [(4, 8), (2, 5)][rnd.randint(2)]
        data = {"default": rnd.randn(steps, batch, 5)}
        data["targets"] = rnd.randint(3, size=(steps, batch, 1))
        for pair in nets:
            got, expected = (step(net, data) for net in pair)
            np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-5)
            # Some of each size that freed memory may have had.
            mine += [np.full(4 * (n // 8), k, np.float32) for n in range(8, 576)]
        mine = mine[-5000:]
        for array in mine:
            assert (array == array[0]).all(), "an array of the user was overwritten"
    print("fine")
"""


def churn(rounds, seed):
    onednn_handler()
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHURN), str(rounds), str(seed)],
        env={
            **os.environ,
            "MALLOC_PERTURB_": "165",
            "MALLOC_CHECK_": "3",
            "OPENBLAS_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
    )
    assert result.stdout == "fine\n", (result.returncode, result.stderr[-3000:])


def test_networks_come_and_go():
    """A hundred passes, where memory that is freed is overwritten at once."""
    churn(16, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_many_networks_come_and_go(seed):
    """A thousand passes; ``BRAINSTORM_FUZZ=10`` makes ten times as many."""
    churn(int(200 * float(os.environ.get("BRAINSTORM_FUZZ", 1))), seed)
