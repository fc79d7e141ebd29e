"""Hooks read deltas that training does without: they get what a full pass gives."""

import numpy as np
import pytest

from brainstorm import Gaussian, layers, tools
from brainstorm.data_iterators import Minibatches, Undivided
from brainstorm.handlers import NumpyHandler, PyCudaHandler, default_handler
from brainstorm.hooks import Hook, MonitorLoss, ProgressBar, StopAfterEpoch
from brainstorm.structure.network import Network
from brainstorm.training import AdamStepper, MomentumStepper, SgdStepper, Trainer
from brainstorm.utils import HandlerError
from brainstorm.value_modifiers import ClipGlobalNorm, ClipValues


def perceptron():
    return tools.create_net_from_spec("classification", 4, 3, "F5 F4")


def with_frozen_layers():
    inp, out = tools.get_in_out_layers("classification", 4, 3)
    inp >> layers.Recurrent(5, name="R") >> layers.FullyConnected(4, name="F") >> out
    net = Network.from_layer(out)
    net.set_trainable({"R": False, "F": {"W": False}})
    return net


def recurrent():
    return tools.create_net_from_spec("classification", 4, 3, "L5")


def with_modifiers():
    net = perceptron()
    net.set_gradient_modifiers(ClipGlobalNorm(0.1))
    net.set_weight_modifiers(ClipValues(-0.3, 0.3))
    return net


def with_batch_norm():
    return tools.create_net_from_spec("classification", 4, 3, "F5 B F3")


NETS = [perceptron, with_frozen_layers, recurrent, with_modifiers, with_batch_norm]


def data():
    rnd = np.random.RandomState(3)
    return {"default": rnd.randn(3, 11, 4), "targets": rnd.randint(3, size=(3, 11, 1))}


class Reader(Hook):
    """Reads all deltas, in one of several ways, from some count on."""

    def __init__(self, how, paths, first=1, **kwargs):
        super().__init__(**kwargs)
        self.how, self.paths, self.first = how, paths, first
        self.seen = []

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        count = update_nr if self.timescale == "update" else epoch_nr
        if count >= self.first:
            self.seen.append({path: self.read(net, path) for path in self.paths})

    def read(self, net, path):
        if self.how == "get":
            return net.get(path)
        if self.how == "path":
            buffer = net.buffer[path]
        else:
            name, category, buffer_name = path.split(".")
            view = getattr(getattr(net.buffer, name), category)
            if self.how == "attribute":
                buffer = getattr(view, buffer_name)
            else:
                buffer = dict(view.items())[buffer_name]
        return net.handler.get_numpy_copy(buffer)


def delta_paths(net):
    paths = []
    for name, layer in net.layers.items():
        paths += [f"{name}.input_deltas.{n}" for n in layer.in_shapes]
        paths += [f"{name}.output_deltas.{n}" for n in layer.out_shapes]
        internals = layer.internal_shapes.items()
        paths += [f"{name}.internals.{n}" for n, s in internals if s.is_backward_only]
    return paths


def train(make_net, hooks, handler, stepper, asks=False):
    net = make_net()
    net.set_handler(handler)
    net.initialize(Gaussian(0.5), seed=1)
    if asks:
        net.ask_for_deltas()
    trainer = Trainer(stepper(), verbose=False)
    for hook in (*hooks, StopAfterEpoch(3)):
        trainer.add_hook(hook)
    trainer.train(
        net, Minibatches(4, shuffle=False, **data()), valid=Undivided(**data())
    )
    return net


def assert_same(found, expected, rtol):
    assert len(found) == len(expected) > 0
    for values, others in zip(found, expected, strict=True):
        for path in others:
            np.testing.assert_allclose(
                values[path], others[path], rtol, 1e-6, err_msg=path
            )


@pytest.mark.parametrize("make_net", NETS)
@pytest.mark.parametrize("timescale", ["update", "epoch"])
@pytest.mark.parametrize(
    "how",
    [
        "get",
        "attribute",
        pytest.param("path", marks=pytest.mark.slow),
        pytest.param("items", marks=pytest.mark.slow),
    ],
)
def test_what_is_read_is_what_a_full_pass_gives(make_net, timescale, how):
    paths = delta_paths(make_net())
    for handler, stepper, rtol in (
        (NumpyHandler(np.float64), lambda: SgdStepper(0.5), 1e-12),
        (default_handler, AdamStepper, 1e-5),
    ):
        reader, other = (Reader(how, paths, 2, timescale=timescale) for _ in range(2))
        net = train(make_net, [reader], handler, stepper)
        expected = train(make_net, [other], handler, stepper, asks=True)
        assert_same(reader.seen, other.seen, rtol)
        np.testing.assert_allclose(net.get("parameters"), expected.get("parameters"))


class Nothing(Hook):
    """A hook as most are: it looks at parameters, outputs and gradients."""

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        net.get("FullyConnected_1.outputs.default")
        net.handler.get_numpy_copy(net.buffer.FullyConnected_1.parameters.W)
        net.handler.get_numpy_copy(net.buffer["FullyConnected_1.gradients.W"])
        assert "default" in net.buffer.FullyConnected_1.input_deltas


class Counter(NumpyHandler):
    """Notes for each backward pass of a layer whether it computes input deltas."""

    def __init__(self):
        super().__init__(np.float64)
        self.computed = []

    def affine_backward(self, x, W, h, y, dy, dh, dx, *args, **kwargs):
        self.computed.append(dx is not None)
        super().affine_backward(x, W, h, y, dy, dh, dx, *args, **kwargs)


@pytest.mark.parametrize("timescale", ["update", "epoch"])
def test_hooks_that_read_no_deltas_cost_no_deltas(timescale):
    handler = Counter()
    train(perceptron, [Nothing(timescale=timescale)], handler, SgdStepper)
    assert handler.computed == [True, True, False] * 9  # the first layer comes last


def test_hooks_that_read_deltas_have_them_computed_from_then_on():
    handler = Counter()
    reader = Reader(
        "get", ["FullyConnected_1.input_deltas.default"], timescale="update"
    )
    train(perceptron, [reader], handler, SgdStepper)
    assert handler.computed == [True, True, False] + [True] * 3 * 9


class ReadsWhenStarted(Hook):
    def start(self, net, stepper, verbose, named_data_iters):
        super().start(net, stepper, verbose, named_data_iters)
        assert net.buffer.FullyConnected_1.input_deltas.default is not None


def test_hooks_may_ask_when_they_start():
    handler = Counter()
    train(perceptron, [ReadsWhenStarted()], handler, SgdStepper)
    assert handler.computed == [True] * 27


class RunsTheNetwork(Hook):
    """Runs the network on other data, of other sizes."""

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        net.predict(np.ones((7, 2, 4)))
        net.provide_external_data({k: v[:, :4] for k, v in data().items()})
        net.forward_pass()


@pytest.mark.parametrize("monitor_timescale", ["update", "epoch"])
@pytest.mark.parametrize("how", ["get", "attribute"])
def test_reading_after_hooks_that_run_the_network(how, monitor_timescale):
    paths = delta_paths(perceptron())
    first = {name: values[:, :8] for name, values in data().items()}

    def run(*hooks, asks=False):
        net = perceptron()
        net.set_handler(NumpyHandler(np.float64))
        net.initialize(Gaussian(0.5), seed=1)
        if asks:
            net.ask_for_deltas()
        trainer = Trainer(MomentumStepper(0.1, 0.9), verbose=False)
        for hook in (*hooks, StopAfterEpoch(2)):
            trainer.add_hook(hook)
        valid = {**first, "default": -first["default"]}
        batches = Minibatches(4, shuffle=False, **first)
        trainer.train(net, batches, valid=Minibatches(4, **valid))

    reader, other = Reader(how, paths), Reader(how, paths)
    run(MonitorLoss("valid", timescale=monitor_timescale), reader)
    run(other, asks=True)
    assert_same(reader.seen, other.seen, 1e-12)


def test_hooks_that_run_the_network_themselves():
    handler = NumpyHandler(np.float64)
    alone = train(perceptron, [], handler, SgdStepper)
    net = train(perceptron, [RunsTheNetwork(timescale="update")], handler, SgdStepper)
    np.testing.assert_array_equal(net.get("parameters"), alone.get("parameters"))
    net.backward_pass()
    assert np.any(net.buffer.FullyConnected_1.input_deltas.default)


class StopAt(Hook):
    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        if update_nr == 2:
            raise StopIteration


class NoLength:
    def __init__(self, batches):
        self.batches, self.data_shapes = batches, batches.data_shapes

    def __call__(self, handler):
        return self.batches(handler)


@pytest.mark.parametrize("hooks", [[StopAt(timescale="update")], [ProgressBar()]])
def test_epochs_that_end_early_or_unexpectedly(hooks):
    reader = Reader("get", ["Input.output_deltas.default"])
    net = perceptron()
    trainer = Trainer(SgdStepper(), verbose=False)
    for hook in (*hooks, reader, StopAfterEpoch(1)):
        trainer.add_hook(hook)
    trainer.train(net, NoLength(Minibatches(4, **data())))
    assert np.any(reader.seen[0]["Input.output_deltas.default"])


def test_after_the_training_it_is_too_late():
    net = train(perceptron, [Nothing()], NumpyHandler(np.float64), SgdStepper)
    net.predict(data()["default"])
    for path in (
        "FullyConnected_1.input_deltas.default",
        "Input.output_deltas.default",
    ):
        with pytest.raises(KeyError, match="nobody had asked for deltas"):
            net.get(path)


def test_deltas_that_do_not_exist():
    net = perceptron()
    for path, choices in (
        ("Nope.input_deltas.default", "'FullyConnected_1'"),
        ("Output.input_deltas.nope", "'default', 'targets'"),
        ("Output.nope_deltas.default", "'inputs', 'outputs'"),
    ):
        with pytest.raises(KeyError, match=f"no buffer .* choices are: .*{choices}"):
            net.get(path)


@pytest.mark.gpu
def test_what_is_read_on_a_gpu():
    try:
        handler = PyCudaHandler()
    except (ImportError, HandlerError) as error:
        pytest.skip(str(error))
    paths = delta_paths(with_frozen_layers())
    reader, other = (Reader("attribute", paths, timescale="update") for _ in range(2))
    train(with_frozen_layers, [reader], handler, SgdStepper)
    train(with_frozen_layers, [other], NumpyHandler(np.float64), SgdStepper, asks=True)
    assert_same(reader.seen, other.seen, 1e-4)
