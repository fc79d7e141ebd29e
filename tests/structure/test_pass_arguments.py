"""What layers are given for one pass: ``forward_pass(arguments=...)``."""

import copy

import numpy as np
import pytest

from brainstorm import layers, tools
from brainstorm.data_iterators import Minibatches
from brainstorm.handlers import NumpyHandler
from brainstorm.hooks import StopAfterEpoch
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.layer import Layer
from brainstorm.structure.network import Network
from brainstorm.training import ForwardStepper, SgdStepper, Trainer, fit_ridge
from brainstorm.utils import NetworkValidationError, UnknownNameError


class GainLayerImpl(Layer):
    """``y = gain * x``; deltas of a gain of 1 where ``straight`` is given."""

    reads_arguments = ("gain", "straight")
    repeats = True  # counts for nothing in layers that read arguments

    def setup(self, kwargs, in_shapes):
        return {"default": self.like(in_shapes["default"])}, {}, {}

    def forward_pass(self, buffers, training_pass=True):
        gain = self.arguments.get("gain", 1.0)
        self.handler.mult_st(gain, buffers.inputs.default, buffers.outputs.default)

    def backward_pass(self, buffers):
        straight = self.arguments.get("straight", False)
        gain = 1.0 if straight else self.arguments.get("gain", 1.0)
        dy, dx = buffers.output_deltas.default, buffers.input_deltas.default
        self.handler.mult_add_st(gain, dy, dx)


DATA = {"default": np.array([[[1.0], [2.0]]]), "targets": np.zeros((1, 2, 1))}


@pytest.fixture
def net():
    inp = layers.Input({"default": ("T", "B", 1), "targets": ("T", "B", 1)})
    gain = ConstructionWrapper.create(GainLayerImpl, name="Gain")
    out = layers.SquaredError(name="Output")
    first = layers.FullyConnected(1, "linear", name="First", bias=False)
    inp >> first >> gain >> out
    inp - "targets" >> "targets" - out - "loss" >> layers.Loss()
    net = Network.from_layer(inp)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(1.0)
    net.output_name = "Output.outputs.predictions"
    net.provide_external_data(DATA)
    return net


def outputs(net):
    return net.get(net.output_name).ravel().tolist()


def test_each_pass_has_its_own(net):
    for arguments, expected in [
        (None, 1.0),
        ({"gain": 3.0}, 3.0),
        ({"gain": 5.0, "straight": True}, 5.0),
        ({"gain": 3.0}, 3.0),
        (None, 1.0),
        ({"straight": True}, 1.0),
    ] * 2:
        net.forward_pass(training_pass=True, arguments=arguments)
        assert outputs(net) == [expected, 2 * expected]
        net.backward_pass()
        slope = 1.0 if (arguments or {}).get("straight") else expected
        # of sum((gain x)^2) / 2 B by the weight, whose value is 1
        assert net.get("First.gradients.W") == slope * expected * 5 / 2


def test_layers_can_not_change_them(net):
    given = {"gain": 2.0}
    net.forward_pass(arguments=given)
    layer = net.layers["Gain"]
    assert dict(layer.arguments) == given
    with pytest.raises(TypeError):
        layer.arguments["gain"] = 3.0
    given["gain"] = 4.0
    assert layer.arguments["gain"] == 2.0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"gian": 1}, UnknownNameError, r"'gian'; choices are: 'gain', 'straight'"),
        ([("gain", 1)], NetworkValidationError, "arguments: expected a dict"),
    ],
)
def test_bad_ones_are_refused_and_change_nothing(net, arguments, error, message):
    net.forward_pass(arguments={"gain": 3.0})
    for run in (
        lambda: net.forward_pass(arguments=arguments),
        lambda: net.predict(DATA["default"], arguments=arguments),
        lambda: tools.evaluate(net, Minibatches(1, **DATA), arguments=arguments),
    ):
        with pytest.raises(error, match=message):
            run()
    net.provide_external_data(DATA)
    net.forward_pass(arguments={"gain": 3.0})
    assert outputs(net) == [3, 6]


def test_networks_of_which_no_layer_reads_any():
    inp = layers.Input({"default": ("T", "B", 1)})
    net = Network.from_layer(inp >> layers.NoOp())
    with pytest.raises(UnknownNameError, match=r"'fit'; choices are: \(none\)"):
        net.predict(DATA["default"], arguments={"fit": True})
    assert net.predict(DATA["default"], arguments={}).ravel().tolist() == [1, 2]


def test_use_and_evaluation(net):
    given = {"gain": 3.0}
    predicted = net.predict(DATA["default"], 1, arguments=given)
    assert predicted.ravel().tolist() == [3, 6]
    assert net(DATA["default"]).ravel().tolist() == [1, 2]
    batches = Minibatches(1, shuffle=False, **DATA)
    loss = tools.evaluate(net, batches, arguments=given)["total_loss"]
    assert loss == 9 * tools.evaluate(net, batches)["total_loss"]
    name = net.output_name
    assert tools.extract(net, batches, name, given)[name].ravel().tolist() == [3, 6]
    series = net.generate(3, np.ones((1, 1, 1)), arguments={"gain": 2.0})
    assert series.ravel().tolist() == [2, 4, 8]


@pytest.mark.parametrize(
    ("arguments", "weight"),
    [(None, 0.75), ({"gain": 2.0}, 0.0), ({"gain": 2.0, "straight": True}, 0.5)],
)
def test_training(net, arguments, weight):
    stepper = SgdStepper(0.1)
    stepper.arguments = arguments
    trainer = Trainer(stepper, verbose=False)
    trainer.add_hook(StopAfterEpoch(1))
    trainer.train(net, Minibatches(2, **DATA))
    assert net.get("First.parameters.W").item() == pytest.approx(weight)
    forward = ForwardStepper()
    forward.arguments = {"gain": 7.0}
    forward.start(net)
    forward.run()
    assert outputs(net) == pytest.approx([7 * weight, 14 * weight])


def test_fitting():
    inp = layers.Input({"default": ("T", "B", 1)})
    gain = ConstructionWrapper.create(GainLayerImpl, name="Gain")
    net = Network.from_layer(inp >> gain >> layers.FullyConnected(1, "linear", "Out"))
    x = np.arange(5.0).reshape(5, 1, 1)
    fit_ridge(net, x, 6 * x, ridge=0, arguments={"gain": 2.0})
    assert net.get("Out.parameters.W").item() == pytest.approx(3)


def test_copies_and_listings_of_such_networks(net):
    net.forward_pass(arguments={"gain": 3.0})
    again = copy.deepcopy(net)
    assert again.predict(DATA["default"]).ravel().tolist() == [1, 2]
    assert len(net.program(training_pass=True)) > 0
