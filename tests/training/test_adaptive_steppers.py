"""The adaptive steppers, against their formulas written out in float64."""

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.describable import create_from_description, get_description
from brainstorm.handlers import NumpyHandler
from brainstorm.structure.network import Network
from brainstorm.training import (
    AdaDeltaStepper,
    AdaGradStepper,
    AdamStepper,
    AdamWStepper,
    LionStepper,
    MuonStepper,
    RmsPropStepper,
)
from brainstorm.utils import ValidationError
from tests.measuring import peak_of

NUMPY_BUFFERS = np.lib.NumpyVersion(np.__version__) < "2.3.0"

STEPPERS = [AdamStepper, AdamWStepper, RmsPropStepper, AdaDeltaStepper, AdaGradStepper]
STEPPERS += [LionStepper, MuonStepper]
all_steppers = pytest.mark.parametrize("stepper_class", STEPPERS)


def flat_gradient(p, data):
    """Of the loss in conftest.py, with the parameters W and bias in a row."""
    x, t = data["default"][0], data["targets"][0]
    error = x @ p[:6].reshape(2, 3).T + p[6:] - t
    return np.concatenate([(error.T @ x).ravel(), error.sum(axis=0)]) / len(x)


def adam(p, gradient, steps, rate, b1, b2, epsilon, decay=0.0):
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t in range(1, steps + 1):
        g = gradient(p)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        p = p - rate * decay * p
        p = p - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + epsilon)
    return p


def rms_prop(p, gradient, steps, rate, decay, epsilon):
    s = np.zeros_like(p)
    for _ in range(steps):
        g = gradient(p)
        s = decay * s + (1 - decay) * g**2
        p = p - rate * g / (np.sqrt(s) + epsilon)
    return p


def ada_delta(p, gradient, steps, rate, decay, epsilon):
    s, u = np.zeros_like(p), np.zeros_like(p)
    for _ in range(steps):
        g = gradient(p)
        s = decay * s + (1 - decay) * g**2
        step = g * np.sqrt(u + epsilon) / np.sqrt(s + epsilon)
        u = decay * u + (1 - decay) * step**2
        p = p - rate * step
    return p


def ada_grad(p, gradient, steps, rate, epsilon):
    s = np.zeros_like(p)
    for _ in range(steps):
        g = gradient(p)
        s = s + g**2
        p = p - rate * g / (np.sqrt(s) + epsilon)
    return p


def lion(p, gradient, steps, rate, b1, b2, decay):
    m = np.zeros_like(p)
    for _ in range(steps):
        g = gradient(p)
        p = p - rate * (np.sign(b1 * m + (1 - b1) * g) + decay * p)
        m = b2 * m + (1 - b2) * g
    return p


def orthogonal(x):
    x = x / (np.linalg.norm(x) + 1e-7)
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
    return x


def muon(p, gradient, steps, rate, momentum, decay, share):
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t in range(1, steps + 1):
        g, (b1, b2) = gradient(p), (0.9, 0.999)
        W, b = p[:6].copy(), p[6:].copy()
        m[:6] = momentum * m[:6] + (1 - momentum) * g[:6]
        step = momentum * m[:6] + (1 - momentum) * g[:6]
        W = W - rate * decay * W - rate * orthogonal(step.reshape(2, 3)).ravel()
        m[6:] = b1 * m[6:] + (1 - b1) * g[6:]
        v[6:] = b2 * v[6:] + (1 - b2) * g[6:] ** 2
        root = np.sqrt(v[6:] / (1 - b2**t)) + 1e-8
        p = np.concatenate([W, b - share * rate * m[6:] / (1 - b1**t) / root])
    return p


def run(net, stepper, data, steps=6):
    stepper.start(net)
    for _ in range(steps):
        net.provide_external_data(data)
        stepper.run()


@pytest.mark.parametrize(
    ("stepper", "formula", "arguments"),
    [
        (AdamStepper(), adam, (0.001, 0.9, 0.999, 1e-8)),
        (AdamStepper(0.1, 0.5, 0.7, 0.01), adam, (0.1, 0.5, 0.7, 0.01)),
        (AdamWStepper(), adam, (0.001, 0.9, 0.999, 1e-8, 0.01)),
        (AdamWStepper(0.1, weight_decay=0.3), adam, (0.1, 0.9, 0.999, 1e-8, 0.3)),
        (RmsPropStepper(), rms_prop, (0.001, 0.9, 1e-8)),
        (RmsPropStepper(0.1, 0.5, 0.01), rms_prop, (0.1, 0.5, 0.01)),
        (AdaDeltaStepper(), ada_delta, (1.0, 0.95, 1e-6)),
        (AdaDeltaStepper(0.5, 0.8, 0.01), ada_delta, (0.5, 0.8, 0.01)),
        (AdaGradStepper(), ada_grad, (0.01, 1e-8)),
        (AdaGradStepper(0.3, 0.01), ada_grad, (0.3, 0.01)),
        (LionStepper(), lion, (0.0001, 0.9, 0.99, 0.0)),
        (LionStepper(0.01, 0.5, 0.7, 0.3), lion, (0.01, 0.5, 0.7, 0.3)),
        (MuonStepper(), muon, (0.02, 0.95, 0.0, 0.05)),
        (
            MuonStepper(0.1, momentum=0.8, weight_decay=0.3, adam_share=0.2),
            muon,
            (0.1, 0.8, 0.3, 0.2),
        ),
    ],
)
@pytest.mark.parametrize("steps", [1, 2, 30])
def test_formula(net, data, stepper, formula, arguments, steps):
    p = net.get("parameters")
    expected = formula(p, lambda p: flat_gradient(p, data), steps, *arguments)
    stepper = create_from_description(get_description(stepper))
    run(net, stepper, data, steps)
    np.testing.assert_allclose(net.get("parameters"), expected, rtol=1e-11, atol=1e-13)
    assert np.all(np.abs(expected - p) > 1e-5)


@all_steppers
def test_state_moves_to_a_new_stepper(net, data, stepper_class):
    initial = net.get("parameters")
    run(net, stepper_class(), data, steps=6)
    expected = net.get("parameters")
    net.handler.set_from_numpy(net.buffer.parameters, initial)
    first = stepper_class()
    run(net, first, data, steps=2)
    run(net, first, data, steps=2)
    second = stepper_class()
    second.set_state(first.get_state())
    run(net, second, data, steps=2)
    np.testing.assert_array_equal(net.get("parameters"), expected)


def test_the_count_of_updates_is_part_of_the_state(net, data):
    stepper = AdamStepper()
    assert stepper.get_state() == {}
    run(net, stepper, data, steps=3)
    assert stepper.get_state()["update_count"] == [3]
    stepper.start(Network.from_architecture(net.architecture))
    assert stepper.get_state()["update_count"] == [0]


@pytest.mark.parametrize(
    "count", [[-1], [0.5], [1, 2], [float("nan")], [float("inf")], None, "1", 1j, {}]
)
def test_bad_count_of_updates(count):
    zeros = np.zeros(8)
    stepper = AdamStepper()
    with pytest.raises(ValidationError, match="^AdamStepper: update_count has to "):
        stepper.set_state({"mean": zeros, "variance": zeros, "update_count": count})
    assert stepper.update_count == 0


@all_steppers
@pytest.mark.parametrize("state", [None, "mean", 3, [1.0]])
def test_states_are_dicts(stepper_class, state):
    stepper = stepper_class()
    with pytest.raises(ValidationError, match=f"{stepper_class.__name__} is a dict"):
        stepper.set_state(state)
    assert stepper.get_state() == {}


@all_steppers
@pytest.mark.parametrize("values", [None, "zeros", [[1], [1, 2]], np.ones(8) * 1j])
def test_states_consist_of_numbers(net, data, stepper_class, values):
    stepper = stepper_class()
    name = stepper.slots[0]
    state = {**dict.fromkeys(stepper.slots, np.zeros(8)), name: values}
    with pytest.raises(ValidationError, match=f"^{stepper_class.__name__}: {name}"):
        stepper.set_state(state)
    run(net, stepper, data, steps=1)


@all_steppers
@pytest.mark.parametrize("wrong", [None, "net", 3, {}])
def test_start_needs_a_network(net, data, stepper_class, wrong):
    stepper = stepper_class()
    run(net, stepper, data, steps=1)
    before = stepper.get_state()
    with pytest.raises(ValidationError, match="^net: expected a Network, got"):
        stepper.start(wrong)
    for name, array in stepper.get_state().items():
        np.testing.assert_array_equal(array, before[name])


def test_bad_state():
    with pytest.raises(ValidationError, match="consists of 'mean', 'variance', not"):
        AdamStepper().set_state({"velocity": np.zeros(8), "update_count": [1]})


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: AdamStepper(-1), "AdamStepper: learning_rate .* not -1"),
        (lambda: AdamStepper(float("nan")), "AdamStepper: learning_rate .* not nan"),
        (lambda: AdamStepper(10**400), "AdamStepper: learning_rate .* not 1000"),
        (lambda: AdamStepper(beta1=True), "beta1 .* not True"),
        (lambda: AdamStepper(epsilon=None), "epsilon .* not None"),
        (lambda: AdamStepper(beta1=1), r"beta1 .* in \[0, 1\), not 1"),
        (lambda: AdamStepper(beta2=-0.1), "beta2 .* not -0.1"),
        (lambda: AdamStepper(epsilon=0), "AdamStepper: epsilon has to be above 0"),
        (lambda: AdamWStepper(weight_decay=-1), "AdamWStepper: weight_decay .* -1"),
        (lambda: RmsPropStepper(decay="a"), "RmsPropStepper: decay .* not 'a'"),
        (lambda: AdaDeltaStepper(decay=2), "AdaDeltaStepper: decay .* not 2"),
        (lambda: AdaGradStepper(epsilon=-1), "AdaGradStepper: epsilon .* not -1"),
        (lambda: LionStepper(beta1=1), r"LionStepper: beta1 .* in \[0, 1\), not 1"),
        (lambda: MuonStepper(momentum=1), "MuonStepper: momentum .* not 1"),
        (lambda: MuonStepper(adam_layers="Out"), "adam_layers .* list .* 'Out'"),
        (lambda: MuonStepper(adam_layers=[3]), "adam_layers .* list .*3"),
    ],
)
def test_bad_arguments(make, text):
    with pytest.raises(ValidationError, match=text):
        make()


@all_steppers
def test_run_before_start(stepper_class):
    with pytest.raises(ValidationError, match=f"{stepper_class.__name__}: call start"):
        stepper_class().run()


@all_steppers
def test_description(net, data, stepper_class):
    stepper = stepper_class()
    run(net, stepper, data, steps=1)
    assert get_description(stepper) == {"@type": stepper_class.__name__}
    other = {"beta1": 0.5} if stepper_class is LionStepper else {"epsilon": 0.25}
    stepper = stepper_class(learning_rate=0.5, **other)
    description = get_description(stepper)
    assert description == {
        "@type": stepper_class.__name__,
        "learning_rate": 0.5,
        **other,
    }
    assert vars(create_from_description(description)) == vars(stepper)


@all_steppers
def test_an_update_allocates_no_arrays(stepper_class):
    inp = layers.Input({"default": ("T", "B", 200), "targets": ("T", "B", 200)})
    error = layers.SquaredError()
    inp >> layers.FullyConnected(200, activation="linear") >> error
    inp - "targets" >> "targets" - error
    error - "loss" >> layers.Loss()
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler())
    net.initialize(0.1)
    stepper = stepper_class()
    x = np.ones((1, 1, 200))
    run(net, stepper, {"default": x, "targets": x}, steps=2)
    # Before NumPy 2.3 it buffers 8192 elements of a row that is divided by a number.
    buffers = stepper_class.__name__ == "MuonStepper" and NUMPY_BUFFERS
    assert peak_of(stepper.run) < 4096 + 8192 * 4 * buffers


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (4, 4), (1, 6), (6, 1)])
def test_steps_of_muon_have_singular_values_near_one(shape):
    handler, rnd = NumpyHandler(np.float64), np.random.RandomState(0)
    p, g, mean = np.zeros(shape), 100 * rnd.randn(*shape), np.zeros(shape)
    handler.muon_update(p, g, mean, 1.0, 0.9, 0.0)
    scale = max(1, shape[0] / shape[1]) ** 0.5
    values = np.linalg.svd(p / scale, compute_uv=False)
    assert np.all((values > 0.6) & (values < 1.3))
    # They go down: the step is along the gradient.
    assert np.sum(p * g) < 0
    handler.muon_update(p, np.zeros(shape), np.zeros(shape), 1.0, 0.9, 0.0)
    assert np.isfinite(p).all()


def test_what_goes_by_muon():
    """Kernels as matrices; not embeddings, biases, frozen layers and chosen ones."""
    inp = layers.Input({"default": ("T", "B", 1)})
    chain = inp >> layers.Embedding(5, 12) >> layers.Reshape((2, 2, 3))
    chain = chain >> layers.Convolution2D(4, 2, name="Conv")
    chain = chain >> layers.FullyConnected(6, name="Frozen", trainable=False)
    chain = chain >> layers.FullyConnected(5, name="Hidden")
    net = Network.from_layer(
        chain >> layers.FullyConnected(2, name="Out") >> layers.Loss()
    )
    stepper = MuonStepper(adam_layers=["Ou*"])
    stepper.start(net)
    sizes = {shape for _, shape in stepper._matrices}
    assert sizes == {(4, 12), (5, 6)}
    rest = sum(part.stop - part.start for part in stepper._others)
    assert rest == 5 * 12 + 4 + 5 + (2 * 5 + 2)
    with pytest.raises(
        ValidationError, match="adam_layers: there is no layer 'Output'"
    ):
        MuonStepper(adam_layers=["Output"]).start(net)
