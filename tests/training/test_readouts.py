"""`fit_ridge` against numbers of others, and against least squares by NumPy."""

import json

import numpy as np
import pytest

from brainstorm import Gaussian, Minibatches, Network, Subsequences, Undivided, layers
from brainstorm.handlers import NumpyHandler, default_handler
from brainstorm.tools import create_net_from_spec
from brainstorm.training import fit_ridge
from brainstorm.utils import ValidationError
from brainstorm.value_modifiers import ClipValues
from tests.golden import golden

RND = np.random.RandomState(3)
X, Y = RND.randn(10, 2, 2), RND.randn(10, 2, 1)


def readout(n, k, handler=None, **arguments):
    inp = layers.Input({"default": ("T", "B", n)})
    out = layers.FullyConnected(k, "linear", name="Out", **arguments)
    net = Network.from_layer(inp >> out)
    net.set_handler(handler or NumpyHandler(np.float64))
    net.initialize(0.5)
    return net


def reservoir(k=1, kind=layers.Recurrent):
    inp = layers.Input({"default": ("T", "B", 2), "targets": ("T", "B", k)})
    error = layers.SquaredError(name="Error")
    hidden = kind(6, trainable=False, name="Hidden")
    inp >> hidden >> layers.FullyConnected(k, "linear", name="Out") >> error
    inp - "targets" >> "targets" - error
    error - "loss" >> layers.Loss()
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(Gaussian(0.7), seed=1)
    return net


def fitted(net):
    bias = net.get("Out.parameters.bias") if net.layers["Out"].bias else 0.0
    return net.get("Out.parameters.W").T, bias


def by_numpy(h, y, ridge):
    """W and an unpenalized bias, by least squares with further rows."""
    h, y = h.reshape(-1, h.shape[-1]), y.reshape(-1, y.shape[-1])
    n = h.shape[1]
    rows = np.vstack([h - h.mean(axis=0), np.sqrt(ridge) * np.eye(n)])
    W = np.linalg.lstsq(rows, np.vstack([y - y.mean(0), np.zeros((n, y.shape[1]))]))[0]
    return W, y.mean(axis=0) - h.mean(axis=0) @ W


def assert_fits(net, h, y, ridge=1e-6):
    for got, expected in zip(fitted(net), by_numpy(h, y, ridge), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-9)


def states(net, x):
    net.provide_external_data({"default": x}, all_inputs=False)
    net.forward_pass()
    return net.get("Hidden.outputs.default")[: len(x)]


@pytest.mark.parametrize("kind", ["bias", "nobias", "free"])
@pytest.mark.parametrize("ridge", ["0", "1e-07", "0.001", "1"])
def test_the_numbers_of_others(kind, ridge):
    z = golden("ridge")
    net = readout(6, 2, bias=kind != "nobias")
    x, y = (np.swapaxes(z[name], 0, 1) for name in ("states", "targets"))
    fit_ridge(net, x, y, ridge=float(ridge), penalize_bias=kind != "free")
    prefix, kind = ("_free", "bias") if kind == "free" else ("", kind)
    W, bias = fitted(net)
    np.testing.assert_allclose(W, z[f"W{prefix}_alpha{ridge}_{kind}"], rtol=1e-9)
    if kind == "bias":
        np.testing.assert_allclose(bias, z[f"b{prefix}_alpha{ridge}_bias"], rtol=1e-9)


@pytest.mark.parametrize("handler", [NumpyHandler(np.float32), default_handler])
def test_sums_are_in_float64(handler):
    # In float32 the sums would lose what tells the two states apart.
    x = 100 + RND.randn(3000, 1, 1)
    x = np.concatenate([x, x + 1e-3 * RND.randn(3000, 1, 1)], axis=2)
    x = x.astype(np.float32)
    net = readout(2, 1, handler)
    y = (x[..., :1] - x[..., 1:]).astype(np.float64) * 1000
    error = fit_ridge(net, x, y, ridge=1e-10)
    assert error < 1e-4
    np.testing.assert_allclose(fitted(net)[0][:, 0], [1000, -1000], rtol=1e-4)


def test_a_reservoir_with_warmup_and_mask():
    net, x, y = reservoir(), RND.randn(30, 3, 2), RND.randn(30, 3, 1)
    mask = (RND.rand(30, 3, 1) < 0.7).astype(float)
    fit_ridge(net, x, y, warmup=4, mask=mask, ridge=0.01)
    h, counts = states(net, x), mask[..., 0] != 0
    counts[:4] = False
    assert_fits(net, h[counts], y[counts], 0.01)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_ways_to_give_the_data(batch_size):
    net, x, y = reservoir(), RND.randn(20, 3, 2), RND.randn(20, 3, 1)
    mask = np.ones((20, 3, 1))
    mask[12:, 1] = 0
    h, counts = states(net, x), mask[..., 0] != 0
    expected = by_numpy(h[counts], y[counts], 1e-6)
    named = {"default": x, "targets": y, "mask": mask}
    for given in (
        ({"default": x}, y, None, mask),
        (x, y, "Out", mask[..., 0]),
        (named,),
        (Minibatches(batch_size, **named),),
        (Subsequences(Minibatches(batch_size, **named), 7),),
        ({**named, "mask": 0 * mask, "other": mask}, None, None, "other"),
    ):
        net.initialize({"Out": 0.0, "default": Gaussian(0.7)}, seed=1)
        x_, y_, layer, some_mask = (*given, None, None, None)[:4]
        keywords = {} if not isinstance(x_, (dict, np.ndarray)) else {"batch_size": 2}
        fit_ridge(net, x_, y_, layer, mask=some_mask, **keywords)
        for got, wanted in zip(fitted(net), expected, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-8, atol=1e-10)


def test_warmup_of_pieces_is_that_of_their_sequence():
    net, x, y = reservoir(kind=layers.Lstm), RND.randn(40, 1, 2), RND.randn(40, 1, 1)
    fit_ridge(net, Subsequences(Undivided(default=x, targets=y), 6), warmup=9)
    assert_fits(net, states(net, x)[9:], y[9:])


def test_without_time():
    net, x = readout(3, 1), RND.randn(20, 3)
    y = x @ [1.0, -2.0, 3.0] + 4
    for targets in (y, y[:, None]):
        net.initialize(0)
        assert fit_ridge(net, x, targets, ridge=0) < 1e-7
        np.testing.assert_allclose(fitted(net)[0][:, 0], [1, -2, 3], rtol=1e-9)
        np.testing.assert_allclose(fitted(net)[1], 4, rtol=1e-9)


def test_masks_of_layers_before_are_none_of_steps():
    inp = layers.Input({"default": ("T", "B", 2), "mask": ("T", "B", 1)})
    last = layers.TimePooling("last", name="Last")
    inp >> last >> layers.FullyConnected(1, "linear", name="Out")
    inp - "mask" >> "mask" - last
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    lengths = np.arange(7) % 3 + 2
    x, y = RND.randn(4, 7, 2), RND.randn(7, 1)
    mask = (np.arange(4)[:, np.newaxis] < lengths)[..., np.newaxis]
    given = {"default": x, "mask": mask}
    h = x[lengths - 1, np.arange(7)]
    data = Minibatches(3, **given, targets=y[np.newaxis])
    for arguments in ((given, y), ({**given, "targets": y},), (data,)):
        net.initialize(0.0)
        fit_ridge(net, *arguments)
        assert_fits(net, h, y)
    fit_ridge(net, given, y, mask=y > 0)
    assert_fits(net, h[y[:, 0] > 0], y[y[:, 0] > 0])
    with pytest.raises(ValidationError, match="'Last' needs .* of a Subsequences"):
        fit_ridge(net, Subsequences(data, 2))


def test_the_error_is_that_of_the_net():
    net, x, y = reservoir(2), RND.randn(30, 2, 2), RND.randn(30, 2, 2) + 5
    for keywords in (dict(ridge=0.5), dict(ridge=0.5, penalize_bias=True)):
        error = fit_ridge(net, x, y, **keywords)
        residuals = net.predict(x) - y
        expected = np.sqrt((residuals**2).sum() / ((y - y.mean((0, 1))) ** 2).sum())
        assert error == pytest.approx(expected, rel=1e-9)
        assert error.ridge == 0.5
        assert json.dumps(error) == repr(float(error))
    assert np.isnan(fit_ridge(net, x, 0 * y + 3))
    np.testing.assert_allclose(net.predict(x), 3, rtol=1e-9)


def test_the_best_of_several_ridges():
    net, x, y = reservoir(), RND.randn(16, 1, 2), RND.randn(16, 1, 1)
    x_valid, y_valid = RND.randn(50, 1, 2), RND.randn(50, 1, 1)
    ridges = [1e-8, 0.01, 1.0, 100.0]
    best = fit_ridge(net, x, y, ridge=ridges, validation=(x_valid, y_valid), warmup=1)
    chosen = fitted(net)
    errors = {}
    for ridge in ridges:
        error = fit_ridge(net, x, y, ridge=ridge, warmup=1)
        residuals = (net.predict(x_valid) - y_valid)[1:]
        errors[ridge] = np.sqrt(np.mean(residuals**2)) / np.std(y_valid[1:])
        if ridge == best.ridge:
            assert error == pytest.approx(best, rel=1e-9)
            for got, wanted in zip(fitted(net), chosen, strict=True):
                np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-10)
    assert best.ridge == min(errors, key=errors.get) > 1e-8
    assert best.validation_errors == pytest.approx(errors, rel=1e-9)
    data = Undivided(default=x_valid, targets=y_valid)
    twice = np.array(ridges * 2)
    again = fit_ridge(net, x, y, ridge=twice, validation=data, warmup=1)
    assert again.validation_errors == best.validation_errors


def test_a_tiny_ridge_on_singular_sums():
    x = RND.randn(40, 1, 3)
    x = np.concatenate([x, x[..., :1]], axis=2) * 1e4
    net = readout(4, 1)
    error = fit_ridge(net, x, x[..., :1] + 1, ridge=1e-12)
    np.testing.assert_allclose(fitted(net)[0][:, 0], [0.5, 0, 0, 0.5], atol=1e-6)
    assert error < 1e-6


def test_what_is_frozen_stays_and_modifiers_run():
    net, x, y = readout(2, 1), RND.randn(30, 1, 2), RND.randn(30, 1, 1)
    net.set_trainable({"Out": {"bias": False}})
    fit_ridge(net, x, y, ridge=0.1)
    assert net.get("Out.parameters.bias") == 0.5
    rows, rest = x[:, 0], y[:, 0] - 0.5
    W = np.linalg.solve(rows.T @ rows + 0.1 * np.eye(2), rows.T @ rest)
    np.testing.assert_allclose(fitted(net)[0], W, rtol=1e-9)
    net.set_weight_modifiers({"Out": {"W": ClipValues(-0.01, 0.01)}})
    fit_ridge(net, x, 5 * x[..., :1], ridge=0.1)
    assert fitted(net)[0].max() == 0.01
    net.set_trainable({"Out": {"W": False}})
    with pytest.raises(ValidationError, match="'Out' are frozen"):
        fit_ridge(net, x, y)


def test_a_network_from_a_spec():
    net = create_net_from_spec("regression", 3, 1, "R5")
    net.initialize(Gaussian(0.5))
    x = RND.randn(30, 1, 3)
    assert fit_ridge(net, x, x[..., :1]) < 1


def both(x, y):
    return {"default": x, "targets": y}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(warmup=10), "warmup: expected fewer steps than .* 10, got 10"),
        (dict(warmup=-1), "warmup has to be a whole number"),
        (dict(ridge=-1.0), "ridge has to be a finite number"),
        (dict(ridge=[]), "ridge: expected one number, or several"),
        (dict(ridge=[1.0, 2.0]), "ridge: expected one number, or several"),
        (dict(ridge=np.array(-1.0)), "ridge has to be a finite number"),
        (dict(validation=(X, Y, Y)), "validation: .* a tuple of 3"),
        (dict(layer="Hidden"), "name of a FullyConnected layer, got 'Hidden'"),
        (dict(layer="No"), "name of a FullyConnected layer, got 'No'"),
        (dict(y=Y[:9]), r"targets of the shape \(10, 2, 1\) for 'Out', got \(9, 2, 1"),
        (dict(y=Y[:, :1]), r"targets for 2 sequences, got the shape \(10, 1, 1\)"),
        (dict(mask=Y[:9]), r"mask of the shape \(10, 2\), got \(9, 2, 1\)"),
        (dict(mask=0 * Y), "no step to fit 'Out' to"),
        (dict(mask="no"), "no 'no' in 'default'"),
        (dict(y=None), "expected 'targets', or one item besides 'default'"),
        (dict(x=X * np.nan), "not finite"),
        (dict(y=Y * np.nan), "not finite"),
        (dict(x=Undivided(default=X)), "items 'targets'|expected 'targets'"),
        (dict(x=Undivided(**both(X, Y)), mask=Y), "to be items of the iterator"),
        (dict(x=Undivided(**both(X, Y)), mask="no", y=None), "items 'no' too"),
        (dict(x=Undivided(targets=Y), y=None), "items 'default' too"),
    ],
)
def test_errors(arguments, words):
    net = reservoir()
    before = net.get("parameters")
    arguments = {"x": X, "y": Y, **arguments}
    if isinstance(arguments["x"], Undivided):
        arguments["y"] = None
    with pytest.raises(ValidationError, match=words):
        fit_ridge(net, **arguments)
    np.testing.assert_array_equal(net.get("parameters"), before)


def test_a_network_that_nobody_has_initialized():
    inp = layers.Input({"default": ("T", "B", 2)})
    hidden = inp >> layers.Recurrent(5, name="Hidden")
    net = Network.from_layer(hidden >> layers.FullyConnected(1, "linear"))
    assert fit_ridge(net, X, Y) < 1
    assert np.any(net.get("Hidden.parameters.R") != 0)


def test_singular_sums():
    x = RND.randn(20, 1, 2)
    net = readout(3, 1)
    with pytest.raises(ValidationError, match=r"'Out' are singular: .* 3 .* only 2 .*"):
        fit_ridge(net, np.concatenate([x, x[..., :1]], axis=2), x[..., 1:], ridge=0)
    with pytest.raises(ValidationError, match="Give a ridge above 0, or more steps"):
        fit_ridge(net, RND.randn(2, 1, 3), RND.randn(2, 1, 1), ridge=0)
    np.testing.assert_array_equal(net.get("parameters"), 0.5)


def test_errors_of_layers():
    net = create_net_from_spec("classification", 2, 2, "F3")
    with pytest.raises(ValidationError, match="linear activation to fit 'F"):
        fit_ridge(net, X, Y, layer=next(n for n in net.layers if n.startswith("F")))
    inp = layers.Input({"default": ("T", "B", 2)})
    net = Network.from_layer(inp >> layers.Recurrent(2))
    with pytest.raises(ValidationError, match="name the layer to fit"):
        fit_ridge(net, X, Y)


# -- teacher forcing -------------------------------------------------------------


NAMES = ("W", "R", "bias")


def with_feedback(sender="Out"):
    inp = layers.Input({"default": ("T", "B", 2)})
    hidden = inp >> layers.Recurrent(6, trainable=False, name="Hidden")
    out = hidden >> layers.FullyConnected(2, "linear", name="Out")
    hidden << (out if sender == "Out" else hidden)
    net = Network.from_layer(out)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(Gaussian(0.5), seed=1)
    return net


def test_teacher_forcing_finds_the_network_that_made_the_targets():
    net, x = with_feedback(), RND.randn(40, 2, 2)
    y, expected = net.predict(x), fitted(net)
    net.initialize(
        {"Hidden": {n: net.get(f"Hidden.parameters.{n}") for n in NAMES}, "Out": 0.0}
    )
    fit_ridge(net, x, y, ridge=1e-12, warmup=3, teacher_forcing=True)
    for got, wanted in zip(fitted(net), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5)
    np.testing.assert_allclose(net.predict(x), y, rtol=1e-5)


def test_teacher_forcing_goes_on_in_pieces():
    net, x, y = with_feedback(), RND.randn(12, 3, 2), RND.randn(12, 3, 2)
    fit_ridge(net, x, y, teacher_forcing=True)
    expected = fitted(net)
    h = RND.randn(12, 3, 6)
    for t in range(12):
        before = h[t - 1] if t else np.zeros((3, 6))
        fed_back = y[t - 1] if t else np.zeros((3, 2))
        W, R, bias = (net.get(f"Hidden.parameters.{n}") for n in NAMES)
        h[t] = np.tanh(np.hstack([x[t], fed_back]) @ W.T + before @ R.T + bias)
    assert_fits(net, h, y)
    pieces = Subsequences(Undivided(default=x, targets=y), 5)
    fit_ridge(net, pieces, teacher_forcing=True)
    for got, wanted in zip(fitted(net), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9)


def test_teacher_forcing_needs_feedback():
    x, y = RND.randn(12, 3, 2), RND.randn(12, 3, 2)
    for net in (readout(2, 2), with_feedback("Hidden")):
        with pytest.raises(ValidationError, match="'Out' alone feeds back to, got .no"):
            fit_ridge(net, x, y, teacher_forcing=True)
