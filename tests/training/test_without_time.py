"""Sequences with one label each: networks whose outputs and targets have no time."""

import h5py
import numpy as np
import pytest

from brainstorm import layers, tools
from brainstorm.data_iterators import Minibatches, Subsequences
from brainstorm.handlers import NumpyHandler
from brainstorm.hooks import MonitorScores, StopAfterEpoch
from brainstorm.initializers import Gaussian
from brainstorm.scorers import Accuracy, Hamming, MeanSquaredError
from brainstorm.structure.network import Network
from brainstorm.training import AdamStepper, Trainer
from brainstorm.utils import (
    NetworkValidationError,
    ValidationError,
)

T, B = 7, 60
OUTPUT = "Output.outputs.predictions"


def sequences(seed=0):
    """Sequences of two lengths, which of two classes each is of, and masks."""
    mask = np.ones((T, B, 1))
    mask[3:, ::2] = 0
    x = np.random.RandomState(seed).randn(T, B, 2) * mask
    labels = (x[..., 0].sum(0) > 0).astype(int)
    return {"default": x, "targets": labels.reshape(1, B, 1), "mask": mask}


def network(error=layers.SoftmaxCE, size=2, label=1):
    """Recurrent, then without time."""
    shapes = {"default": ("T", "B", 2), "targets": ("B", label)}
    inp, out = layers.Input({**shapes, "mask": ("T", "B", 1)}), error(name="Output")
    pool, last = layers.TimePooling("mean"), layers.FullyConnected(size, "linear")
    inp >> layers.Recurrent(8) >> pool >> layers.Dropout(0.01) >> last >> out
    inp - "mask" >> "mask" - pool
    inp - "targets" >> "targets" - out - "loss" >> layers.Loss()
    net = Network.from_layer(inp)
    net.initialize(Gaussian(0.3), seed=1)
    net.output_name = OUTPUT
    return net


def test_such_networks_train_predict_score_and_are_saved(tmp_path):
    net, data, others = network(), sequences(), sequences(1)
    trainer = Trainer(AdamStepper(0.02), verbose=False)
    trainer.train_scorers = [Accuracy()]
    trainer.add_hook(StopAfterEpoch(30))
    trainer.add_hook(MonitorScores("others", [Accuracy()], name="others"))
    batches = Minibatches(25, shuffle=False, **others)
    trainer.train(net, Minibatches(10, **data), others=batches)
    scores = tools.evaluate(net, batches, [Accuracy()])
    assert scores["Accuracy"] == trainer.logs["others"]["Accuracy"][-1] > 0.6
    assert trainer.logs["rolling_training"]["Accuracy"][-1] > 0.9

    inputs = {name: others[name] for name in ("default", "mask")}
    predicted = net.predict(inputs, batch_size=7)
    assert predicted.shape == (B, 2)
    right = predicted.argmax(1) == others["targets"].ravel()
    assert right.mean() == pytest.approx(scores["Accuracy"])
    found = tools.extract(net, batches, ["TimePooling.outputs.default", OUTPUT])
    np.testing.assert_allclose(found[OUTPUT], predicted, rtol=1e-5)
    assert found["TimePooling.outputs.default"].shape == (B, 8)

    net.save_as_hdf5(tmp_path / "net.hdf5")
    again = Network.from_hdf5(tmp_path / "net.hdf5")
    assert np.array_equal(again.predict(inputs, batch_size=7), predicted)


def test_data_without_time_comes_as_one_step_or_as_it_is():
    net, data = network(), sequences()
    losses = set()
    for targets in (data["targets"], data["targets"][0], data["targets"].tolist()):
        net.provide_external_data({**data, "targets": targets})
        assert np.array_equal(net.get_input("targets"), data["targets"][0])
        net.forward_pass()
        losses.add(net.get_loss_values()["total_loss"])
    assert len(losses) == 1
    for targets in (np.zeros((2, B, 1)), np.zeros((1, B + 1, 1)), np.zeros((B,))):
        with pytest.raises(NetworkValidationError, match=r"\('B', 1\).*'targets'"):
            net.provide_external_data({**data, "targets": targets})


@pytest.mark.parametrize("shape", [(B,), (B, 1), (1, B, 1)])
def test_fit_takes_one_label_of_each_sequence(shape, tmp_path):
    net, data = network(), sequences()
    x = {name: data[name] for name in ("default", "mask")}
    with h5py.File(tmp_path / "y.hdf5", "w") as file:
        file["y"] = data["targets"].reshape(shape)
        for y in (data["targets"].reshape(shape), file["y"]):
            net.initialize(Gaussian(0.3), seed=1)
            trainer = Trainer.fit(net, x, y, 20, 20, AdamStepper(0.03), [Accuracy()])
            assert trainer.logs["rolling_training"]["Accuracy"][-1] > 0.75


@pytest.mark.parametrize(
    ("error", "scorer", "expected"),
    [
        (layers.SigmoidCE, Hamming(), lambda p, t: ((p > 0.5) == t).mean(1)),
        (
            layers.SquaredError,
            MeanSquaredError(),
            lambda p, t: 0.5 * ((p - t) ** 2).sum(1),
        ),
    ],
)
def test_scores_of_several_labels_with_a_mask_of_sequences(error, scorer, expected):
    net, data = network(error, 3, 3), sequences()
    net.set_handler(NumpyHandler(np.float64))
    rnd = np.random.RandomState(2)
    data["targets"] = rnd.randint(0, 2, (1, B, 3))
    scores = tools.evaluate(net, Minibatches(7, **data), [scorer])
    x = {name: data[name] for name in ("default", "mask")}
    rows = expected(net.predict(x), data["targets"][0])
    assert scores[scorer.__name__] == pytest.approx(rows.mean())


def test_a_mask_over_time_does_not_fit_scores_without():
    net, data = network(), sequences()
    with pytest.raises(ValidationError, match=r"Accuracy.*mask.*\(7, 60, 1\)"):
        tools.evaluate(net, Minibatches(B, **data), [Accuracy()], mask_name="mask")


def test_scores_have_the_mask_of_the_loss_if_that_has_no_time_either():
    names = {"default": 3, "targets": 1, "mask": 1}
    inp = layers.Input({name: ("B", n) for name, n in names.items()})
    error, mask = layers.SoftmaxCE("Output"), layers.Mask()
    inp >> layers.FullyConnected(2, "linear") >> error - "loss" >> mask >> layers.Loss()
    inp - "targets" >> "targets" - error
    inp - "mask" >> "mask" - mask
    net = Network.from_layer(inp)
    net.initialize({"Fully*": {"W": 0, "bias": [1, 0]}})  # all are of class 0
    labels = np.arange(B).reshape(1, B, 1)
    data = {"default": np.zeros((1, B, 3)), "targets": (labels < 30).astype(int)}
    data["mask"] = (labels >= 20).astype(int)
    scores = tools.evaluate(net, Minibatches(B, **data), [Accuracy()], mask_name="")
    assert scores["Accuracy"] == 30 / 40


def test_pieces_are_put_together_for_it():
    net, data = network(), sequences()
    whole = Minibatches(20, shuffle=False, cut_according_to=None, **data)
    expected = tools.evaluate(net, whole, [Accuracy()])
    assert tools.evaluate(net, Subsequences(whole, 2), [Accuracy()]) == expected
    trainer = Trainer(AdamStepper(), verbose=False, carry_context=True)
    with pytest.raises(ValidationError, match="'TimePooling' needs whole sequences"):
        trainer.train(net, Subsequences(whole, 2))


def test_static_outputs_of_pieces_are_scored_once_each():
    inp = layers.Input({"default": ("B", 2), "targets": ("B", 1), "x": ("T", "B", 2)})
    out = layers.SoftmaxCE(name="Output")
    inp >> out
    inp - "targets" >> "targets" - out - "loss" >> layers.Loss()
    inp - "x" >> layers.Recurrent(2)
    net = Network.from_layer(inp)
    net.output_name = OUTPUT
    labels = np.arange(B).reshape(1, B, 1) < 40
    data = {
        "default": np.tile([0.0, 1.0], (1, B, 1)),  # all are taken for class 1
        "targets": labels.astype(int),
        "x": np.zeros((T, B, 2)),
    }
    lengths = [T] * 30 + [3] * 30  # so batches have 3 pieces and 1
    batches = Minibatches(30, False, lengths, **data)
    for iterator in (batches, Subsequences(batches, 3)):
        scores = tools.evaluate(net, iterator, [Accuracy()])
        assert scores["Accuracy"] == 40 / 60
