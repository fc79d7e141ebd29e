import json

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.describable import get_description
from brainstorm.structure.architecture import generate_architecture
from brainstorm.structure.network import Network
from brainstorm.utils import LayerValidationError
from tests.layers.single_layer import SingleLayer, normal

CELLS = ["Za", "Zb", "Ia", "Ib", "Fa", "Fb", "Oa", "Ob", "Ca", "Cb"]
T, B, N = 4, 3, 2


def alone(layer):
    inp = layers.Input({"default": ("T", "B", 3, 2)})
    return Network.from_layer(inp >> layer).layers[layer.name]


def single(**options):
    run = SingleLayer(layers.Lstm(N, **options), {"default": normal(T, B, 3)})
    rnd = np.random.RandomState(1)
    for name, structure in run.net.layers["Lstm"].parameter_shapes.items():
        run.set(f"parameters.{name}", rnd.randn(*structure.shape))
    return run


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def formulas(run, act, peepholes):
    """All cells and y, with scalars for one cell of one sequence at a time."""
    p = {n: run[f"parameters.{n}"] for n in run.net.layers["Lstm"].parameter_shapes}
    x = run.inputs["default"]
    all_cells = {name: np.zeros((T, B, N)) for name in [*CELLS, "y"]}
    for b in range(B):
        y, c = np.zeros(N), np.zeros(N)
        for t in range(T):
            y_before, c_before = y.copy(), c.copy()
            for k in range(N):
                s = {
                    g: p[f"W{g}"][k] @ x[t, b]
                    + p[f"R{g}"][k] @ y_before
                    + p[f"b{g}"][k]
                    for g in "zifo"
                }
                if peepholes:
                    s["i"] += p["pi"][0, k] * c_before[k]
                    s["f"] += p["pf"][0, k] * c_before[k]
                z, i, f = act(s["z"]), sigmoid(s["i"]), sigmoid(s["f"])
                c[k] = i * z + f * c_before[k]
                if peepholes:
                    s["o"] += p["po"][0, k] * c[k]
                o = sigmoid(s["o"])
                y[k] = o * act(c[k])
                values = (s["z"], z, s["i"], i, s["f"], f, s["o"], o, c[k], act(c[k]))
                for name, value in zip([*CELLS, "y"], (*values, y[k]), strict=True):
                    all_cells[name][t, b, k] = value
    return all_cells


@pytest.mark.parametrize("peepholes", [True, False])
@pytest.mark.parametrize(
    ("activation", "act"), [("tanh", np.tanh), ("linear", lambda x: x)]
)
def test_all_internals_are_right_after_a_pass(activation, act, peepholes):
    run = single(activation=activation, peepholes=peepholes).forward()
    expected = formulas(run, act, peepholes)
    for name in CELLS:
        got = run[f"internals.{name}"]
        assert got.shape == (T + 1, B, N)
        np.testing.assert_allclose(got[:-1], expected[name], atol=1e-12, err_msg=name)
    np.testing.assert_allclose(run.y[:-1], expected["y"], atol=1e-12)


def test_deltas_fit_each_other_after_a_backward_pass():
    """What the formulas of one step say of its deltas."""
    run = single().forward()
    dy = normal(T + 1, B, N, seed=3)
    run.backward(default=dy)
    v = {n: run[f"internals.{n}"][:-1] for n in CELLS + [f"d{n}" for n in CELLS]}
    before = np.concatenate([np.zeros((1, B, N)), v["Ca"][:-1]])
    y_deltas = dy[:-1].copy()
    for g in "ZIFO":
        y_deltas[:-1] += v[f"d{g}a"][1:] @ run[f"parameters.R{g.lower()}"]
    for name, expected in {
        "dOb": y_deltas * v["Cb"],
        "dCb": y_deltas * v["Ob"],
        "dZb": v["dCa"] * v["Ib"],
        "dIb": v["dCa"] * v["Zb"],
        "dFb": v["dCa"] * before,
        "dZa": v["dZb"] * (1 - v["Zb"] ** 2),
        "dIa": v["dIb"] * v["Ib"] * (1 - v["Ib"]),
        "dFa": v["dFb"] * v["Fb"] * (1 - v["Fb"]),
        "dOa": v["dOb"] * v["Ob"] * (1 - v["Ob"]),
    }.items():
        np.testing.assert_allclose(v[name], expected, atol=1e-12, err_msg=name)
    for g, name in {"z": "Z", "i": "I", "f": "F", "o": "O"}.items():
        gradient = run[f"gradients.b{g}"]
        np.testing.assert_allclose(gradient, v[f"d{name}a"].sum((0, 1)), atol=1e-12)


# -- how it is declared ----------------------------------------------------------


def test_buffers():
    layer = alone(layers.Lstm(4))
    shapes = {n: s.shape for n, s in layer.parameter_shapes.items()}
    assert list(shapes.items()) == [
        *((f"W{g}", (4, 6)) for g in "zifo"),
        *((f"p{g}", (1, 4)) for g in "ifo"),
        *((f"R{g}", (4, 4)) for g in "zifo"),
        *((f"b{g}", (4,)) for g in "zifo"),
    ]
    assert list(layer.internal_shapes) == CELLS + [f"d{name}" for name in CELLS]
    for name, structure in layer.internal_shapes.items():
        assert structure.shape == ("T", "B", 4)
        assert structure.context_size == 1
        assert structure.is_backward_only == name.startswith("d")
    assert layer.out_shapes["default"].context_size == 1


def test_peepholes_can_be_left_out():
    with_, without = (alone(layers.Lstm(4, peepholes=p)) for p in (True, False))
    removed = [n for n in with_.parameter_shapes if n not in without.parameter_shapes]
    assert removed == ["pi", "pf", "po"]
    assert with_.internal_shapes == without.internal_shapes


@pytest.mark.parametrize("peepholes", [None, 1, "no"])
def test_bad_peepholes_are_refused(peepholes):
    with pytest.raises(LayerValidationError, match="expected True or False as 'peep"):
        alone(layers.Lstm(4, peepholes=peepholes))


def test_the_option_is_described_only_where_it_is_used():
    def described(layer):
        inp = layers.Input({"default": ("T", "B", 3)})
        architecture = generate_architecture(inp >> layer)
        return json.loads(json.dumps(get_description(architecture)))["Lstm"]

    assert "peepholes" not in described(layers.Lstm(4))
    assert described(layers.Lstm(4, peepholes=False))["peepholes"] is False


def test_stacked_parameters_are_views():
    run = single()
    layer, buffers = run.net.layers["Lstm"], run.net.buffer.Lstm
    W, R, b, p = layer.stacked(buffers.parameters)
    for k, g in enumerate("zifo"):
        for stacked, kind in ((W, "W"), (R, "R"), (b, "b")):
            part = stacked[k * N : (k + 1) * N]
            own = buffers.parameters[f"{kind}{g}"]
            np.testing.assert_array_equal(part, own)
            assert np.shares_memory(part, own)
    for k, g in enumerate("ifo"):
        np.testing.assert_array_equal(p[k : k + 1], buffers.parameters[f"p{g}"])
        assert np.shares_memory(p[k], buffers.parameters[f"p{g}"])
