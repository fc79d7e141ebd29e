"""Softmax, its logarithm and losses with soft targets, of every handler."""

import numpy as np
import pytest

from brainstorm.handlers import DebugHandler
from tests.handlers.handler_cases import Arrays, check


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_probabilities_that_are_tiny_have_logarithms(handler):
    arrays = Arrays(handler)
    x = np.array([[1000.0, 0, -1000], [-90.0, -60, -60], [-5000.0, -5000, -5001]])
    y = arrays.garbage(x.shape)
    handler.log_softmax_m(arrays.put(x), y)
    largest = x.max(1, keepdims=True)
    expected = x - largest - np.log(np.exp(x - largest).sum(1, keepdims=True))
    check(handler, y, expected, scale=1000)


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("shape", [(3, 4), (1, 1), (0, 3), (50, 700)])
def test_operations(handler, shape, fresh, strided):
    arrays = Arrays(handler, 1, strided)
    x, dy, before = (arrays.randn(*shape) for _ in range(3))
    y = arrays.garbage(shape)
    p = softmax(x) if len(x) else x
    handler.log_softmax_m(arrays.put(x), y)
    check(handler, y, np.log(p), scale=10)
    for name, values, expected in (
        ("softmax", p, p * (dy - (p * dy).sum(1, keepdims=True))),
        ("log_softmax", np.log(p), dy - p * dy.sum(1, keepdims=True)),
    ):
        dx, added = arrays.destination(before, fresh)
        backward = getattr(handler, f"{name}_backward")
        backward(arrays.put(values), arrays.put(dy), dx, fresh)
        check(handler, dx, added + expected, scale=100)


def test_what_is_impossible_stays_so(handler):
    if isinstance(handler, DebugHandler):
        pytest.skip("refuses infinity")
    arrays = Arrays(handler)
    y = arrays.garbage((2, 3))
    x = np.array([[-np.inf, 0.0, 0.0], [1.0, -np.inf, -np.inf]])
    handler.log_softmax_m(arrays.put(x), y)
    half = -np.log(2)
    expected = [[-np.inf, half, half], [0.0, -np.inf, -np.inf]]
    np.testing.assert_allclose(handler.get_numpy_copy(y), expected, rtol=1e-6)


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("fresh", [False, True])
def test_losses_of_soft_targets(handler, fresh, strided):
    arrays = Arrays(handler, 1, strided)
    x, before, shares = arrays.randn(6, 5), arrays.randn(6, 5), arrays.randn(6, 5) ** 2
    dloss, p = arrays.randn(6, 1), softmax(x)
    predictions, loss = arrays.garbage(x.shape), arrays.garbage((6, 1))
    given = arrays.put(shares)
    handler.soft_targets_ce_forward(arrays.put(x), given, predictions, loss)
    check(handler, predictions, p)
    check(handler, loss, -(shares * np.log(p)).sum(1, keepdims=True), scale=10)
    dx, added = arrays.destination(before, fresh)
    deltas = arrays.put(dloss)
    handler.soft_targets_ce_backward(given, arrays.put(p), deltas, dx, fresh)
    expected = (shares.sum(1, keepdims=True) * p - shares) * dloss
    check(handler, dx, added + expected, scale=100)
