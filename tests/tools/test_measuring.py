import numpy as np
import pytest

from brainstorm import Network, layers
from brainstorm.handlers import NumpyHandler
from brainstorm.tools import (
    effective_spectral_radius,
    memory_capacity,
    nrmse,
    rsquare,
)
from brainstorm.utils import UnknownNameError, ValidationError

RND = np.random.RandomState(6)


def test_errors_of_predictions():
    t = RND.randn(40, 2, 3) + np.array([1, 20, 300])
    assert rsquare(t, t) == 1
    assert nrmse(t, t) == 0
    mean = np.broadcast_to(t.mean(axis=(0, 1)), t.shape)
    assert nrmse(mean, t) == pytest.approx(1)
    assert rsquare(mean, t) == pytest.approx(0, abs=1e-12)
    one = t[..., :1]
    y = one + RND.randn(*one.shape)
    expected = np.sqrt(np.mean((y - one) ** 2)) / np.std(one)
    assert nrmse(y, one) == pytest.approx(expected)
    assert nrmse(y.ravel(), one.ravel()) == pytest.approx(expected)
    assert rsquare(y, one) == pytest.approx(1 - expected**2)
    assert nrmse(one + 1e-12, one) == pytest.approx(1e-12 / np.std(one), rel=1e-2)


def test_spectral_radius():
    R = np.diag([0.5, -0.8, 0.2])
    assert effective_spectral_radius(R) == pytest.approx(0.8)
    assert effective_spectral_radius(R, leak=0.1) == pytest.approx(0.95)
    turn = 2 * np.array([[0, -1], [1, 0]])
    assert effective_spectral_radius(turn, 0.3) == pytest.approx(np.hypot(0.7, 0.6))


def delay_line(n, noise=0.0):
    """A reservoir whose units hold the last n inputs."""
    inp = layers.Input({"default": ("T", "B", 1)})
    net = Network.from_layer(inp >> layers.Recurrent(n, "linear", name="Line"))
    net.set_handler(NumpyHandler(np.float64))
    W = np.eye(n, 1)
    net.initialize(Line={"W": W, "R": np.eye(n, k=-1), "bias": 0})
    return net


def test_memory_capacity_of_a_delay_line():
    # The first unit holds the input itself, the others those of n - 1 steps before.
    capacities = memory_capacity(delay_line(6), "Line", longest=12, seed=1)
    np.testing.assert_allclose(capacities[:5], 1, atol=1e-9)
    assert capacities[5:].max() < 0.05
    again = memory_capacity(delay_line(6), "Line", longest=12, seed=1)
    np.testing.assert_array_equal(again, capacities)


def test_a_reservoir_that_hears_nothing_remembers_nothing():
    net = delay_line(3)
    net.initialize(0)
    np.testing.assert_array_equal(memory_capacity(net, "Line", 5, seed=1), 0)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: nrmse([1, 2], [1, 2, 3]), ValidationError, r"\(3,\), got \(2,\)"),
        (lambda: nrmse([[1], [2]], [[3], [3]]), ValidationError, "constant ones"),
        (lambda: rsquare("a", [1]), ValidationError, "predictions has to consist"),
        (
            lambda: effective_spectral_radius(np.ones((2, 3))),
            ValidationError,
            r"R: expected a square matrix, got the shape \(2, 3\)",
        ),
        (
            lambda: effective_spectral_radius([[np.nan]]),
            ValidationError,
            "R: expected finite values",
        ),
        (
            lambda: effective_spectral_radius(np.zeros((0, 0))),
            ValidationError,
            "R: expected a square matrix",
        ),
        (lambda: nrmse(np.zeros((0, 1)), np.zeros((0, 1))), ValidationError, "some"),
        (
            lambda: memory_capacity(delay_line(3), "Line", 10, 100, ridge=-1.0),
            ValidationError,
            "ridge has to be a finite number >= 0",
        ),
        (lambda: memory_capacity(delay_line(3), "No"), UnknownNameError, "No.outputs"),
        (
            lambda: memory_capacity(delay_line(3), "Line", 10, steps=21),
            ValidationError,
            "steps has to be a whole number of at least 22",
        ),
    ],
)
def test_bad_arguments(make, error, words):
    with pytest.raises(error, match=words):
        make()
