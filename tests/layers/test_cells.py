"""Recurrent layers against the cells of BrainPy, see fixtures/golden/README.md."""

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.utils import LayerValidationError
from tests.golden import golden
from tests.layers.single_layer import SingleLayer, normal

EXACT = {"rtol": 1e-9, "atol": 1e-12}


def check_cell(layer, z, parameters, gradients):
    """Compare outputs and all gradients, given by the names of parameters."""
    run = SingleLayer(layer, {"default": z["x"]}, parameters).forward()
    np.testing.assert_allclose(run.y[:-1], z["y"], **EXACT)
    run.backward(default=np.concatenate([z["c"], 0 * z["c"][:1]]))
    np.testing.assert_allclose(run["input_deltas.default"], z["dx"], **EXACT)
    for name, expected in gradients.items():
        got = run[f"gradients.{name}"]
        np.testing.assert_allclose(got, expected, err_msg=name, **EXACT)


@pytest.mark.parametrize(("name", "activation"), [("", "rel"), ("_tanh", "tanh")])
def test_rnn_cell(name, activation):
    z = golden(f"rnncell{name}")
    layer = layers.Recurrent(5, activation, initial_state="learned")
    parameters = {n: z[f"bs_{n}"] for n in ("W", "R", "bias", "y0")}
    gradients = {"W": z["dWi"].T, "R": z["dWh"].T, "bias": z["db"], "y0": z["ds0"]}
    check_cell(layer, z, parameters, gradients)


def test_lstm_cell():
    z = golden("lstmcell")
    layer = layers.Lstm(5, peepholes=False, initial_state="learned")
    parameters = {n[3:]: a for n, a in z.items() if n.startswith("bs_")}
    gradients = dict(zip(("y0", "c0"), np.split(z["ds0"], 2), strict=True))
    for name, theirs in (("W", "dWi"), ("R", "dWh"), ("b", "db")):
        parts = np.split(z[theirs].T, 4)
        gradients |= {name + g: p for g, p in zip("izfo", parts, strict=True)}
    check_cell(layer, z, parameters, gradients)


def test_gru_cell():
    """Their update gate is ours turned around."""
    z = golden("grucell")
    layer = layers.Gru(5, initial_state="learned", reset_after=False)
    parameters, gradients = {"y0": z["s0"]}, {"y0": z["ds0"]}
    for name, theirs in (("W", "Wi"), ("R", "Wh"), ("b", "b")):
        for values, found in ((z[theirs], parameters), (z[f"d{theirs}"], gradients)):
            update, reset, candidate = np.split(values.T, 3)
            found[f"{name}z"], found[f"{name}r"] = -update, reset
            found[f"{name}h"] = candidate
    check_cell(layer, z, parameters, gradients)


# -- leaks -------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["internal_leak0.3", "internal_leak1.0", "external_leak1.0"]
)
def test_reservoirs(name):
    z = golden(f"reservoir_{name}")
    leak = {"leak": float(z["leaky_rate"]), "leak_inside": name.startswith("external")}
    parameters = {"W": z["Win"].T, "R": z["Wrec"].T, "bias": z["bias"]}
    gradients = {"W": z["dWin"].T, "R": z["dWrec"].T, "bias": z["dbias"]}
    check_cell(layers.Recurrent(8, **leak), z, parameters, gradients)


@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_a_leak_inside(activation):
    x, weights = normal(5, 2, 3), {"W": normal(4, 3), "R": normal(4, 4, seed=1)}
    layer = layers.Recurrent(4, activation, leak=0.3, leak_inside=True, bias=False)
    run = SingleLayer(layer, {"default": x}, weights).forward()
    act, y = NumpyHandler(np.float64).act_func[activation], np.zeros((2, 4))
    for t in range(5):
        h = 0.7 * y + 0.3 * (x[t] @ weights["W"].T + y @ weights["R"].T)
        np.testing.assert_allclose(run["internals.Ha"][t], h, **EXACT)
        act(h, y := np.empty_like(h))
        np.testing.assert_allclose(run.y[t], y, **EXACT)


@pytest.mark.parametrize("inside", [False, True])
def test_a_leaking_sequence_may_be_cut_anywhere(inside):
    layer = layers.Recurrent(4, leak=0.3, leak_inside=inside)
    x, parameters = normal(5, 2, 3), {"W": 0.5, "R": normal(4, 4), "bias": 0.1}
    run = SingleLayer(layer, {"default": x}, parameters).forward()
    expected, context = run.y[:-1], None
    for t in range(5):
        run.net.provide_external_data({"default": x[t : t + 1]})
        run.net.forward_pass(context=context)
        np.testing.assert_array_equal(run.y[0], expected[t])
        context = run.net.get_context()


def test_a_leak_is_described_where_there_is_one():
    plain = SingleLayer(layers.Recurrent(3, name="R"), {"default": normal(1, 1, 2)})
    leaky = SingleLayer(
        layers.Recurrent(3, leak=0.5, leak_inside=True, name="R"),
        {"default": normal(1, 1, 2)},
    )
    assert "leak" not in str(plain.net.architecture["R"])
    described = leaky.net.architecture["R"]
    assert (described["leak"], described["leak_inside"]) == (0.5, True)


@pytest.mark.parametrize("leak", [0, 1.5, -0.1, float("nan"), "much", None])
def test_leaks_that_are_none(leak):
    layer = layers.Recurrent(3, leak=leak)
    with pytest.raises(LayerValidationError, match=r"number in \(0, 1\].*leak"):
        SingleLayer(layer, {"default": normal(1, 1, 2)})


def test_a_clockwork_has_no_leak():
    with pytest.raises(TypeError, match="leak"):
        layers.Clockwork(3, leak=0.5)


def test_a_recurrent_bias_is_described_where_there_is_one():
    inputs = {"default": normal(1, 1, 2)}
    plain = SingleLayer(layers.Gru(3, name="G"), inputs).net
    biased = SingleLayer(layers.Gru(3, recurrent_bias=True, name="G"), inputs).net
    assert "recurrent_bias" not in plain.architecture["G"]
    assert biased.architecture["G"]["recurrent_bias"] is True
    names = list(plain.layers["G"].parameter_shapes)
    assert list(biased.layers["G"].parameter_shapes) == [*names, "bp"]
    with pytest.raises(LayerValidationError, match="True or False as 'recurrent_bias'"):
        SingleLayer(layers.Gru(3, recurrent_bias=1), inputs)


def test_a_recurrent_bias_needs_the_reset_after_the_product():
    layer = layers.Gru(3, reset_after=False, recurrent_bias=True, name="G")
    text = "'G': expected 'reset_after' with a 'recurrent_bias'"
    with pytest.raises(LayerValidationError, match=text):
        SingleLayer(layer, {"default": normal(1, 1, 2)})


def test_where_the_reset_gate_acts_is_described():
    inputs = {"default": normal(1, 1, 2)}
    plain = SingleLayer(layers.Gru(3, name="G"), inputs).net.architecture["G"]
    before = SingleLayer(layers.Gru(3, reset_after=False, name="G"), inputs)
    assert "reset_after" not in plain
    assert before.net.architecture["G"]["reset_after"] is False
    with pytest.raises(LayerValidationError, match="reset_after"):
        SingleLayer(layers.Gru(3, reset_after=1), inputs)
