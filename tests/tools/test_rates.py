"""Finding a learning rate."""

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import training
from brainstorm.data_iterators import Minibatches
from brainstorm.randomness import global_rnd
from brainstorm.structure.network import Network
from brainstorm.tools import LearningRateFinder, LearningRates
from brainstorm.utils import IteratorValidationError, ValidationError
from brainstorm.value_modifiers import ConstrainL2Norm

X = np.random.default_rng(0).normal(size=(1, 60, 3))
Y = X[:, :, :1] > 0


def data():
    return Minibatches(10, default=X, targets=Y)


def network(letters="Ft6"):
    net = bs.tools.create_net_from_spec("classification", 3, 2, letters)
    net.initialize("glorot", seed=1)
    return net


def state_of(net, stepper, iterator):
    parts = [net.get("parameters"), net.get("gradients")]
    parts += [np.array(v) for v in net.buffer.parameters.reshape(-1)]
    parts.append(np.array(stepper.learning_rate))
    parts += [*stepper.get_state().values()]
    for rnd in (global_rnd, net.rnd, iterator.rnd):
        parts += [np.array(part) for part in rnd.get_state()]
    parts += [np.array(str(net.handler.get_random_state()))]
    parts += [net.get(f"{name}.outputs.{o}") for name, o in outputs_of(net)]
    return parts


def outputs_of(net):
    return [(n, o) for n, layer in net.layers.items() for o in layer.out_shapes]


STEPPERS = [
    training.SgdStepper(),
    training.MomentumStepper(0.1, 0.9),
    training.NesterovStepper(0.1, 0.9),
    training.AdamStepper(),
    training.AdamWStepper(),
    training.RmsPropStepper(),
    training.AdaGradStepper(),
    training.AdaDeltaStepper(),
]


@pytest.mark.parametrize("stepper", STEPPERS, ids=lambda s: type(s).__name__)
def test_everything_stays_as_it_was(stepper):
    net, iterator = network("Ft6 D0.2"), data()
    net.set_weight_modifiers({"*": {"W": ConstrainL2Norm(1.0)}})
    trainer = bs.Trainer(stepper, verbose=False)
    trainer.add_hook(bs.hooks.StopAfterEpoch(1))
    trainer.train(net, iterator)
    before = state_of(net, stepper, iterator)
    found = LearningRateFinder(net, iterator, stepper, highest=1e3)
    for a, b in zip(before, state_of(net, stepper, iterator), strict=True):
        np.testing.assert_array_equal(a, b)
    assert stepper.net is net
    assert 1e-6 < found.suggestion < 1e3
    again = LearningRateFinder(net, iterator, stepper, highest=1e3)
    np.testing.assert_array_equal(found.losses, again.losses)


def test_losses_are_those_of_updates():
    """Of one batch, so that a loop of plain gradient descent has the same."""
    net, batch = network(), {"default": X, "targets": Y}
    found = LearningRateFinder(net, batch, training.SgdStepper(), 0.01, 1.0, 5, 0.0)
    np.testing.assert_allclose(found.rates, 0.01 * 10 ** (np.arange(5) / 2))
    other, losses = network(), []
    for rate in found.rates:
        other.provide_external_data(batch)
        other.forward_pass(training_pass=True)
        other.backward_pass()
        losses.append(other.get_loss_values()["total_loss"])
        other.buffer.parameters[:] -= rate * other.buffer.gradients
    np.testing.assert_allclose(found.losses, losses)
    np.testing.assert_array_equal(found.smoothed, found.losses)


def line(initializers):
    """A network whose output is its input times a weight."""
    inp = bs.layers.Input({"default": ("T", "B", 1), "targets": ("T", "B", 1)})
    error = bs.layers.SquaredError(name="Error")
    inp >> bs.layers.FullyConnected(1, activation="linear", name="Fc") >> error
    inp - "targets" >> "targets" - error
    error - "loss" >> bs.layers.Loss()
    net = Network.from_layer(inp)
    if initializers is not None:
        net.initialize(initializers)
    return net


def test_the_quadratic():
    """Gradient descent on c/2 w^2 diverges above 2 / c."""
    net = line({"Fc": {"W": [[1.0]], "bias": 0.0}})
    net.set_trainable(Fc={"bias": False})
    curvature = 25.0  # of half the squared error for inputs of 5
    batch = {"default": np.full((1, 1, 1), 5.0), "targets": np.zeros((1, 1, 1))}
    stepper = training.SgdStepper()
    found = LearningRateFinder(net, batch, stepper, 1e-5, 100.0, 300, 0.0)
    assert found.rates[-1] < 100
    lowest = found.rates[np.argmin(found.losses)]
    assert 1 / curvature < lowest < 3 / curvature
    assert found.suggestion == pytest.approx(lowest / 10)
    assert found.steepest < lowest


def test_smoothing_and_suggestions():
    losses = [4.0, 4.0, 2.0, 1.0, 3.0]
    found = LearningRates([0.1, 1, 10, 100, 1000], losses)
    assert found.suggestion == 10
    assert found.steepest == 10
    smooth = LearningRates([0.1, 1, 10, 100, 1000], losses, 0.5)
    weights = 0.5 ** np.arange(5)
    for i, value in enumerate(smooth.smoothed):
        expected = np.average(losses[: i + 1], weights=weights[: i + 1][::-1])
        assert value == pytest.approx(expected)
    assert LearningRates([1, 2], [1.0, 2.0]).steepest == 1
    assert repr(found) == (
        "<LearningRates: 5 updates from 0.1 to 1e+03, suggestion 10>"
    )


def test_the_suggestion_trains():
    net, iterator = network(), data()
    stepper = training.AdamStepper(LearningRateFinder(net, iterator).suggestion)
    trainer = bs.Trainer.fit(net, X[0], Y[0, :, 0], epochs=40, stepper=stepper)
    losses = trainer.logs["rolling_training"]["total_loss"]
    assert losses[-1] < 0.5 * losses[0]


def test_a_blank_network_stays_blank():
    net = line(None)
    batch = {"default": np.ones((1, 3, 1)), "targets": np.ones((1, 3, 1))}
    found = LearningRateFinder(net, batch)
    assert found.losses[0] != pytest.approx(0.5)  # that of a weight of 0
    assert not net.get("parameters").any()


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    found = LearningRateFinder(network(), data(), updates=20)
    (axes,) = found.plot(tmp_path / "rates.png").axes
    assert axes.get_xscale() == "log"
    assert axes.lines[0].get_xdata().tolist() == found.rates.tolist()
    assert (tmp_path / "rates.png").read_bytes()[1:4] == b"PNG"
    with pytest.raises(ValidationError, match=r"\.png"):
        found.plot("rates.txt")


class OwnStepper(training.SgdStepper):
    """A stepper of a user."""


def test_steppers_of_ones_own():
    stepper = OwnStepper(0.3)
    assert len(LearningRateFinder(network(), data(), stepper, updates=3).rates) == 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"stepper": training.ForwardStepper()}, "a ForwardStepper has no learning_ra"),
        ({"stepper": training.RlsStepper()}, "a RlsStepper has no learning_rate"),
        ({"stepper": training.SgdStepper}, "expected a TrainingStepper, got type"),
        ({"lowest": 0}, "lowest has to be above 0"),
        ({"lowest": 1, "highest": 0.1}, "lowest has to be below highest"),
        ({"highest": np.inf}, "highest"),
        ({"updates": 1}, "updates has to be a whole number of at least 2"),
        ({"smoothing": 1}, "smoothing has to be below 1"),
        ({"diverges": 0.5}, "diverges"),
        ({"data": data}, "data"),
        ({"network": 3}, "net"),
    ],
)
def test_bad_arguments(arguments, text):
    arguments = {"network": network(), "data": data(), **arguments}
    with pytest.raises((ValidationError, IteratorValidationError), match=text):
        LearningRateFinder(**arguments)


def test_networks_without_loss():
    inp = bs.layers.Input({"default": ("T", "B", 3)})
    inp >> bs.layers.FullyConnected(2)
    with pytest.raises(ValidationError, match="no Loss layer"):
        LearningRateFinder(Network.from_layer(inp), {"default": X})


def test_a_loss_that_is_never_finite():
    batch = {"default": np.full((1, 2, 3), np.inf), "targets": np.zeros((1, 2, 1))}
    with pytest.raises(ValidationError, match="not finite at the lowest"):
        LearningRateFinder(network(), batch)
