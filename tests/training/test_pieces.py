"""Whole data, batches and pieces of any size give the same losses, scores, arrays."""

import h5py
import numpy as np
import pytest

from brainstorm import layers
from brainstorm.data_iterators import (
    AddGaussianNoise,
    Minibatches,
    Online,
    Subsequences,
    Undivided,
)
from brainstorm.handlers import NumpyHandler
from brainstorm.hooks import MonitorScores, StopAfterEpoch
from brainstorm.initializers import Gaussian
from brainstorm.scorers import MeanSquaredError
from brainstorm.structure.network import Network
from brainstorm.tools import evaluate, extract, extract_and_save
from brainstorm.training import SgdStepper, Trainer

T, B, N = 7, 5, 2
LENGTHS = [3, 7, 1, 5, 2]
HIDDEN, ERROR = "L.outputs.default", "E.outputs.predictions"
LAYERS = {
    "lstm": lambda: layers.Lstm(N, name="L"),
    "gru": lambda: layers.Gru(N, name="L"),
    "clockwork": lambda: layers.Clockwork(N, name="L"),
    "both ways": lambda: layers.Bidirectional(layers.Recurrent(1), name="L"),
}
ITERATORS = {
    "whole": lambda d: Undivided(**d),
    "online": lambda d: Online(shuffle=False, **d),
    "batches": lambda d: Minibatches(2, False, **d),
    "steps": lambda d: Subsequences(Undivided(**d), 1),
    "pieces": lambda d: Subsequences(Minibatches(2, False, **d), 3),
    "long pieces": lambda d: Subsequences(Online(shuffle=False, **d), 100),
    "noisy pieces": lambda d: AddGaussianNoise(
        Subsequences(Minibatches(3, False, **d), 4), {"default": 0.0}
    ),
}


def data(lengths=LENGTHS):
    rnd = np.random.RandomState(0)
    values = {"default": rnd.randn(T, B, 3), "targets": rnd.randn(T, B, N)}
    mask = (np.arange(T)[:, None] < lengths).astype(float)
    return {**values, "mask": mask[:, :, None]}


def data_for(kind):
    """Where a layer looks ahead, cutting would change what it sees."""
    return data([T] * B if kind == "both ways" else LENGTHS)


def network(kind):
    """Two losses where the mask is 1: half the squared error, and activity."""
    inp = layers.Input({n: ("T", "B", a.shape[2]) for n, a in data().items()})
    hidden, error, decay = (
        LAYERS[kind](),
        layers.SquaredError(name="E"),
        layers.L2Decay(),
    )
    masks = [layers.Mask(), layers.Mask()]
    inp >> hidden >> error - "loss" >> masks[0] >> layers.Loss(name="Error")
    hidden >> decay - "loss" >> masks[1] >> layers.Loss(0.1, name="Activity")
    inp - "targets" >> "targets" - error
    for mask in masks:
        inp - "mask" >> "mask" - mask
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(Gaussian(0.5), seed=1)
    if kind == "clockwork":
        net.handler.set_from_numpy(net.buffer.L.parameters.timing, np.array([1.0, 2]))
    return net


def by_hand(net, values):
    """Outputs of the layer for whole sequences, and the losses of each of these."""
    net.provide_external_data(values)
    net.forward_pass()
    hidden, mask = net.get(HIDDEN)[:T], values["mask"][..., 0]
    errors = 0.5 * ((hidden - values["targets"]) ** 2).sum(axis=2) * mask
    activity = 0.05 * (hidden**2).sum(axis=2) * mask
    return hidden, errors.sum(axis=0), activity.sum(axis=0)


SCORERS = [MeanSquaredError(ERROR, mask_name="mask")]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("division", ITERATORS)
def test_losses_and_scores(kind, division):
    net, d = network(kind), data_for(kind)
    _, errors, activity = by_hand(net, d)
    expected = {
        "Error": errors.mean(),
        "Activity": activity.mean(),
        "total_loss": errors.mean() + activity.mean(),
        "MeanSquaredError": errors.sum() / d["mask"].sum(),
    }
    scores = evaluate(net, ITERATORS[division](d), SCORERS)
    assert scores == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("division", ITERATORS)
def test_extracted_arrays(kind, division, tmp_path):
    net, d = network(kind), data_for(kind)
    expected, _, _ = by_hand(net, d)
    paths = [HIDDEN, "Input.outputs.mask"]
    found = extract(net, ITERATORS[division](d), paths)
    # Batches are cut to their longest sequence, beyond which zeros are put.
    used = d["mask"] > 0
    np.testing.assert_allclose(found[HIDDEN] * used, expected * used, atol=1e-12)
    np.testing.assert_array_equal(found["Input.outputs.mask"], d["mask"])
    extract_and_save(net, ITERATORS[division](d), paths, tmp_path / "buffers.hdf5")
    with h5py.File(tmp_path / "buffers.hdf5") as f:
        for path in paths:
            np.testing.assert_array_equal(f[path], found[path])


@pytest.mark.parametrize("carry_context", [False, True])
def test_training(carry_context):
    """Without learning, the loss of an epoch is that of the data."""
    net = network("lstm")
    trainer = Trainer(SgdStepper(0.0), verbose=False, carry_context=carry_context)
    trainer.train_scorers = SCORERS
    d = data()
    trainer.add_hook(MonitorScores("whole", SCORERS, name="m"))
    trainer.add_hook(StopAfterEpoch(1))
    pieces = Subsequences(Minibatches(2, cut_according_to=None, **d), 3)
    trainer.train(net, pieces, whole=Undivided(**d))
    rolling = {name: log[0] for name, log in trainer.logs["rolling_training"].items()}
    if carry_context:
        expected = {name: log[-1] for name, log in trainer.logs["m"].items()}
    else:  # each piece begins anew, and counts as part of its sequence
        expected = dict.fromkeys(rolling, 0.0)
        for start in range(0, T, 3):
            some = {name: array[start : start + 3] for name, array in d.items()}
            for name, value in evaluate(net, Undivided(**some), SCORERS).items():
                weight = some["mask"].sum() / d["mask"].sum()
                expected[name] += value * (weight if name == "MeanSquaredError" else 1)
    assert rolling == pytest.approx(expected, rel=1e-9)
