"""Layer normalisation and rows of matrices, of every handler, against formulas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainstorm.handlers import DebugHandler
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
    got = [arrays.garbage(a.shape) for a in (sigma, x_hat, y)]
    parameters = flat.put(gamma), flat.put(beta)
    handler.layer_norm_forward(arrays.put(x), *parameters, *got, 0.1)
    for array, expected in zip(got, (sigma, x_hat, y), strict=True):
        check(handler, array, expected, scale=10)

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
        *(parameters[0], *got[:2], dy_, given_dx),
        *(array for array, _ in gradients),
        fresh_dx=fresh,
        fresh_gradients=fresh,
    )
    check(handler, given_dx, before + dx, scale=100)
    for (array, start), part in zip(gradients, (dy * x_hat, dy), strict=True):
        check(handler, array, start + part.sum(0), scale=100)
    check(handler, dy_, dy)


@given(count=st.integers(0, 9), size=positive, seed=seeds, strided=flags, fresh=flags)
@quick
def test_rows(handler, count, size, seed, strided, fresh):
    run_rows(handler, count, 5, size, seed, strided, fresh)


def test_many_rows(handler):
    run_rows(handler, 700, 40, 33, 0, False, True)
    run_rows(handler, 700, 40, 33, 0, True, False)


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
