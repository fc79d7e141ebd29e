import sys

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import Network, layers
from brainstorm.data_iterators import Minibatches
from brainstorm.handlers import NumpyHandler
from brainstorm.handlers.programs import Program
from brainstorm.initializers import Gaussian
from brainstorm.layers.dropout_layer import DropoutLayerImpl
from brainstorm.structure.construction import ConstructionWrapper
from brainstorm.tools import profile, profiling
from brainstorm.tools.profiling import Cost, Profile
from brainstorm.training import AdamStepper, MomentumStepper, NesterovStepper
from brainstorm.utils import (
    FileFormatError,
    HandlerError,
    IteratorValidationError,
    MissingInputError,
    NetworkValidationError,
    ValidationError,
)
from tests.handlers.handler_cases import HANDLERS, handler_params


@pytest.fixture(autouse=True)
def known_peak(monkeypatch, request):
    """Takes no time to measure it."""
    if "real_peak" not in request.keywords:
        monkeypatch.setattr(profiling, "_measure_peak", lambda handler, wait: 1e9)


def net_of(spec, inputs=4, handler=None):
    net = bs.tools.create_net_from_spec("classification", inputs, 3, spec)
    net.set_handler(handler or NumpyHandler(np.float64, seed=1))
    net.initialize(Gaussian(0.5), seed=1)
    return net


def batch(shape=(4,), steps=1, size=5, seed=0):
    rnd = np.random.RandomState(seed)
    targets = rnd.randint(3, size=(steps, size, 1))
    return {"default": rnd.randn(steps, size, *shape), "targets": targets}


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by a second each time that somebody looks at it."""
    now = iter(range(10**6))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(now)))


PERCEPTRON = {
    ("forward", "FullyConnected", "affine"): 5 * 4 * 6,
    ("forward", "Output_projection", "affine"): 5 * 6 * 3,
    ("forward", "Output", "softmax_ce_forward"): 0,
    ("forward", "Loss", "sum_t"): 0,
    ("forward", "Loss", "mult_st"): 0,
    ("backward", "Loss", "fill"): 0,
    ("backward", "Output", "softmax_ce_backward"): 0,
    ("backward", "Output_projection", "affine_backward"): 2 * 5 * 6 * 3,
    ("backward", "FullyConnected", "affine_backward"): 5 * 4 * 6,
}


@pytest.mark.usefixtures("clock")
def test_a_perceptron_operation_by_operation():
    """Each operation takes a second, by a clock that counts the looks at it."""
    found = profile(net_of("F6"), batch(), steps=3)
    assert found.costs == {p: Cost(1.0, n) for p, n in PERCEPTRON.items()}
    assert found.total_seconds == 9.0
    affine, back = found.by_operation["affine"], found.by_operation["affine_backward"]
    assert affine == Cost(2.0, 5 * 4 * 6 + 5 * 6 * 3)
    assert back == Cost(2.0, 2 * 5 * 6 * 3 + 5 * 4 * 6)
    assert found.by_layer["Loss"] == Cost(3.0, 0)
    assert next(iter(found.by_layer)) == "Loss"
    assert found.share_of_time(found.by_layer["Loss"]) == pytest.approx(3 / 9)
    assert found.share_of_peak(affine) == pytest.approx(affine.multiplications / 2e9)


@pytest.mark.usefixtures("clock")
def test_an_evaluation():
    found = profile(net_of("F6"), batch(), steps=2, training=False)
    assert found.costs == {
        p: Cost(1.0, n) for p, n in PERCEPTRON.items() if p[0] == "forward"
    }


@pytest.mark.usefixtures("clock")
def test_updates_count_where_there_is_a_stepper():
    found = profile(net_of("F6"), batch(), steps=2, stepper=NesterovStepper(0.1, 0.9))
    updates = {
        place: cost for place, cost in found.costs.items() if place[0] == "update"
    }
    assert updates == {
        ("update", "(NesterovStepper)", "nesterov_ahead"): Cost(1.0, 0),
        ("update", "(NesterovStepper)", "nesterov_correct"): Cost(1.0, 0),
    }


@pytest.mark.parametrize("spec", ["F5 B D", "L4", "C2:3 P2 F5"])
@pytest.mark.parametrize("name", handler_params("numpy32", "composed"))
def test_every_handler(name, spec):
    inputs = (6, 6, 1) if "C" in spec else 4
    net = net_of(spec, inputs, HANDLERS[name]())
    data = batch(inputs if "C" in spec else (4,), steps=2)
    found = profile(net, data, steps=2, stepper=MomentumStepper(0.1, 0.9))
    net.provide_external_data(data)
    listed = net.program(training_pass=True)
    assert {p for p in found.costs if p[0] != "update"} == {
        (row.pass_name, row.layer or "(network)", row.operation) for row in listed
    }
    assert all(cost.seconds > 0 for cost in found.costs.values())
    counted = sum(cost.multiplications for cost in found.costs.values())
    assert counted == listed.multiplications > 0


def seen(net):
    paths = ("parameters", "gradients", "BatchNorm.internals.x_hat")
    paths += ("Dropout.internals.mask", "Output.outputs.predictions")
    return [net.get(path) for path in paths]


@pytest.mark.parametrize("stepper_class", [MomentumStepper, AdamStepper])
def test_nothing_changes(stepper_class):
    """A training goes on to the bit: data, steppers and random numbers, too."""

    def train(look):
        bs.global_rnd.set_seed(3)
        net = net_of("F6 B D L5", handler=NumpyHandler(np.float64))
        data = batch(steps=2, size=20)
        iterator = Minibatches(4, **data)
        stepper = stepper_class(0.1)
        stepper.start(net)
        results = []
        for part in [dict(b) for b in iterator(net.handler)]:
            net.provide_external_data(part)
            stepper.context = net.get_context()
            stepper.run()
            if look:
                before, running = seen(net), stepper.get_state()
                profile(net, iterator, steps=2, stepper=stepper)
                profile(net, part, steps=1, training=False)
                for a, b in zip(before, seen(net), strict=True):
                    np.testing.assert_array_equal(a, b)
                for name, a in stepper.get_state().items():
                    np.testing.assert_array_equal(a, running[name])
            results += [*seen(net), *net.get_context().values()]
            results.append(net.get_loss_values()["total_loss"])
        trainer = bs.Trainer(stepper, verbose=False)
        trainer.add_hook(bs.hooks.StopAfterEpoch(1))
        trainer.train(net, iterator)
        results.append(net.get("parameters"))
        return results, trainer.logs, bs.global_rnd.rand(), net.rnd.rand()

    (results, *rest), (expected, *rest_expected) = train(True), train(False)
    assert rest == rest_expected
    for a, b in zip(results, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_batches_of_the_most_frequent_size_count():
    net = net_of("F6")
    iterator = Minibatches(4, shuffle=False, **batch(size=10))
    found = profile(net, iterator, steps=7)  # 4 4 2 4 4 2 4
    assert "4 sequences" in found.title
    assert found.title.endswith("medians of 5 steps")
    assert found.by_layer["FullyConnected"].multiplications == 2 * 4 * 4 * 6


@pytest.mark.usefixtures("clock")
def test_medians_count(monkeypatch):
    times = iter([5.0, 1.0, 3.0, 1.0])  # the last one is not measured

    def timed(program, wait):
        return [next(times)] * len(program.steps)

    monkeypatch.setattr(Program, "timed", timed)
    found = profile(net_of("F6"), batch(), steps=3, training=False)
    assert found.costs["forward", "FullyConnected", "affine"].seconds == 3.0


class OwnDropoutLayerImpl(DropoutLayerImpl):
    """May do something else each time, and makes two operations."""

    def forward_pass(self, buffers, training_pass=True):
        super().forward_pass(buffers, training_pass)
        self.handler.mult_st(2.0, buffers.outputs.default, buffers.outputs.default)


def test_layers_that_are_called_as_a_whole():
    inp, out = bs.tools.get_in_out_layers("classification", 4, 3)
    own = ConstructionWrapper.create(OwnDropoutLayerImpl, name="Own")
    net = Network.from_layer(inp >> layers.FullyConnected(4) >> own >> out)
    net.set_handler(NumpyHandler(np.float64))
    found = profile(net, batch(), steps=1)
    operations = {place[2] for place in found.costs if place[1] == "Own"}
    assert operations == {"forward_pass", "dropout_backward"}


# -- what it looks like ----------------------------------------------------------

COSTS = {
    ("forward", "Hidden", "affine"): Cost(1e-3, 500_000),
    ("backward", "Hidden", "affine_backward"): Cost(6e-3, 1_500_000),
    ("forward", "Loss", "sum_t"): Cost(1e-3, 0),
    ("backward", "(network)", "clear"): Cost(2e-3, 0),
}


def test_the_tables():
    shown = str(Profile(COSTS, peak=1e9, title="A step"))
    title, operations, by_layer, peak = shown.split("\n\n")
    assert title == "A step"
    assert peak == "Peak: 1 billion multiplications per second"
    assert [line.split() for line in operations.split("\n")] == [
        ["Operation", "Share", "Microseconds", "Multiplications", "Of", "peak"],
        [*("-" * 15, "-" * 12, "-" * 6, "-" * 12, "-" * 15, "-" * 7)],
        ["affine_backward", "#" * 12, "60.0%", "6,000.0", "1,500,000", "25.0%"],
        ["clear", "####", "20.0%", "2,000.0"],
        ["affine", "##", "10.0%", "1,000.0", "500,000", "50.0%"],
        ["sum_t", "##", "10.0%", "1,000.0"],
        [*("-" * 15, "-" * 12, "-" * 6, "-" * 12, "-" * 15, "-" * 7)],
        ["All", "100.0%", "10,000.0", "2,000,000", "20.0%"],
    ]
    assert by_layer.split("\n")[2].split() == (
        ["Hidden", "#" * 14, "70.0%", "7,000.0", "2,000,000", "28.6%"]
    )


def test_the_tables_for_notebooks():
    html = Profile(COSTS, peak=1e9, title="A step")._repr_html_()
    assert html.count("<table>") == html.count("</table>") == 2
    assert html.count("<tr>") == html.count("</tr>") == 6 + 5
    assert ">affine_backward</td>" in html


def test_a_profile_without_time():
    empty = Profile({}, peak=1e9, title="Nothing")
    assert (empty.total_seconds, empty.by_layer, empty.by_operation) == (0, {}, {})
    assert "100" not in str(empty)


def test_the_chart(tmp_path):
    pytest.importorskip("matplotlib")
    figure = Profile(COSTS, peak=1e9, title="A step").plot(tmp_path / "a.svg")
    operations, by_layer = figure.axes
    names = [label.get_text() for label in operations.get_yticklabels()]
    assert names == ["affine_backward", "clear", "affine", "sum_t"]
    times, at_peak = operations.containers
    assert [bar.get_width() for bar in times] == pytest.approx([6000, 2000, 1000, 1000])
    assert [bar.get_width() for bar in at_peak] == pytest.approx([1500, 0, 500, 0])
    assert len(by_layer.containers[0]) == 3
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()


def test_bad_names_of_charts(tmp_path):
    pytest.importorskip("matplotlib")
    found = Profile(COSTS, peak=1e9, title="A step")
    with pytest.raises(ValidationError, match="filename: 'a.txt' has to end in one of"):
        found.plot("a.txt")
    with pytest.raises(FileNotFoundError):
        found.plot(tmp_path / "nowhere" / "a.png")
    (tmp_path / "a.png").write_text("mine")
    with pytest.raises(FileFormatError):
        found.plot(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_text() == "mine"


def test_matplotlib_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"plot needs matplotlib.*\[examples\]"):
        Profile(COSTS, peak=1e9, title="A step").plot()


# -- what can go wrong -----------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"steps": 0}, ValidationError, "steps"),
        ({"steps": 2.5}, ValidationError, "steps"),
        ({"training": "yes"}, ValidationError, "training: expected True or False"),
        ({"stepper": "sgd"}, ValidationError, "stepper: expected a TrainingStepper"),
        (
            {"stepper": MomentumStepper(), "training": False},
            ValidationError,
            "stepper: expected None where training is False",
        ),
        ({"data": 3}, IteratorValidationError, "data: expected a data iterator"),
        ({"data": {}}, MissingInputError, "default"),
        ({"data": batch((7,))}, NetworkValidationError, "default"),
        ({"network": "net"}, ValidationError, "expected a Network"),
    ],
)
def test_bad_arguments(arguments, error, text):
    given = {"network": net_of("F6"), "data": batch()} | arguments
    with pytest.raises(error, match=text):
        profile(**given)


def test_iterators_without_batches():
    class Nothing(bs.data_iterators.DataIterator):
        def __init__(self):
            super().__init__({name: a.shape for name, a in batch().items()}, 0)

        def __call__(self, handler):
            return iter(())

    with pytest.raises(IteratorValidationError, match="data provides no batches"):
        profile(net_of("F6"), Nothing())


def test_failing_operations_name_the_layer():
    net = net_of("F6")
    with pytest.raises(HandlerError, match="SoftmaxCE layer 'Output'"):
        profile(net, {**batch(), "targets": np.full((1, 5, 1), 9)})
    assert profile(net, batch(), steps=1).total_seconds > 0


def test_programs_that_are_too_long(monkeypatch):
    monkeypatch.setattr("brainstorm.structure.passes._MOST_CALLS", -1)
    with pytest.raises(ValidationError, match="more leaf calls than can be recorded"):
        profile(net_of("F6"), batch())


def test_the_peak(monkeypatch):
    """The fastest product counts, of sizes that grow until one takes long enough."""
    monkeypatch.undo()
    sizes, now = [], [0.0]

    class Slow(NumpyHandler):
        def dot_mm(self, a, b, out, transa=False, transb=False):
            sizes.append(a.shape[0])
            now[0] += a.shape[0] ** 3 / 1e10 * (2 if len(sizes) % 4 == 1 else 1)

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    peak = profiling._measure_peak(Slow(np.float32), lambda: None)
    assert peak == pytest.approx(1e10)
    assert sizes == [512] * 4 + [1024] * 4
