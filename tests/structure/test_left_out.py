"""Internals that passes leave out, where no backward pass follows."""

import numpy as np
import pytest

from brainstorm import Network, layers
from brainstorm.data_iterators import Undivided
from brainstorm.handlers import DebugHandler, NumpyHandler
from brainstorm.initializers import Gaussian
from brainstorm.layers.lstm_layer import LstmLayerImpl
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.training import ForwardStepper, SgdStepper, Trainer
from brainstorm.training.utils import run_network
from brainstorm.utils import NetworkValidationError
from tests.handlers.handler_cases import onednn_handler
from tests.structure.test_passes import classifier, data

HANDLERS = {
    "numpy": lambda: NumpyHandler(np.float64, seed=1),
    "onednn": onednn_handler,
    "debug": lambda: DebugHandler(NumpyHandler(np.float64, seed=1)),
}
HIDDEN = {
    "lstm": lambda: layers.Lstm(3, name="Hidden"),
    "no peepholes": lambda: layers.Lstm(3, name="Hidden", peepholes=False, bias=False),
    "rel": lambda: layers.Lstm(3, "rel", name="Hidden"),
    "learned": lambda: layers.Lstm(3, name="Hidden", initial_state="learned"),
    "clockwork": lambda: layers.ClockworkLstm(3, name="Hidden"),
    "gru": lambda: layers.Gru(3, name="Hidden", recurrent_bias=True),
    "reset before": lambda: layers.Gru(3, name="Hidden", reset_after=False),
    "attention": lambda: layers.Attention(4, heads=2, name="Hidden"),
    "rotary": lambda: layers.Attention(4, heads=2, rotary=True, name="Hidden"),
    "carrying": lambda: layers.Attention(
        4, heads=2, causal=True, context_size=20, name="Hidden"
    ),
    "two": lambda: layers.Bidirectional(layers.Lstm(3), name="Hidden"),
    "dense": lambda: layers.FullyConnected(3, "gelu", name="Hidden"),
}
FIVE = "Hidden.internals.Fb"


FAST = ("lstm", "gru", "two", "dense")
slow = pytest.mark.slow
KINDS = [pytest.param(k, marks=() if k in FAST else slow) for k in HIDDEN]


@pytest.fixture(params=["numpy", "onednn", pytest.param("debug", marks=slow)])
def handler(request):
    return HANDLERS[request.param]()


def alike(handler, kind="lstm", **kwargs):
    """Two networks that are the same, with data."""
    nets = classifier(HIDDEN[kind](), handler), classifier(HIDDEN[kind](), handler)
    for net in nets:
        net.provide_external_data(data(**kwargs))
    return nets


def internals_of(net):
    """The memory of those that can be left out, by their names."""
    names = net.layers["Hidden"].can_leave_out
    return {name: net.buffer.Hidden.internals[name] for name in names}


def assert_close(net, other, path):
    np.testing.assert_allclose(net.get(path), other.get(path), 1e-4, 1e-6)


# -- what passes leave out ---------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_internals_are_not_written(kind, handler):
    net, _ = alike(handler, kind)
    net.forward_pass()
    internals = internals_of(net)
    assert internals
    for array in internals.values():
        array[...] = 7.5
    net.forward_pass(keeps_internals=False)
    for name, array in internals.items():
        steps = net.time_size - name.endswith("Ca")  # of which the last is a state
        assert (array[:steps] == 7.5).all(), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 4])
def test_outputs_and_contexts_are_the_same(kind, steps, handler):
    nets = alike(handler, kind, steps=steps)
    contexts = [None, None]
    for _ in range(3):
        for i, net in enumerate(nets):
            net.forward_pass(context=contexts[i], keeps_internals=i == 0)
            contexts[i] = net.get_context() or None
        assert_close(*nets, "Output.outputs.predictions")
        for name in contexts[0] or ():
            np.testing.assert_allclose(*[c[name] for c in contexts], 1e-4, 1e-6)
    assert nets[1].get_loss_values() == pytest.approx(nets[0].get_loss_values(), 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_who_reads_them_gets_them(kind, handler):
    kept, net = alike(handler, kind)
    context = {n: v + 0.5 for n, v in kept.get_context().items()}
    kept.forward_pass(context=context)
    net.forward_pass(context=context, keeps_internals=False)
    outputs = net.get("Output.outputs.predictions")
    for name in internals_of(kept):
        assert_close(kept, net, f"Hidden.internals.{name}")
    np.testing.assert_array_equal(net.get("Output.outputs.predictions"), outputs)


@pytest.mark.parametrize(
    "read",
    [
        lambda net: net.buffer.Hidden.internals.Fb,
        lambda net: net.buffer[FIVE],
        lambda net: dict(net.buffer.Hidden.internals.items())["Fb"],
        lambda net: net.buffer.Hidden.internals[list(internals_of(net)).index("Fb")],
    ],
)
def test_views_compute_them_too(read, handler):
    kept, net = alike(handler)
    view = net.buffer.Hidden.internals
    kept.forward_pass()
    for _ in range(2):
        net.forward_pass(keeps_internals=False)
    assert view is net.buffer.Hidden.internals
    values = net.handler.get_numpy_copy(read(net))
    np.testing.assert_allclose(values, kept.get(FIVE), 1e-4, 1e-6)


def test_what_is_computed_of_them(handler):
    kept, net = alike(handler, "attention")
    kept.forward_pass()
    net.forward_pass(keeps_internals=False)
    assert_close(kept, net, "Hidden.internals.weights")


def test_once_they_are_read_they_are_kept():
    net, _ = alike(NumpyHandler(np.float64))
    net.forward_pass(keeps_internals=False)
    net.get(FIVE)
    array = net.buffer[FIVE]
    array[...] = np.nan
    net.forward_pass(keeps_internals=False)
    assert np.isfinite(array[:-1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_backward_pass_may_follow_anyway(kind, handler):
    kept, net = alike(handler, kind)
    for _ in range(2):  # the second ones are replayed
        kept.forward_pass()
        kept.backward_pass()
        net._left_out.is_wanted = False
        net.forward_pass(keeps_internals=False)
        net.backward_pass()
        assert_close(kept, net, "gradients")


def test_replays_are_the_same_to_the_bit(handler):
    net, _ = alike(handler, steps=30)
    seen = []
    for _ in range(4):
        net.forward_pass(keeps_internals=False)
        seen.append(net.get("Output.outputs.predictions"))
    for values in seen[1:]:
        np.testing.assert_array_equal(values, seen[0])


def test_what_a_pass_before_has_left_out_does_not_come_back(handler):
    """Handlers may complete the internals of a training pass later."""
    kept, net = alike(handler)
    net.forward_pass(training_pass=True)
    for each in (kept, net):
        each.provide_external_data(data(seed=1))
        each.forward_pass(keeps_internals=each is kept)
    state = net.get_context()
    assert_close(kept, net, FIVE)
    for name, values in state.items():
        np.testing.assert_array_equal(net.get_context()[name], values)


# -- what changes in between ---------------------------------------------------------


def other_data(net):
    net.provide_external_data(data(seed=5))


def other_parameters(net):
    parameters = net.get("parameters")
    net.handler.set_from_numpy(net.buffer.parameters, 1.5 * parameters)


@pytest.mark.parametrize("change", [other_data, other_parameters])
@pytest.mark.parametrize("read", [lambda n: n.get(FIVE), lambda n: n.backward_pass()])
def test_what_they_depend_on_has_changed(change, read, handler):
    kept, net = alike(handler)
    net.forward_pass(keeps_internals=False)
    outputs = net.get("Output.outputs.predictions")
    change(net)
    for _ in range(2):
        with pytest.raises(NetworkValidationError, match="of 'Hidden' were left out"):
            read(net)
    np.testing.assert_array_equal(net.get("Output.outputs.predictions"), outputs)
    change(kept)
    for each in (kept, net):
        each.forward_pass()
    read(net)
    assert_close(kept, net, FIVE)


def test_other_sizes_and_back(handler):
    kept, net = alike(handler, steps=4)
    for steps, keeps in ((4, False), (2, False), (4, False), (2, True), (4, False)):
        for each in (kept, net):
            each.provide_external_data(data(steps=steps, seed=steps))
        kept.forward_pass()
        net._left_out.is_wanted = False
        net.forward_pass(keeps_internals=keeps)
        assert_close(kept, net, "Output.outputs.predictions")
        if steps == 2:
            assert_close(kept, net, FIVE)
    assert_close(kept, net, FIVE)


def test_memory_for_deltas_changes_nothing(handler):
    kept, net = alike(handler)
    kept.forward_pass()
    net.forward_pass(keeps_internals=False)
    assert net.buffer.gradients is not None
    net.buffer.Output.input_deltas.default  # noqa: B018
    array = net.buffer.Hidden.internals.Fb
    values = net.handler.get_numpy_copy(array)
    np.testing.assert_allclose(values, kept.get(FIVE), 1e-4, 1e-6)


def test_another_handler():
    net, kept = alike(NumpyHandler(np.float64))
    net.forward_pass(keeps_internals=False)
    net.set_handler(NumpyHandler(np.float64))
    for each in (net, kept):
        each.provide_external_data(data())
        each.forward_pass()
    assert_close(kept, net, FIVE)


def test_only_some_of_the_layers(handler):
    kept, net = alike(handler)
    kept.forward_pass()
    net.forward_pass(keeps_internals=False)
    net.forward_pass(only={"Projection", "Output"})
    assert_close(kept, net, FIVE)


# -- who leaves out ----------------------------------------------------------------


def filled(net, run):
    """Whether the gates are filled by something."""
    array = net.buffer[FIVE]
    array[...] = np.nan
    run(net)
    return np.isfinite(array[:-1]).all()


def evaluate(net):
    some = Undivided(**data())
    Trainer(SgdStepper(), verbose=False).evaluate(net, some=some)


def step(stepper):
    def run(net):
        stepper.start(net)
        stepper.run()

    return run


@pytest.mark.parametrize(
    ("run", "keeps"),
    [
        (lambda net: net.predict(data()["default"]), False),
        (evaluate, False),
        (lambda net: list(run_network(net, [data()])), False),
        (step(ForwardStepper()), False),
        (step(SgdStepper()), True),
        (lambda net: net.forward_pass(), True),
    ],
)
def test_who_leaves_them_out(run, keeps):
    net, _ = alike(NumpyHandler(np.float64))
    net.forward_pass()
    assert filled(net, run) == keeps
    assert np.isfinite(net.get(FIVE)[:-1]).all()


def initialized(inp, handler):
    net = Network.from_layer(inp)
    net.set_handler(handler)
    net.initialize(Gaussian(0.5), seed=1)
    return net


def with_taps(hidden):
    """Its cells are the inputs of another layer."""
    inp = layers.Input({"default": ("T", "B", 4)})
    inp >> hidden
    hidden - "..internals.Ca" >> layers.FullyConnected(3, name="Projection")
    return inp


def in_a_loop(hidden):
    inp = layers.Input({"default": ("T", "B", 4)})
    out = inp >> hidden >> layers.FullyConnected(4, name="Projection")
    hidden << out
    return inp


@pytest.mark.parametrize("place", [with_taps, in_a_loop])
def test_some_layers_leave_out_nothing(place, handler):
    net = initialized(place(HIDDEN["gru" if place is in_a_loop else "lstm"]()), handler)
    net.provide_external_data({"default": data()["default"]})
    net.forward_pass(keeps_internals=False)
    assert "Hidden" not in net._left_out.layers


class LoudLstmLayerImpl(LstmLayerImpl):
    """Does not say that it repeats its operations, and looks at its internals."""

    def forward_pass(self, buffers, training_pass=True):
        super().forward_pass(buffers, training_pass)
        self.sum = self.handler.get_numpy_copy(buffers.internals.Fb).sum()


def test_layers_that_are_not_replayed_leave_out_nothing(handler):
    loud = ConstructionWrapper.create(LoudLstmLayerImpl, size=3, name="Hidden")
    net = classifier(loud, handler)
    for seed in range(3):
        net.provide_external_data(data(seed=seed))
        net.forward_pass(keeps_internals=False)
        assert net.layers["Hidden"].sum == pytest.approx(net.get(FIVE).sum())


def test_frozen_layers(handler):
    kept, net = alike(handler)
    for each in (kept, net):
        each.set_trainable(Hidden=False)
        each.forward_pass(keeps_internals=each is kept)
        each.backward_pass()
    assert_close(kept, net, "gradients")
    assert_close(kept, net, FIVE)


def test_masks_of_sequences_that_run_both_ways(handler):
    mask = np.ones((4, 5, 1))
    mask[2:, ::2] = 0
    nets = []
    for _ in range(2):
        inp = layers.Input({"default": ("T", "B", 4), "mask": ("T", "B", 1)})
        both = layers.Bidirectional(layers.Gru(3), name="Hidden")
        inp >> both
        inp - "mask" >> "mask" - both
        nets.append(initialized(inp, handler))
        nets[-1].provide_external_data({**data(steps=4), "mask": mask})
        nets[-1].forward_pass(keeps_internals=len(nets) == 1)
    assert_close(*nets, "Hidden.outputs.default")
    assert_close(*nets, "Hidden.internals.backward_Zb")
