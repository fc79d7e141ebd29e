import numpy as np
import pytest

from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.layers.base_layer import Layer
from brainstorm.structure import buffers
from brainstorm.structure.architecture import (
    generate_architecture,
    instantiate_layers_from_architecture,
)
from brainstorm.structure.buffer_structure import BufferStructure
from brainstorm.structure.buffers import BufferManager
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.network import Network
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
    y = views["fc.outputs.default"]
    smaller = manager.resize(2, 3)
    assert len(manager.handler.allocated) == before
    assert np.shares_memory(smaller["fc.outputs.default"], y)
    assert manager.resize(4, 5)["fc.outputs.default"] is y
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


# -- one tree of views ------------------------------------------------------------


def test_views_that_were_kept_show_the_current_sizes():
    manager = make_manager()
    root = manager.resize(4, 5)
    layer, outputs = root.fc, root.fc.outputs
    manager.handler.set_from_numpy(root.parameters, np.arange(9.0))
    for sizes in [(2, 3), (4, 5), (7, 9), (2, 3)]:
        assert manager.resize(*sizes) is root
        assert outputs.default.shape == (*sizes, 3)
        assert layer.inputs[0].shape == (*sizes, 2)
        assert outputs.default is root["fc.outputs.default"]
        assert np.array_equal(layer.parameters.bias, [6, 7, 8])
    manager.ensure_backward()
    assert layer.input_deltas.default.shape == (2, 3, 2)
    manager.resize(4, 5)
    assert layer.input_deltas.default.shape == (4, 5, 2)
    manager.set_handler(NumpyHandler(np.float64))
    assert outputs.default.dtype == np.float64
    assert layer.gradients.W.dtype == np.float64
    assert np.array_equal(layer.parameters.bias, [6, 7, 8])


def count_cuts(monkeypatch):
    calls = []
    cut = buffers._cut_array

    def counting(*args):
        calls.append(args)
        return cut(*args)

    monkeypatch.setattr(buffers, "_cut_array", counting)
    return calls


def test_nothing_is_cut_again_for_200_lengths(monkeypatch):
    manager = make_manager()
    manager.ensure_backward()
    manager.resize(300, 4)
    lengths = [(t, b) for b in (4, 3) for t in range(1, 201)]
    for sizes in lengths:
        manager.resize(*sizes)
    calls = count_cuts(monkeypatch)
    for sizes in lengths:
        manager.resize(*sizes)
    assert calls == []


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(buffers, "KEPT_SIZES", 20)
    manager = make_manager()
    manager.resize(100, 1)
    for _ in range(3):
        for t in range(1, 31):
            manager.resize(t, 1)
    assert len(manager._kept) == 20
    calls = count_cuts(monkeypatch)
    per_size = 12
    for _ in range(4):  # in a cycle, of which the oldest would always be missing
        for t in range(1, 31):
            manager.resize(t, 1)
            assert manager.views["fc.outputs.default"].shape == (t, 1, 3)
    assert len(calls) < 0.9 * 4 * 30 * per_size
    monkeypatch.setattr(buffers, "KEPT_ARRAYS", 100)
    assert make_manager()._most_kept < 10


class FullHandler(CountingHandler):
    """A handler with little memory."""

    room = None

    def zeros(self, shape):
        if self.room is not None and np.prod(shape) > self.room:
            raise MemoryError(f"no room for {shape}")
        return super().zeros(shape)


@pytest.mark.parametrize("backward", [False, True])
def test_networks_that_got_no_memory_go_on(backward):
    inp = layers.Input({"default": ("T", "B", 2)})
    net = Network.from_layer(inp >> SumUp() >> layers.FullyConnected(50, name="fc"))
    handler = FullHandler()
    net.set_handler(handler)
    net.initialize(0.5)
    small = {"default": np.ones((2, 3, 2))}
    net.provide_external_data(small)
    net.forward_pass()
    expected = net.get("fc.outputs.default")
    if backward:
        net.backward_pass()
    handler.room = 300  # the outputs of fc need more
    with pytest.raises(MemoryError):
        net.provide_external_data({"default": np.ones((4, 3, 2))})
    assert (net.time_size, net.batch_size) == (2, 3)
    for _ in range(2):
        net.provide_external_data(small)
        net.forward_pass()
        assert np.array_equal(net.get("fc.outputs.default"), expected)
        net.backward_pass()
        assert net.get("fc.gradients.bias").shape == (50,)
    handler.room = None
    net.provide_external_data({"default": np.ones((4, 3, 2))})
    net.forward_pass()
    assert net.get("fc.outputs.default").shape == (4, 3, 50)


def test_a_handler_without_memory_is_not_taken():
    net = Network.from_layer(
        layers.Input({"default": ("T", "B", 2)}) >> layers.FullyConnected(50)
    )
    net.initialize(0.5)
    expected = net.predict(np.ones((1, 2)))
    before, poor = net.handler, FullHandler()
    poor.room = 10
    with pytest.raises(MemoryError):
        net.set_handler(poor)
    assert net.handler is before
    assert np.array_equal(net.predict(np.ones((1, 2))), expected)


# -- contexts of several steps ----------------------------------------------------


class DelayLayerImpl(Layer):
    """y[t] = x[t] + y[t-k] / 2."""

    expected_kwargs = frozenset({"k"})

    def setup(self, kwargs, in_shapes):
        shape = in_shapes["default"].shape
        return {"default": BufferStructure(*shape, context_size=kwargs["k"])}, {}, {}

    def forward_pass(self, buffers, training_pass=True):
        x, y = buffers.inputs.default, buffers.outputs.default
        for t in range(x.shape[0]):
            self.handler.mult_st(0.5, y[t - self.kwargs["k"]], y[t])
            self.handler.add_tt(x[t], y[t], y[t])

    def backward_pass(self, buffers):
        pass


def delayed(x, k):
    y = x.copy()
    for t in range(k, len(x)):
        y[t] += y[t - k] / 2
    return y


@pytest.mark.parametrize("pieces", [[6], [3, 3], [1] * 6, [2, 1, 3], [1, 5]])
@pytest.mark.parametrize("orders", [(1,), (2,), (3,), (1, 2), (3, 1, 2), (2, 2)])
def test_contexts_of_any_size_in_pieces_of_any_size(pieces, orders):
    inp, end = layers.Input({"default": ("T", "B", 2)}), layers.NoOp()
    inp >> end
    for i, k in enumerate(orders):
        delay = ConstructionWrapper.create(DelayLayerImpl, name=f"d{i}", k=k)
        inp >> delay >> end
    net = Network.from_layer(end)
    net.set_handler(NumpyHandler(np.float64))
    x = np.random.RandomState(0).randn(6, 3, 2)
    context, start = None, 0
    found = []
    for size in pieces:
        net.provide_external_data({"default": x[start : start + size]})
        net.forward_pass(context=context)
        found.append(net.get("NoOp.outputs.default"))
        context, start = net.get_context(), start + size
    expected = np.concatenate([x, *(delayed(x, k) for k in orders)], axis=2)
    columns = np.concatenate(found)
    paths = ["Input", *(f"d{i}" for i in range(len(orders)))]
    order = sorted(range(len(paths)), key=lambda i: f"{paths[i]}.outputs.default")
    expected = np.concatenate([expected[:, :, 2 * i : 2 * i + 2] for i in order], 2)
    np.testing.assert_allclose(columns, expected)
