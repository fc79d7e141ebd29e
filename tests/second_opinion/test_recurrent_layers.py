"""Recurrent and Lstm beside PyTorch's, in float64: outputs and all gradients."""

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.initializers import Gaussian
from brainstorm.structure.network import Network

torch = pytest.importorskip("torch")

T, B, I, N = 7, 4, 5, 6  # noqa: E741
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def normal(*shape, seed=0):
    return np.random.RandomState(seed).randn(*shape)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def network(layer, seed=3):
    """The outputs weighted by another input, and summed up by a Loss."""
    inp = layers.Input({"default": ("T", "B", I), "weights": ("T", "B", N)})
    mask = layers.Mask()
    inp >> layer >> mask >> layers.Loss(B)
    inp - "weights" >> "mask" - mask
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(Gaussian(0.5), seed=seed)
    return net


def run(net, x, weights, context):
    net.provide_external_data({"default": x, "weights": weights})
    net.forward_pass(training_pass=True, context=context)
    net.backward_pass()


def module_of(net, kind, order, **options):
    """PyTorch's module with the parameters of our layer."""
    module = getattr(torch.nn, kind)(I, N, dtype=torch.float64, **options)
    with torch.no_grad():
        module.bias_hh_l0.zero_()
        for name, parts in order.items():
            values = np.concatenate([net.get(f"R.parameters.{p}") for p in parts])
            # Of the second biases, only those of the last gate have a counterpart.
            getattr(module, name)[-len(values) :] = torch.tensor(values)
    return module


def compare(net, x, weights, outputs, module, order):
    got = net.get("R.outputs.default")[:-1]
    np.testing.assert_allclose(got, outputs.detach(), **CLOSE)
    (outputs * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(net.get("R.input_deltas.default"), x.grad, **CLOSE)
    for name, parts in order.items():
        gradients = [net.get(f"R.gradients.{part}") for part in parts]
        gradients = np.concatenate(gradients)
        theirs = getattr(module, name).grad[-len(gradients) :]
        np.testing.assert_allclose(gradients, theirs, **CLOSE)


@pytest.fixture(params=["zeros", "carried"])
def state(request):
    """State before the first step, or none."""
    if request.param == "zeros":
        return None
    return normal(1, B, N, seed=5), normal(1, B, N, seed=6)


@pytest.mark.parametrize("recurrent_bias", [False, True])
def test_gru(state, recurrent_bias):
    order = {
        "weight_ih_l0": ["Wr", "Wz", "Wh"],
        "weight_hh_l0": ["Rr", "Rz", "Rh"],
        "bias_ih_l0": ["br", "bz", "bh"],
    }
    net = network(layers.Gru(N, name="R", recurrent_bias=recurrent_bias))
    if recurrent_bias:
        order["bias_hh_l0"] = ["bp"]
        net.initialize(Gaussian(0.5), R={"bp": Gaussian(0.5)}, seed=3)
        assert net.get("R.parameters.bp").all()
    module = module_of(net, "GRU", order)
    weights, x = normal(T, B, N, seed=2), tensor(normal(T, B, I, seed=1))
    context, h = None, None
    if state is not None:
        h = tensor(state[0])
        net.provide_external_data({"default": x.detach().numpy(), "weights": weights})
        context = dict.fromkeys(net.get_context(), state[0])
    run(net, x.detach().numpy(), weights, context)
    outputs, _ = module(x, h)
    compare(net, x, weights, outputs, module, order)
    if h is not None:
        deltas = net.get("R.output_deltas.default")[-1]
        np.testing.assert_allclose(deltas, h.grad[0], **CLOSE)


@pytest.mark.parametrize("recurrent_bias", [False, True])
def test_bidirectional_gru(recurrent_bias):
    x = tensor(normal(T, B, I))
    lengths = [T, 3, 1, 5]
    mask = (np.arange(T)[:, None, None] < np.array(lengths)[:, None]).astype(float)
    inp = layers.Input({"default": ("T", "B", I), "mask": ("T", "B", 1)})
    gru = layers.Gru(N, recurrent_bias=recurrent_bias)
    layer = layers.Bidirectional(gru, name="R")
    inp >> layer
    inp - "mask" >> "mask" - layer
    net = Network.from_layer(layer)
    net.set_handler(NumpyHandler(np.float64))
    also = {"R": {"*_bp": Gaussian(0.5)}} if recurrent_bias else {}
    net.initialize({"default": Gaussian(0.5), **also}, seed=3)
    module = torch.nn.GRU(I, N, bidirectional=True, dtype=torch.float64)
    with torch.no_grad():
        for prefix, suffix in (("forward_", ""), ("backward_", "_reverse")):
            for kind, theirs in (
                ("W", "weight_ih"),
                ("R", "weight_hh"),
                ("b", "bias_ih"),
            ):
                values = [net.get(f"R.parameters.{prefix}{kind}{g}") for g in "rzh"]
                parameter = getattr(module, f"{theirs}_l0{suffix}")
                parameter.copy_(torch.tensor(np.concatenate(values)))
            second = getattr(module, f"bias_hh_l0{suffix}").zero_()
            if recurrent_bias:
                second[2 * N :] = torch.tensor(net.get(f"R.parameters.{prefix}bp"))
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(module(packed)[0])
    net.provide_external_data({"default": x.detach().numpy(), "mask": mask})
    net.forward_pass(training_pass=True)
    got = net.get("R.outputs.default")
    np.testing.assert_allclose(got * mask, outputs.detach(), **CLOSE)


@pytest.mark.parametrize(("activation", "theirs"), [("tanh", "tanh"), ("rel", "relu")])
def test_recurrent(activation, theirs, state):
    order = {"weight_ih_l0": ["W"], "weight_hh_l0": ["R"], "bias_ih_l0": ["bias"]}
    net = network(layers.Recurrent(N, activation, name="R"))
    module = module_of(net, "RNN", order, nonlinearity=theirs)
    weights = normal(T, B, N, seed=2)
    context, h = None, None
    if state is not None:
        h = tensor(state[0])
        context = {"R.outputs.default": state[0], "R.internals.Ha": np.zeros((1, B, N))}
    run(net, normal(T, B, I), weights, context)
    x = tensor(normal(T, B, I))
    compare(net, x, weights, module(x, h)[0], module, order)
    if state is not None:
        deltas = net.get("R.output_deltas.default")[-1:]
        np.testing.assert_allclose(deltas, h.grad, **CLOSE)


@pytest.mark.parametrize("peepholes", ["left out", "zero"])
def test_lstm(peepholes, state):
    order = {
        "weight_ih_l0": ["Wi", "Wf", "Wz", "Wo"],
        "weight_hh_l0": ["Ri", "Rf", "Rz", "Ro"],
        "bias_ih_l0": ["bi", "bf", "bz", "bo"],
    }
    net = network(layers.Lstm(N, name="R", peepholes=peepholes == "zero"))
    if peepholes == "zero":
        for name in ("pi", "pf", "po"):
            net.buffer.R.parameters[name][...] = 0.0
    module = module_of(net, "LSTM", order)
    weights = normal(T, B, N, seed=2)
    context, h_and_c = None, None
    if state is not None:
        net.provide_external_data(
            {"default": normal(T, B, I), "weights": np.zeros((T, B, N))}
        )
        context = net.get_context()
        context["R.outputs.default"], context["R.internals.Ca"] = state
        h_and_c = tuple(map(tensor, state))
    run(net, normal(T, B, I), weights, context)
    x = tensor(normal(T, B, I))
    compare(net, x, weights, module(x, h_and_c)[0], module, order)
    if state is not None:
        for path, theirs in zip(
            ("R.output_deltas.default", "R.internals.dCa"), h_and_c, strict=True
        ):
            np.testing.assert_allclose(net.get(path)[-1:], theirs.grad, **CLOSE)
