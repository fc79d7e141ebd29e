"""Series against numbers of others; Mackey-Glass against the method written out."""

import numpy as np
import pytest

from brainstorm import global_rnd
from brainstorm.tools import henon, logistic, lorenz, mackey_glass, mso, narma
from brainstorm.utils import ValidationError
from tests.golden import golden

SERIES = golden("series")


def test_henon():
    np.testing.assert_allclose(henon(50)[:, 0], SERIES["henon"], rtol=1e-9, atol=1e-9)


def test_logistic():
    made = logistic(50)
    assert made.shape == (50, 1, 1)
    np.testing.assert_allclose(made[:, 0], SERIES["logistic"], rtol=1e-9)


def test_mso():
    np.testing.assert_allclose(mso(50)[:, 0], SERIES["mso"], atol=1e-12)


def test_lorenz():
    # Theirs spreads 300 points over 300 h.
    made = lorenz(300, h=0.03 * 300 / 299, substeps=40)
    assert made.shape == (300, 1, 3)
    np.testing.assert_allclose(made[:, 0], SERIES["lorenz"], atol=1e-4)
    np.testing.assert_allclose(made[:50, 0], SERIES["lorenz"][:50], atol=1e-7)


def test_narma():
    u, y = narma(50, order=10, u=SERIES["narma_u"])
    np.testing.assert_array_equal(u[:, 0], SERIES["narma_u"][10:])
    np.testing.assert_allclose(y[:-1, 0], SERIES["narma"][1:], atol=1e-15)
    first, again, other = (narma(30, seed=s)[1] for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
    global_rnd.set_seed(4)
    drawn = narma(30)[0]
    global_rnd.set_seed(4)
    np.testing.assert_array_equal(narma(30)[0], drawn)


def test_mackey_glass():
    past, x = [*SERIES["history"]], 1.2
    for i in range(200):
        past.append(x)

        def slope(v, i=i):
            return 0.2 * past[i] / (1 + past[i] ** 10) - 0.1 * v

        k1 = slope(x)
        k2 = slope(x + k1 / 2)
        k3 = slope(x + k2 / 2)
        x += (k1 + 2 * k2 + 2 * k3 + slope(x + k3)) / 6
    made = mackey_glass(200, history=SERIES["history"])
    np.testing.assert_allclose(made[:, 0, 0], past[17:], rtol=1e-12)
    # Close to the numbers of others, whose method is not quite that one.
    np.testing.assert_allclose(made[:20, 0], SERIES["mackey_glass"][:20], atol=0.02)


def test_mackey_glass_converges_with_smaller_steps():
    fine, finer = mackey_glass(201, h=0.1), mackey_glass(401, h=0.05)[::2]
    # The delayed term is constant within a step: the error is of first order.
    coarse = mackey_glass(101, h=0.2)
    first = np.abs(fine[::2] - coarse).max()
    assert np.abs(finer - fine)[:, 0].max() == pytest.approx(first / 2, rel=0.2)
    assert fine[0] == 1.2
    assert np.ptp(mackey_glass(1000)) > 0.5


def test_without_delay_it_decays_exactly():
    made = mackey_glass(50, a=0.0, h=0.1, tau=1.7)[:, 0, 0]
    np.testing.assert_allclose(made, 1.2 * np.exp(-0.01 * np.arange(50)), rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: mackey_glass(0), "steps has to be a whole number of at least 1"),
        (lambda: mackey_glass(10, tau=17.3), "tau: expected a multiple of h, 1.0"),
        (lambda: mackey_glass(10, h=0), "h has to be above 0"),
        (lambda: mackey_glass(10, history=[1, 2]), r"history: expected 17 .* got .*2"),
        (lambda: lorenz(10, start=[1, 2]), "start: expected 3 numbers"),
        (lambda: lorenz(10, substeps=0), "substeps has to be"),
        (lambda: henon(2.5), "steps has to be"),
        (lambda: henon(5, start=1), "start: expected 2 numbers, got 1"),
        (lambda: logistic(5, x0="a"), "x0 has to be"),
        (lambda: narma(5, u=[1.0]), r"u: expected 15 values.* got the shape \(1,\)"),
        (lambda: narma(5, order=0), "order has to be"),
        (lambda: mso(1), "steps has to be a whole number of at least 2"),
        (lambda: mso(10, freqs=[]), "freqs: expected one above 0"),
        (lambda: lorenz(9, h=10.0), "runs away: step 1 is not finite"),
        (lambda: henon(100, a=3.0), "runs away: step 11 is not finite"),
        (lambda: logistic(100, r=5.0), "runs away"),
        (lambda: mackey_glass(99, tau=50.0, h=50.0), "runs away"),
        (lambda: mackey_glass(99, n=9.5, history=[-1.0] * 17), "runs away"),
    ],
)
def test_errors(make, words):
    with pytest.raises(ValidationError, match=words):
        make()
