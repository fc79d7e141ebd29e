import gc
import sys
import weakref

import numpy as np
import pytest

from brainstorm import Network, layers
from brainstorm.handlers import DebugHandler, NumpyHandler
from brainstorm.handlers.programs import Program
from brainstorm.initializers import Gaussian
from brainstorm.layers.base_layer import Layer
from brainstorm.layers.batch_normalization_layer import BatchNormLayerImpl
from brainstorm.layers.dropout_layer import DropoutLayerImpl
from brainstorm.layers.recurrent_layer import RecurrentLayerImpl
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.structure.passes import Passes
from brainstorm.tools import create_net_from_spec
from brainstorm.training import (
    AdamStepper,
    AdamWStepper,
    MomentumStepper,
    RmsPropStepper,
    SgdStepper,
)
from brainstorm.utils import HandlerError
from tests.handlers.handler_cases import onednn_handler


def classifier(hidden, handler=None, inputs=4, classes=3):
    """A network of one layer and an output, initialized."""
    inp = layers.Input({"default": ("T", "B", inputs), "targets": ("T", "B", 1)})
    out = layers.SoftmaxCE(name="Output")
    inp >> hidden >> layers.FullyConnected(classes, "linear", name="Projection") >> out
    inp - "targets" >> "targets" - out
    out - "loss" >> layers.Loss()
    net = Network.from_layer(inp)
    net.set_handler(handler or NumpyHandler(np.float64, seed=1))
    net.initialize(Gaussian(0.5), seed=1)
    if "Clockwork" in type(net.layers["Hidden"]).__name__:
        net.handler.set_from_numpy(net.buffer.Hidden.parameters.timing, np.arange(1, 4))
    return net


def data(steps=3, batch=5, inputs=4, classes=3, seed=0, dtype=np.float64):
    rnd = np.random.RandomState(seed)
    return {
        "default": rnd.randn(steps, batch, inputs).astype(dtype),
        "targets": rnd.randint(classes, size=(steps, batch, 1)).astype(dtype),
    }


@pytest.fixture
def never_replayed(monkeypatch):
    """Makes networks and steppers record nothing that they could replay."""

    def use():
        monkeypatch.setattr(Program, "__call__", _fail)
        monkeypatch.setattr("brainstorm.structure.passes._MOST_CALLS", -1)

    return use


def _fail(program):
    raise AssertionError("nothing was to be replayed")


HIDDEN = {
    "dropout": lambda: layers.Dropout(0.4, name="Hidden"),
    "lstm": lambda: layers.Lstm(3, name="Hidden"),
    "clockwork": lambda: layers.Clockwork(3, name="Hidden"),
    "gru": lambda: layers.Gru(3, name="Hidden", initial_state="learned"),
    "batch norm": lambda: layers.BatchNorm(name="Hidden"),
}


def train(net, stepper):
    """A training in which all kinds of things change; returns what can be seen."""
    seen = []
    stepper.start(net)
    contexts = [None]
    for nr in range(16):
        net.provide_external_data(data(steps=(3, 2)[nr % 2], seed=nr))
        if nr == 4:
            stepper.learning_rate *= 0.5
        if nr == 6:
            net.handler.set_from_numpy(
                net.buffer.Projection.parameters.W, np.ones((3, net_size(net)))
            )
        if nr == 8:
            net.set_trainable(Projection={"bias": False})
        if nr == 10:
            net.ask_for_deltas()
        stepper.context = contexts[-1] if nr % 3 == 2 else None
        stepper.run()
        contexts.append(net.get_context())
        seen += [net.get("parameters"), net.get("gradients")]
        seen.append(np.array(net.get_loss_values()["total_loss"]))
        if nr > 10:
            seen.append(net.get("Hidden.input_deltas.default"))
        if nr % 4 == 3:
            net.forward_pass()
            net.forward_pass(only=["Input", "Hidden"])
            seen.append(net.get("Hidden.outputs.default"))
    return seen


def net_size(net):
    return net.buffer.Projection.parameters.W.shape[1]


@pytest.mark.parametrize("stepper", [MomentumStepper, AdamWStepper])
@pytest.mark.parametrize("kind", HIDDEN)
def test_replays_do_what_passes_do(kind, stepper, never_replayed, monkeypatch):
    replayed = train(classifier(HIDDEN[kind]()), stepper(0.1))
    never_replayed()
    monkeypatch.setattr("brainstorm.training.updates.Updates.run", run_plainly)
    plain = train(classifier(HIDDEN[kind]()), stepper(0.1))
    assert len(plain) == len(replayed)
    for a, b in zip(plain, replayed, strict=True):
        assert np.array_equal(a, b)


def run_plainly(self, handler, operation, arrays, parts, numbers):
    for part in parts:
        getattr(handler, operation)(*[array[part] for array in arrays], *numbers)


def count_functions(run):
    """Number of Python functions that are called."""
    count = 0

    def note(frame, event, arg):
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count - 1


@pytest.mark.parametrize("make", [lambda: NumpyHandler(np.float32), onednn_handler])
def test_a_step_calls_few_functions(make):
    small = create_net_from_spec("classification", 20, 3, "F32")
    rnn = classifier(layers.Recurrent(16, name="Hidden"))
    for net, batch, most in (
        (small, data(1, 16, 20, dtype=np.float32), 45),
        (rnn, data(50, dtype=np.float32), 150),
    ):
        net.set_handler(make())
        net.initialize(Gaussian(0.1), seed=1)
        stepper = MomentumStepper(0.1, 0.9)
        stepper.start(net)

        def step(net=net, batch=batch, stepper=stepper):
            net.provide_external_data(batch)
            stepper.run()

        for _ in range(3):
            step()
        assert count_functions(step) <= most


@pytest.mark.parametrize("make", [lambda: NumpyHandler(np.float32), onednn_handler])
@pytest.mark.parametrize("kind", [MomentumStepper, AdamStepper, RmsPropStepper])
def test_a_step_of_many_parameters_calls_few_functions(make, kind):
    """Whatever the pieces that large arrays are drawn and updated in."""
    net = create_net_from_spec("classification", 784, 10, "D F600 D F600 D")
    net.set_handler(make())
    net.initialize(Gaussian(0.01), seed=1)
    batch, stepper = data(1, 50, 784, 10, dtype=np.float32), kind()
    stepper.start(net)

    def step():
        net.provide_external_data(batch)
        stepper.run()

    for _ in range(3):
        step()
    assert count_functions(step) <= 450


def test_attributes_of_layers_can_be_changed():
    net = classifier(layers.Dropout(0.5, name="Hidden"))
    net.provide_external_data(data())
    for drop_prob in (0.5, 0.5, 0.0, 0.0):
        net.layers["Hidden"].drop_prob = drop_prob
        net.forward_pass(training_pass=True)
    assert np.array_equal(net.get("Hidden.outputs.default"), data()["default"])


class ShiftLayerImpl(Layer):
    """Adds a number that changes, without an operation of the handler."""

    shift = 0

    def setup(self, kwargs, in_shapes):
        return {"default": self.like(in_shapes["default"])}, {}, {}

    def forward_pass(self, buffers, training_pass=True):
        buffers.outputs.default[...] = buffers.inputs.default + ShiftLayerImpl.shift

    def backward_pass(self, buffers):
        buffers.input_deltas.default[...] += buffers.output_deltas.default


class QuietDropoutLayerImpl(DropoutLayerImpl):
    """Does not say that its passes do the same each time."""

    calls = 0

    def forward_pass(self, buffers, training_pass=True):
        QuietDropoutLayerImpl.calls += 1
        super().forward_pass(buffers, training_pass)


def test_layers_that_do_not_say_so_are_called_each_time():
    net = classifier(ConstructionWrapper.create(ShiftLayerImpl, name="Hidden"))
    net.provide_external_data(data())
    for ShiftLayerImpl.shift in (1, 2, 3):
        net.forward_pass()
        expected = data()["default"] + ShiftLayerImpl.shift
        assert np.array_equal(net.get("Hidden.outputs.default"), expected)
    net = classifier(ConstructionWrapper.create(QuietDropoutLayerImpl, name="Hidden"))
    net.provide_external_data(data())
    for nr in (1, 2, 3):
        net.forward_pass()
        assert QuietDropoutLayerImpl.calls == nr
    net.layers["Projection"].forward_pass = lambda buffers, training_pass: None
    net.handler.fill(net.buffer.Projection.outputs.default, 7.0)
    net.forward_pass()
    assert np.all(net.get("Projection.outputs.default") == 7)


@pytest.mark.parametrize("make", [lambda: NumpyHandler(np.float32), onednn_handler])
def test_a_failure_in_a_replay_names_layer_and_operation(make):
    net = classifier(layers.FullyConnected(4, name="Hidden"), make())
    good = data(dtype=np.float32)
    bad = {**good, "targets": np.full((3, 5, 1), 9, np.float32)}
    stepper = SgdStepper(0.1)
    stepper.start(net)
    messages = []
    for batch in (bad, good, good, bad, good):
        net.provide_external_data(batch)
        try:
            stepper.run()
        except HandlerError as error:
            messages.append(str(error))
    assert len(messages) == 2
    assert messages[0] == messages[1]
    assert "'Output'" in messages[1]
    assert "9" in messages[1]
    assert np.isfinite(net.get_loss_values()["total_loss"])


def test_another_handler_and_more_memory_are_noticed():
    net = classifier(layers.Recurrent(3, name="Hidden"))
    expected = {}
    for steps in (2, 3):
        net.provide_external_data(data(steps))
        net.forward_pass()
        expected[steps] = net.get("Output.outputs.predictions")
    double = NumpyHandler(np.float64)
    for handler in (NumpyHandler(np.float64), onednn_handler(), double):
        net.set_handler(handler)
        for steps in (2, 2, 3, 9, 3, 2):
            net.provide_external_data(data(steps))
            net.forward_pass()
            if steps in expected:
                got = net.get("Output.outputs.predictions")
                assert np.allclose(got, expected[steps], 1e-5, 1e-6)


def test_records_go_with_the_network():
    net = classifier(layers.Lstm(3, name="Hidden"))
    net.provide_external_data(data())
    for _ in range(3):
        net.forward_pass()
        net.backward_pass()
    programs = net._buffer_manager.sized.programs.values()
    alive = [weakref.ref(program) for program in programs]
    assert len(alive) == 2
    del net, programs
    gc.collect()
    assert [reference() for reference in alive] == [None, None]


def test_only_so_much_is_recorded(monkeypatch):
    monkeypatch.setattr("brainstorm.structure.passes._MOST_CALLS", 100)
    net = classifier(layers.Recurrent(3, name="Hidden"))
    for steps in range(1, 30):
        net.provide_external_data(data(steps))
        net.forward_pass()
    recorded = sum(map(len, net._passes._recorded))
    assert 100 < recorded < 400
    assert isinstance(net._passes, Passes)


class NotingLayerImpl(Layer):
    nr_passes = 0

    def setup(self, kwargs, in_shapes):
        return {"default": self.like(in_shapes["default"])}, {}, {}

    def forward_pass(self, buffers, training_pass=True):
        self.nr_passes += 1
        self.handler.copy_to(buffers.inputs.default, buffers.outputs.default)

    def backward_pass(self, buffers):
        self.add_deltas(
            "default",
            "copy_to",
            buffers.output_deltas.default,
            buffers.input_deltas.default,
        )


def test_what_passes_note_down_does_not_make_networks_record_again():
    net = classifier(ConstructionWrapper.create(NotingLayerImpl, name="Hidden"))
    net.provide_external_data(data())
    for training_pass in (True, False, True):
        net.forward_pass(training_pass=training_pass)
        net.backward_pass()
    programs = dict(net._buffer_manager.sized.programs)
    assert len(programs) == 3
    for training_pass in (True, False, True):
        net.forward_pass(training_pass=training_pass)
        net.backward_pass()
    assert net._buffer_manager.sized.programs == programs
    hidden = net.layers["Hidden"]
    assert hidden.nr_passes == 6
    called = []
    hidden.forward_pass = lambda *args: called.append(args)
    net.forward_pass()
    assert len(called) == 1


def test_a_layer_in_a_bidirectional_one_has_to_say_so_too():
    class CountedRnnLayerImpl(RecurrentLayerImpl):
        nr_passes = 0

        def forward_pass(self, buffers, training_pass=True):
            CountedRnnLayerImpl.nr_passes += 1
            super().forward_pass(buffers, training_pass)

    half = ConstructionWrapper.create(CountedRnnLayerImpl, size=2)
    net = classifier(layers.Bidirectional(half, name="Hidden"))
    net.provide_external_data(data())
    for nr in (1, 2, 3):
        net.forward_pass()
        assert CountedRnnLayerImpl.nr_passes == 2 * nr


@pytest.mark.parametrize("make", [lambda: NumpyHandler(np.float32), onednn_handler])
def test_replays_on_a_debug_handler_check_everything(make):
    net = classifier(layers.FullyConnected(4, name="Hidden"), DebugHandler(make()))
    stepper = MomentumStepper(0.1, 0.9)
    stepper.start(net)
    for _ in range(3):
        net.provide_external_data(data(dtype=np.float32))
        stepper.run()
    net.provide_external_data(
        {**data(dtype=np.float32), "default": np.full((3, 5, 4), np.nan)}
    )
    with pytest.raises(HandlerError, match="'Hidden'.*affine"):
        net.forward_pass(training_pass=True)
    net.provide_external_data(data(dtype=np.float32))
    net.handler.set_from_numpy(
        net.buffer.parameters, np.full(net.buffer.parameters.shape, 1e30)
    )
    stepper.velocity[...] = np.nan
    with pytest.raises(HandlerError):
        stepper.run()


def test_a_backward_pass_is_replayed_by_the_kind_of_forward_pass_before(monkeypatch):
    kinds = [(True, None), (False, None), (True, ["Projection"]), (True, None)]

    def gradients(net):
        net.provide_external_data(data())
        found = []
        for training_pass, only in kinds * 2:
            net.forward_pass(training_pass=training_pass, only=only)
            net.backward_pass()
            found += [net.get("gradients"), net.get("Hidden.input_deltas.default")]
        return found

    net = classifier(layers.BatchNorm(name="Hidden"))
    replayed = gradients(net)
    keys = [key for key, _ in net._buffer_manager.sized.programs]
    assert sum(key[0] == "backward" for key in keys) == 2
    operations = {
        step.operation
        for program in net._buffer_manager.sized.programs.values()
        for step in program.steps
        if step.layer == "Hidden"
    }
    assert {"batch_norm_forward", "batch_norm_backward"} <= operations
    assert not {"forward_pass", "backward_pass"} & operations
    monkeypatch.setattr(BatchNormLayerImpl, "repeats", False)
    called = gradients(classifier(layers.BatchNorm(name="Hidden")))
    for a, b in zip(replayed, called, strict=True):
        assert np.array_equal(a, b)
