"""Internals as sources of connections: ``lstm - '..internals.Ca' >> other``."""

import json

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.describable import create_from_description, get_description
from brainstorm.handlers import DebugHandler, NumpyHandler
from brainstorm.layers.base_layer import Layer
from brainstorm.structure.architecture import instantiate_layers_from_architecture
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.layout import create_layout
from brainstorm.structure.network import Network
from brainstorm.utils import NetworkValidationError, ValidationError
from tests.handlers.handler_cases import HANDLERS, handler_params

CELLS = ("Za", "Zb", "Ia", "Ib", "Fa", "Fb", "Oa", "Ob", "Ca", "Cb")


def network(*names, kind=layers.Lstm, joined=True, handler=None, **kwargs):
    """Outputs and internals of an LSTM go into one layer, and its loss."""
    inp = layers.Input({"default": ("T", "B", 2), "targets": ("T", "B", 3)})
    lstm = inp >> kind(3, name="Lstm", **kwargs)
    out = layers.FullyConnected(3, "tanh", name="Out")
    for name in names:
        lstm - f"..internals.{name}" >> out
    if joined:
        lstm >> out
    error = layers.SquaredError(name="Error")
    inp - "targets" >> "targets" - error
    net = Network.from_layer(out >> error - "loss" >> layers.Loss())
    net.set_handler(handler or NumpyHandler(np.float64))
    timing = {"Lstm": {"timing": [1, 2, 3]}} if "Clockwork" in kind.__name__ else {}
    net.initialize({"default": bs.Gaussian(0.7), **timing}, seed=3)
    return net


def run(net, steps=4, batch=2, context=None):
    rnd = np.random.RandomState(5)
    x, t = rnd.randn(steps, batch, 2), rnd.randn(steps, batch, 3)
    net.provide_external_data({"default": x, "targets": t})
    net.forward_pass(training_pass=True, context=context)
    return net.get_loss_values()["total_loss"]


def differences(net, path, context=None):
    """Central differences of the loss by a buffer."""
    buffer, step = net.buffer[path], 1e-6
    slopes = np.empty(buffer.shape)
    for index in np.ndindex(buffer.shape):
        losses = []
        for sign in (1, -1):
            buffer[index] += sign * step
            losses.append(run(net, context=context))
            buffer[index] -= sign * step
        slopes[index] = (losses[0] - losses[1]) / (2 * step)
    return slopes


@pytest.mark.parametrize(
    ("names", "kind", "joined", "kwargs"),
    [
        *[((name,), layers.Lstm, False, {}) for name in CELLS],
        (("Ca",), layers.Lstm, True, {"activation": "sigmoid"}),
        (CELLS, layers.Lstm, True, {"bias": False, "initial_state": "learned"}),
        (("Ca", "Fb"), layers.Lstm, True, {"peepholes": False}),
        (CELLS, layers.ClockworkLstm, True, {}),
        (("Ha",), layers.Recurrent, False, {}),
        (("Ha",), layers.Recurrent, True, {"bias": False, "activation": "sigmoid"}),
        (("Ha",), layers.Clockwork, True, {"initial_state": "learned"}),
    ],
)
def test_gradients_through_internals(names, kind, joined, kwargs):
    net = network(*names, kind=kind, joined=joined, **kwargs)
    run(net)
    context = net.get_context()
    for given in (None, context):
        run(net, context=given)
        net.backward_pass()
        gradients = {
            f"{name}.{p}": net.get(f"{name}.gradients.{p}")
            for name in ("Lstm", "Out")
            for p in net.layers[name].parameter_shapes
            if p not in net.layers[name].computes_no_gradients_for
        }
        for path, got in gradients.items():
            path = path.replace(".", ".parameters.")
            expected = differences(net, path, given)
            np.testing.assert_allclose(got, expected, 1e-4, 1e-6, err_msg=path)


@pytest.mark.parametrize("name", handler_params("numpy64"))
def test_the_same_on_every_handler(name):
    results = []
    for handler in (NumpyHandler(np.float64), HANDLERS[name]()):
        net = network("Ca", "Ob", handler=handler)
        for steps in (3, 5, 3):  # memory comes and goes
            run(net, steps)
            net.backward_pass()
        paths = ["gradients", "parameters", "Out.inputs.default"]
        paths += ["Out.input_deltas.default", "Lstm.internals.dCa"]
        results.append([net.get(path) for path in paths])
    for expected, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, 1e-4, 1e-5)


def test_an_input_is_the_memory_of_the_internal():
    net = network("Ca", joined=False)
    run(net)
    assert np.shares_memory(net.buffer.Out.inputs.default, net.buffer.Lstm.internals.Ca)
    assert (net.get("Out.inputs.default") == net.get("Lstm.internals.Ca")[:-1]).all()


def test_architectures_and_descriptions_keep_the_connection():
    net = network("Ca")
    outgoing = net.architecture["Lstm"]["@outgoing_connections"]
    assert outgoing["..internals.Ca"] == ["Out.default"]
    twin = create_from_description(json.loads(json.dumps(get_description(net))))
    twin.set_handler(NumpyHandler(np.float64))
    twin.buffer.parameters[:] = net.buffer.parameters
    assert run(twin) == run(net)


def test_training_and_unneeded_deltas():
    net = network("Ca", "Ib")
    losses = []
    stepper = bs.training.SgdStepper(0.05)
    stepper.start(net)
    for _ in range(30):
        run(net)
        stepper.run()
        losses.append(net.get_loss_values()["total_loss"])
    assert losses[-1] < 0.9 * losses[0]
    net.set_trainable({"Lstm": False})
    before = net.get("Lstm.parameters.Wz")
    stepper.start(net)
    run(net)
    stepper.run()
    assert np.isfinite(net.get("parameters")).all()
    assert (net.get("Lstm.parameters.Wz") == before).all()


def test_internals_of_other_layers_run_forward_only():
    inp = layers.Input({"default": ("T", "B", 2)})
    gru = inp >> layers.Gru(3, name="R")
    gru - "..internals.Ha" >> layers.FullyConnected(2, name="Out")
    net = Network.from_layer(gru)
    net.initialize(bs.Gaussian(1), seed=1)
    net.provide_external_data({"default": np.ones((3, 2, 2))})
    net.forward_pass()
    assert (net.get("Out.inputs.default") == net.get("R.internals.Ha")).all()
    with pytest.raises(
        NetworkValidationError, match="'Out' computes deltas for .*'Ha'"
    ):
        net.backward_pass()


def test_other_formats_refuse_internals_by_name(tmp_path):
    pytest.importorskip("onnx")
    with pytest.raises(ValidationError, match=r"'..internals.Ca' of the layer 'Lstm'"):
        bs.tools.export_onnx(network("Ca"), str(tmp_path / "net.onnx"))


def test_unknown_internals_list_the_choices():
    for name in ("Nope", "dCa"):
        with pytest.raises(
            NetworkValidationError, match=r"choices .*'\.\.internals.Ca'"
        ):
            network(name)


def test_debug_handler():
    net = network("Ca", handler=DebugHandler(NumpyHandler(np.float64)))
    run(net)
    net.backward_pass()
    assert np.isfinite(net.get("gradients")).all()


class TwoStatesLayerImpl(Layer):
    """y = x, with internals whose paths sort otherwise with the ending of deltas."""

    def setup(self, kwargs, in_shapes):
        x = self.like(in_shapes["default"])
        deltas = BufferStructure(*x.shape, is_backward_only=True)
        internals = {n: x for n in ("c", "c1")}
        internals.update({f"{n}_deltas": deltas for n in ("c", "c1")})
        return {"default": x}, {}, internals


def test_deltas_of_joined_internals_lie_as_the_internals_do():
    inp, end = layers.Input({"default": ("T", "B", 2)}), layers.NoOp(name="end")
    two = ConstructionWrapper.create(TwoStatesLayerImpl, name="two")
    inp >> two
    two - "..internals.c1" >> end
    two - "..internals.c" >> end
    made = instantiate_layers_from_architecture(bs.generate_architecture(inp))
    hubs, _ = create_layout(made)
    (values,) = (h for h in hubs if "two.internals.c" in h.sources)
    (deltas,) = (h for h in hubs if "two.internals.c_deltas" in h.sources)
    assert values.sources == ["two.internals.c", "two.internals.c1"]
    assert deltas.sources == ["two.internals.c_deltas", "two.internals.c1_deltas"]
