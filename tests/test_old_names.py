"""Names and arguments of version 0.5, each used as a script of that time did."""

import io
import signal
from contextlib import redirect_stdout
from importlib.util import find_spec

import numpy as np
import pytest

import brainstorm as bs
from brainstorm.utils import ValidationError


def classifier(size=3):
    """A network for two classes of four features."""
    bs.global_rnd.set_seed(1)
    return bs.tools.create_net_from_spec("classification", 4, 2, f"F{size}")


def some_data(count=6, **more):
    rnd = np.random.RandomState(0)
    targets = rnd.randint(0, 2, (1, count, 1))
    return {"default": rnd.randn(1, count, 4), "targets": targets, **more}


# -- modules and names ---------------------------------------------------------


def test_optional_dependencies():
    from brainstorm.handlers import has_pycuda
    from brainstorm.optional import has_bokeh
    from brainstorm.optional import has_pycuda as the_same

    assert has_pycuda is the_same is (find_spec("pycuda") is not None)
    assert has_bokeh is (find_spec("bokeh") is not None)


def test_about():
    about = {}
    exec("from brainstorm.__about__ import *", about)
    assert about["__version__"] == bs.__version__
    assert about["__title__"] == "brainstorm"
    assert about["__license__"] == "MIT"
    assert set(bs.__about__.__all__) <= set(about)


def test_names_in_other_places():
    from brainstorm.layers import FullyConnected, Input, Layer, l1_decay, l2_decay
    from brainstorm.structure import Network, generate_architecture
    from brainstorm.training.trainer import run_network

    assert Layer is bs.layers.base_layer.Layer
    assert l1_decay.L1Decay is bs.layers.L1Decay
    assert l2_decay.L2DecayLayerImpl.__name__ == "L2DecayLayerImpl"
    inp = Input({"default": ("T", "B", 4), "targets": ("T", "B", 1)})
    inp >> FullyConnected(3)
    net = Network.from_architecture(generate_architecture(inp))
    net.initialize(0)
    runs = run_network(net, bs.Minibatches(4, **some_data()))
    assert list(runs) == [0, 1]


def test_helpers():
    from brainstorm.utils import flatten_features, get_brainstorm_info, product

    assert product([2, 3, 4]) == 24
    assert product(()) == 1
    assert get_brainstorm_info() == f"Created with brainstorm {bs.__version__}".encode()
    array = np.zeros((2, 3, 4, 5))
    assert flatten_features(array).shape == (2, 3, 20)
    assert flatten_features(array, start_idx=1).shape == (2, 60)
    assert flatten_features(array, 3).shape == (2, 3, 4, 5)


def test_paths_of_buffers():
    from brainstorm.utils import get_by_path

    net = classifier()
    found = get_by_path(net.buffer, "FullyConnected.parameters.W")
    assert found is net.buffer.FullyConnected.parameters.W
    with pytest.raises(KeyError, match="'W', 'bias'"):
        get_by_path(net.buffer, "FullyConnected.parameters.V")


class TwiceLayerImpl(bs.layers.Layer):
    """A layer as users wrote them, with a fault if `broken`."""

    expected_inputs = {
        "default": bs.structure.buffer_structure.StructureTemplate("T", "B", "...")
    }
    expected_kwargs = {"broken"}

    def setup(self, kwargs, in_shapes):
        return {"default": in_shapes["default"]}, {}, {}

    def forward_pass(self, buffers, training_pass=True):
        self.handler.mult_st(2.0, buffers.inputs.default, buffers.outputs.default)

    def backward_pass(self, buffers):
        factor = 3.0 if self.kwargs.get("broken") else 2.0
        deltas = buffers.output_deltas.default, buffers.input_deltas.default
        self.handler.mult_add_st(factor, *deltas)


def test_tests_of_layers():
    from brainstorm.structure.buffer_structure import BufferStructure
    from brainstorm.tests.tools import get_test_configurations, run_layer_tests

    in_shapes = {"default": BufferStructure("T", "B", 3)}
    specs = get_test_configurations()
    assert len({(s["time_steps"], s["batch_size"]) for s in specs}) > 1
    for spec in specs[:2]:
        run_layer_tests(TwiceLayerImpl("Twice", in_shapes), spec)
        with pytest.raises(AssertionError, match="input deltas"):
            run_layer_tests(TwiceLayerImpl("Twice", in_shapes, broken=True), spec)


# -- networks ------------------------------------------------------------------


def test_backward_buffers_can_be_cleared():
    net = classifier()
    net.provide_external_data(some_data())
    net.forward_pass()
    net.backward_pass()
    manager = net._buffer_manager
    paths = ["gradients", "Hid1.input_deltas.default", "Output.output_deltas.loss"]
    paths = [p for p in paths if p == "gradients" or p.split(".")[0] in net.layers]
    assert any(net.get(path).any() for path in paths)
    parameters = net.get("parameters")
    manager.clear_backward_buffers()
    for path in paths:
        assert not net.get(path).any()
    assert (net.get("parameters") == parameters).all()
    net.backward_pass()
    assert net.get("gradients").any()


def test_loss_layers():
    net = classifier()
    [name] = net.loss_layers
    assert type(net.layers[name]).__name__ == "LossLayerImpl"
    net.provide_external_data(some_data())
    net.forward_pass()
    loss = sum(float(net.get(n + ".outputs.loss").sum()) for n in net.loss_layers)
    assert loss == pytest.approx(net.get_loss_values()["total_loss"])


def test_commas_between_layers_of_specs():
    for spec in ("F20, F30", "F20,F30", "F20 F30"):
        net = bs.tools.create_net_from_spec("classification", 4, 2, spec)
        sizes = [la.kwargs.get("size") for la in net.layers.values()]
        assert [size for size in sizes if size in (20, 30)] == [20, 30]


# -- data ----------------------------------------------------------------------


def test_iterators_without_a_handler():
    data = some_data()
    for iterator in (
        bs.Undivided(**data),
        bs.Minibatches(2, shuffle=False, **data),
        bs.Online(shuffle=False, **data),
        bs.data_iterators.AddGaussianNoise(bs.Undivided(**data), {"default": 0.0}),
    ):
        batches = list(iterator())
        joined = np.concatenate([batch["default"] for batch in batches], axis=1)
        np.testing.assert_array_equal(joined, data["default"])


def test_lengths_of_sequences():
    mask = np.array([[1, 1], [1, 0], [0, 0]])[:, :, None]
    batches = bs.Minibatches(1, mask=mask, default=np.zeros((3, 2, 1)))
    assert list(batches.seq_lens) == [2, 1]


def test_items_that_the_network_does_not_need(tmp_path):
    net = classifier()
    more = bs.Undivided(**some_data(extra=np.ones((1, 6, 2))))
    exact = bs.Undivided(**some_data())
    trainer = bs.Trainer(bs.training.SgdStepper(0.1), verbose=False)
    trainer.train_scorers = [bs.scorers.Accuracy()]
    trainer.add_hook(bs.hooks.StopAfterEpoch(1))
    trainer.add_hook(bs.hooks.MonitorLoss("more", name="loss"))
    trainer.add_hook(bs.hooks.MonitorScores("more", [bs.scorers.Accuracy()], name="a"))
    trainer.train(net, exact, more=more)
    assert len(trainer.logs["loss"]["total_loss"]) == 2
    assert trainer.evaluate(net, more=more)["more"]
    path = "Output.outputs.predictions"
    both = [bs.tools.extract(net, it, path)[path] for it in (more, exact)]
    np.testing.assert_array_equal(*both)
    assert list(bs.training.run_network(net, more)) == [0]
    with pytest.raises(bs.utils.IteratorValidationError, match="extra"):
        trainer.train(net, more)
    losses = []
    for batch in (next(exact()), next(more())):
        net.provide_external_data(batch)
        net.forward_pass()
        losses.append(net.get_loss_values()["total_loss"])
    assert losses[0] == losses[1]


def test_one_string_instead_of_a_list(tmp_path):
    net, path = classifier(), "Output.outputs.predictions"
    data = bs.Undivided(**some_data())
    assert bs.tools.extract(net, data, path)[path].shape == (1, 6, 2)
    bs.tools.extract_and_save(net, data, path, str(tmp_path / "features.hdf5"))
    hook = bs.hooks.StopOnNan("loss.total_loss")
    assert tuple(hook.logs_to_check) == ("loss.total_loss",)


IMAGES = np.zeros((1, 3, 4, 4, 1))
UNDIVIDED = bs.Undivided(default=IMAGES)
ARCHITECTURE = {
    "Input": {
        "@type": "Input",
        "out_shapes": {"default": ("T", "B", 2)},
    }
}


@pytest.mark.parametrize(
    "make",
    [
        lambda: bs.Undivided(default=IMAGES),
        lambda: bs.Minibatches(2, shuffle=False, default=IMAGES),
        lambda: bs.Online(default=IMAGES),
        lambda: bs.data_iterators.Pad(UNDIVIDED, {"default": 1}),
        lambda: bs.data_iterators.Flip(UNDIVIDED),
        lambda: bs.data_iterators.OneHot(UNDIVIDED, {}),
        lambda: bs.Gaussian(),
        lambda: bs.initializers.LstmOptInit(),
        lambda: bs.ClipValues(),
        lambda: bs.value_modifiers.L2Decay(0.1),
        lambda: bs.Network.from_architecture(ARCHITECTURE),
    ],
)
def test_each_takes_one_seed(make):
    """So that with the same global seed what comes after it has the same numbers."""
    bs.global_rnd.set_seed(1)
    bs.global_rnd.generate_seed()
    expected = bs.global_rnd.generate_seed()
    bs.global_rnd.set_seed(1)
    make()
    assert bs.global_rnd.generate_seed() == expected


# -- training ------------------------------------------------------------------


def test_scorers_are_appended_to_a_list():
    trainer = bs.Trainer(bs.training.SgdStepper(0.1), verbose=False)
    trainer.train_scorers.append(bs.scorers.Accuracy())
    trainer.add_hook(bs.hooks.StopAfterEpoch(1))
    trainer.train(classifier(), bs.Undivided(**some_data()))
    assert len(trainer.logs["rolling_training"]["Accuracy"]) == 1


class Logger(bs.hooks.Hook):
    """Writes a log itself, as users did."""

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        logs.setdefault("mine", {}).setdefault("epochs", []).append(epoch_nr)
        self.message(msg=f"epoch {epoch_nr}")


def test_a_log_that_a_hook_writes_itself_is_watched():
    trainer = bs.Trainer(bs.training.SgdStepper(0.1), verbose=False)
    trainer.add_hook(Logger(verbose=True))
    stop = bs.hooks.StopAfterThresholdReached("mine.epochs", 3, criterion="max")
    trainer.add_hook(stop)
    printed = io.StringIO()
    with redirect_stdout(printed):
        trainer.train(classifier(), bs.Undivided(**some_data()))
    assert trainer.logs["mine"]["epochs"] == [0, 1, 2, 3]
    assert "Logger >> epoch 2" in printed.getvalue()


def test_the_best_value_so_far():
    trainer = bs.Trainer(bs.training.SgdStepper(0.1), verbose=False)
    best = bs.hooks.SaveBestNetwork("rolling_training.total_loss", criterion="min")
    assert best.best_so_far is None
    trainer.add_hook(best)
    trainer.add_hook(bs.hooks.StopAfterEpoch(3))
    trainer.train(classifier(), bs.Undivided(**some_data()))
    losses = trainer.logs["rolling_training"]["total_loss"]
    assert best.best_so_far == min(losses)


class Run:
    """What Sacred passes to an experiment."""

    def __init__(self):
        self.info = {}


def test_number_of_parameters_in_the_info():
    trainer, run = bs.Trainer(bs.training.SgdStepper(0.1), verbose=False), Run()
    trainer.add_hook(bs.hooks.InfoUpdater(run))
    trainer.add_hook(bs.hooks.StopAfterEpoch(1))
    net = classifier()
    trainer.train(net, bs.Undivided(**some_data()))
    assert run.info["nr_parameters"] == len(net.get("parameters"))
    assert run.info["epoch_nr"] == 1


@pytest.mark.skipif(not hasattr(signal, "SIGQUIT"), reason="there is no SIGQUIT")
def test_receiving_a_signal():
    hook = bs.hooks.StopOnSigQuit()
    hook.receive_signal(signal.SIGQUIT, None)
    with pytest.raises(StopIteration):
        hook(1, 1, None, None, {})


# -- exceptions ----------------------------------------------------------------


def test_errors_of_layers_are_errors_of_networks():
    assert issubclass(bs.utils.LayerValidationError, bs.utils.NetworkValidationError)
    with pytest.raises(bs.utils.NetworkValidationError):
        bs.layers.FullyConnected(3, name="no name")
    arch = {"Input": {"@type": "Nope", "@outgoing_connections": []}}
    with pytest.raises(bs.utils.NetworkValidationError, match="Nope"):
        bs.Network.from_architecture(arch)


def test_unknown_types_of_layers_are_type_errors():
    with pytest.raises(TypeError, match="Nope"):
        bs.layers.base_layer.get_layer_class_from_typename("Nope")


def test_what_can_not_be_described_is_a_type_error():
    for error in (TypeError, ValidationError):
        with pytest.raises(error, match="can not describe"):
            bs.get_description(object())
        with pytest.raises(error, match="Nope"):
            bs.create_from_description({"@type": "Nope"})
        with pytest.raises(error, match="expected"):
            bs.create_from_description(object())


def test_operands_that_are_no_layers():
    with pytest.raises(TypeError):
        bs.layers.FullyConnected(3) >> 3
    with pytest.raises(TypeError):
        bs.layers.FullyConnected(3) - 3
