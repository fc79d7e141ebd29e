"""The updates with adaptive rates of every handler, against formulas in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.handlers.handler_cases import Arrays, check, quick, seeds

lengths = st.sampled_from([0, 1, 7, 40000, 70000])
rates = st.floats(0, 1)
shares = st.floats(0, 0.999)
epsilons = st.floats(1e-3, 1)


class Start:
    """Parameters p, gradients g and non-negative state s and u to start from."""

    def __init__(self, handler, n, seed):
        arrays = Arrays(handler, seed)
        self.handler = handler
        self.p, self.g, self.s, self.u = (arrays.randn(n) for _ in range(4))
        self.u = self.u**2 if n == 0 else np.square(self.u).astype(handler.dtype)
        self.u = self.u.astype(np.float64)
        self.arrays = [arrays.put(v) for v in (self.p, self.g, self.s, self.u)]

    def check(self, **expected):
        for name, array in zip("pgsu", self.arrays, strict=True):
            check(self.handler, array, expected.get(name, vars(self)[name]), scale=10)


@given(lengths, seeds, rates, shares, shares, epsilons, rates, st.integers(1, 99))
@quick
def test_adam_update(handler, n, seed, rate, beta1, beta2, epsilon, decay, t):
    # Where the corrections are tiny, rounding them is all that could be compared.
    beta1, beta2 = min(beta1, 0.99), min(beta2, 0.99)
    start = Start(handler, n, seed)
    p, g, m, v = start.arrays
    handler.adam_update(p, g, m, v, rate, beta1, beta2, epsilon, decay, t)
    mean = beta1 * start.s + (1 - beta1) * start.g
    variance = beta2 * start.u + (1 - beta2) * start.g**2
    corrected = mean / (1 - beta1**t), variance / (1 - beta2**t)
    p = start.p - rate * decay * start.p
    p = p - rate * corrected[0] / (np.sqrt(corrected[1]) + epsilon)
    single = np.dtype(handler.dtype).itemsize < 8
    got = handler.get_numpy_copy(start.arrays[0])
    np.testing.assert_allclose(got, p, rtol=0, atol=2e-2 if single else 1e-9)
    start.p = got.astype(np.float64)
    start.check(s=mean, u=variance)


@given(lengths, seeds, rates, shares, shares, rates)
@quick
def test_lion_update(handler, n, seed, rate, beta1, beta2, decay):
    start = Start(handler, n, seed)
    p, g, m, _ = start.arrays
    mix = beta1 * start.s + (1 - beta1) * start.g
    clear = np.abs(mix) > 1e-5  # in float32 the sign of others may differ
    handler.lion_update(p, g, m, rate, beta1, beta2, decay)
    expected = start.p - rate * (np.sign(mix) + decay * start.p)
    got = handler.get_numpy_copy(p)
    np.testing.assert_allclose(got[clear], expected[clear], rtol=2e-5, atol=2e-5)
    check(handler, m, beta2 * start.s + (1 - beta2) * start.g, scale=10)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (40, 60), (0, 3), (1, 1)])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_muon_update(handler, shape, decay):
    arrays = Arrays(handler, 1)
    p, g, m = (arrays.randn(*shape) for _ in range(3))
    given = [arrays.put(v) for v in (p, g, m)]
    handler.muon_update(*given, 0.1, 0.8, decay)
    mean = 0.8 * m + 0.2 * g
    x = 0.8 * mean + 0.2 * g
    x = x / (np.linalg.norm(x) + 1e-7)
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
    scale = max(1, shape[0] / max(shape[1], 1)) ** 0.5
    check(handler, given[0], p - 0.1 * decay * p - 0.1 * scale * x, scale=100)
    check(handler, given[2], mean, scale=10)


@given(lengths, seeds, rates, shares, epsilons)
@quick
def test_rms_prop_update(handler, n, seed, rate, decay, epsilon):
    start = Start(handler, n, seed)
    p, g, _, u = start.arrays
    handler.rms_prop_update(p, g, u, rate, decay, epsilon)
    mean_square = decay * start.u + (1 - decay) * start.g**2
    step = start.g / (np.sqrt(mean_square) + epsilon)
    start.check(u=mean_square, p=start.p - rate * step)


@given(lengths, seeds, rates, epsilons)
@quick
def test_ada_grad_update(handler, n, seed, rate, epsilon):
    start = Start(handler, n, seed)
    p, g, _, u = start.arrays
    handler.ada_grad_update(p, g, u, rate, epsilon)
    total = start.u + start.g**2
    start.check(u=total, p=start.p - rate * start.g / (np.sqrt(total) + epsilon))


@given(lengths, seeds, rates, shares, epsilons)
@quick
def test_ada_delta_update(handler, n, seed, rate, decay, epsilon):
    start = Start(handler, n, seed)
    start.s = np.abs(start.s)
    p, g, s, u = start.arrays
    handler.set_from_numpy(s, start.s)
    handler.ada_delta_update(p, g, s, u, rate, decay, epsilon)
    mean_square = decay * start.s + (1 - decay) * start.g**2
    step = start.g * np.sqrt(start.u + epsilon) / np.sqrt(mean_square + epsilon)
    mean_square_step = decay * start.u + (1 - decay) * step**2
    start.check(s=mean_square, u=mean_square_step, p=start.p - rate * step)


@pytest.mark.parametrize("limit", [1e-3, 1e6])
def test_constraining_one_long_row(handler, limit):
    arrays = Arrays(handler)
    row = arrays.randn(1, 100_000)
    array = arrays.put(row)
    handler.constrain_rows(array, limit, arrays.garbage((1, 1)))
    check(handler, array, row / max(1, np.sqrt(np.sum(row**2)) / limit))
