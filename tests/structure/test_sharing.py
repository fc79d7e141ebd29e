"""Deltas share memory while training, and nobody who reads them notices."""

import math

import numpy as np
import pytest

from brainstorm import Gaussian, layers, tools
from brainstorm.data_iterators import Minibatches
from brainstorm.handlers import NumpyHandler, PyCudaHandler, default_handler
from brainstorm.hooks import Hook, MonitorLoss, StopAfterEpoch
from brainstorm.layers.base_layer import ConstructionWrapper, Layer
from brainstorm.layers.fully_connected_layer import FullyConnectedLayerImpl
from brainstorm.structure import sharing
from brainstorm.structure.backward_plan import plan_backward
from brainstorm.structure.layout import create_layout
from brainstorm.structure.network import Network
from brainstorm.training import AdamStepper, SgdStepper, Trainer
from brainstorm.utils import HandlerError
from tests.training.test_deltas_for_hooks import delta_paths

HANDLERS = [lambda: NumpyHandler(np.float64), lambda: default_handler]


class AddsAlwaysLayerImpl(Layer):
    """A layer as people write them: it adds to its deltas."""

    def setup(self, kwargs, in_shapes):
        return {"default": in_shapes["default"]}, {}, {}

    def forward_pass(self, buffers, training_pass=True):
        self.handler.mult_st(3.0, buffers.inputs.default, buffers.outputs.default)

    def backward_pass(self, buffers):
        dx = buffers.input_deltas.default
        self.handler.mult_add_st(3.0, buffers.output_deltas.default, dx)


def deep(blocks=2):
    inp, out = tools.get_in_out_layers("classification", 6, 3)
    x = inp >> layers.FullyConnected(8, "linear", name="First")
    for number in range(blocks):
        x = tools.transformer_block(x, 8, 2, name=f"B{number}")
    return Network.from_layer(x >> out)


def with_joins():
    inp, out = tools.get_in_out_layers("classification", (4, 4, 2), 3)
    conv = inp >> layers.Convolution2D(4, (3, 3), padding=1, name="C")
    pooled = conv >> layers.Pooling2D((2, 2), stride=(2, 2), name="P")
    flat = pooled >> layers.BatchNorm(name="N") >> layers.FullyConnected(6, name="F")
    odd = ConstructionWrapper.create(AddsAlwaysLayerImpl, name="Odd")
    both = layers.FullyConnected(5, "tanh", name="Both")
    inp >> layers.FullyConnected(3, "sigmoid", name="Side") >> odd >> both
    flat >> both
    return Network.from_layer(both >> out)


NETS = [deep, with_joins]


@pytest.fixture
def always_shared(monkeypatch):
    monkeypatch.setattr(sharing, "_LEAST", 0)
    monkeypatch.setattr(sharing, "_LEAST_RATIO", 0)


def batch(net, time=3, sequences=4, seed=0):
    rnd = np.random.RandomState(seed)
    shape = net.layers["Input"].out_shapes["default"].feature_shape
    x = rnd.randn(time, sequences, *shape)
    return {"default": x, "targets": rnd.randint(3, size=(time, sequences, 1))}


def prepared(make, handler, stepper=SgdStepper):
    net = make()
    net.set_handler(handler)
    net.initialize(Gaussian(0.3), seed=1)
    stepper = stepper()
    stepper.start(net)
    return net, stepper


def step(net, stepper, **sizes):
    net.provide_external_data(batch(net, **sizes))
    stepper.run()


def shares(net):
    return net.backpropagation.views is not net.buffer


def all_deltas(net):
    return {path: net.get(path) for path in delta_paths(net)}


# -- the plan ----------------------------------------------------------------------


@pytest.mark.parametrize("make", NETS)
def test_what_lives_at_the_same_time_lies_apart(make):
    net = make()
    hubs, _ = create_layout(net.layers)
    plan = plan_backward(net.layers, hubs, all_deltas=False)
    life = sharing.lifetimes(net.layers, hubs, plan)
    lives = life.spans
    assert len(lives) > 5
    for sizes in ((1, 1), (7, 5), (300, 20)):
        starts, total = sharing.place(life, hubs, *sizes)
        ends = {i: starts[i] + math.prod(hubs[i].get_shape(*sizes)) for i in starts}
        assert max(ends.values()) <= total
        for i, (first, last) in lives.items():
            for j, (other_first, other_last) in lives.items():
                if life.within.get(i) == j or life.within.get(j) == i:
                    assert starts[i] == starts[j]
                elif i < j and first <= other_last and other_first <= last:
                    assert ends[i] <= starts[j] or ends[j] <= starts[i]


def test_a_layer_finds_all_that_it_touches_alive():
    net = deep(2)
    hubs, _ = create_layout(net.layers)
    plan = plan_backward(net.layers, hubs, all_deltas=False)
    lives = sharing.lifetimes(net.layers, hubs, plan).spans
    for number, name in enumerate(plan.order):
        for i, hub in sharing.delta_hubs(hubs):
            if any(p.partition(".")[0] == name for p in (*hub.sources, *hub.sinks)):
                first, last = lives[i]
                assert first <= number <= last


def test_memory_does_not_grow_with_the_number_of_layers(always_shared):
    sizes = []
    for blocks in (2, 5):
        net, stepper = prepared(lambda n=blocks: deep(n), NumpyHandler(np.float64))
        step(net, stepper)
        assert shares(net)
        manager = net._buffer_manager
        assert all(
            manager._memory[i] is None for i, _ in sharing.delta_hubs(net_hubs(net))
        )
        sizes.append(manager._shared_memory.size)
    assert sizes[0] == sizes[1]


def net_hubs(net):
    return net._buffer_manager.hubs


def test_small_networks_do_not_share():
    net, stepper = prepared(deep, NumpyHandler(np.float64))
    step(net, stepper)
    assert not shares(net)
    assert np.all(np.isfinite(net.get("B0.output_deltas.default")))


def test_what_is_carried_on_is_not_shared(always_shared):
    net, stepper = prepared(
        lambda: tools.create_net_from_spec("classification", 6, 3, "L5 F4"),
        default_handler,
    )
    step(net, stepper)
    assert not shares(net)


# -- results -----------------------------------------------------------------------


@pytest.mark.parametrize("make", NETS)
@pytest.mark.parametrize("handler", HANDLERS)
def test_gradients_are_the_same_to_the_bit(make, handler, monkeypatch):
    trained = []
    for least in (0, math.inf):
        monkeypatch.setattr(sharing, "_LEAST", least)
        monkeypatch.setattr(sharing, "_LEAST_RATIO", 0)
        net, stepper = prepared(make, handler(), AdamStepper)
        for sizes in ((3, 4), (2, 3), (5, 4), (3, 4)):
            step(net, stepper, time=sizes[0], sequences=sizes[1])
            assert shares(net) == (least == 0)
            if least == 0:  # nothing depends on what is there
                net._buffer_manager._shared_memory.fill(np.nan)
        trained.append((net.get("parameters"), net.get("gradients")))
    for found, expected in zip(*trained, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("make", NETS)
@pytest.mark.parametrize(
    ("handler", "how"), zip(HANDLERS, ("get", "views"), strict=True)
)
def test_deltas_that_are_read_are_those_of_the_step(make, handler, how, always_shared):
    net, stepper = prepared(make, handler(), AdamStepper)
    step(net, stepper)
    step(net, stepper, seed=1)
    assert shares(net)
    gradients = net.get("gradients")
    after = net.get("parameters")
    if how == "views":
        read = net.handler.get_numpy_copy
        found = {path: read(net.buffer[path]) for path in delta_paths(net)}
    else:
        found = all_deltas(net)
    np.testing.assert_array_equal(net.get("gradients"), gradients)
    np.testing.assert_array_equal(net.get("parameters"), after)
    other, stepper = prepared(make, handler(), AdamStepper)
    other.ask_for_deltas()
    step(other, stepper)
    step(other, stepper, seed=1)
    expected = all_deltas(other)
    for path in expected:
        np.testing.assert_allclose(
            found[path], expected[path], 1e-5, 1e-6, err_msg=path
        )


@pytest.mark.parametrize("how", ["forward_pass", "provide_external_data", "resize"])
def test_after_another_pass_it_is_too_late(how, always_shared):
    net, stepper = prepared(deep, NumpyHandler(np.float64))
    step(net, stepper)
    view = net.buffer.B0.output_deltas
    if how == "forward_pass":
        net.forward_pass()
    elif how == "resize":
        net.provide_external_data(batch(net, sequences=2))
    else:
        net.provide_external_data(batch(net, seed=1))
    with pytest.raises(KeyError, match="nobody had asked for deltas"):
        net.get("B0.output_deltas.default")
    assert np.all(np.isnan(view.default))  # not what others have left
    step(net, stepper)
    assert not shares(net)
    assert np.all(np.isfinite(view.default))
    net.provide_external_data(batch(net))
    assert np.any(net.get("B0.output_deltas.default"))


def test_who_has_read_deltas_sees_those_of_each_step(always_shared):
    net, stepper = prepared(deep, NumpyHandler(np.float64))
    step(net, stepper)
    array = net.buffer.B1_Wide.internals.dH
    seen = []
    for seed in (1, 2):
        step(net, stepper, seed=seed)
        seen.append(array.copy())
        np.testing.assert_array_equal(array, net.get("B1_Wide.internals.dH"))
    assert np.all(np.isfinite(seen))
    assert not np.array_equal(*seen)


def test_a_backward_pass_has_memory_for_all_deltas(always_shared):
    net, stepper = prepared(deep, NumpyHandler(np.float64))
    step(net, stepper)
    net.provide_external_data(batch(net))
    net.forward_pass()
    net.backward_pass()
    found = all_deltas(net)
    assert all(np.all(np.isfinite(array)) for array in found.values())
    assert net._buffer_manager._shared_memory is None


def test_looking_at_gradients_and_names_leaves_them_shared(always_shared):
    net, stepper = prepared(deep, NumpyHandler(np.float64))
    assert net.buffer.gradients.shape == net.buffer.parameters.shape
    assert net.buffer.First.gradients.W.shape == (8, 6)
    step(net, stepper)
    assert "default" in net.buffer.First.input_deltas
    assert "dH" in net.buffer.B0_Wide.internals
    assert np.any(net.buffer.B0_Wide.internals.H)
    assert np.any(net.buffer.B0_Wide.gradients.W)
    step(net, stepper)
    assert shares(net)


def test_memory_is_that_of_the_largest_batch(always_shared):
    net, stepper = prepared(deep, NumpyHandler(np.float64))
    step(net, stepper, sequences=4)
    memory = net._buffer_manager._shared_memory
    step(net, stepper, sequences=2)
    assert net._buffer_manager._shared_memory is memory
    step(net, stepper, sequences=9)
    assert net._buffer_manager._shared_memory.size > memory.size
    step(net, stepper, sequences=4)
    assert np.shares_memory(
        net.backpropagation.views.B0.output_deltas.default,
        net._buffer_manager._shared_memory,
    )


def test_a_large_batch_gives_back_what_small_ones_had(monkeypatch):
    monkeypatch.setattr(sharing, "_LEAST", 2000)
    monkeypatch.setattr(sharing, "_LEAST_RATIO", 0)
    net, stepper = prepared(deep, NumpyHandler(np.float64))
    step(net, stepper, time=1, sequences=1)
    assert not shares(net)
    step(net, stepper, time=5)
    assert shares(net)
    deltas = [i for i, _ in sharing.delta_hubs(net_hubs(net))]
    assert all(net._buffer_manager._memory[i] is None for i in deltas)
    step(net, stepper, time=1, sequences=1)
    assert shares(net)


def test_another_handler_has_memory_of_its_own(always_shared):
    net, stepper = prepared(deep, NumpyHandler(np.float64))
    step(net, stepper)
    net.set_handler(NumpyHandler(np.float32))
    stepper.start(net)
    step(net, stepper)
    assert net._buffer_manager._shared_memory.dtype == np.float32
    assert net.get("B0.output_deltas.default").dtype == np.float32


# -- in a training -----------------------------------------------------------------


class Reader(Hook):
    def __init__(self, first):
        super().__init__(timescale="update")
        self.first, self.seen = first, []

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if update_nr >= self.first:
            self.seen.append(net.get("B1_Attention.internals.dkeys"))


def train(*hooks, asks=False):
    net = deep()
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(Gaussian(0.3), seed=1)
    if asks:
        net.ask_for_deltas()
    trainer = Trainer(SgdStepper(0.1), verbose=False)
    for hook in (*hooks, StopAfterEpoch(2)):
        trainer.add_hook(hook)
    data = batch(net, sequences=8)
    trainer.train(
        net, Minibatches(4, shuffle=False, **data), valid=Minibatches(4, **data)
    )
    return net


def test_trainings_that_validate_share_memory(always_shared):
    assert shares(train(MonitorLoss("valid")))


def test_hooks_that_read_deltas_get_them(always_shared):
    found, expected = Reader(2), Reader(2)
    net = train(MonitorLoss("valid", timescale="update"), found)
    other = train(expected, asks=True)
    assert len(found.seen) == len(expected.seen) == 3
    np.testing.assert_allclose(found.seen, expected.seen, 1e-10)
    np.testing.assert_allclose(net.get("parameters"), other.get("parameters"), 1e-10)


def test_deltas_lie_where_those_do_that_they_are_computed_from(always_shared):
    net, stepper = prepared(deep, default_handler)
    step(net, stepper)
    wide = net.backpropagation.views.B0_Wide
    assert np.shares_memory(wide.internals.dH, wide.output_deltas.default)
    assert net.buffer.B0_Wide.internals.dH is not None
    step(net, stepper)
    assert not shares(net)
    wide = net.buffer.B0_Wide
    assert not np.shares_memory(wide.internals.dH, wide.output_deltas.default)


class LookingLayerImpl(FullyConnectedLayerImpl):
    """Looks at its deltas when it has done with them."""

    def backward_pass(self, buffers):
        super().backward_pass(buffers)
        self.seen = self.handler.get_numpy_copy(buffers.output_deltas.default)


def looking():
    inp, out = tools.get_in_out_layers("classification", 6, 3)
    kwargs = {"size": 8, "activation": "tanh", "name": "Own"}
    own = ConstructionWrapper.create(LookingLayerImpl, **kwargs)
    return Network.from_layer(inp >> layers.FullyConnected(8) >> own >> out)


def test_layers_of_ones_own_find_their_deltas_as_they_were(always_shared):
    net, stepper = prepared(looking, NumpyHandler(np.float64))
    step(net, stepper)
    assert shares(net)
    seen = net.layers["Own"].seen
    np.testing.assert_allclose(seen, net.get("Own.output_deltas.default"), 1e-10)


def test_so_do_passes_in_place_of_others(always_shared):
    net, stepper = prepared(deep, NumpyHandler(np.float64))
    step(net, stepper)
    assert shares(net)
    layer, seen = net.layers["B0_Wide"], []
    backward_pass = layer.backward_pass

    def look(buffers):
        backward_pass(buffers)
        seen.append(net.handler.get_numpy_copy(buffers.output_deltas.default))

    layer.backward_pass = look
    step(net, stepper)
    np.testing.assert_allclose(seen[0], net.get("B0_Wide.output_deltas.default"), 1e-10)


@pytest.mark.gpu
def test_on_a_gpu(always_shared):
    try:
        handler = PyCudaHandler()
    except (ImportError, HandlerError) as error:
        pytest.skip(str(error))
    nets = [
        prepared(lambda: deep(1), each) for each in (handler, NumpyHandler(np.float64))
    ]
    for net, stepper in nets:
        for sequences in (2, 3, 2):
            step(net, stepper, sequences=sequences)
        assert shares(net)
    (net, _), (other, _) = nets
    np.testing.assert_allclose(net.get("parameters"), other.get("parameters"), 1e-3)
    expected = all_deltas(other)
    for path, found in all_deltas(net).items():
        np.testing.assert_allclose(found, expected[path], 1e-3, 1e-5, err_msg=path)


def test_listings_name_deltas_that_share_memory(always_shared):
    net, _ = prepared(deep, NumpyHandler(np.float64))
    rows = net.program(training_pass=True, time_size=3, batch_size=2)
    row = next(r for r in rows if r.pass_name == "backward" and r.layer == "B1_Wide")
    named = {argument.name: argument.buffer for argument in row.arguments}
    assert named["dy"] == "B1_Wide.output_deltas.default"
    assert named["dh"] == "B1_Wide.internals.dH"
    assert named["dx"] == "B1_Wide.input_deltas.default"
