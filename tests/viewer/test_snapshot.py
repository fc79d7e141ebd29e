import json

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.viewer.contents import unpack
from brainstorm.viewer.page import to_json
from brainstorm.viewer.snapshot import STRUCTURES, take_snapshot
from tests.robustness.random_networks import Case

T, UNITS = 6, 5


@pytest.fixture
def net():
    """An LSTM with peepholes, whose last outputs are classified."""
    inp = layers.Input({"default": ("T", "B", 3), "targets": ("T", "B", 1)})
    out = layers.SoftmaxCE("Output")
    lstm = layers.Lstm(UNITS, peepholes=True, name="Lstm")
    inp >> lstm >> layers.FullyConnected(4, "linear", name="Projection") >> out
    inp - "targets" >> "targets" - out - "loss" >> layers.Loss()
    net = bs.Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(bs.Gaussian(0.7), seed=1)
    return net


@pytest.fixture
def batch():
    rnd = np.random.RandomState(3)
    return {"default": rnd.randn(T, 1, 3), "targets": rnd.randint(4, size=(T, 1, 1))}


def buffers_of(snapshot):
    return {b["path"]: b for layer in snapshot["layers"] for b in layer["buffers"]}


def values_of(snapshot, path):
    """What the page shows of a buffer: of inputs that of what is connected to them."""
    buffers = buffers_of(snapshot)
    buffer = buffers[path]
    while "contents" not in buffer:
        buffer = buffers[buffer["same"]]
    return unpack(buffer["contents"])


def test_all_buffers_are_there_by_their_names(net, batch):
    found = set(buffers_of(take_snapshot(net, "", batch)))
    views = {
        f"{name}.{category}.{buffer}"
        for name in net.layers
        for category in STRUCTURES
        for buffer in net.buffer[name][category]._asdict()
    }
    assert found == views
    assert "Lstm.internals.Fb" in found


def test_contents_are_those_of_a_pass_of_the_network(net, batch):
    snapshot = take_snapshot(net, "", batch, 0)
    net.provide_external_data(batch)
    net.forward_pass()
    net.backward_pass()
    for path, buffer in buffers_of(snapshot).items():
        expected = net.get(path)
        kind = buffer["structure"][:2]
        expected = expected[:T, 0] if kind == ["T", "B"] else expected
        shown = values_of(snapshot, path)
        assert shown.size == expected.size, path
        np.testing.assert_allclose(
            shown.ravel(), expected.ravel(), rtol=1e-6, atol=1e-12, err_msg=path
        )
    assert snapshot["example"]["loss"] == pytest.approx(
        net.get_loss_values()["total_loss"], rel=1e-5
    )


@pytest.mark.parametrize("seed", [3, 17, pytest.param(41, marks=pytest.mark.slow)])
def test_random_networks(seed):
    case = Case(seed)
    net = case.network(NumpyHandler(np.float64))
    data = case.data(case.steps[0]._replace(batch_size=1))
    snapshot = take_snapshot(net, "", data)
    net.provide_external_data(data)
    net.forward_pass()
    net.backward_pass()
    for path, buffer in buffers_of(snapshot).items():
        expected = net.get(path)
        if buffer["structure"][:2] == ["T", "B"]:
            expected = expected[: net.time_size]
        shown = values_of(snapshot, path).ravel()
        np.testing.assert_allclose(shown, expected.ravel(), 1e-5, 1e-7, err_msg=path)


def test_gates_follow_the_formula(net, batch):
    snapshot = take_snapshot(net, "", batch)
    p = {n: net.get(f"Lstm.parameters.{n}") for n in ("Wf", "Rf", "bf", "pf")}
    forget = values_of(snapshot, "Lstm.internals.Fb")
    cells = values_of(snapshot, "Lstm.internals.Ca")
    outputs = values_of(snapshot, "Lstm.outputs.default")
    assert forget.shape == (T, UNITS)
    for t in range(1, T):
        inside = p["Wf"] @ batch["default"][t, 0] + p["Rf"] @ outputs[t - 1]
        inside = inside + p["bf"] + p["pf"].ravel() * cells[t - 1]
        np.testing.assert_allclose(forget[t], 1 / (1 + np.exp(-inside)), rtol=1e-5)


def test_gradients_are_those_of_finite_differences(net, batch):
    shown = values_of(take_snapshot(net, "", batch), "Projection.gradients.bias")
    net.provide_external_data(batch)
    bias = net.buffer.Projection.parameters.bias
    for i, gradient in enumerate(shown):
        losses = []
        for change in (1e-5, -2e-5):
            bias[i] += change
            net.forward_pass()
            losses.append(net.get_loss_values()["total_loss"])
        bias[i] += 1e-5
        assert gradient == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-4)


def test_the_network_notices_nothing(net, batch):
    other = np.random.RandomState(0).randn(2, 3, 3)
    net.provide_external_data({"default": other, "targets": np.zeros((2, 3, 1))})
    net.forward_pass()
    net.backward_pass()
    paths = [p for p in buffers_of(take_snapshot(net, "")) if "..." not in p]
    before = {path: net.get(path) for path in paths}
    context, state = net.get_context(), net.rnd.get_state()
    drawn = bs.global_rnd.get_state()
    take_snapshot(net, "", batch)
    for path in paths:
        np.testing.assert_array_equal(net.get(path), before[path])
    assert (net.time_size, net.batch_size) == (2, 3)
    assert str(net.get_context()) == str(context)
    assert str(net.rnd.get_state()) == str(state)
    assert str(bs.global_rnd.get_state()) == str(drawn)


def test_without_data_there_are_parameters_and_names(net):
    snapshot = take_snapshot(net, "mine")
    assert snapshot["title"] == "mine"
    assert snapshot["example"] is None
    with_contents = {p for p, b in buffers_of(snapshot).items() if "contents" in b}
    assert {path.split(".")[1] for path in with_contents} == {"parameters"}
    assert len(with_contents) == 15 + 2
    shown = values_of(snapshot, "Lstm.parameters.Rz")
    np.testing.assert_allclose(shown, net.get("Lstm.parameters.Rz"), rtol=1e-6)


def test_without_targets_there_is_what_does_not_depend_on_them(net, batch):
    snapshot = take_snapshot(net, "", {"default": batch["default"]})
    buffers = buffers_of(snapshot)
    predictions = values_of(snapshot, "Output.outputs.predictions")
    expected = net.predict(batch["default"])[:, 0]
    np.testing.assert_allclose(predictions, expected, rtol=1e-6)
    assert "contents" in buffers["Lstm.internals.Fb"]
    for path in ("Input.outputs.targets", "Output.outputs.loss", "Loss.outputs.loss"):
        assert "contents" not in buffers[path]
    assert not any(b["backward"] and "contents" in b for b in buffers.values())
    assert snapshot["example"]["loss"] is None
    assert "targets" in snapshot["example"]["remark"]


def test_needed_inputs_may_not_be_missing(net, batch):
    with pytest.raises(KeyError, match="no data for the input 'default'"):
        take_snapshot(net, "", {"targets": batch["targets"]})


def test_dropout_and_batch_norm_are_as_in_use():
    inp, out = bs.tools.get_in_out_layers("classification", 4, 3)
    norm = layers.BatchNorm(name="Norm")
    net = bs.Network.from_layer(inp >> norm >> layers.Dropout(0.5, name="Drop") >> out)
    net.initialize(bs.Gaussian(), seed=1)
    net.buffer.Norm.parameters.mu[:] = -3.0  # which is added
    x = np.random.RandomState(0).randn(1, 1, 4)
    snapshot = take_snapshot(net, "", {"default": x, "targets": np.zeros((1, 1, 1))})
    values = values_of(snapshot, "Drop.outputs.default")
    np.testing.assert_allclose(values, x.ravel() - 3, rtol=1e-3)


def forms_of(snapshot):
    return {
        path: (b["contents"]["form"], b["contents"]["picture"], b["contents"]["likely"])
        for path, b in buffers_of(snapshot).items()
        if "contents" in b
    }


def test_pixels_and_their_weights_are_pictures():
    inp, out = bs.tools.get_in_out_layers("classification", (6, 8, 3), 2)
    conv = layers.Convolution2D(5, (3, 3), name="Conv")
    net = bs.Network.from_layer(inp >> conv >> layers.FullyConnected(4) >> out)
    x = np.zeros((1, 1, 6, 8, 3))
    forms = forms_of(
        take_snapshot(net, "", {"default": x, "targets": np.zeros((1, 1, 1))})
    )
    assert forms["Conv.parameters.W"] == ("filters", None, False)
    assert forms["Conv.outputs.default"] == ("image", None, False)
    weights = forms["FullyConnected.parameters.W"]
    assert weights == ("matrix", [4, 6, 5], True)
    assert forms["FullyConnected.parameters.bias"] == ("vector", None, False)
    assert forms["Loss.outputs.loss"] == ("number", None, False)


def test_rows_of_a_square_number_may_be_pictures():
    net = bs.tools.create_net_from_spec("classification", 64, 10, "F25")
    x, t = np.zeros((1, 1, 64)), np.zeros((1, 1, 1))
    forms = forms_of(take_snapshot(net, "", {"default": x, "targets": t}))
    assert forms["FullyConnected.parameters.W"] == ("matrix", [8, 8, 1], True)
    assert forms["Output_projection.parameters.W"] == ("matrix", [5, 5, 1], False)
    assert forms["Input.outputs.default"] == ("vector", [8, 8, 1], True)
    assert forms["FullyConnected.outputs.default"] == ("vector", None, False)


@pytest.mark.parametrize("largest", [200_000, 30_000, 100])
def test_pages_keep_to_their_size(largest):
    net = bs.tools.create_net_from_spec("classification", 900, 10, "F400 F300")
    net.initialize(bs.Gaussian(), seed=1)
    snapshot = take_snapshot(net, "", largest=largest)
    contents = [b["contents"] for b in buffers_of(snapshot).values() if "contents" in b]
    assert sum(len(c.get("data", "")) for c in contents) <= largest
    assert len(to_json(snapshot)) <= largest + 15_000
    for c in contents:
        assert len(c.get("data", "")) > 0 or largest == 100
        if c["shape"] == [400, 900]:
            assert sum(c["histogram"]["counts"]) == 360_000


def test_blank_networks_are_known():
    inp, out = bs.tools.get_in_out_layers("classification", 4, 3)
    net = bs.Network.from_layer(inp >> out)
    assert take_snapshot(net, "")["summary"]["blank"] is True
    net.initialize(bs.Gaussian(), seed=1)
    assert take_snapshot(net, "")["summary"]["blank"] is False


def test_numbers_that_json_does_not_have(net, batch):
    net.buffer.Projection.parameters.W[:] = np.nan
    net.buffer.Projection.parameters.bias[:] = np.inf
    snapshot = take_snapshot(net, "", batch)
    text = to_json(snapshot)
    again = json.loads(text, parse_constant=pytest.fail)
    stats = buffers_of(again)["Projection.parameters.W"]["contents"]["stats"]
    assert stats == {"not_finite": 20}
    assert again["example"]["loss"] is None


def test_frozen_and_shared_parameters_are_named(net):
    net.set_trainable({"Projection": {"W": False}})
    buffers = buffers_of(take_snapshot(net, ""))
    assert buffers["Projection.parameters.W"]["remark"] == "frozen"
    assert "remark" not in buffers["Projection.parameters.bias"]
