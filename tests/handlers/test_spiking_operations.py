"""Spiking operations of every handler, against formulas in float64."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainstorm.handlers import NumpyHandler
from brainstorm.handlers.operations.spiking import Neuron, SpikingCells
from brainstorm.handlers.operations.surrogates import (
    SURROGATES,
    find_surrogate,
    integral_of,
)
from tests.golden import golden
from tests.handlers.handler_cases import Arrays, check, quick, seeds


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > 0 else 1 - 1 / (1 + math.exp(x))


def normal(x, mean, sigma):
    z = (x - mean) / sigma
    return math.exp(-z * z / 2) / (math.sqrt(2 * math.pi) * sigma)


# The derivative for one number, with parameters other than the defaults.
FORMULAS = {
    "inv_square": ((10.0,), lambda x, a: 1 / (a * abs(x) + 1) ** 2),
    "sigmoid": ((3.0,), lambda x, a: a * sigmoid(a * x) * sigmoid(-a * x)),
    "arctan": ((2.0,), lambda x, a: a / 2 / (1 + (math.pi / 2 * a * x) ** 2)),
    "relu": ((0.7, 2.0), lambda x, a, w: max(a * (w - abs(x)), 0)),
    "gaussian": ((1.5, 0.7), lambda x, s, a: a * normal(x, 0, s)),
    "soft_sign": ((2.0,), lambda x, a: a / 2 / (1 + abs(a * x)) ** 2),
    "piecewise_quadratic": (
        (0.5,),
        lambda x, a: a - a * a * abs(x) if abs(x) <= 1 / a else 0,
    ),
    "piecewise_exp": ((2.0,), lambda x, a: a / 2 * math.exp(-a * abs(x))),
    "nonzero_sign_log": ((2.0,), lambda x, a: 1 / (1 / a + abs(x))),
    "erf": ((1.3,), lambda x, a: a / math.sqrt(math.pi) * math.exp(-((a * x) ** 2))),
    "piecewise_leaky_relu": (
        (0.1, 0.5),
        lambda x, c, w: 1 / (2 * w) if abs(x) <= w else c,
    ),
    "squarewave_fourier_series": (
        (4.0, 5.0),
        lambda x, n, p: (
            4
            / p
            * sum(math.cos((2 * i - 1) * 2 * math.pi * x / p) for i in range(1, 5))
        ),
    ),
    "s2nn": (
        (2.0, 0.5),
        lambda x, a, b: a * sigmoid(a * x) * sigmoid(-a * x) if x < 0 else b / (x + 1),
    ),
    "q_pseudo_spike": ((3.0,), lambda x, a: (1 + 2 * abs(x) / (a + 1)) ** -a),
    "leaky_relu": ((0.2, 2.0), lambda x, a, b: a if x < 0 else b),
    "log_tailed_relu": (
        (0.1,),
        lambda x, a: 1 / x if x > 1 else 1 if x > 0 else a,
    ),
    "multi_gaussian": (
        (0.3, 3.0, 0.6, 0.8),
        lambda x, h, s, g, c: (
            c
            * (
                (1 + h) * normal(x, 0, g)
                - h * normal(x, g, s * g)
                - h * normal(x, -g, s * g)
            )
        ),
    ),
    "slayer": ((2.0,), lambda x, a: math.exp(-a * abs(x))),
}
SPECIAL = [0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 30.0, -30.0]


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("name", SURROGATES)
def test_surrogates(handler, name, strided):
    parameters, formula = FORMULAS[name]
    arrays = Arrays(handler, 1, strided)
    x = np.concatenate([arrays.randn(5, 9, scale=2.0), [SPECIAL]])
    expected = np.array([[formula(v, *parameters) for v in row] for row in x])
    x_, out_ = arrays.put(x), arrays.garbage(x.shape)
    handler.surrogate_t(x_, name, parameters, out_)
    check(handler, out_, expected, 5.0)
    check(handler, x_, x)


def test_surrogates_as_in_brainpy():
    file, handler = golden("surrogates"), NumpyHandler(np.float64)
    x = file.pop("x")
    assert {find_surrogate(key.split("__")[0])[0] for key in file} == set(SURROGATES)
    for key, expected in file.items():
        name, changed = key.split("__")
        name, parameters = find_surrogate(name)
        parameters |= {n: float(v) for n, v in re.findall(r"([a-z]+)([\d.]+)", changed)}
        out = np.empty_like(x)
        handler.surrogate_t(x, name, tuple(parameters.values()), out)
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-9, err_msg=key)


@pytest.mark.parametrize("name", SURROGATES)
def test_names_may_be_those_of_brainpy(name):
    assert find_surrogate(name) == find_surrogate(f"{name}_grad")


def test_the_documentation_lists_all():
    page = Path(__file__).parents[2] / "docs" / "dynamics" / "spiking.rst"
    text = page.read_text(encoding="utf-8")
    listed = re.findall(r"^``(\w+)`` ", text.split("Surrogates\n=")[1], re.MULTILINE)
    assert [n for n in listed if n in FORMULAS] == list(SURROGATES) == list(FORMULAS)


def test_integral():
    for function, integral in (
        (lambda x: 1 / (100 * abs(x) + 1) ** 2, lambda x: x / (1 + 100 * abs(x))),
        (lambda x: (abs(x) <= 1) / 2, lambda x: np.clip(x, -1, 1) / 2),
        (lambda x: np.exp(-abs(x)), lambda x: np.sign(x) * -np.expm1(-abs(x))),
    ):
        x = np.random.RandomState(0).randn(4, 3, 2) * 2
        np.testing.assert_allclose(integral_of(function, x), integral(x), atol=1e-10)
    assert integral_of(np.cos, np.zeros((0, 2))).shape == (0, 2)


@given(threshold=st.sampled_from([0.0, 0.3, -2.0]), seed=seeds, strided=st.booleans())
@quick
def test_step(handler, threshold, seed, strided):
    arrays = Arrays(handler, seed, strided)
    a = arrays.randn(3, 4)
    a[1] = handler.dtype(threshold)
    a_ = arrays.put(a)
    handler.step_t(a_, float(handler.dtype(threshold)), a_)
    check(handler, a_, a >= handler.dtype(threshold))


# -- sequences ---------------------------------------------------------------


def leaky(x, decay, before, gain, offset):
    y = []
    for now in x:
        before = decay * before + gain * now + offset
        y.append(before)
    return np.array(y).reshape(x.shape)


@given(
    steps=st.integers(0, 4),
    integrates=st.booleans(),
    fresh=st.booleans(),
    strided=st.booleans(),
    seed=seeds,
)
@quick
def test_leaky(handler, steps, integrates, fresh, strided, seed):
    arrays = Arrays(handler, seed, strided)
    x, before, decay = arrays.randn(steps, 2, 3), arrays.randn(2, 3), arrays.rnd.rand(3)
    decay = decay.astype(handler.dtype).astype(float)
    rest, resistance = (0.3, 1.7) if integrates else (0.0, 1.0)
    gain = (1 - decay) * resistance if integrates else 1.0

    def run(x, decay, before):
        share = 1 - decay if integrates else 1.0
        return leaky(x, decay, before, share * resistance, share * rest)

    y = run(x, decay, before)
    y_ = arrays.garbage((steps + 1, 2, 3))
    handler.set_from_numpy(y_[-1], before)
    x_, decay_ = arrays.put(x), arrays.flat().put(decay)
    handler.leaky_forward(x_, decay_, y_, integrates, rest, resistance)
    check(handler, y_, np.concatenate([y, [before]]))

    dy = arrays.randn(steps + 1, 2, 3)
    d = leaky(dy[:-1][::-1], decay, np.zeros((2, 3)), 1.0, 0.0)
    d = d[::-1]
    dx_, dx = arrays.destination(arrays.randn(steps, 2, 3), fresh)
    dlogit_, dlogit = arrays.flat().destination(arrays.randn(3), fresh)
    dy_ = arrays.put(dy)
    handler.leaky_backward(
        *(decay_, y_, dy_, dx_, dlogit_, integrates, resistance),
        fresh_dx=fresh,
        fresh_gradients=fresh,
    )
    check(handler, dx_, dx + gain * d)
    last = decay * d[0] if steps else np.zeros((2, 3))
    check(handler, dy_, np.concatenate([dy[:-1], [last]]))
    # By differences of the logit.
    logit, h = np.log(decay / (1 - decay)), 1e-5
    for n in range(3):
        sums = []
        for sign in (1, -1):
            moved = logit + sign * h * (np.arange(3) == n)
            y = run(x, 1 / (1 + np.exp(-moved)), before)
            sums.append((y * dy[:-1]).sum())
        dlogit[n] += (sums[0] - sums[1]) / (2 * h)
    got = handler.get_numpy_copy(dlogit_)
    np.testing.assert_allclose(got, dlogit, 1e-4, 1e-5)


NEURONS = {
    **{
        name: Neuron(0.4, surrogate=name, parameters=FORMULAS[name][0])
        for name in ("inv_square", "gaussian", "relu", "q_pseudo_spike")
    },
    "hard": Neuron(0.5, surrogate="sigmoid", parameters=(4.0,)),
    "soft": Neuron(0.4, 0.1, 1.5, -0.2, False, True, 0, "arctan", (1.0,)),
    "attached": Neuron(0.4, 0.1, 1.5, -0.2, True, False, 0, "gaussian", (0.5, 0.5)),
    "soft, attached, frozen": Neuron(
        *(0.4, 0.0, 2.0, 0.1, False, False, 2), parameters=(4.0,)
    ),
    "hard, frozen": Neuron(0.4, 0.0, 2.0, 0.1, True, True, 1, "relu", (1.0, 1.0)),
}


def lif(neuron, x, decay, R, before, spikes, left):
    """All potentials u and v, spikes, counts, and which are frozen, step by step."""
    found = {name: [] for name in ("u", "v", "y", "left", "frozen", "current")}
    for now in x:
        current = now + spikes @ R.T
        frozen = left > 0
        u = decay * before + (1 - decay) * (neuron.rest + neuron.resistance * current)
        u = np.where(frozen, before, u)
        spikes = (u >= neuron.threshold) * 1.0
        if neuron.hard:
            before = np.where(spikes > 0, neuron.reset_to, u)
        else:
            before = u - (neuron.threshold - neuron.reset_to) * spikes
        left = np.where(spikes > 0, neuron.frozen_steps, np.maximum(left - 1, 0))
        for name, value in zip(
            found, (u, before, spikes, left, frozen, current), strict=True
        ):
            found[name].append(value)
    return {name: np.array(values) for name, values in found.items()}


def lif_back(neuron, found, decay, R, dy, dv):
    """Deltas of the currents and of u, step by step from the end."""
    _, formula = FORMULAS[neuron.surrogate]
    du_after = np.zeros_like(dy[0])
    du, currents = np.zeros_like(dy), np.zeros_like(dy)
    for t in reversed(range(len(dy))):
        is_last = t == len(dy) - 1
        u, s = found["u"][t], found["y"][t]
        through = 1.0 if is_last else np.where(found["frozen"][t + 1], 1.0, decay)
        d_v = dv[t] + through * du_after
        d_s = dy[t] + (0 if is_last else currents[t + 1] @ R)
        if not neuron.detached:
            drop = neuron.reset_to - (u if neuron.hard else neuron.threshold)
            d_s = d_s + drop * d_v
        slope = np.vectorize(formula, [float])(u - neuron.threshold, *neuron.parameters)
        du_after = du[t] = (d_v * (1 - s) if neuron.hard else d_v) + d_s * slope
        gained = (1 - decay) * neuron.resistance * du[t]
        currents[t] = np.where(found["frozen"][t], 0.0, gained)
    return du, currents


@pytest.mark.parametrize(
    "recurrent", [pytest.param(False, marks=pytest.mark.slow), True]
)
@pytest.mark.parametrize("name", NEURONS)
@given(fresh=st.booleans(), strided=st.booleans(), seed=seeds)
@quick
def test_lif(handler, name, recurrent, fresh, strided, seed):
    neuron, arrays = NEURONS[name], Arrays(handler, seed, strided)
    steps, shape = 5, (2, 3)
    x, before = arrays.randn(steps, *shape, scale=2.0), arrays.randn(*shape)
    decay = arrays.rnd.uniform(0.2, 0.9, 3).astype(handler.dtype).astype(float)
    R = arrays.randn(3, 3) * recurrent
    spikes = arrays.rnd.randint(0, 2, shape) * 1.0 * recurrent
    left = arrays.rnd.randint(0, 3, shape) * 1.0 * (neuron.frozen_steps > 0)
    found = lif(neuron, x, decay, R, before, spikes, left)
    if np.abs(found["u"] - neuron.threshold).min() < 1e-4:
        return  # who fires is a matter of rounding

    rows = steps + recurrent
    u_, y_ = arrays.garbage((steps, *shape)), arrays.garbage((rows, *shape))
    v_, left_ = (arrays.garbage((steps + 1, *shape)) for _ in range(2))
    handler.set_from_numpy(v_[-1], before)
    handler.set_from_numpy(left_[-1], left)
    if recurrent:
        handler.set_from_numpy(y_[-1], spikes)
    left_ = left_ if neuron.frozen_steps else None
    x_, decay_, R_ = arrays.put(x), arrays.flat().put(decay), arrays.flat().put(R)
    through = {"R": R_} if recurrent else {}
    cells_ = SpikingCells(u_, v_, y_, left_)
    handler.lif_forward(x_, decay_, cells_, neuron, **through)
    for array, values in ((u_, "u"), (v_[:-1], "v"), (y_[:steps], "y")):
        check(handler, array, found[values])
    if left_ is not None:
        check(handler, left_, np.concatenate([found["left"], [left]]))

    dy, dv = arrays.randn(rows, *shape), arrays.randn(steps + 1, *shape)
    du, currents = lif_back(neuron, found, decay, R, dy[:steps], dv[:-1])
    dx_, dx = arrays.destination(arrays.randn(steps, *shape), fresh)
    dlogit_, dlogit = arrays.flat().destination(arrays.randn(3), fresh)
    dR_, dR = arrays.flat().destination(arrays.randn(3, 3), fresh)
    du_, dv_, dy_ = arrays.garbage((steps, *shape)), arrays.put(dv), arrays.put(dy)
    through = {"R": R_, "dR": dR_} if recurrent else {}
    handler.lif_backward(
        *(decay_, cells_, SpikingCells(du_, dv_, dy_), dx_, dlogit_, neuron),
        **through,
        fresh_dx=fresh,
        fresh_gradients=fresh,
    )
    check(handler, du_, du, 10.0)
    check(handler, dx_, dx + currents, 10.0)
    last = np.where(left > 0, 1.0, decay) * du[0]
    check(handler, dv_, np.concatenate([dv[:-1], [last]]), 10.0)
    if recurrent:
        all_spikes = np.concatenate([[spikes], found["y"][:-1]])
        dR = dR + np.einsum("tbi,tbj->ij", currents, all_spikes)
        check(handler, dR_, dR, 10.0)
        dy[-1] = currents[0] @ R
    check(handler, dy_, dy, 10.0)
    # d u / d a is v - (rest + resistance current); times a (1 - a) for the logit.
    v_before = np.concatenate([[before], found["v"][:-1]])
    changes = v_before - neuron.rest - neuron.resistance * found["current"]
    changes = np.where(found["frozen"], 0.0, changes) * decay * (1 - decay)
    check(handler, dlogit_, dlogit + (du * changes).sum((0, 1)), 100.0)


def test_smooth_spikes_have_the_surrogate_as_derivative(handler):
    neuron = NEURONS["soft"]._replace(smooth=True)
    u = np.array([[0.2, 0.4, 1.3]])
    arrays = Arrays(handler)
    x_, decay_ = arrays.put([u]), arrays.put(np.zeros(3))  # u = rest + resistance x
    u_, y_ = arrays.garbage((1, 1, 3)), arrays.garbage((1, 1, 3))
    v_ = arrays.put(np.zeros((2, 1, 3)))
    if type(handler).__name__.startswith("Replaying"):
        pytest.skip("not for replays")
    handler.lif_forward(x_, decay_, SpikingCells(u_, v_, y_), neuron)
    z = (neuron.rest + neuron.resistance * u - neuron.threshold) * math.pi / 2
    check(handler, y_, [0.5 + np.arctan(z) / math.pi])
    fired = z >= 0
    check(handler, v_[0], neuron.rest + neuron.resistance * u - 0.6 * fired)
