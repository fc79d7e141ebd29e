"""Weights in the losses of networks that were made without."""

import numpy as np
import pytest

import brainstorm as bs
from brainstorm.layers.base_layer import Layer
from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.training.weighting import with_weights


def two_losses():
    inp = bs.layers.Input({"default": ("T", "B", 3), "a": ("T", "B", 2)})
    hidden = inp >> bs.layers.FullyConnected(2, "tanh", name="A")
    for name, importance in (("P", 1.0), ("Q", 0.5)):
        error = bs.layers.SquaredError(name=name)
        hidden >> error
        inp - "a" >> "targets" - error
        error - "loss" >> bs.layers.Loss(importance, name=f"Loss{name}")
    net = bs.Network.from_layer(hidden)
    net.set_handler(bs.handlers.NumpyHandler(np.float64))
    net.initialize(bs.Gaussian(), seed=1)
    net.output_name = "A.outputs.default"
    net.set_gradient_modifiers({"A": bs.value_modifiers.ClipValues(-1, 1)})
    return net


def test_losses_are_multiplied():
    net = two_losses()
    weighted = with_weights(net)
    assert with_weights(weighted) is weighted
    assert weighted.handler is net.handler
    assert weighted.gradient_modifiers.keys() == net.gradient_modifiers.keys()
    rnd = np.random.RandomState(0)
    x, a, w = (rnd.randn(4, 5, n) for n in (3, 2, 1))
    predicted = net.predict(x)
    np.testing.assert_array_equal(weighted.predict(x), predicted)
    weighted.provide_external_data({"default": x, "a": a, "weights": w})
    weighted.forward_pass(True)
    expected = 0.5 * ((predicted - a) ** 2 * w).sum() / 5
    losses = weighted.get_loss_values()
    np.testing.assert_allclose(losses["LossP"], expected)
    np.testing.assert_allclose(losses["LossQ"], 0.5 * expected)


def test_names_that_are_taken():
    inp, out = bs.tools.get_in_out_layers("regression", 2, 1)
    hidden = bs.layers.FullyConnected(2, name="Loss_weights")
    net = bs.Network.from_layer(inp >> hidden >> out)
    assert {"Loss_weights", "Loss_weights_"} <= with_weights(net).layers.keys()


class OwnLossLayerImpl(Layer):
    expected_inputs = {"default": StructureTemplate("...")}
    is_loss = True

    def setup(self, kwargs, in_shapes):
        return {"loss": BufferStructure(1)}, {}, {}


def test_own_loss_layers():
    inp = bs.layers.Input({"default": ("T", "B", 2)})
    layer = ConstructionWrapper.create(OwnLossLayerImpl, name="Own")
    net = bs.Network.from_layer(inp >> bs.layers.FullyConnected(1) >> layer)
    with pytest.raises(bs.utils.ValidationError, match="'Own' is of type OwnLoss"):
        with_weights(net)
