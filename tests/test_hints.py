"""Errors tell what was probably meant."""

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers, training
from brainstorm.data_iterators import Minibatches
from brainstorm.hooks import MonitorLoss
from brainstorm.scorers import Accuracy
from brainstorm.tools import create_net_from_spec
from brainstorm.utils import BrainstormError, meant_by


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("Dense", "FullyConnected"),
        ("LSTM", "Lstm"),
        ("Conv2D", "Convolution2D"),
        ("FullyConected", "FullyConnected"),
        ("GRU", "Gru"),
        ("SoftMax", "Softmax"),
        ("CrossEntropyLoss", "SoftmaxCE"),
        ("L1Loss", "AbsoluteError"),
        ("RNN", "Recurrent"),
        ("Quux", None),
    ],
)
def test_names_of_layers(wrong, meant):
    assert meant_by(wrong, layers.__all__) == meant
    with pytest.raises(AttributeError) as caught:
        getattr(layers, wrong)
    assert ("did you mean" in str(caught.value)) == (meant is not None)
    assert meant is None or f"did you mean {meant!r}?" in str(caught.value)


@pytest.mark.parametrize(
    ("module", "wrong", "meant"),
    [
        (training, "Adam", "AdamStepper"),
        (training, "SGD", "SgdStepper"),
        (bs.hooks, "MonitorLos", "MonitorLoss"),
        (bs.hooks, "ModelCheckpoint", "SaveBestNetwork"),
        (bs.initializers, "gaussian", "Gaussian"),
        (bs.scorers, "accuracy", "Accuracy"),
        (bs.value_modifiers, "ClipValue", "ClipValues"),
        (bs.data_iterators, "MiniBatches", "Minibatches"),
        (bs.tools, "get_in_out_layer", "get_in_out_layers"),
    ],
)
def test_names_in_modules(module, wrong, meant):
    with pytest.raises(AttributeError, match=f"did you mean '{meant}'"):
        getattr(module, wrong)


def network():
    return create_net_from_spec("classification", 3, 2, "F4")


def data():
    return Minibatches(2, default=np.zeros((1, 4, 3)), targets=np.zeros((1, 4, 1)))


def refused():
    net, trainer = network(), bs.Trainer(training.SgdStepper(0.1), verbose=False)
    arrays = np.zeros((1, 4, 3)), np.zeros((1, 4, 1))
    with_class = bs.Trainer(training.SgdStepper(0.1), verbose=False)
    with_class.train_scorers = [Accuracy]
    yield lambda: net.layers["FullyConected"], "did you mean 'FullyConnected'"
    yield lambda: net.get("Outputt.outputs.predictions"), "did you mean 'Output'"
    yield lambda: net.buffer["Output"]["outputs.prediction"], "mean 'predictions'"
    yield (
        lambda: net.predict(arrays[0], output_name="Output.outputs.prediction"),
        ("did you mean 'Output.outputs.predictions'"),
    )
    yield lambda: net.predict({"defualt": arrays[0]}), "is 'defualt' meant"
    yield lambda: trainer.train(net, *arrays), r"Trainer\.fit\(net"
    yield lambda: trainer.train(net, arrays[0]), "such as Minibatches"
    yield lambda: trainer.add_hook(MonitorLoss), r"an object: MonitorLoss\("
    yield lambda: with_class.train(net, data()), r"write Accuracy\(\)"


@pytest.mark.parametrize("number", range(9))
def test_errors(number):
    call, text = list(refused())[number]
    with pytest.raises(BrainstormError, match=text):
        call()


def test_a_layer_of_ones_own_that_was_not_imported():
    description = bs.get_description(network())
    description["architecture"]["FullyConnected"]["@type"] = "Mine"
    with pytest.raises(BrainstormError, match="import the module that defines it"):
        bs.create_from_description(description)


@pytest.mark.parametrize(("given", "meant"), [("Relu", "rel"), ("sigmiod", "sigmoid")])
def test_activations(given, meant):
    with pytest.raises(BrainstormError, match=f"did you mean '{meant}'"):
        create_net_from_wiring(given)


def create_net_from_wiring(activation):
    inp = layers.Input({"default": ("T", "B", 3)})
    out = layers.FullyConnected(2, activation=activation)
    return bs.Network.from_layer(inp >> out)
