"""Delay."""

import numpy as np
import pytest

from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.structure.network import Network
from brainstorm.utils import LayerValidationError
from tests.layers.single_layer import SingleLayer, normal


def later(x, steps):
    """The same values some steps later, behind zeros."""
    return np.concatenate([np.zeros((steps, *x.shape[1:])), x])[: len(x)]


@pytest.mark.parametrize("steps", [1, 2, 5, 7])
def test_outputs_come_later_and_deltas_earlier(steps):
    x, dy = normal(5, 2, 3, 2), normal(5, 2, 3, 2, seed=1)
    run = SingleLayer(layers.Delay(steps), {"default": x}).forward()
    assert np.array_equal(run.y, later(x, steps))
    run.backward(default=dy)
    assert np.array_equal(run["input_deltas.default"], later(dy[::-1], steps)[::-1])


@pytest.mark.parametrize("pieces", [[9], [1] * 9, [2, 5, 1, 1], [4, 1, 4]])
@pytest.mark.parametrize("steps", [1, 3, 6])
def test_pieces_give_what_the_whole_gives(steps, pieces):
    inp, both = layers.Input({"default": ("T", "B", 2)}), layers.Add()
    inp >> layers.Delay(steps) >> "inputs_1" - both
    inp >> layers.Delay(steps + 1) >> "inputs_2" - both
    net = Network.from_layer(both)
    net.set_handler(NumpyHandler(np.float64))
    x = normal(9, 3, 2)
    found, context, start = [], None, 0
    for size in pieces:
        net.provide_external_data({"default": x[start : start + size]})
        net.forward_pass(context=context)
        found.append(net.get("Add.outputs.default"))
        context, start = net.get_context(), start + size
    expected = later(x, steps) + later(x, steps + 1)
    assert np.array_equal(np.concatenate(found), expected)


@pytest.mark.parametrize("steps", [0, -1, 1.5, True, "1", None])
def test_bad_steps(steps):
    layer = layers.Delay(steps, name="D")
    with pytest.raises(LayerValidationError, match=r"Delay.*'D'.*positive.*'steps'"):
        Network.from_layer(layers.Input({"default": ("T", "B", 1)}) >> layer)
