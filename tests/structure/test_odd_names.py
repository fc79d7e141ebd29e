"""Any identifier is a good name for layers and their inputs, outputs and parameters."""

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.hooks import MonitorLayerDeltas, MonitorLayerInOuts, StopAfterEpoch
from brainstorm.layers.base_layer import Layer
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.buffer_views import BufferView
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.training import SgdStepper

MEMBERS = sorted(name for name in dir(BufferView) if name[:2] != "__")
MEMBERS += ["__class__", "__dict__", "__len__", "__slots__", "in", "class"]
X = np.random.RandomState(0).randn(1, 10, 4)


def run_everything(net, data, tmp_path):
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(bs.Gaussian(0.5), seed=1)
    trainer = bs.Trainer(SgdStepper(0.1), verbose=False)
    for name in net.layers:
        trainer.add_hook(MonitorLayerDeltas(name))
        trainer.add_hook(MonitorLayerInOuts(name))
    trainer.add_hook(StopAfterEpoch(1))
    trainer.train(net, bs.Minibatches(5, **data))
    net.provide_external_data({n: v[:, :3] for n, v in data.items()})
    net.forward_pass()
    net.backward_pass()
    net.get_loss_values()
    net.get_context()
    repr(net.buffer)
    net.save_as_hdf5(tmp_path / "net.hdf5")
    again = bs.Network.from_hdf5(tmp_path / "net.hdf5")
    assert np.array_equal(again.get("parameters"), net.get("parameters"))
    return net


@pytest.mark.parametrize("name", MEMBERS)
def test_layers(name, tmp_path):
    inp, out = bs.tools.get_in_out_layers("classification", 4, 3)
    inp >> layers.FullyConnected(5, name=name) >> out
    net = bs.Network.from_layer(inp)
    data = {"default": X, "targets": np.zeros((1, 10, 1))}
    run_everything(net, data, tmp_path)
    assert net.get(f"{name}.gradients.W").shape == (5, 4)
    assert net.buffer[name].outputs.default.shape == (1, 3, 5)
    assert net.predict(X).shape == (1, 10, 3)


@pytest.mark.parametrize("name", MEMBERS)
def test_inputs(name, tmp_path):
    inp = layers.Input({name: ("T", "B", 4), "targets": ("T", "B", 4)})
    error = layers.SquaredError()
    inp - name >> layers.FullyConnected(4, "linear", name="F") >> error
    inp - "targets" >> "targets" - error - "loss" >> layers.Loss()
    net = bs.Network.from_layer(inp)
    run_everything(net, {name: X, "targets": X}, tmp_path)
    assert np.array_equal(net.get_input(name), X[:, :3])
    assert net.predict({name: X}).shape == X.shape
    parts = bs.tools.extract(net, bs.Undivided(**{name: X}), ["F.outputs.default"])
    assert parts["F.outputs.default"].shape == X.shape


class OddLayerImpl(Layer):
    """y = keys * values, where a parameter, an output and an internal are odd too."""

    expected_inputs = {
        "values": StructureTemplate("T", "B", "F"),
        "keys": StructureTemplate("T", "B", "F"),
    }

    def setup(self, kwargs, in_shapes):
        assert list(in_shapes) == ["keys", "values"]
        y = self.like(in_shapes["keys"])
        internals = {"_complete": BufferStructure("T", "B", 4, is_backward_only=True)}
        return {"items": y}, {"fill": BufferStructure(4)}, internals

    def forward_pass(self, buffers, training_pass=True):
        assert buffers.inputs[0] is buffers.inputs.keys
        keys = buffers.inputs.keys
        self.handler.mult_tt(keys, buffers.inputs.values, buffers.outputs.items)

    def backward_pass(self, buffers):
        dy, deltas = buffers.output_deltas.items, buffers.input_deltas
        self.handler.mult_add_tt(dy, buffers.inputs.values, deltas.keys)
        self.handler.mult_add_tt(dy, buffers.inputs.keys, deltas.values)
        self.handler.fill(buffers.internals["_complete"], 1.0)
        self.handler.fill(buffers.gradients.fill, 2.0)


def test_buffers_of_a_layer(tmp_path):
    inp = layers.Input({"default": ("T", "B", 4), "targets": ("T", "B", 4)})
    attention = ConstructionWrapper.create(OddLayerImpl, name="Attention")
    error = layers.SquaredError()
    inp >> "values" - attention
    inp >> layers.FullyConnected(4, name="F") >> "keys" - attention
    attention - "items" >> error
    inp - "targets" >> "targets" - error - "loss" >> layers.Loss()
    net = bs.Network.from_layer(inp)
    run_everything(net, {"default": X, "targets": X}, tmp_path)
    product = net.get("F.outputs.default") * X[:, :3]
    assert np.array_equal(net.get("Attention.outputs.items"), product)
    assert np.array_equal(net.get("Attention.gradients.fill"), [2, 2, 2, 2])
    assert np.all(net.get("Attention.internals._complete") == 1)


@pytest.mark.parametrize("name", ["parameters", "gradients"])
def test_the_flat_arrays_keep_their_names(name):
    with pytest.raises(bs.utils.LayerValidationError, match=f"'{name}' can not be"):
        layers.FullyConnected(3, name=name)
