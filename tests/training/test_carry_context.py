"""Subsequences, and training that carries the state from batch to batch."""

import gc
import tracemalloc

import h5py
import numpy as np
import pytest

from brainstorm import layers
from brainstorm.data_iterators import (
    AddGaussianNoise,
    Minibatches,
    Subsequences,
    Undivided,
)
from brainstorm.handlers import NumpyHandler
from brainstorm.hooks import SaveCheckpoint, StopAfterEpoch
from brainstorm.hooks.base_hook import Hook
from brainstorm.initializers import Gaussian
from brainstorm.randomness import global_rnd
from brainstorm.structure.network import Network
from brainstorm.training import MomentumStepper, SgdStepper, Trainer
from brainstorm.training.utils import run_network
from brainstorm.utils import IteratorValidationError, ValidationError

T, B, I, N = 10, 4, 3, 2  # noqa: E741


def data(steps=T, batch=B, dtype=np.float64):
    rnd = np.random.RandomState(0)
    return {
        "default": rnd.randn(steps, batch, I).astype(dtype),
        "targets": rnd.randn(steps, batch, N).astype(dtype),
    }


def network(layer=None, handler=None):
    inp = layers.Input({"default": ("T", "B", I), "targets": ("T", "B", N)})
    error = layers.SquaredError(name="Error")
    inp >> (layer or layers.Lstm(N, name="L")) >> error
    inp - "targets" >> "targets" - error
    error - "loss" >> layers.Loss()
    net = Network.from_layer(inp)
    net.set_handler(handler or NumpyHandler(np.float64))
    net.initialize(Gaussian(0.5), seed=1)
    return net


# -- the iterator --------------------------------------------------------------


def test_pieces_follow_each_other():
    values = data()
    pieces = Subsequences(Minibatches(3, shuffle=False, **values), 4)
    seen, continues = [], []
    for piece in pieces(None):
        seen.append(piece)
        continues.append(pieces.continues)
    assert [p["default"].shape[:2] for p in seen] == [
        *[(4, 3), (4, 3), (2, 3)],
        *[(4, 1), (4, 1), (2, 1)],
    ]
    assert continues == [False, True, True] * 2
    assert pieces.length == len(seen)
    assert pieces.data_shapes == {"default": (4, B, I), "targets": (4, B, N)}
    for name, array in values.items():
        first = np.concatenate([p[name] for p in seen[:3]])
        assert np.array_equal(first, array[:, :3])


def test_pieces_are_views():
    values = data(100_000, 1)
    pieces = list(Subsequences(Undivided(**values), 1000)())
    assert len(pieces) == 100
    assert all(np.shares_memory(p["default"], values["default"]) for p in pieces)


def test_static_items_come_with_each_piece():
    static = np.ones((1, B, 2))
    pieces = Subsequences(Undivided(default=data()["default"], static=static), 4)
    assert [p["static"].shape for p in pieces(None)] == [(1, B, 2)] * 3


def test_batches_that_are_cut_have_fewer_pieces():
    mask = np.ones((T, B, 1))
    mask[4:, :2] = 0
    pieces = Subsequences(Minibatches(2, shuffle=False, mask=mask), 4)
    assert pieces.length is None
    assert [len(p["mask"]) for p in pieces(None)] == [4, 4, 4, 2]


def test_other_iterators_tell_too():
    pieces = Subsequences(Undivided(**data()), 4)
    noisy = AddGaussianNoise(pieces, {"default": 0.1})
    assert noisy.length == 3
    assert [noisy.continues for _ in noisy(None)] == [False, True, True]
    assert AddGaussianNoise(Undivided(**data()), {"default": 0.1}).continues is None


@pytest.mark.parametrize("steps", [0, -1, 2.5, None, "4"])
def test_steps_are_a_positive_integer(steps):
    with pytest.raises(IteratorValidationError, match="steps"):
        Subsequences(Undivided(**data()), steps)


def test_it_wraps_an_iterator():
    with pytest.raises(IteratorValidationError, match="expected a DataIterator"):
        Subsequences(data(), 4)


# -- training ------------------------------------------------------------------


def train(net, iterator, epochs=1, stepper=None, **arguments):
    trainer = Trainer(stepper or SgdStepper(0.1), verbose=False, **arguments)
    trainer.add_hook(StopAfterEpoch(epochs))
    trainer.train(net, iterator)
    return trainer


def by_hand(net, values, steps, parts=(slice(None),)):
    """Plain gradient descent that hands the context on."""
    for part in parts:
        context = None
        for start in range(0, T, steps):
            piece = {n: a[start : start + steps, part] for n, a in values.items()}
            net.provide_external_data(piece)
            net.forward_pass(training_pass=True, context=context)
            net.backward_pass()
            context = net.get_context()
            parameters = net.get("parameters") - 0.1 * net.get("gradients")
            net.handler.set_from_numpy(net.buffer.parameters, parameters)
    return net.get("parameters")


KINDS = {
    "Recurrent": lambda: layers.Recurrent(N, name="L"),
    "Lstm": lambda: layers.Lstm(N, name="L"),
    "Gru": lambda: layers.Gru(N, name="L"),
    "learned": lambda: layers.Gru(N, name="L", initial_state="learned"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_is_carried_on_within_batches(kind):
    values = data()
    net, other = network(KINDS[kind]()), network(KINDS[kind]())
    parts = [slice(0, 3), slice(3, 4)]
    expected = by_hand(other, values, 4, parts)
    batches = Minibatches(3, shuffle=False, **values)
    train(net, Subsequences(batches, 4), carry_context=True)
    assert np.allclose(net.get("parameters"), expected, rtol=1e-12)

    without = network(KINDS[kind]())
    train(without, Subsequences(batches, 4))
    assert not np.allclose(without.get("parameters"), expected, rtol=1e-6)


def test_evaluation_carries_the_state_too():
    values, net = data(), network()
    net.provide_external_data(values)
    net.forward_pass()
    whole = net.get("L.outputs.default")[:-1]
    pieces = [
        net.get("L.outputs.default")[:-1]
        for _ in run_network(net, Subsequences(Undivided(**values), 3))
    ]
    assert np.allclose(np.concatenate(pieces), whole)


def network_of_lags():
    """Layers that look at 3, at 4, and at 1 step before, joined."""
    inp = layers.Input({"default": ("T", "B", I), "targets": ("T", "B", N)})
    error, readout = layers.SquaredError("Error"), layers.FullyConnected(N, name="R")
    lags = [layers.Delay(3), layers.Nvar(3, 2, 2), layers.Recurrent(2)]
    inp >> lags >> readout >> error
    inp - "targets" >> "targets" - error - "loss" >> layers.Loss()
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(Gaussian(0.1), seed=1)
    return net


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_pieces_may_be_shorter_than_contexts(steps):
    values, net = data(), network_of_lags()
    pieces = Subsequences(Undivided(**values), steps)
    net.provide_external_data(values)
    net.forward_pass()
    whole = net.get("Error.outputs.predictions")
    found = [net.get("Error.outputs.predictions") for _ in run_network(net, pieces)]
    np.testing.assert_allclose(np.concatenate(found), whole, rtol=1e-12)

    expected = by_hand(network_of_lags(), values, steps)
    train(net, pieces, carry_context=True)
    np.testing.assert_allclose(net.get("parameters"), expected, rtol=1e-12)


class CrashAt(Hook):
    """Fails at an update, before the checkpoint of that update is written."""

    def __init__(self, nr):
        super().__init__(timescale="update")
        self.nr = nr

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if update_nr == self.nr:
            raise ZeroDivisionError


def test_it_goes_on_as_if_never_interrupted(tmp_path):
    def iterator(seed):
        global_rnd.set_seed(seed)
        return Subsequences(Minibatches(3, **data()), 4)

    def trainer():
        return Trainer(MomentumStepper(0.1, 0.5), verbose=False, carry_context=True)

    net, whole = network(), trainer()
    whole.add_hook(StopAfterEpoch(2))
    whole.train(net, iterator(3))
    assert whole.current_update_nr == 12

    path = tmp_path / "checkpoint.hdf5"
    current, resumed = trainer(), network()
    current.add_hook(SaveCheckpoint(path, timescale="update"))
    current.add_hook(StopAfterEpoch(2))
    for nr in range(2, 13):
        current.add_hook(CrashAt(nr))
        with pytest.raises(ZeroDivisionError):
            current.train(resumed, iterator(3 if nr == 2 else 99))
        current, resumed = Trainer.load(path)
        assert current.carry_context is True
        del current.hooks["CrashAt"]
    current.train(resumed, iterator(99))
    assert np.array_equal(resumed.get("parameters"), net.get("parameters"))
    assert current.logs == whole.logs


def peak_of_training(net, iterator):
    """Bytes that a training needs, over what there was before."""
    tracemalloc.start()
    try:
        train(net, iterator, carry_context=True)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["array", "hdf5"])
def test_a_million_steps_take_no_more_memory_than_some(kind, tmp_path):
    inp = layers.Input({"default": ("T", "B", 1)})
    net = Network.from_layer(inp >> layers.FullyConnected(1) >> layers.Loss())
    net.set_handler(NumpyHandler(np.float32))
    net.initialize(Gaussian())
    with h5py.File(tmp_path / "series.hdf5", "w") as f:
        series = np.zeros((1_000_000, 1, 1), np.float32)
        if kind == "hdf5":
            series = f.create_dataset("series", data=series)
        pieces = Subsequences(Undivided(default=series), 10_000)
        assert peak_of_training(net, pieces) < 1_000_000  # the series has 4 million


def test_the_memory_does_not_grow_with_the_number_of_pieces():
    def peak(steps):
        series = Undivided(**data(steps, 1, np.float32))
        net = network(handler=NumpyHandler(np.float32))
        gc.collect()
        return peak_of_training(net, Subsequences(series, 40))

    # In turn, since what else there is may grow at any time.
    few, many = zip(*[(peak(200), peak(2000)) for _ in range(3)], strict=True)
    assert min(many) < min(few) + 10_000


def test_batches_have_to_continue_each_other():
    for wrong in (None, 1, "yes"):
        with pytest.raises(ValidationError, match="carry_context has to be True or"):
            Trainer(SgdStepper(), carry_context=wrong)
    with pytest.raises(IteratorValidationError, match="Minibatches.*in Subsequences"):
        train(network(), Minibatches(3, **data()), carry_context=True)


def test_layers_that_look_ahead_are_refused():
    net = network(layers.Bidirectional(layers.Gru(1), name="L"))
    with pytest.raises(ValidationError, match="'L' needs whole sequences"):
        train(net, Subsequences(Undivided(**data()), 4), carry_context=True)
