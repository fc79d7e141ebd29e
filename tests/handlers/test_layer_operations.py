"""Layer normalisation and rows of matrices, of every handler, against formulas."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainstorm.handlers import DebugHandler
from brainstorm.handlers.numpy import embedding
from brainstorm.utils import HandlerError
from tests.handlers.handler_cases import Arrays, check, quick, run_to_the_end, seeds

flags = st.booleans()
positive = st.integers(1, 6)


def normalise(x, gamma, beta, epsilon):
    centered = x - x.mean(1, keepdims=True)
    sigma = np.sqrt((centered**2).mean(1, keepdims=True) + epsilon)
    return sigma, centered / sigma, gamma * centered / sigma + beta


@given(rows=positive, columns=positive, seed=seeds, strided=flags, fresh=flags)
@quick
def test_layer_norm(handler, rows, columns, seed, strided, fresh):
    arrays = Arrays(handler, seed, strided)
    flat, shape = arrays.flat(), (rows, columns)
    x, gamma, beta = arrays.randn(*shape), flat.randn(columns), flat.randn(columns)
    sigma, x_hat, y = normalise(x, gamma, beta, 0.1)
    expected = x.mean(1, keepdims=True), sigma, y
    got = [arrays.garbage(a.shape) for a in expected]
    x_, parameters = arrays.put(x), (flat.put(gamma), flat.put(beta))
    handler.layer_norm_forward(x_, *parameters, *got, 0.1)
    for array, values in zip(got, expected, strict=True):
        check(handler, array, values, scale=10)

    dy = arrays.randn(*shape)
    # By complex steps, f'(x) = Im f(x + ih) / h, exact to rounding.
    dx = np.empty(shape)
    for index in np.ndindex(shape):
        shifted = x.astype(complex)
        shifted[index] += 1e-30j
        dx[index] = (dy * normalise(shifted, gamma, beta, 0.1)[2]).sum().imag / 1e-30
    given_dx, before = arrays.destination(arrays.randn(*shape), fresh)
    gradients = [flat.destination(flat.randn(columns), fresh) for _ in range(2)]
    dy_ = arrays.put(dy)
    handler.layer_norm_backward(
        *(x_, parameters[0], *got[:2], dy_, given_dx),
        *(array for array, _ in gradients),
        fresh_dx=fresh,
        fresh_gradients=fresh,
    )
    check(handler, given_dx, before + dx, scale=100)
    for (array, start), part in zip(gradients, (dy * x_hat, dy), strict=True):
        check(handler, array, start + part.sum(0), scale=100)
    check(handler, dy_, dy)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("columns", [100, 99])
def test_layer_norm_of_many_rows(handler, columns, fresh):
    arrays, shape = Arrays(handler), (700, columns)
    x, gamma, beta = arrays.randn(*shape) + 3, *arrays.randn(2, columns)
    sigma, x_hat, y = normalise(x, gamma, beta, 0.1)
    x_, gamma_, dy = arrays.put(x), arrays.put(gamma), arrays.randn(*shape)
    mean_, sigma_, y_ = (arrays.garbage(s) for s in ((700, 1), (700, 1), shape))
    handler.layer_norm_forward(x_, gamma_, arrays.put(beta), mean_, sigma_, y_, 0.1)
    check(handler, mean_, x.mean(1, keepdims=True), scale=10)
    check(handler, sigma_, sigma, scale=10)
    check(handler, y_, y, scale=10)
    d = gamma * dy
    means = [part.mean(1, keepdims=True) for part in (d, d * x_hat)]
    dx = (d - means[0] - x_hat * means[1]) / sigma
    for needs_dx in (True, False):
        given, before = arrays.destination(arrays.randn(*shape), fresh)
        out = [arrays.destination(arrays.randn(columns), fresh) for _ in range(2)]
        handler.layer_norm_backward(
            *(x_, gamma_, mean_, sigma_, arrays.put(dy), given if needs_dx else None),
            *(array for array, _ in out),
            fresh_dx=fresh,
            fresh_gradients=fresh,
        )
        if needs_dx:
            check(handler, given, before + dx, scale=100)
        for (array, start), part in zip(out, (dy * x_hat, dy), strict=True):
            check(handler, array, start + part.sum(0), scale=100)


@given(count=st.integers(0, 9), size=positive, seed=seeds, strided=flags, fresh=flags)
@quick
def test_rows(handler, count, size, seed, strided, fresh):
    run_rows(handler, count, 5, size, seed, strided, fresh)


def test_many_rows(handler):
    run_rows(handler, 700, 40, 33, 0, False, True)
    run_rows(handler, 700, 40, 33, 0, True, False)


def test_rows_are_put_in_order_a_few_at_a_time(handler, monkeypatch):
    monkeypatch.setattr(embedding, "_TAKEN_AT_ONCE", 100)
    for count in (3, 40, 700):
        run_rows(handler, count, 40, 33, 0, False, True)


def run_rows(handler, count, rows, size, seed, strided, fresh):
    arrays = Arrays(handler, seed, strided)
    m, indices = arrays.randn(rows, size), arrays.rnd.randint(0, rows, (count, 1))
    out, indices_ = arrays.garbage((count, size)), arrays.put(indices)
    handler.take_rows(arrays.put(m), indices_, out)
    check(handler, out, m[indices[:, 0]])

    a, expected = arrays.randn(count, size), arrays.randn(rows, size)
    to, expected = arrays.destination(expected, fresh)
    a_ = arrays.put(a)
    handler.add_to_rows(a_, indices_, to, fresh_out=fresh)
    expected = expected.copy()
    for row, index in zip(a, indices[:, 0], strict=True):
        expected[index] += row
    check(handler, to, expected, scale=100)
    check(handler, a_, a)


@pytest.mark.parametrize("bad", [-1, 5, 0.5, float("nan")])
def test_rows_need_indices(handler, bad):
    if isinstance(handler, DebugHandler) and bad != bad:
        pytest.skip("NaN is refused before")
    m, out = handler.ones((5, 2)), handler.zeros((2, 2))
    indices = handler.create_from_numpy(np.array([[1], [bad]]))
    with pytest.raises(HandlerError, match=r"indices .*from 0 to 4"):
        run_to_the_end(handler, "take_rows", m, indices, out)


# -- sequences -----------------------------------------------------------------


@given(steps=positive, batch=positive, seed=seeds, strided=flags)
@quick
def test_sequence_lengths(handler, steps, batch, seed, strided):
    arrays = Arrays(handler, seed, strided)
    mask = arrays.rnd.randint(0, 2, (steps, batch, 1))
    lengths = arrays.garbage((batch, 1))
    handler.sequence_lengths(arrays.put(mask), lengths)
    columns = mask[:, :, 0].T
    expected = [max([t + 1 for t in range(steps) if c[t]], default=0) for c in columns]
    check(handler, lengths, np.reshape(expected, (batch, 1)))


# -- connectionist temporal classification -------------------------------------


def all_paths(p, labels):
    """The probability of labels, and of them with a class in a step, path by path."""
    total, shares = 0.0, np.zeros(p.shape)
    for path in itertools.product(range(p.shape[1]), repeat=len(p)):
        collapsed = [c for c, _ in itertools.groupby(path) if c != 0]
        if collapsed == list(labels):
            probability = np.prod([step[c] for step, c in zip(p, path, strict=True)])
            total += probability
            for t, c in enumerate(path):
                shares[t, c] += probability
    return total, shares / total


LABELS = [[1], [1, 2], [2, 2], [], [2, 1, 2], [1, 1], []]
LENGTHS = [5, 4, 3, 5, 3, 4, 0]


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("ends", [False, True])
def test_ctc(handler, strided, fresh, ends):
    arrays, batch = Arrays(handler, 3, strided), len(LABELS)
    x, dloss = arrays.randn(5, batch, 3), arrays.randn(batch, 1)
    lengths = LENGTHS if ends else [5] * batch
    targets = np.zeros((5, batch, 1))
    for b, labels in enumerate(LABELS):
        # Zeros between labels do not count.
        targets[[0, 2, 3][: len(labels)], b, 0] = labels
    p = np.exp(x) / np.exp(x).sum(2, keepdims=True)
    loss, expected, deltas = np.zeros((batch, 1)), np.zeros(x.shape), np.zeros(x.shape)
    for b, n in enumerate(lengths):
        total, expected[:n, b] = all_paths(p[:n, b], LABELS[b])
        loss[b] = -np.log(total)
        deltas[:n, b] = (p[:n, b] - expected[:n, b]) * dloss[b]
    lengths_ = arrays.put(np.reshape(lengths, (batch, 1))) if ends else None
    p_, expected_, loss_ = (arrays.garbage(a.shape) for a in (p, expected, loss))
    handler.ctc_forward(
        arrays.put(x), arrays.put(targets), lengths_, p_, expected_, loss_
    )
    check(handler, p_, p)
    check(handler, loss_, loss, scale=10)
    check(handler, expected_, expected, scale=10)
    dx, before = arrays.destination(arrays.randn(*x.shape), fresh)
    handler.ctc_backward(p_, expected_, lengths_, arrays.put(dloss), dx, fresh_dx=fresh)
    check(handler, dx, before + deltas, scale=10)


def test_ctc_of_many_labels_that_nothing_points_to(handler):
    # Each label is as unlikely as can be, and the sequence has no step to spare.
    steps, rnd = 520, np.random.RandomState(0)
    labels = 1 + np.arange(steps) % 2
    x = np.zeros((steps, 1, 4))
    x[np.arange(steps), 0, labels] = -100
    x[:, 0, 3] = rnd.randn(steps)
    arrays = Arrays(handler)
    shapes = [x.shape, x.shape, (1, 1)]
    p, expected, loss = (arrays.garbage(shape) for shape in shapes)
    targets = arrays.put(labels.reshape(steps, 1, 1))
    handler.ctc_forward(arrays.put(x), targets, None, p, expected, loss)
    total = 100 * steps + np.log(np.exp(x).sum(2)).sum()
    np.testing.assert_allclose(handler.get_numpy_copy(loss), [[total]], 1e-6)
    only = np.zeros(x.shape)
    only[np.arange(steps), 0, labels] = 1
    np.testing.assert_allclose(handler.get_numpy_copy(expected), only, atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "length"), [([1, 2, 1], 2), ([1, 1], 2), ([3], 3), ([-1], 3), ([0.5], 3)]
)
def test_ctc_refuses_labels_that_can_not_be(handler, labels, length):
    targets = np.zeros((3, 2, 1))
    targets[: len(labels), 1, 0] = labels
    arrays = Arrays(handler)
    values = [targets, [[3], [length]]]
    outputs = [arrays.garbage(shape) for shape in ((3, 2, 3), (3, 2, 3), (2, 1))]
    arguments = [handler.ones((3, 2, 3)), *map(arrays.put, values), *outputs]
    with pytest.raises(HandlerError, match="ctc.* labels"):
        run_to_the_end(handler, "ctc_forward", *arguments)
