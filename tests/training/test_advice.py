"""What training says where a beginner forgot something."""

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.data_iterators import Minibatches
from brainstorm.hooks import MonitorScores, StopAfterEpoch, StopOnNan
from brainstorm.scorers import Accuracy
from brainstorm.tools import get_in_out_layers
from brainstorm.training import ForwardStepper, SgdStepper, Trainer
from brainstorm.utils import ValidationError

X = np.random.default_rng(0).normal(size=(2, 6, 3))
Y = np.arange(12).reshape(2, 6, 1) % 2
MASK = np.ones((2, 6, 1))


def network(initialized=True):
    inp, out = get_in_out_layers("classification", 3, 2)
    net = bs.Network.from_layer(inp >> out)
    if initialized:
        net.initialize(0.1)
    return net


def train(net, hooks=(), scorers=(), rate=0.1, stepper=None, **more):
    trainer = Trainer(stepper or SgdStepper(rate), verbose=False)
    trainer.train_scorers = list(scorers)
    for hook in (StopAfterEpoch(2), *hooks):
        trainer.add_hook(hook)
    trainer.train(net, Minibatches(3, default=X, targets=Y, **more))
    return trainer


def with_idle_mask():
    inp = layers.Input(
        {
            "default": ("T", "B", 3),
            "targets": ("T", "B", 1),
            "mask": ("T", "B", 1),
        }
    )
    out = layers.SoftmaxCE(name="Output")
    inp >> layers.FullyConnected(2, activation="linear") >> out
    inp - "targets" >> "targets" - out
    net = bs.Network.from_layer(out - "loss" >> layers.Loss())
    net.initialize(0.1)
    return net


def test_a_network_that_nobody_initialized_is_warned_of_once():
    net = network(initialized=False)
    with pytest.warns(UserWarning, match=r"net\.initialize\(") as found:
        train(net)
    assert len(found) == 1
    assert found[0].filename == __file__


@pytest.mark.parametrize("how", ["initialized", "filled", "zeros on purpose"])
def test_a_network_that_has_values_is_not_warned_of(how):
    net = network(initialized=how == "initialized")
    if how == "filled":
        net.buffer.Output_projection.parameters.W[:] = 1
    if how.startswith("zeros"):
        net.initialize(0)
    train(net)


def test_a_loaded_network_is_not_warned_of(tmp_path):
    net = network(initialized=False)
    net.buffer.parameters[:] = 0.5
    net.save_as_hdf5(tmp_path / "net.hdf5")
    train(bs.Network.from_hdf5(tmp_path / "net.hdf5"))


def test_training_without_a_loss_is_an_error():
    inp = layers.Input({"default": ("T", "B", 3)})
    net = bs.Network.from_layer(inp >> layers.FullyConnected(2))
    net.initialize(0.1)
    with pytest.raises(
        ValidationError, match=r"SgdStepper: .* no Loss layer.*Loss\(\)"
    ):
        SgdStepper(0.1).start(net)
    ForwardStepper().start(net)


def test_an_idle_mask_is_warned_of():
    with pytest.warns(UserWarning, match="'mask' is used by no layer, no scorer"):
        train(with_idle_mask(), mask=MASK)


@pytest.mark.parametrize(
    ("hooks", "scorers"),
    [
        ([], [Accuracy(mask_name="mask")]),
        ([MonitorScores("data", [Accuracy(mask_name="mask")])], []),
    ],
)
def test_a_mask_that_somebody_reads_is_not_warned_of(hooks, scorers):
    trainer = Trainer(SgdStepper(0.1), verbose=False)
    trainer.train_scorers = scorers
    for hook in (StopAfterEpoch(1), *hooks):
        trainer.add_hook(hook)
    data = Minibatches(3, default=X, targets=Y, mask=MASK)
    trainer.train(with_idle_mask(), data, data=data)


def test_the_first_loss_that_is_not_finite_is_warned_of():
    net = network()
    net.buffer.Output_projection.parameters.W[0, 0] = np.nan
    with pytest.warns(UserWarning, match="not finite") as found:
        train(net)
    assert len(found) == 1
    text = str(found[0].message)
    assert "update 1: 'total_loss' is not finite" in text
    assert "layer 'Output_projection' is the first" in text
    assert found[0].filename == __file__


def test_where_a_hook_tells_of_it_there_is_no_warning():
    net = network()
    net.buffer.Output_projection.parameters.W[0, 0] = np.nan
    train(net, [StopOnNan(timescale="update")])


def test_fit_initializes_by_itself():
    net = network(initialized=False)
    Trainer.fit(net, X, Y, epochs=1, stepper=SgdStepper(0.1))
    assert net.initializers == {"default": "auto"}
    net = network()
    Trainer.fit(net, X, Y, epochs=1, stepper=SgdStepper(0.1))
    assert net.initializers == {"default": 0.1}
