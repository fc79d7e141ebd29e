"""Activation functions of every handler, against formulas in float64."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
}


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


def run(handler, name, shape, seed, strided, scale):
    arrays = Arrays(handler, seed, strided)
    x, dy = arrays.randn(*shape, scale=scale), arrays.randn(*shape)
    function, derivative = FORMULAS[name]
    expected, deltas = apply(function, x), dy * apply(derivative, x)

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

    handler.act_func_deriv[name](x_, y_, dy_, dy_)
    check(handler, dy_, deltas)
    handler.inplace_act_func[name](x_)
    check(handler, x_, expected)
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
    expected = [function(max(v, -745.0) if name != "linear" else v) for v in x]
    check(handler, y, expected)


def test_operations_by_name(handler):
    for name in ("rel", "tanh", "sigmoid", "el"):
        assert handler.act_func[name] == getattr(handler, name)
        assert handler.act_func_deriv[name] == getattr(handler, name + "_deriv")
    for functions in (
        handler.act_func,
        handler.act_func_deriv,
        handler.inplace_act_func,
        handler.inplace_act_func_deriv,
    ):
        assert set(functions) == set(FORMULAS)
        with pytest.raises(KeyError, match=r"'relu'.*'linear', 'rel', 'tanh'"):
            functions["relu"]
