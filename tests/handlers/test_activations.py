"""Activation functions of every handler, against formulas in float64."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainstorm.handlers import DebugHandler, NumpyHandler
from brainstorm.handlers.operations.activations import ACTIVATIONS
from tests.handlers.handler_cases import Arrays, check, quick, seeds, shapes

# The function of one number, and its derivative.
FORMULAS = {
    "linear": (lambda x: x, lambda x: 1.0),
    "rel": (lambda x: x if x > 0 else 0.0, lambda x: float(x > 0)),
    "tanh": (math.tanh, lambda x: 1 / math.cosh(x) ** 2 if abs(x) < 300 else 0.0),
    "sigmoid": (
        lambda x: 1 / (1 + math.exp(-x)) if x > 0 else 1 - 1 / (1 + math.exp(x)),
        lambda x: 1 / (2 + 2 * math.cosh(x)) if abs(x) < 300 else 0.0,
    ),
    "el": (
        lambda x: x if x >= 0 else math.expm1(x),
        lambda x: 1.0 if x >= 0 else math.exp(x),
    ),
    "softplus": (lambda x: softplus(x), lambda x: sigmoid(x)),
    "leaky_rel": (lambda x: x if x > 0 else 0.01 * x, lambda x: 1 if x > 0 else 0.01),
    "gelu": (
        lambda x: x * (1 + math.tanh(inner(x))) / 2,
        lambda x: (
            (1 + math.tanh(inner(x))) / 2
            + x * (1 - math.tanh(inner(x)) ** 2) * (INNER + 3 * INNER * CUBE * x**2) / 2
        ),
    ),
    "swish": (
        lambda x: x * sigmoid(x),
        lambda x: sigmoid(x) + x * sigmoid(x) * sigmoid(-x),
    ),
    "hard_swish": (
        lambda x: x * min(max(x + 3, 0), 6) / 6,
        lambda x: 0.0 if x < -3 else 1.0 if x > 3 else (2 * x + 3) / 6,
    ),
    "mish": (
        lambda x: x * math.tanh(softplus(x)),
        lambda x: (
            math.tanh(softplus(x)) + x * sigmoid(x) * (1 - math.tanh(softplus(x)) ** 2)
        ),
    ),
    "hard_sigmoid": (
        lambda x: min(max(x + 3, 0), 6) / 6,
        lambda x: 1 / 6 if -3 < x < 3 else 0.0,
    ),
    "relu6": (lambda x: min(max(x, 0), 6), lambda x: 1.0 if 0 < x < 6 else 0.0),
    "softsign": (lambda x: x / (1 + abs(x)), lambda x: 1 / (1 + abs(x)) ** 2),
}
INNER, CUBE = math.sqrt(2 / math.pi), 0.044715
BY_INPUT = {"gelu", "swish", "hard_swish", "mish"}


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > 0 else 1 - 1 / (1 + math.exp(x))


def softplus(x):
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


def inner(x):
    return INNER * (x + CUBE * x**3)


def apply(formula, x):
    return np.array([formula(v) for v in x.ravel()]).reshape(x.shape)


@pytest.mark.parametrize("name", FORMULAS)
@given(shape=shapes, seed=seeds, strided=st.booleans(), scale=st.sampled_from([1, 30]))
@quick
def test_activation(handler, name, shape, seed, strided, scale):
    run(handler, name, shape, seed, strided, scale)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("strided", [False, True])
def test_large_arrays(handler, name, strided):
    run(handler, name, (3, 7001), 0, strided, 1)


@functools.lru_cache(maxsize=4 * len(FORMULAS))
def values_of(name, shape, seed, scale, dtype):
    """Inputs that a type can hold, their deltas, and what comes out of both."""
    arrays = Arrays(NumpyHandler(dtype), seed)
    x, dy = arrays.randn(*shape, scale=scale), arrays.randn(*shape)
    function, derivative = FORMULAS[name]
    return x, dy, apply(function, x), dy * apply(derivative, x)


def run(handler, name, shape, seed, strided, scale):
    arrays = Arrays(handler, seed, strided)
    given = name, shape, seed, scale, np.dtype(handler.dtype).type
    x, dy, expected, deltas = values_of(*given)

    x_, y_, dy_, dx_ = (
        arrays.put(x),
        arrays.garbage(shape),
        arrays.put(dy),
        arrays.garbage(shape),
    )
    handler.act_func[name](x_, y_)
    check(handler, y_, expected)
    handler.act_func_deriv[name](x_, y_, dy_, dx_)
    check(handler, dx_, deltas)
    check(handler, x_, x)
    check(handler, dy_, dy)
    other_ = arrays.garbage(shape)
    if not isinstance(handler, DebugHandler):
        seen = (x_, other_) if name in BY_INPUT else (other_, y_)
        handler.act_func_deriv[name](*seen, dy_, dx_)
        check(handler, dx_, deltas)

    handler.act_func_deriv[name](x_, y_, dy_, dy_)
    check(handler, dy_, deltas)
    handler.inplace_act_func[name](x_)
    check(handler, x_, expected)
    if name not in BY_INPUT:
        handler.set_from_numpy(dy_, dy)
        handler.inplace_act_func_deriv[name](y_, dy_)
        check(handler, dy_, deltas)
        check(handler, y_, expected)


@pytest.mark.parametrize("name", FORMULAS)
def test_huge_and_tiny_inputs(handler, name):
    x = np.array([-1e30, -745.0, -90.0, -1e-6, -1e-30, 0.0, 1e-30, 1e-6, 90.0, 1e30])
    x = x.astype(handler.dtype).astype(float)
    function, _ = FORMULAS[name]
    y = handler.zeros(x.shape)
    handler.act_func[name](handler.create_from_numpy(x), y)
    limit = -math.inf if name in ("linear", "leaky_rel", "softsign") else -745.0
    expected = [function(max(v, limit)) for v in x]
    check(handler, y, expected)


SLOPES_AT_THE_ENDS = {
    "linear": (1, 1),
    "rel": (0, 1),
    "tanh": (0, 0),
    "sigmoid": (0, 0),
    "leaky_rel": (0.01, 1),
    "hard_sigmoid": (0, 0),
    "relu6": (0, 0),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_slopes_of_huge_inputs(handler, name):
    x = np.array([-1e30, -200.0, 200.0, 1e30])
    x_, y_ = handler.create_from_numpy(x), handler.zeros(x.shape)
    handler.act_func[name](x_, y_)
    dx_ = handler.ones(x.shape)
    handler.act_func_deriv[name](x_, y_, dx_, dx_)
    low, high = SLOPES_AT_THE_ENDS.get(name, (0, 1))
    expected = np.array([low, low, high, high])
    if name == "softsign":
        expected = apply(FORMULAS[name][1], x)
    check(handler, dx_, expected)


def test_operations_by_name(handler):
    assert set(FORMULAS) == set(ACTIVATIONS)
    for name in ACTIVATIONS[1:]:
        assert handler.act_func[name] == getattr(handler, name)
        assert handler.act_func_deriv[name] == getattr(handler, name + "_deriv")
    for functions in (
        handler.act_func,
        handler.act_func_deriv,
        handler.inplace_act_func,
        handler.inplace_act_func_deriv,
    ):
        expected = set(FORMULAS)
        if functions is handler.inplace_act_func_deriv:
            expected -= BY_INPUT
        assert set(functions) == expected
        with pytest.raises(KeyError, match=r"'sine'.*'linear', 'rel', 'tanh'"):
            functions["sine"]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_are_limits_of_differences(handler, name):
    if handler.dtype != np.float64:
        pytest.skip("differences need float64")
    x, step = np.linspace(-7.3, 7.4, 40), 1e-6  # away from all kinks
    ends = [handler.zeros(x.shape) for _ in range(2)]
    for end, sign in zip(ends, (1, -1), strict=True):
        handler.act_func[name](handler.create_from_numpy(x + sign * step), end)
    x_, y_, dx_ = handler.create_from_numpy(x), handler.zeros(x.shape), None
    handler.act_func[name](x_, y_)
    dx_ = handler.ones(x.shape)
    handler.act_func_deriv[name](x_, y_, dx_, dx_)
    differences = np.subtract(*map(handler.get_numpy_copy, ends)) / (2 * step)
    np.testing.assert_allclose(
        handler.get_numpy_copy(dx_), differences, rtol=1e-7, atol=1e-8
    )


def test_relu_is_another_name_for_rel(handler):
    assert handler.act_func["relu"] == handler.act_func["rel"]
    assert "relu" not in handler.act_func
