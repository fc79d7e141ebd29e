"""Nvar, beside what BrainPy computed and a formula."""

import itertools
import json

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.structure.network import Network
from brainstorm.utils import LayerValidationError
from tests.golden import golden
from tests.layers.single_layer import SingleLayer, normal

EXACT = {"rtol": 1e-9, "atol": 1e-12}

GOLDEN = {
    "nvar_d1_o3_s1": {"delay": 1, "order": 3},
    "nvar_d2_o2_s1": {"delay": 2, "order": 2},
    "nvar_d2_o2_s1_const": {"delay": 2, "order": 2, "constant": True},
    "nvar_d3_none_s1": {"delay": 3},
}


@pytest.mark.parametrize("name", GOLDEN)
def test_as_in_brainpy(name):
    z = golden(name)
    run = SingleLayer(layers.Nvar(**GOLDEN[name]), {"default": z["x"]}).forward()
    np.testing.assert_allclose(run.y, z["y"], **EXACT)
    run.backward(default=z["c"])
    np.testing.assert_allclose(run["input_deltas.default"], z["dx"], **EXACT)
    assert run.net.layers["Nvar"].get_feature_names() == z["names"].tolist()


def nvar(x, delay, orders, stride, constant):
    """The outputs one by one, and their names."""
    T, B, n = x.shape
    values, names = [], []
    for lag in range(0, delay * stride, stride):
        past = np.concatenate([np.zeros((lag, B, n)), x])[:T]
        values += [past[..., k] for k in range(n)]
        names += [f"x{k}(t-{lag})" if lag else f"x{k}(t)" for k in range(n)]
    found = dict(zip(names, values, strict=True))
    if constant:
        found = {"1": np.ones((T, B)), **found}
    for order in orders:
        for chosen in itertools.combinations_with_replacement(range(len(names)), order):
            powers = [(names[k], chosen.count(k)) for k in sorted({*chosen})]
            name = " ".join(n if p == 1 else f"{n}^{p}" for n, p in powers)
            found[name] = np.prod([values[k] for k in chosen], axis=0)
    return list(found), np.stack([*found.values()], axis=-1)


@pytest.mark.parametrize(
    ("delay", "order", "stride", "constant"),
    [
        (4, 2, 5, False),
        (2, (2, 3), 2, True),
        (2, [4, 2], 1, False),
        (1, 5, 7, True),
        (3, None, 2, True),
    ],
)
def test_formula(delay, order, stride, constant):
    x = normal(9, 2, 2, 1)
    layer = layers.Nvar(delay, order, stride, constant)
    run = SingleLayer(layer, {"default": x}).forward()
    orders = () if order is None else (order,) if isinstance(order, int) else order
    names, y = nvar(x[..., 0], delay, orders, stride, constant)
    np.testing.assert_allclose(run.y, y, rtol=1e-14)
    assert run.net.layers["Nvar"].get_feature_names() == names


@pytest.mark.parametrize("pieces", [[1] * 9, [4, 5], [2, 1, 6]])
def test_pieces_give_what_the_whole_gives(pieces):
    inp = layers.Input({"default": ("T", "B", 2)})
    net = Network.from_layer(inp >> layers.Nvar(3, 2, 2))
    net.set_handler(NumpyHandler(np.float64))
    x = normal(9, 3, 2)
    found, context = [], None
    for piece in np.split(x, np.cumsum(pieces)[:-1]):
        net.provide_external_data({"default": piece})
        net.forward_pass(context=context)
        found.append(net.get("Nvar.outputs.default"))
        context = net.get_context()
    _, expected = nvar(x, 3, (2,), 2, False)
    assert np.array_equal(np.concatenate(found), expected)


def test_sizes():
    inp = layers.Input({"default": ("T", "B", 3)})
    net = Network.from_layer(inp >> layers.Nvar(4, 2, 5))
    assert net.layers["Nvar"].out_shapes["default"].shape == ("T", "B", 12 + 78)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"delay": 0}, r"a positive integer as 'delay', got 0"),
        ({"delay": 1.5}, r"'delay', got 1.5"),
        ({"delay": 2, "stride": 0}, r"a positive integer as 'stride', got 0"),
        ({"delay": 2, "order": 1}, r"a degree above 1.*'order', got 1"),
        ({"delay": 2, "order": [2, 1]}, r"'order', got \[2, 1\]"),
        ({"delay": 2, "order": [2, 2]}, r"different.*'order', got \[2, 2\]"),
        ({"delay": 2, "order": []}, r"'order', got \[\]"),
        ({"delay": 2, "order": "2"}, r"'order', got '2'"),
        ({"delay": 2, "constant": 1}, r"True or False as 'constant', got 1"),
        (
            {"delay": 50, "order": 3},
            r"at most 100000 monomials up to the degree 3 in 'order', there are 176851"
            r" of 100 inputs at 50 steps of 'delay'",
        ),
        ({"delay": 2, "order": 10**30}, "at most 100000 monomials"),
        ({"delay": 10**9, "order": 10**9}, "at most 100000 monomials"),
    ],
)
def test_bad_input(arguments, message):
    inp = layers.Input({"default": ("T", "B", 2)})
    with pytest.raises(LayerValidationError, match=f"Nvar layer 'N': .*{message}"):
        Network.from_layer(inp >> layers.Nvar(**arguments, name="N"))


def test_degrees_are_described_as_numbers():
    inp = layers.Input({"default": ("T", "B", 2)})
    net = Network.from_layer(inp >> layers.Nvar(2, range(2, 4), name="Nvar"))
    assert json.loads(json.dumps(net.architecture))["Nvar"]["order"] == [2, 3]
