"""Objects print as the calls that make them."""

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import handlers, hooks, layers, scorers, tools, training
from brainstorm.describable import Describable

CALLS = [
    "Gaussian()",
    "Gaussian(std=0.2, mean=1.0)",
    "SparseInputs(sub_initializer=Gaussian(std=0.2), connections=3)",
    "StopAfterEpoch(max_epochs=3)",
    "MonitorScores(iter_name='valid', scorers=[Accuracy()], timescale='update')",
    "SgdStepper(learning_rate=0.2)",
    "AdamStepper(beta1=0.8)",
    "ModifyStepperAttribute(schedule=Linear(initial_value=1.0, final_value=0.1,"
    " num_changes=10))",
    "Trainer(stepper=SgdStepper(learning_rate=0.2), carry_context=True)",
    "Hamming(threshold=0.3, name='h')",
    "F1(average='macro', threshold=0.2, mask_name='m')",
    "RocAuc(average=None)",
    "TopKAccuracy(k=3)",
    "ConstrainL2Norm(limit=1.0)",
    "DebugHandler(handler=NumpyHandler(seed=1))",
]
NAMES = {
    name: getattr(module, name)
    for module in (bs, handlers, hooks, scorers, training)
    for name in module.__all__
}


@pytest.mark.parametrize("call", CALLS)
def test_calls(call):
    made = eval(call, NAMES)
    assert repr(made) == call
    assert repr(eval(repr(made), NAMES)) == call


def test_large_arrays_are_shapes():
    assert repr(bs.MaskValues(np.ones((3, 4)))) == "MaskValues(mask=<array (3, 4)>)"


def test_own_classes():
    class Mine(Describable):
        def __init__(self, a, b=2, **more):
            self.a, self.b = a, b
            self._hidden = more

    assert repr(Mine("x")) == "Mine(a='x')"
    assert repr(Mine([1], b=3, c=4)) == "Mine(a=[1], b=3)"


def test_a_network_prints_its_summary():
    net = tools.create_net_from_spec("classification", 4, 3, "F5")
    assert repr(net) == "<Network of 5 layers, 43 parameters>"
    assert str(net) == net.summary() == tools.get_network_info(net)
    text = net.summary(10, 7)
    assert "training with 10 time steps of 7 sequences" in text
    # Of the Input's 4 + 1 numbers in each of 70 places, deltas take as much again.
    row = next(line for line in text.splitlines() if line.startswith("Input "))
    assert row.split()[-4:] == ["2.8", "kB", "1.4", "kB"]


def test_tied_parameters_are_counted_once():
    inp = layers.Input({"default": ("T", "B", 3)})
    a = layers.FullyConnected(3, name="A")
    b = layers.FullyConnected(3, name="B").share(a)
    assert "12 parameters" in repr(bs.Network.from_layer(inp >> a >> b))


def test_a_drawing_shows_itself(tmp_path):
    pytest.importorskip("pygraphviz")
    net = tools.create_net_from_spec("classification", 4, 3, "F5")
    drawing = tools.draw_network(net, tmp_path / "net.png")
    assert "<svg" in drawing._repr_svg_()
    assert "FullyConnected" in drawing.svg
    assert drawing.file_name == str(tmp_path / "net.png")
