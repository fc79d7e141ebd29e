"""The steppers against their formulas, written out for a linear regression."""

import copy
import pickle

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.describable import create_from_description, get_description
from brainstorm.handlers import NumpyHandler
from brainstorm.structure.network import Network
from brainstorm.training.steppers import (
    ForwardStepper,
    MomentumStepper,
    NesterovStepper,
    SgdStepper,
    TrainingStepper,
)
from brainstorm.utils import ValidationError
from tests.measuring import peak_of

STEPS = 6


def gradient(p, data):
    """Of the loss in conftest.py, by the parameter's name."""
    x, t = data["default"][0], data["targets"][0]
    error = x @ p["W"].T + p["bias"] - t
    return {"W": error.T @ x / len(x), "bias": error.sum(axis=0) / len(x)}


def parameters(net):
    return {n: net.get(f"Fc.parameters.{n}") for n in ("W", "bias")}


def assert_same(net, expected):
    for name, values in expected.items():
        np.testing.assert_allclose(
            net.get(f"Fc.parameters.{name}"), values, rtol=1e-12, atol=1e-14
        )


def run(net, stepper, data, steps=STEPS):
    stepper.start(net)
    for _ in range(steps):
        net.provide_external_data(data)
        stepper.run()


def test_sgd(net, data):
    p = parameters(net)
    for _ in range(STEPS):
        g = gradient(p, data)
        p = {n: p[n] - 0.2 * g[n] for n in p}
    run(net, SgdStepper(learning_rate=0.2), data)
    assert_same(net, p)


@pytest.mark.parametrize(("scale", "rate"), [(True, 0.3 * 0.1), (False, 0.3)])
def test_momentum(net, data, scale, rate):
    p = parameters(net)
    v = {n: np.zeros_like(p[n]) for n in p}
    for _ in range(STEPS):
        g = gradient(p, data)
        v = {n: 0.9 * v[n] - rate * g[n] for n in p}
        p = {n: p[n] + v[n] for n in p}
    run(net, MomentumStepper(0.3, 0.9, scale_learning_rate=scale), data)
    assert_same(net, p)


@pytest.mark.parametrize(("scale", "rate"), [(True, 0.3 * 0.1), (False, 0.3)])
def test_nesterov(net, data, scale, rate):
    p = parameters(net)
    v = {n: np.zeros_like(p[n]) for n in p}
    for _ in range(STEPS):
        v = {n: 0.9 * v[n] for n in p}
        p = {n: p[n] + v[n] for n in p}
        g = gradient(p, data)
        v = {n: v[n] - rate * g[n] for n in p}
        p = {n: p[n] - rate * g[n] for n in p}
    run(net, NesterovStepper(0.3, 0.9, scale_learning_rate=scale), data)
    assert_same(net, p)


def test_momentum_without_momentum_is_sgd_by_default(net, data):
    p = parameters(net)
    g = gradient(p, data)
    run(net, MomentumStepper(), data, steps=1)
    assert_same(net, {n: p[n] - 0.1 * g[n] for n in p})


def test_the_learning_rate_can_be_changed(net, data):
    stepper = SgdStepper(learning_rate=0.1)
    run(net, stepper, data, steps=1)
    p = parameters(net)
    stepper.learning_rate = 0.5
    net.provide_external_data(data)
    stepper.run()
    g = gradient(p, data)
    assert_same(net, {n: p[n] - 0.5 * g[n] for n in p})


@pytest.mark.parametrize("use_training_pass", [False, True])
def test_forward_stepper(use_training_pass):
    inp = layers.Input({"default": ("T", "B", 200)})
    inp >> layers.Dropout(0.5, name="Out")
    net = Network.from_layer(inp)
    stepper = ForwardStepper(use_training_pass)
    stepper.start(net)
    net.provide_external_data({"default": np.ones((1, 2, 200))})
    stepper.run()
    dropped = np.any(net.get("Out.outputs.default") == 0)
    assert dropped == use_training_pass


def test_forward_stepper_changes_no_parameters(net, data):
    p = parameters(net)
    run(net, ForwardStepper(), data)
    for name, values in p.items():
        np.testing.assert_array_equal(net.get(f"Fc.parameters.{name}"), values)
    x, t = data["default"][0], data["targets"][0]
    expected = 0.5 * np.sum((x @ p["W"].T + p["bias"] - t) ** 2) / len(x)
    assert net.get_loss_values()["total_loss"] == pytest.approx(expected)


# -- state -------------------------------------------------------------------


@pytest.mark.parametrize("stepper_class", [MomentumStepper, NesterovStepper])
def test_starting_again_continues(net, data, stepper_class):
    initial = parameters(net)
    run(net, stepper_class(0.3, 0.9), data, steps=6)
    expected = net.get("parameters")
    net.initialize({"Fc": initial})
    stepper = stepper_class(0.3, 0.9)
    run(net, stepper, data, steps=4)
    run(net, stepper, data, steps=2)
    np.testing.assert_array_equal(net.get("parameters"), expected)


@pytest.mark.parametrize("stepper_class", [MomentumStepper, NesterovStepper])
def test_state_moves_to_a_new_stepper(net, data, stepper_class):
    initial = parameters(net)
    run(net, stepper_class(0.3, 0.9), data, steps=6)
    expected = net.get("parameters")
    net.initialize({"Fc": initial})
    first = stepper_class(0.3, 0.9)
    run(net, first, data, steps=4)
    second = stepper_class(0.3, 0.9)
    second.set_state(first.get_state())
    run(net, second, data, steps=2)
    np.testing.assert_array_equal(net.get("parameters"), expected)


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
@pytest.mark.parametrize("stepper_class", [MomentumStepper, NesterovStepper])
def test_copies_go_on(net, data, stepper_class, how):
    stepper = stepper_class(0.3, 0.9)
    run(net, stepper, data, steps=4)
    other, second = how((net, stepper))
    for one, its_stepper in ((net, stepper), (other, second)):
        run(one, its_stepper, data, steps=2)
    np.testing.assert_array_equal(other.get("parameters"), net.get("parameters"))


def test_state_moves_to_another_handler(net, data):
    stepper = MomentumStepper(0.3, 0.9)
    run(net, stepper, data, steps=3)
    velocity = stepper.get_state()["velocity"]
    assert np.any(velocity != 0)
    net.set_handler(NumpyHandler(np.float32))
    stepper.start(net)
    moved = stepper.get_state()["velocity"]
    assert moved.dtype == np.float32
    np.testing.assert_array_equal(moved, velocity.astype(np.float32))


def test_another_network_starts_from_zero(net, data):
    stepper = MomentumStepper(0.3, 0.9)
    run(net, stepper, data, steps=3)
    stepper.start(Network.from_architecture(net.architecture))
    np.testing.assert_array_equal(stepper.get_state()["velocity"], np.zeros(8))


def test_state_is_a_copy(net, data):
    stepper = MomentumStepper(0.3, 0.9)
    run(net, stepper, data, steps=1)
    state = stepper.get_state()
    before = state["velocity"].copy()
    stepper.run()
    np.testing.assert_array_equal(state["velocity"], before)
    restored = MomentumStepper(0.3, 0.9)
    restored.set_state(state)
    state["velocity"][:] = 0
    np.testing.assert_array_equal(restored.get_state()["velocity"], before)


def test_steppers_without_state(net, data):
    for stepper in (SgdStepper(), ForwardStepper()):
        run(net, stepper, data, steps=1)
        assert stepper.get_state() == {}
        stepper.set_state({})


def test_state_that_does_not_fit(net):
    stepper = MomentumStepper()
    with pytest.raises(ValidationError, match=r"consists of 'velocity', not of 'v'"):
        stepper.set_state({"v": np.zeros(3)})
    stepper.set_state({"velocity": np.zeros(3)})
    with pytest.raises(
        ValidationError, match=r"velocity of shape \(8,\), .* got \(3,\)"
    ):
        stepper.start(net)


# -- arguments ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SgdStepper(-0.1), "SgdStepper: learning_rate .* not -0.1"),
        (lambda: SgdStepper("fast"), "learning_rate .* not 'fast'"),
        (lambda: MomentumStepper(float("nan")), "learning_rate .* not nan"),
        (lambda: MomentumStepper(0.1, 1.0), r"momentum .* in \[0, 1\), not 1.0"),
        (lambda: NesterovStepper(0.1, -0.5), "NesterovStepper: momentum .* not -0.5"),
    ],
)
def test_bad_arguments(make, text):
    with pytest.raises(ValidationError, match=text):
        make()


@pytest.mark.parametrize(
    "stepper_class", [SgdStepper, MomentumStepper, NesterovStepper, ForwardStepper]
)
def test_run_before_start(stepper_class):
    with pytest.raises(ValidationError, match=f"{stepper_class.__name__}: call start"):
        stepper_class().run()


@pytest.mark.parametrize(
    ("stepper", "description"),
    [
        (SgdStepper(), {"@type": "SgdStepper"}),
        (
            NesterovStepper(0.5, 0.9, False),
            {
                "@type": "NesterovStepper",
                "learning_rate": 0.5,
                "momentum": 0.9,
                "scale_learning_rate": False,
            },
        ),
        (ForwardStepper(True), {"@type": "ForwardStepper", "use_training_pass": True}),
    ],
)
def test_description(stepper, description):
    assert get_description(stepper) == description
    again = create_from_description(description)
    assert type(again) is type(stepper)
    assert get_description(again) == description


def test_description_of_a_started_stepper(net, data):
    stepper = MomentumStepper(0.3, 0.9)
    run(net, stepper, data, steps=1)
    assert get_description(stepper) == {
        "@type": "MomentumStepper",
        "learning_rate": 0.3,
        "momentum": 0.9,
    }


def test_the_base_class_can_not_run():
    with pytest.raises(NotImplementedError):
        TrainingStepper().run()


@pytest.mark.parametrize(
    "stepper_class", [SgdStepper, MomentumStepper, NesterovStepper]
)
def test_an_update_allocates_no_arrays(stepper_class):
    # One row only: NumPy itself has buffers for adding the bias to many.
    inp = layers.Input({"default": ("T", "B", 100), "targets": ("T", "B", 100)})
    error = layers.SquaredError()
    inp >> layers.FullyConnected(100, activation="linear") >> error
    inp - "targets" >> "targets" - error
    error - "loss" >> layers.Loss()
    net = Network.from_layer(inp)
    net.initialize(0.1)
    stepper = stepper_class(0.001)
    stepper.start(net)
    x = np.ones((1, 1, 100))
    net.provide_external_data({"default": x, "targets": x})
    stepper.run()
    stepper.run()
    assert peak_of(stepper.run) < 4096


@pytest.mark.parametrize("stage", ["forward_pass", "backward_pass"])
@pytest.mark.parametrize(
    "stepper", [SgdStepper(), MomentumStepper(0.1, 0.9), NesterovStepper(0.1, 0.9)]
)
def test_a_step_that_fails_moves_nothing(net, data, stepper, stage, monkeypatch):
    run(net, stepper, data, steps=3)
    before, state = net.get("parameters"), stepper.get_state()

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(net.layers["Fc"], stage, fail)
        with pytest.raises(KeyboardInterrupt):
            stepper.run()
    assert np.array_equal(net.get("parameters"), before)
    for name, values in state.items():
        assert np.array_equal(stepper.get_state()[name], values)


class MinimalStepper(TrainingStepper):
    """A user's stepper, whose constructor does not call that of the base class."""

    def __init__(self, rate):
        self.rate = rate

    def run(self):
        self.net.forward_pass(training_pass=True)
        self.net.backward_pass()
        p = self.net.buffer.parameters
        self.net.handler.mult_add_st(-self.rate, self.net.buffer.gradients, p)


def test_a_constructor_of_ones_own(net, data):
    p = parameters(net)
    expected = {n: p[n] - 0.1 * g for n, g in gradient(p, data).items()}
    stepper = MinimalStepper(0.1)
    run(net, stepper, data, steps=1)
    assert_same(net, expected)
    assert get_description(stepper) == {"@type": "MinimalStepper", "rate": 0.1}
    assert stepper.get_state() == {}
