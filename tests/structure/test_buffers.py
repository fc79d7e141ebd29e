import numpy as np
import pytest

from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.layers.base_layer import Layer
from brainstorm.structure.architecture import (
    generate_architecture,
    instantiate_layers_from_architecture,
)
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.buffers import BufferManager
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.utils import NetworkValidationError


class CountingHandler(NumpyHandler):
    def __init__(self):
        super().__init__()
        self.allocated = []

    def zeros(self, shape):
        self.allocated.append(int(np.prod(shape)))
        return super().zeros(shape)


class SumUpLayerImpl(Layer):
    """y[t] = y[t-1] + x[t]: the simplest layer with a state."""

    def setup(self, kwargs, in_shapes):
        shape = in_shapes["default"].shape
        return {"default": BufferStructure(*shape, context_size=1)}, {}, {}

    def forward_pass(self, buffers, training_pass=True):
        x, y = buffers.inputs.default, buffers.outputs.default
        for t in range(x.shape[0]):
            self.handler.add_tt(x[t], y[t - 1], y[t])

    def backward_pass(self, buffers):
        dx, dy = buffers.input_deltas.default, buffers.output_deltas.default
        for t in range(dx.shape[0]):
            self.handler.add_tt(dx[t], dy[t], dx[t])


def SumUp():
    return ConstructionWrapper.create(SumUpLayerImpl)


def make_manager():
    inp = layers.Input({"default": ("T", "B", 2)})
    last = inp >> SumUp() >> layers.FullyConnected(3, name="fc")
    made = instantiate_layers_from_architecture(generate_architecture(last))
    return BufferManager.from_layers(made, CountingHandler())


def test_shapes_follow_the_sizes():
    manager = make_manager()
    views = manager.resize(4, 5)
    assert (manager.time_size, manager.batch_size) == (4, 5)
    assert views["fc.outputs.default"].shape == (4, 5, 3)
    assert views["fc.parameters.W"].shape == (3, 2)


def test_owners_see_the_context_and_consumers_do_not():
    views = make_manager().resize(4, 5)
    assert views["SumUp.outputs.default"].shape == (5, 5, 2)
    assert views["fc.inputs.default"].shape == (4, 5, 2)
    assert views["SumUp.output_deltas.default"].shape == (5, 5, 2)
    assert views["fc.input_deltas.default"].shape == (4, 5, 2)


def test_memory_is_reused_and_parameters_stay():
    manager = make_manager()
    views = manager.resize(4, 5)
    manager.handler.set_from_numpy(views.parameters, np.arange(9.0))
    before = len(manager.handler.allocated)
    smaller = manager.resize(2, 3)
    assert len(manager.handler.allocated) == before
    assert np.shares_memory(smaller["fc.outputs.default"], views["fc.outputs.default"])
    assert manager.resize(4, 5) is views
    larger = manager.resize(6, 5)
    assert len(manager.handler.allocated) > before
    assert np.array_equal(larger.parameters, np.arange(9.0))
    assert np.array_equal(larger["fc.parameters.bias"], [6, 7, 8])


def test_backward_buffers_appear_when_asked_for():
    manager = make_manager()
    views = manager.resize(4, 5)
    before = len(manager.handler.allocated)
    assert "dH" not in views.fc.internals.__dict__
    assert views["fc.outputs.default"].shape == (4, 5, 3)
    assert len(manager.handler.allocated) == before
    assert views["fc.internals.dH"].shape == (4, 5, 3)
    assert views.fc.gradients.W.shape == (3, 2)
    assert views.gradients.shape == (9,)
    assert manager.views is views
    assert len(manager.handler.allocated) == before + 5
    assert manager.resize(7, 7)["fc.input_deltas.default"].shape == (7, 7, 2)


def test_views_kept_for_other_sizes_are_whole_after_a_backward_pass():
    manager = make_manager()
    small, large = (2, 2), (4, 5)
    manager.resize(*large)
    manager.resize(*small)
    manager.ensure_backward()
    assert manager.resize(*large).fc.input_deltas.default.shape == (4, 5, 2)
    assert manager.resize(*small).fc.input_deltas.default.shape == (2, 2, 2)


def test_parameters_move_to_another_handler():
    manager = make_manager()
    manager.handler.set_from_numpy(manager.views.parameters, np.arange(9.0))
    manager.set_handler(NumpyHandler(np.float64))
    assert manager.views.parameters.dtype == np.float64
    assert np.array_equal(manager.views.parameters, np.arange(9.0))


def test_context_goes_round():
    manager = make_manager()
    y = manager.resize(4, 1)["SumUp.outputs.default"]
    y[...] = np.arange(10.0).reshape(5, 1, 2)
    context = manager.get_context()
    assert list(context) == ["SumUp.outputs.default"]
    assert np.array_equal(context["SumUp.outputs.default"], [[[6, 7]]])
    manager.apply_context(context)
    assert np.array_equal(y[-1], [[6, 7]])
    assert np.array_equal(y[3], [[6, 7]])
    manager.clear_context()
    assert np.array_equal(y[-1], [[0, 0]])


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({}, r"expected a context for 'SumUp.outputs.default', got \(none\)"),
        (3, "got 3"),
        (
            {"SumUp.outputs.default": np.zeros((1, 2, 2))},
            r"shape \(1, 1, 2\), got \(1, 2, 2\)",
        ),
    ],
)
def test_foreign_contexts_are_refused(context, message):
    manager = make_manager()
    manager.resize(4, 1)
    with pytest.raises(NetworkValidationError, match=message):
        manager.apply_context(context)
