import numpy as np
import pytest

from brainstorm import layers
from brainstorm.utils import LayerValidationError
from tests.layers.single_layer import SingleLayer, normal

GAMMA, BETA = np.array([1.5, -0.5]), np.array([0.3, 2.0])
MU, SIGMA = np.array([0.25, -1.0]), np.array([2.0, 0.5])
START = {"gamma": GAMMA, "beta": BETA, "mu": MU, "sigma": SIGMA}


def batch_norm(x, **kwargs):
    return SingleLayer(layers.BatchNorm(**kwargs), {"default": x}, START)


@pytest.mark.parametrize("shape", [(3, 4, 2), (1, 5, 2), (2, 3, 4, 5, 2)])
def test_training_passes_normalize_with_the_batch(shape):
    x = 3.0 * normal(*shape) + 1.0
    axes = tuple(range(len(shape) - 1))
    mean, variance = x.mean(axes), x.var(axes)
    run = batch_norm(x, decay=0.8, epsilon=0.1).forward()
    x_hat = (x - mean) / np.sqrt(variance + 0.1)
    assert np.allclose(run.y, GAMMA * x_hat + BETA)
    assert np.allclose(run["internals.centered"], x - mean)
    assert np.allclose(run["internals.x_hat"], x_hat)
    assert np.allclose(run["internals.sigma_b"], np.sqrt(variance + 0.1))
    assert np.allclose(run["parameters.mu"], 0.8 * MU - 0.2 * mean)
    assert np.allclose(
        run["parameters.sigma"],
        0.8 * SIGMA + 0.2 * np.sqrt(variance + 0.1),
    )


def test_evaluation_passes_use_and_keep_the_running_values():
    x = normal(3, 4, 2)
    run = batch_norm(x).forward(training_pass=False)
    expected = GAMMA * (x + MU) / SIGMA + BETA
    assert np.allclose(run.y, expected)
    for name, value in START.items():
        assert np.array_equal(run[f"parameters.{name}"], value)


def test_running_values_approach_those_of_the_data():
    x = 2.0 * normal(10, 20, 2) + 5.0
    run = batch_norm(x, decay=0.5)
    for _ in range(60):
        run.forward()
    trained = run.y
    assert np.allclose(run["parameters.mu"], -x.mean((0, 1)))
    assert np.allclose(run.forward(training_pass=False).y, trained)


def test_gradients_after_an_evaluation_pass_take_the_statistics_as_constants():
    x, dy = normal(3, 4, 2), normal(3, 4, 2, seed=1)
    run = batch_norm(x).forward(training_pass=False).backward(default=dy)
    assert np.allclose(run["input_deltas.default"], dy * GAMMA / SIGMA)
    x_hat = (x + MU) / SIGMA
    assert np.allclose(run["gradients.gamma"], (dy * x_hat).sum((0, 1)))
    assert np.allclose(run["gradients.beta"], dy.sum((0, 1)))
    # The next training pass is not affected.
    run.forward().backward(default=np.ones_like(dy))
    assert np.allclose(run["input_deltas.default"], 0.0)


@pytest.mark.parametrize("training_pass", [True, False])
def test_running_values_get_no_gradients(training_pass):
    run = batch_norm(normal(3, 4, 2)).forward(training_pass)
    run.net.backward_pass()
    assert not run["gradients.mu"].any()
    assert not run["gradients.sigma"].any()


def test_constant_features_do_no_harm():
    run = batch_norm(np.ones((2, 3, 2))).forward().backward(default=1.0)
    assert np.array_equal(run.y, np.broadcast_to(BETA, (2, 3, 2)))
    assert np.isfinite(run["input_deltas.default"]).all()


@pytest.mark.parametrize("value", [-0.1, 1.1, "much", None, float("nan")])
def test_bad_decay(value):
    with pytest.raises(LayerValidationError, match=r"BatchNorm.*\[0, 1\] as 'decay'"):
        batch_norm(normal(1, 2, 2), decay=value)


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), "small"])
def test_bad_epsilon(value):
    with pytest.raises(LayerValidationError, match=r"a positive number as 'epsilon'"):
        batch_norm(normal(1, 2, 2), epsilon=value)
