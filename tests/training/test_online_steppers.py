"""RLS and LMS, against numbers of others and against ridge regression."""

import copy
import pickle

import numpy as np
import pytest

from brainstorm import Gaussian, Network, Subsequences, Trainer, Undivided, layers
from brainstorm.describable import create_from_description, get_description
from brainstorm.handlers import NumpyHandler
from brainstorm.hooks import StopAfterEpoch
from brainstorm.training import LmsStepper, RlsStepper, fit_ridge
from brainstorm.utils import ValidationError
from tests.golden import golden
from tests.handlers.handler_cases import pycuda_handler

RND = np.random.RandomState(5)


def regression(n, k, mask=False, hidden=False, **arguments):
    shapes = {"default": ("T", "B", n), "targets": ("T", "B", k)}
    if mask:
        shapes["mask"] = ("T", "B", 1)
    inp = layers.Input(shapes)
    error = layers.SquaredError(name="Error")
    first = (
        inp >> layers.Recurrent(4, trainable=False, name="Hidden") if hidden else inp
    )
    first >> layers.FullyConnected(k, "linear", name="Out", **arguments) >> error
    inp - "targets" >> "targets" - error
    error - "loss" >> layers.Loss()
    if mask:
        inp - "mask" >> layers.Reshape((1,))
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize({"Out": 0.0, "default": Gaussian(0.5)}, seed=1)
    return net


def weights(net):
    return net.get("Out.parameters.W").T


def bias(net):
    return net.get("Out.parameters.bias")


def data(steps, batch=1, n=3, k=2):
    x = RND.randn(steps, batch, n)
    return {"default": x, "targets": RND.randn(steps, batch, k)}


def ridge_of(x, y, ridge):
    """Bias (k,) and weights (n, k), penalized alike."""
    x = np.hstack([np.ones((x[..., 0].size, 1)), x.reshape(-1, x.shape[-1])])
    W = np.linalg.solve(
        x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y.reshape(len(x), -1)
    )
    return W[0], W[1:]


def pickled(x):
    return pickle.loads(pickle.dumps(x))


def train(net, stepper, given):
    stepper.start(net)
    net.provide_external_data(given)
    stepper.run()


@pytest.mark.parametrize(
    ("file", "stepper"),
    [
        ("rls_b1_alpha1_bias", RlsStepper()),
        ("rls_b1_alpha1_nobias", RlsStepper()),
        ("rls_b1_alpha0.1_nobias", RlsStepper(ridge=10.0)),
        ("lms_b2", LmsStepper(learning_rate=0.1)),
    ],
)
def test_the_numbers_of_others_after_each_step(file, stepper):
    z = golden(file)
    net = regression(5, 2, bias="b0" in z)
    net.initialize(
        {"Out": {"W": z["W0"].T, "bias": z["b0"]}} if "b0" in z else z["W0"].T
    )
    stepper.start(net)
    for t in range(8):
        some = slice(t, t + 1)
        net.provide_external_data(
            {"default": z["x"][some], "targets": z["targets"][some]}
        )
        stepper.run()
        out = net.get("Out.outputs.default")[0]
        np.testing.assert_allclose(out, z["outputs"][t], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(weights(net), z["W"][t], rtol=1e-9, atol=1e-12)
        if "b" in z:
            np.testing.assert_allclose(bias(net), z["b"][t], rtol=1e-9, atol=1e-12)
        if "P" in z:
            P = stepper.get_state()["P"]
            np.testing.assert_allclose(P, z["P"][t], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 3])
def test_rls_is_ridge_regression(batch):
    net, given = regression(3, 2), data(12, batch)
    train(net, RlsStepper(ridge=0.3), given)
    expected = ridge_of(given["default"], given["targets"], 0.3)
    np.testing.assert_allclose(bias(net), expected[0], rtol=1e-9)
    np.testing.assert_allclose(weights(net), expected[1], rtol=1e-9)
    fit_ridge(net, given, ridge=0.3, penalize_bias=True)
    np.testing.assert_allclose(weights(net), expected[1], rtol=1e-9)


def test_forgetting_weighs_former_steps_less():
    net, given = regression(3, 2), data(12)
    train(net, RlsStepper(ridge=0.3, forgetting=0.8), given)
    x, y = given["default"][:, 0], given["targets"][:, 0]
    weight = np.sqrt(0.8 ** np.arange(11, -1, -1.0))[:, np.newaxis]
    x = np.hstack([np.ones((12, 1)), x]) * weight
    A = x.T @ x + 0.3 * 0.8**12 * np.eye(4)
    expected = np.linalg.solve(A, x.T @ (y * weight))
    np.testing.assert_allclose(bias(net), expected[0], rtol=1e-8)
    np.testing.assert_allclose(weights(net), expected[1:], rtol=1e-8)


@pytest.mark.parametrize("stepper", [RlsStepper(), LmsStepper(learning_rate=0.05)])
def test_pieces_and_whole_sequences_give_the_same(stepper):
    given = data(10, 2)
    found = []
    for steps in (1, 3, 10):
        net = regression(3, 2, hidden=True)
        trainer = Trainer(
            create_from_description(get_description(stepper)),
            verbose=False,
            carry_context=True,
        )
        trainer.add_hook(StopAfterEpoch(2))
        iterator = Subsequences(Undivided(**given), steps)
        if steps == 10:
            trainer.carry_context = False
            iterator = Undivided(**given)
        trainer.train(net, iterator)
        found.append(net.get("parameters"))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-9)
    np.testing.assert_allclose(found[0], found[2], rtol=1e-9)
    assert np.any(found[0] != regression(3, 2, hidden=True).get("parameters"))


def test_masked_steps_are_left_out():
    net, given = regression(3, 2, mask=True), data(12, 2)
    mask = (RND.rand(12, 2, 1) < 0.6).astype(float)
    mask[4] = 0
    train(net, RlsStepper(), {**given, "mask": mask})
    counts = mask[..., 0] == 1
    expected = ridge_of(given["default"][counts], given["targets"][counts], 1.0)
    np.testing.assert_allclose(weights(net), expected[1], rtol=1e-9)


@pytest.mark.parametrize("k", [1, 2])
def test_outputs_without_time(k):
    shapes = {"default": ("T", "B", 3), "mask": ("T", "B", 1), "targets": ("B", k)}
    inp, error = layers.Input(shapes), layers.SquaredError()
    last = layers.TimePooling("last", name="Last")
    inp >> last >> layers.FullyConnected(k, "linear", name="Out") >> error
    inp - "mask" >> "mask" - last
    inp - "targets" >> "targets" - error - "loss" >> layers.Loss()
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(0.0)
    x, y = RND.randn(6, 5, 3), RND.randn(5, k)
    given = {"default": x, "mask": np.ones((6, 5, 1)), "targets": y[np.newaxis]}
    train(net, RlsStepper(), given)
    expected = ridge_of(x[-1:], y, 1.0)
    np.testing.assert_allclose(bias(net), expected[0], rtol=1e-9)
    np.testing.assert_allclose(weights(net), expected[1], rtol=1e-9)


def test_a_frozen_bias_stays():
    net, given = regression(3, 1), data(12, k=1)
    net.initialize({"Out": {"W": 0.0, "bias": 0.7}})
    net.set_trainable({"Out": {"bias": False}})
    train(net, RlsStepper(), given)
    x, y = given["default"][:, 0], given["targets"][:, 0] - 0.7
    W = np.linalg.solve(x.T @ x + np.eye(3), x.T @ y)
    np.testing.assert_allclose(weights(net), W, rtol=1e-9)
    assert bias(net) == 0.7


@pytest.mark.parametrize(
    "make_handler",
    [
        pytest.param(lambda: NumpyHandler(np.float32), id="numpy"),
        pytest.param(pycuda_handler, id="pycuda", marks=pytest.mark.gpu),
    ],
)
def test_a_network_in_float32_keeps_its_state_in_float64(make_handler):
    net, given = regression(3, 2), data(40)
    net.set_handler(make_handler())
    stepper = RlsStepper(ridge=1e-8)
    train(net, stepper, given)
    given = {n: a.astype(np.float32).astype(float) for n, a in given.items()}
    expected = ridge_of(given["default"], given["targets"], 1e-8)
    np.testing.assert_allclose(weights(net), expected[1], rtol=1e-5, atol=1e-6)
    fit_ridge(net, given, ridge=1e-8, penalize_bias=True)
    np.testing.assert_allclose(weights(net), expected[1], rtol=1e-5, atol=1e-6)
    assert stepper.get_state()["P"].dtype == np.float64
    net.set_handler(NumpyHandler(np.float64))
    before = stepper.get_state()["P"]
    stepper.start(net)
    np.testing.assert_array_equal(stepper.get_state()["P"], before)


@pytest.mark.parametrize("stepper", [RlsStepper(), LmsStepper()])
@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_copies_go_on_alone(stepper, copied):
    net, given = regression(3, 2, hidden=True), data(12, k=2)
    train(net, stepper, given)
    again, before = copied(stepper), net.get("parameters")
    again.net.provide_external_data(given)
    again.run()
    np.testing.assert_array_equal(net.get("parameters"), before)
    stepper.run()
    assert np.any(net.get("parameters") != before)
    np.testing.assert_array_equal(again.net.get("parameters"), net.get("parameters"))


def test_a_checkpoint_keeps_the_state(tmp_path):
    given = data(20)
    pieces = Subsequences(Undivided(**given), 4)

    def trainer(epochs):
        made = Trainer(RlsStepper(forgetting=0.9), verbose=False)
        made.add_hook(StopAfterEpoch(epochs))
        return made

    whole, net = trainer(4), regression(3, 2)
    whole.train(net, pieces)
    first, other = trainer(2), regression(3, 2)
    first.train(other, pieces)
    first.save(tmp_path / "half.hdf5")
    again, other = Trainer.load(tmp_path / "half.hdf5", hooks=[StopAfterEpoch(4)])
    again.train(other, pieces)
    np.testing.assert_array_equal(other.get("parameters"), net.get("parameters"))
    assert again.stepper.get_state()["P"].shape == (4, 4)


def test_a_step_that_fails_leaves_all_as_it_was(monkeypatch):
    net, stepper = regression(3, 2), RlsStepper()
    train(net, stepper, data(5))
    before, state = net.get("parameters"), stepper.get_state()["P"]

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(net.layers["Out"], "forward_pass", fail)
    with pytest.raises(KeyboardInterrupt):
        stepper.run()
    np.testing.assert_array_equal(net.get("parameters"), before)
    np.testing.assert_array_equal(stepper.get_state()["P"], state)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RlsStepper(ridge=0), "RlsStepper: ridge has to be above 0"),
        (lambda: RlsStepper(forgetting=0), r"forgetting .* in \(0, 1\], not 0"),
        (lambda: RlsStepper(forgetting=1.5), r"forgetting .* in \(0, 1\], not 1.5"),
        (lambda: LmsStepper(learning_rate=-1), "LmsStepper: learning_rate"),
        (lambda: RlsStepper("Error").start(regression(3, 2)), "got 'Error'"),
        (lambda: RlsStepper().run(), "RlsStepper: call start"),
        (lambda: LmsStepper().start("net"), "net: expected a Network"),
    ],
)
def test_errors(make, words):
    with pytest.raises(ValidationError, match=words):
        make()


def test_a_state_that_does_not_fit():
    stepper = RlsStepper()
    stepper.set_state({"P": np.eye(3)})
    with pytest.raises(ValidationError, match=r"P of shape \(4, 4\), .*got \(3, 3\)"):
        stepper.start(regression(3, 2))
