"""What OneDnnHandler prepares for memory, and what happens when memory changes.

The values are compared with those of NumpyHandler in float64, which prepares nothing.
"""

import gc

import numpy as np
import pytest

import brainstorm as bs
from brainstorm.handlers import NumpyHandler
from brainstorm.handlers.onednn import (
    OneDnnHandler,
    binding,
    lstm_operations,
)
from brainstorm.handlers.onednn import recurrent as recurrent_passes
from brainstorm.utils import HandlerError
from tests.handlers.handler_cases import OnlyOneDnnHandler, onednn_handler

T, B, F, N = 3, 4, 5, 6
CELLS = ("Za", "Zb", "Ia", "Ib", "Fa", "Fb", "Oa", "Ob", "Ca", "Cb")


@pytest.fixture
def handler():
    return onednn_handler()


@pytest.fixture(params=["together", "in parts", "step by step"])
def lstm_handler(request, monkeypatch):
    """One that runs an LSTM as a whole, splits the sequences, or runs step by step."""
    onednn_handler()
    if request.param == "step by step":
        monkeypatch.setattr(lstm_operations, "_LARGE_STEP", 1)
    if request.param == "in parts":
        monkeypatch.setattr(recurrent_passes, "_MIN_WORK", 1)
        monkeypatch.setattr(recurrent_passes, "_MIN_SEQUENCES", 1)
        if not binding.load_library().runs_in_parallel:
            pytest.skip("this oneDNN was built without OpenMP")
    return OneDnnHandler(threads=3 if request.param == "in parts" else None)


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

    def forward(self, activation="tanh"):
        arrays = self["x W R peepholes bias"] + self[" ".join(CELLS)] + self["y"]
        self.handler.lstm_forward(*arrays, activation)

    def backward(self, activation="tanh", **fresh):
        cells, deltas = self[" ".join(CELLS)], self["d" + " d".join(CELLS)]
        self.handler.lstm_backward(
            *(self["x W R peepholes"] + cells + self["y dy"] + deltas),
            *self["dx dW dR dpeepholes dbias"],
            activation,
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
