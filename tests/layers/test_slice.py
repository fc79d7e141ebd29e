"""Slice; test_all_layers.py checks its derivatives."""

import json

import numpy as np
import pytest

from brainstorm import Network, layers
from brainstorm.utils import LayerValidationError
from tests.layers.single_layer import SingleLayer, normal


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((2,), np.s_[2:]),
        ((-2,), np.s_[-2:]),
        ((None, 3), np.s_[:3]),
        ((1, -1), np.s_[1:-1]),
        ((None, None, 3), np.s_[::3]),
        ((1, 100, 2), np.s_[1:100:2]),
    ],
)
def test_as_in_python(arguments, part):
    x = normal(3, 2, 4, 7)
    run = SingleLayer(layers.Slice(*arguments), {"default": x}).forward()
    np.testing.assert_array_equal(run.y, x[..., part])
    dy, dx = normal(*run.y.shape, seed=1), np.zeros(x.shape)
    dx[..., part] = dy
    run.backward(default=dy)
    np.testing.assert_array_equal(run["input_deltas.default"], dx)


def test_parts_by_name():
    inp = layers.Input({"default": ("T", "B", 6)})
    parts = layers.Slice(parts={"z": (0, 4), "a": (2, None), "m": (None, -1, 2)})
    inp >> parts
    join = layers.Concat()
    for number, name in enumerate("zam", 1):
        parts - name >> f"inputs_{number}" - join
    net = Network.from_layer(join)
    x = normal(3, 2, 6)
    expected = np.concatenate([x[..., :4], x[..., 2:], x[..., :-1:2]], -1)
    np.testing.assert_allclose(net.predict(x), expected, rtol=1e-6)
    again = Network.from_architecture(json.loads(json.dumps(net.architecture)))
    np.testing.assert_array_equal(again.predict(x), net.predict(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": 7}, r"not empty in 'start' and 'stop', got \(7, None, 1\)"),
        ({"start": 2, "stop": 2}, "part of 6 features that is not empty"),
        ({"start": 1.5}, "'start', got 1.5"),
        ({"stop": "3"}, "'stop', got '3'"),
        ({"step": 0}, "positive integer as 'step', got 0"),
        ({"step": -1}, "'step', got -1"),
        ({"parts": {}}, "'parts', got {}"),
        ({"parts": {"a": (1,)}}, "start, stop.*'parts'"),
        ({"parts": {"a b": (1, 2)}}, "'parts'"),
        ({"parts": {"a": (1, 2, 0)}}, "'parts'"),
        ({"parts": {"a": (0, 1), "b": (6, 9)}}, r"not empty as 'b', got \(6, 9\)"),
        ({"parts": {"a": (0, 1)}, "start": 1}, "either 'parts' or 'start'"),
    ],
)
def test_bad_arguments(arguments, message):
    layer = layers.Slice(**arguments, name="Part")
    inp = layers.Input({"default": ("T", "B", 6)})
    with pytest.raises(LayerValidationError, match=f"layer 'Part': .*{message}"):
        Network.from_layer(inp >> layer)
